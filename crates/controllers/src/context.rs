//! What all controllers share: the client, the informers, the event recorder, the settings.

use std::{fmt::Debug, sync::Arc};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
        batch::v1::{CronJob, Job},
    },
    serde::de::DeserializeOwned,
};
use kube::{Api, Client, Resource};
use tokio::task::JoinSet;
use toono_openyurt::{NodePool, YurtAppSet, YurtStaticSet};

use crate::{
    config::ControllersConfig,
    informer::{Index, Informer, by_namespace, by_owner},
    kinds::{
        Namespace, Service,
        node::{Node, WatchedNode},
        pod::{Pod, WatchedPod},
    },
    nodepool,
    object::Object,
    recorder::Recorder,
    resourcequota::ResourceQuota,
    served::Served,
    statefulset::claims::Claim,
};

/// Shared by all controllers.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) config: ControllersConfig,
    pub(crate) recorder: Recorder,
    pub(crate) served: Served,
    pub(crate) pods: Informer<WatchedPod, Pod>,
    pub(crate) nodes: Informer<WatchedNode, Node>,
    pub(crate) node_pools: Informer<NodePool>,
    pub(crate) replica_sets: Informer<ReplicaSet>,
    pub(crate) deployments: Informer<Deployment>,
    pub(crate) daemon_sets: Informer<DaemonSet>,
    pub(crate) revisions: Informer<ControllerRevision>,
    pub(crate) stateful_sets: Informer<StatefulSet>,
    pub(crate) claims: Informer<Claim>,
    pub(crate) quotas: Informer<ResourceQuota>,
    pub(crate) jobs: Informer<Job>,
    pub(crate) cron_jobs: Informer<CronJob>,
    pub(crate) namespaces: Informer<Namespace>,
    pub(crate) services: Informer<Service>,
    pub(crate) static_sets: Informer<YurtStaticSet>,
    pub(crate) yurt_app_sets: Informer<YurtAppSet>,
}

impl Context {
    pub(crate) fn new(client: Client, config: ControllersConfig) -> Self {
        Self {
            recorder: Recorder::new(client.clone()),
            served: Served::default(),
            client,
            config,
            pods: Informer::new(vec![
                (Index::Owner, by_owner),
                (Index::Namespace, by_namespace),
                (Index::Node, by_node),
            ]),
            nodes: Informer::new(vec![(Index::Pool, by_pool)]),
            node_pools: Informer::new(Vec::new()),
            replica_sets: Informer::new(vec![
                (Index::Owner, by_owner),
                (Index::Namespace, by_namespace),
            ]),
            deployments: Informer::new(vec![
                (Index::Owner, by_owner),
                (Index::Namespace, by_namespace),
            ]),
            daemon_sets: Informer::new(vec![(Index::Namespace, by_namespace)]),
            revisions: Informer::new(vec![(Index::Owner, by_owner)]),
            stateful_sets: Informer::new(vec![
                (Index::Owner, by_owner),
                (Index::Namespace, by_namespace),
            ]),
            claims: Informer::new(Vec::new()),
            quotas: Informer::new(vec![(Index::Namespace, by_namespace)]),
            jobs: Informer::new(vec![(Index::Owner, by_owner), (Index::Namespace, by_namespace)]),
            cron_jobs: Informer::new(Vec::new()),
            namespaces: Informer::new(Vec::new()),
            services: Informer::new(vec![(Index::Namespace, by_namespace)]),
            static_sets: Informer::new(Vec::new()),
            yurt_app_sets: Informer::new(Vec::new()),
        }
    }

    /// Starts the watches and the writing of events.
    pub(crate) fn start(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        self.watch(tasks, |context| &context.pods);
        self.watch(tasks, |context| &context.nodes);
        self.watch(tasks, |context| &context.node_pools);
        self.watch(tasks, |context| &context.replica_sets);
        self.watch(tasks, |context| &context.deployments);
        self.watch(tasks, |context| &context.daemon_sets);
        self.watch(tasks, |context| &context.revisions);
        self.watch(tasks, |context| &context.stateful_sets);
        self.watch(tasks, |context| &context.claims);
        self.watch(tasks, |context| &context.quotas);
        self.watch(tasks, |context| &context.jobs);
        self.watch(tasks, |context| &context.cron_jobs);
        self.watch(tasks, |context| &context.namespaces);
        self.watch(tasks, |context| &context.services);
        self.watch(tasks, |context| &context.static_sets);
        self.watch(tasks, |context| &context.yurt_app_sets);
        let context = Arc::clone(self);
        tasks.spawn(async move { context.recorder.run().await });
    }

    fn watch<K, V>(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
        informer: fn(&Self) -> &Informer<K, V>,
    ) where
        V: Object + From<K> + Send + Sync + 'static,
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let context = Arc::clone(self);
        tasks.spawn(async move {
            let api = Api::all(context.client.clone());
            informer(&context).run(api).await;
        });
    }

    /// The API of a namespaced kind in one namespace.
    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }
}

fn by_node(pod: &Pod) -> Vec<Arc<str>> {
    pod.node_name().map(Into::into).into_iter().collect()
}

/// Nodes that are to be in a pool and in none are under its name with a mark, which no pool's name has.
fn by_pool(node: &Node) -> Vec<Arc<str>> {
    nodepool::place(node).into_iter().collect()
}
