//! The loops that make the cluster what its objects say: replica, daemon and stateful sets,
//! deployments, jobs and cron jobs, quotas, what every namespace has, endpoints, node lifecycle,
//! garbage collection, expiry of events and of finished jobs, and the scheduler.
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
mod informer;
mod job;
mod key;
mod kinds;
mod names;
mod namespace;
mod nodelifecycle;
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

use kube::Client;
use tokio::task::JoinSet;
use toono_pki::{ClusterCa, TokenKey};

pub use config::{ControllersConfig, EvictionConfig};
use context::Context;
pub use election::lead;

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
    let mut context = Context::new(client, config);
    // Handlers are registered before the informers start, so that no event is missed.
    let scheduler = scheduler::Scheduler::new(&mut context);
    let replica_sets = replicaset::Controller::new(&mut context);
    let deployments = deployment::Controller::new(&mut context);
    let daemon_sets = daemonset::Controller::new(&mut context);
    let node_lifecycle = nodelifecycle::Controller::new(&mut context);
    let pod_bindings = podbinding::Controller::new(&mut context);
    let endpoints = endpoints::Controllers::new(&mut context);
    let namespaces = namespace::Controller::new(&mut context);
    let service_accounts = serviceaccount::Controller::new(&mut context);
    let account_tokens = serviceaccount::tokens::Controller::new(signers.tokens);
    let root_ca = rootca::Controller::new(&mut context);
    let stateful_sets = statefulset::Controller::new(&mut context);
    let quotas = resourcequota::Controller::new(&mut context);
    let jobs = job::Controller::new(&mut context);
    let cron_jobs = cronjob::Controller::new(&mut context);
    let expired_jobs = job::ttl::Controller::new(&mut context);
    let budgets = disruption::Controller::new(&mut context);
    let static_sets = yurtstaticset::Controller::new(&mut context);
    let cluster_roles = aggregation::Controller::new();
    let bootstrap_tokens = bootstraptoken::Controller::new();
    let certificates = certificates::Controller::new(signers.certificates);
    let yurt_app_sets = yurtappset::Controller::new(&mut context);
    let suspects = garbage::Suspects::new(&mut context);
    let context = Arc::new(context);
    context.start(&mut tasks);
    tasks.spawn(Arc::new(scheduler).run(Arc::clone(&context)));
    tasks.spawn(replica_sets.run(Arc::clone(&context)));
    tasks.spawn(deployments.run(Arc::clone(&context)));
    tasks.spawn(daemon_sets.run(Arc::clone(&context)));
    tasks.spawn(node_lifecycle.run(Arc::clone(&context)));
    tasks.spawn(pod_bindings.run(Arc::clone(&context)));
    tasks.spawn(budgets.run(Arc::clone(&context)));
    tasks.spawn(static_sets.run(Arc::clone(&context)));
    tasks.spawn(cluster_roles.run(Arc::clone(&context)));
    tasks.spawn(bootstrap_tokens.run(Arc::clone(&context)));
    tasks.spawn(certificates.run(Arc::clone(&context)));
    tasks.spawn(endpoints.run(Arc::clone(&context)));
    tasks.spawn(namespaces.run(Arc::clone(&context)));
    tasks.spawn(service_accounts.run(Arc::clone(&context)));
    tasks.spawn(account_tokens.run(Arc::clone(&context)));
    tasks.spawn(root_ca.run(Arc::clone(&context)));
    tasks.spawn(stateful_sets.run(Arc::clone(&context)));
    tasks.spawn(quotas.run(Arc::clone(&context)));
    tasks.spawn(jobs.run(Arc::clone(&context)));
    tasks.spawn(cron_jobs.run(Arc::clone(&context)));
    tasks.spawn(expired_jobs.run(Arc::clone(&context)));
    tasks.spawn(yurt_app_sets.run(Arc::clone(&context)));
    tasks.spawn(garbage::run(Arc::clone(&context), suspects));
    tasks.spawn(expiry::run(Arc::clone(&context)));
    shutdown.await;
    tasks.shutdown().await;
}
