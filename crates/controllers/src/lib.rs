//! The loops that make the cluster what its objects say: replica, daemon and stateful sets,
//! deployments, jobs and cron jobs, quotas, what every namespace has, endpoints, node lifecycle,
//! garbage collection, expiry of events and of finished jobs, the scheduler, and OpenYurt's node pools and sets.
//!
//! They know the API as a [`kube::Client`] and nothing else of the server, so they also run
//! against any other Kubernetes. Each kind is watched once ([`informer`]) for all of them; every
//! loop is a queue of names ([`queue`]) and a function that compares what is with what should be,
//! so a lost event, a repeated one or a restart does no harm.

mod aggregation;
mod autonomy;
mod bootstraptoken;
mod certificates;
mod claim;
mod conditions;
mod config;
mod context;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod election;
mod endpoints;
mod error;
mod expectations;
mod expiry;
mod garbage;
mod hash;
mod history;
mod hubleader;
mod informer;
mod job;
mod key;
mod kinds;
mod names;
mod namespace;
mod nodebucket;
mod nodelifecycle;
mod nodepool;
mod object;
mod patch;
mod per_namespace;
mod podbinding;
mod podcontrol;
mod pods;
mod queue;
mod recorder;
mod replicaset;
mod resourcequota;
mod rootca;
mod scheduler;
mod served;
mod serviceaccount;
mod statefulset;
mod worker;
mod yurtappset;
mod yurtstaticset;

use std::{future::Future, sync::Arc};

use futures::future::BoxFuture;
use kube::Client;
use tokio::task::JoinSet;
use toono_pki::{ClusterCa, TokenKey};

pub use config::{
    BESIDE_OTHERS, CONTROLLERS, ControllersConfig, EvictionConfig, NotBeside, Switches,
};
use context::Context;
pub use election::{BESIDE_LEASE, CLUSTER_LEASE, lead};

/// What signs for the cluster. Against a cluster that has its own controllers there is nothing.
#[derive(Clone, Default)]
pub struct Signers {
    /// Signs approved certificate requests.
    pub certificates: Option<Arc<ClusterCa>>,
    /// Signs the tokens of service accounts that are kept in secrets; the API server's own key.
    pub tokens: Option<Arc<TokenKey>>,
}

/// Runs all controllers until `shutdown` completes. Errors of single objects are retried and
/// logged; nothing ends a controller but the shutdown.
pub async fn run(
    client: Client,
    config: ControllersConfig,
    signers: Signers,
    shutdown: impl Future<Output = ()> + Send,
) {
    let mut tasks = JoinSet::new();
    let mut loops = Loops { context: Context::new(client, config), started: Vec::new() };
    // Handlers are registered before the informers start, so that no event is missed.
    register(&mut loops, signers);
    let Loops { context, started } = loops;
    let context = Arc::new(context);
    context.start(&mut tasks);
    for start in started {
        tasks.spawn(start(Arc::clone(&context)));
    }
    shutdown.await;
    tasks.shutdown().await;
}

type Start = Box<dyn FnOnce(Arc<Context>) -> BoxFuture<'static, ()> + Send>;

/// The controllers that run.
struct Loops {
    context: Context,
    started: Vec<Start>,
}

impl Loops {
    /// Has a controller run, unless it is switched off: `new` registers its handlers, `run` is its loop.
    fn add<C, F>(
        &mut self,
        name: &'static str,
        new: impl FnOnce(&mut Context) -> C,
        run: impl FnOnce(C, Arc<Context>) -> F + Send + 'static,
    ) where
        C: Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        if self.runs(name) {
            let controller = new(&mut self.context);
            self.started.push(Box::new(move |context| Box::pin(run(controller, context))));
        }
    }

    fn runs(&self, name: &'static str) -> bool {
        debug_assert!(config::CONTROLLERS.contains(&name), "{name} cannot be switched");
        self.context.config.controllers.runs(name)
    }

    /// Two names and one loop: who replaces a daemon must know of which template the next one will be.
    fn add_daemons(&mut self) {
        let duties = daemonset::Duties {
            keeps: self.runs("daemonset"),
            upgrades: self.runs("daemonpodupdater"),
        };
        let name = if duties.keeps { "daemonset" } else { "daemonpodupdater" };
        let new = |context: &mut Context| daemonset::Controller::new(context, duties);
        self.add(name, new, daemonset::Controller::run);
    }
}

/// All of them. The garbage collector is the last: it follows what is left.
fn register(loops: &mut Loops, signers: Signers) {
    let Signers { certificates: ca, tokens } = signers;
    loops.add("scheduler", scheduler::Scheduler::new, |it, context| Arc::new(it).run(context));
    loops.add("replicaset", replicaset::Controller::new, replicaset::Controller::run);
    loops.add("deployment", deployment::Controller::new, deployment::Controller::run);
    loops.add_daemons();
    loops.add("nodelifecycle", nodelifecycle::Controller::new, nodelifecycle::Controller::run);
    loops.add("podbinding", podbinding::Controller::new, podbinding::Controller::run);
    loops.add("endpoints", endpoints::Controllers::new, endpoints::Controllers::run);
    loops.add("namespace", namespace::Controller::new, namespace::Controller::run);
    loops.add("serviceaccount", serviceaccount::Controller::new, serviceaccount::Controller::run);
    let account_tokens = move |_: &mut Context| serviceaccount::tokens::Controller::new(tokens);
    loops.add("serviceaccount-token", account_tokens, serviceaccount::tokens::Controller::run);
    loops.add("root-ca-certificate-publisher", rootca::Controller::new, rootca::Controller::run);
    loops.add("statefulset", statefulset::Controller::new, statefulset::Controller::run);
    loops.add("resourcequota", resourcequota::Controller::new, resourcequota::Controller::run);
    loops.add("job", job::Controller::new, job::Controller::run);
    loops.add("cronjob", cronjob::Controller::new, cronjob::Controller::run);
    loops.add("ttl-after-finished", job::ttl::Controller::new, job::ttl::Controller::run);
    loops.add("disruption", disruption::Controller::new, disruption::Controller::run);
    let roles = |_: &mut Context| aggregation::Controller::new();
    loops.add("clusterrole-aggregation", roles, aggregation::Controller::run);
    let tokens = |_: &mut Context| bootstraptoken::Controller::new();
    loops.add("tokencleaner", tokens, bootstraptoken::Controller::run);
    let requests = move |_: &mut Context| certificates::Controller::new(ca);
    loops.add("certificatesigningrequest", requests, certificates::Controller::run);
    loops.add("nodepool", nodepool::Controller::new, nodepool::Controller::run);
    loops.add("nodebucket", nodebucket::Controller::new, nodebucket::Controller::run);
    loops.add("hubleader", hubleader::Controller::new, hubleader::Controller::run);
    loops.add("yurtappset", yurtappset::Controller::new, yurtappset::Controller::run);
    loops.add("yurtstaticset", yurtstaticset::Controller::new, yurtstaticset::Controller::run);
    loops.add("event-expiry", |_: &mut Context| (), |(), context| expiry::run(context));
    loops.add("garbagecollector", garbage::Suspects::new, |suspects, context| {
        garbage::run(context, suspects)
    });
}
