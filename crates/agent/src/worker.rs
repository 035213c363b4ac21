//! One pod's worker: carries out what its machine asks, and tells the machine what happened.
//!
//! The worker is one task. Actions run beside each other inside it, so a slow pull delays nothing
//! else of the pod, and dropping the task stops them all without stopping a container.

mod actions;
mod pulls;

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{
    StreamExt,
    future::{self, BoxFuture},
    stream::FuturesUnordered,
};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, mpsc};
use toono_images::ImageStore;
use toono_podmachine::{
    Action, ContainerFound, Exit, NotRunnable, Observation, PodMachine, Recovered, SandboxFound,
    pressure::Pressure,
};
use toono_sandbox::{
    ContainerState, ContainerStatus, Keeper, KeeperError, KeeperProgram, Snapshot,
};
use toono_wire::join::ClusterDns;

use crate::{
    AgentError,
    admission::{Amounts, Refused},
    api::Certificate,
    bundles,
    clock::Clock,
    container::{termination, volumes},
    disk, dns,
    eviction::{Evict, is_bounded},
    handlers::Handlers,
    network::PodNetwork,
    node_status::Allocatable,
    outbox::{self, Outbox},
    pool::Pool,
    referents::Referents,
    services::Services,
    tokens::{Tokens, Wants},
    views::{ContainerView, PodView, Views},
};
use actions::Done;

/// What every worker of a node shares.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) data: PathBuf,
    pub(crate) host_ip: Option<IpAddr>,
    pub(crate) memory_capacity: u64,
    pub(crate) allocatable: Allocatable,
    pub(crate) referents: Referents,
    pub(crate) tokens: Tokens,
    pub(crate) certificate: Certificate,
    pub(crate) cgroup_parent: String,
    pub(crate) keeper: KeeperProgram,
    pub(crate) images: ImageStore,
    /// An offer of an upgrade came, or was answered.
    pub(crate) offers: Notify,
    /// The disk had no room for an image.
    pub(crate) wants_room: Notify,
    pub(crate) network: PodNetwork,
    pub(crate) services: Services,
    pub(crate) outbox: Outbox,
    pub(crate) views: Views,
    pub(crate) clock: Clock,
    pub(crate) pool: Pool,
    /// The node's own resolvers.
    pub(crate) resolv_conf: PathBuf,
    /// What the cloud said of its DNS when the node joined.
    pub(crate) dns: Option<ClusterDns>,
    pub(crate) manifests: Option<PathBuf>,
    /// How many pods there may be.
    pub(crate) max_pods: u32,
    pub(crate) pressure: Mutex<Pressure>,
    /// The agent is awake for a heartbeat, so that what is to be looked at now and then is looked at now.
    pub(crate) awake: Arc<Notify>,
}

impl Node {
    /// Where pods ask for names.
    pub(crate) fn cluster_dns(&self) -> ClusterDns {
        self.pool.read(|records| dns::cluster(records, self.dns.as_ref()))
    }

    pub(crate) fn pressure(&self) -> MutexGuard<'_, Pressure> {
        self.pressure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What pods can be given together.
    pub(crate) fn room(&self) -> Amounts {
        let Allocatable { cpu_millis, memory, storage } = self.allocatable;
        Amounts { cpu: cpu_millis, memory, storage }
    }
}

/// What the supervisor tells a worker.
#[derive(Debug)]
pub(crate) enum Order {
    /// The pod changed.
    Desire(Box<Pod>),
    /// Something came, changed or went of what pods of this node reference.
    Referents,
    /// The pod is no longer this node's.
    Remove,
    /// The pod is to make room, or has taken too much.
    Evict(Evict),
}

/// Why a worker has nothing left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The pod was deleted, or the agent ends.
    Deleted,
    /// The bundle no longer had the pod.
    Unwanted,
}

/// Waits for the keeper's next news.
type Watch = BoxFuture<'static, (u64, Result<Snapshot, KeeperError>)>;

pub(crate) struct Worker {
    node: Arc<Node>,
    dir: PathBuf,
    host_network: bool,
    bounded: bool,
    machine: PodMachine,
    handlers: Arc<Handlers>,
    wants: Arc<Wants>,
    keeper: Option<Keeper>,
    pod_ip: Option<IpAddr>,
    /// Containers that have ended, as the keeper last told them.
    ended: Vec<ContainerState>,
    watch: Option<Watch>,
    tasks: FuturesUnordered<BoxFuture<'static, Done>>,
    told: String,
    ending: Ending,
}

impl Worker {
    /// Takes the pod up: adopts its keeper if that lives, and goes on from its last status.
    pub(crate) async fn take_up(node: Arc<Node>, pod: &Pod) -> Result<Self, NotRunnable> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let dir = bundles::pod_dir(&node.data, &uid);
        let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
        let (keeper, snapshot) = adopt(&dir).await;
        let mut pod_ip = None;
        if let Some(keeper) = &keeper {
            pod_ip = actions::furnish(&node, &dir, pod, keeper)
                .await
                .inspect_err(|error| tracing::warn!(uid, error, "adopted without network or files"))
                .unwrap_or_default();
        }
        let recovered = Recovered {
            status: bundles::read_status(&dir),
            sandbox: snapshot.as_ref().map(|snapshot| found(&dir, snapshot, pod_ip)),
            attempts: attempts(&dir),
        };
        let machine = PodMachine::resume(pod, node.host_ip, recovered, node.clock.now())?;
        let mut worker = Self {
            node,
            dir,
            host_network,
            bounded: is_bounded(pod),
            machine,
            handlers: Arc::new(Handlers::read(pod)),
            wants: Arc::new(Wants::of(pod)),
            keeper,
            pod_ip,
            ended: Vec::new(),
            watch: None,
            tasks: FuturesUnordered::new(),
            told: String::new(),
            ending: Ending::Deleted,
        };
        if let Some(snapshot) = snapshot {
            worker.watch(snapshot.version);
            worker.ended = ended(snapshot);
            // An earlier agent may have ended before it filled them with what had come.
            worker.fill_again();
        }
        worker.renew_tokens();
        Ok(worker)
    }

    /// Whether nothing of the pod will run again.
    pub(crate) fn is_over(&self) -> bool {
        self.machine.is_over()
    }

    /// Lets the pod not run here.
    pub(crate) fn refuse(&mut self, refused: &Refused) {
        self.machine.refuse(&refused.reason, &refused.message, self.node.clock.now());
    }

    /// Drives the pod until nothing of it is left.
    pub(crate) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) -> Ending {
        loop {
            while let Ok(order) = orders.try_recv() {
                self.obey(order);
            }
            let wake = self.step();
            if self.machine.is_gone() {
                break;
            }
            let timer = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => future::pending().await,
                }
            };
            let watch = self.watch.as_mut().map(Pin::as_mut);
            let news = async {
                match watch {
                    Some(watch) => watch.await,
                    None => future::pending().await,
                }
            };
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return self.ending,
                },
                Some(done) = self.tasks.next() => self.take(done),
                (version, news) = news => self.hear(version, news).await,
                () = timer => {}
            }
        }
        let ending = self.ending;
        self.finish().await;
        ending
    }

    fn obey(&mut self, order: Order) {
        let now = self.node.clock.now();
        match order {
            Order::Desire(pod) => {
                match self.machine.desire(&pod, now) {
                    Ok(()) => {
                        self.handlers = Arc::new(Handlers::read(&pod));
                        self.bounded = is_bounded(&pod);
                    }
                    Err(error) => tracing::warn!(%error, "a changed pod is not taken"),
                }
                self.fill_again();
            }
            Order::Referents => {
                self.machine.observe(Observation::ReferentsChanged, now);
                self.fill_again();
            }
            Order::Evict(Evict { message, disrupts, grace, .. }) => {
                self.machine.evict(message, disrupts, grace, now);
            }
            Order::Remove => {
                self.ending = Ending::Unwanted;
                self.machine.remove(now);
            }
        }
    }

    /// Lets the machine move, starts what it asks for, and tells what changed.
    fn step(&mut self) -> Option<tokio::time::Instant> {
        let step = self.machine.step(self.node.clock.now());
        for action in step.actions {
            tracing::debug!(pod = self.machine.name(), ?action, "to do");
            self.start(action);
        }
        let status = outbox::text(&self.machine.status());
        if status != self.told {
            if let Err(error) = bundles::write_status(&self.dir, &status) {
                tracing::warn!(%error, "the status is not kept");
            }
            let (uid, namespace, name) =
                (self.machine.uid(), self.machine.namespace(), self.machine.name());
            self.node.outbox.pod(uid, namespace, name, status.clone(), false);
            self.told = status;
        }
        self.node.outbox.events(step.events);
        self.show();
        step.wake.map(|at| self.node.clock.instant(at))
    }

    /// Brings the volumes of a pod that has a sandbox up to date; before that, they are filled when it is made.
    fn fill_again(&mut self) {
        if self.keeper.is_some() && !self.machine.is_over() {
            let task = actions::fill(self);
            self.tasks.push(task);
        }
    }

    /// Tokens are renewed for as long as the pod has a use for them.
    fn renew_tokens(&mut self) {
        if !self.wants.is_empty() && !self.machine.is_over() {
            let task = actions::renew_tokens(self);
            self.tasks.push(task);
        }
    }

    fn start(&mut self, action: Action) {
        let task = actions::carry_out(self, action);
        self.tasks.push(task);
    }

    fn observe(&mut self, seen: Observation) {
        self.machine.observe(seen, self.node.clock.now());
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Nothing => {}
            Done::Saw(seen) => {
                let started = matches!(seen, Observation::Started { .. });
                self.observe(seen);
                if started {
                    // It may have ended before its start was known.
                    self.tell_ended();
                }
            }
            Done::Sandbox { keeper, ip } => {
                self.keeper = Some(keeper);
                self.pod_ip = ip;
                self.ended.clear();
                self.watch(0);
                self.observe(Observation::SandboxReady { ip });
                // What they hold may have changed while the sandbox was made.
                self.fill_again();
            }
            Done::TokensRenewed => {
                self.observe(Observation::ReferentsChanged);
                self.fill_again();
                self.renew_tokens();
            }
            Done::TornDown => {
                self.keeper = None;
                self.watch = None;
                self.ended.clear();
                if self.machine.is_over() {
                    // Logs are kept as long as the pod is, what it has written elsewhere is not.
                    self.drop_volumes();
                }
                self.observe(Observation::SandboxGone);
            }
        }
    }

    fn drop_volumes(&self) {
        let volumes = self.dir.join("volumes");
        let dropped = volumes::release(&self.dir)
            .map_err(disk::failed("release the volumes in", &self.dir))
            .and_then(|()| disk::remove_tree(&volumes));
        if let Err(error) = dropped {
            tracing::warn!(uid = self.machine.uid(), %error, "the volumes of a pod that ended are left");
        }
    }

    async fn hear(&mut self, version: u64, news: Result<Snapshot, KeeperError>) {
        self.watch = None;
        match news {
            Ok(snapshot) => {
                self.watch(snapshot.version);
                self.ended = ended(snapshot);
                self.tell_ended();
            }
            Err(KeeperError::Gone { .. }) => {
                self.keeper = None;
                self.observe(Observation::SandboxLost);
            }
            Err(error) => {
                tracing::warn!(pod = self.machine.name(), %error, "the keeper is not understood");
                tokio::time::sleep(actions::KEEPER_PAUSE).await;
                self.watch(version);
            }
        }
    }

    fn tell_ended(&mut self) {
        for state in self.ended.clone() {
            let ContainerStatus::Exited { .. } = state.status else { continue };
            if let Some(exit) = exit(&self.dir, &state) {
                self.observe(Observation::Exited {
                    container: state.name,
                    attempt: state.attempt,
                    exit,
                });
            }
        }
    }

    fn watch(&mut self, version: u64) {
        if let Some(keeper) = self.keeper.clone() {
            self.watch =
                Some(Box::pin(async move { (version, keeper.wait_change(version).await) }));
        }
    }

    fn show(&self) {
        let names = self.machine.containers();
        let containers = names.map(|name| {
            let newest = self.machine.newest_attempt(name);
            let running = self.machine.running_attempt(name).is_some();
            let started_at = self.machine.running_since(name);
            (name.to_owned(), ContainerView { newest, running, started_at })
        });
        let view = PodView {
            uid: self.machine.uid().to_owned(),
            dir: self.dir.clone(),
            keeper: self.keeper.clone(),
            started_at: self.machine.started_at(),
            host_network: self.host_network,
            over: self.machine.is_over(),
            bounded: self.bounded,
            containers: containers.collect(),
        };
        self.node.views.show(self.machine.namespace(), self.machine.name(), view);
    }

    /// Tells that the pod is gone, and removes its last traces.
    async fn finish(self) {
        let (uid, namespace, name) =
            (self.machine.uid(), self.machine.namespace(), self.machine.name());
        self.node.views.hide(namespace, name, uid);
        if let Err(error) = self.node.network.detach(uid).await {
            tracing::warn!(uid, %error, "an address is not freed");
        }
        if let Err(error) = remove_dir(&self.dir) {
            tracing::warn!(uid, %error, "a pod's directory is not removed");
        }
        self.node.outbox.pod(uid, namespace, name, self.told.clone(), true);
        tracing::info!(pod = name, namespace, uid, "gone");
    }
}

/// Removes a pod's directory, and the memory that is mounted in it.
pub(crate) fn remove_dir(dir: &Path) -> Result<(), AgentError> {
    volumes::release(dir).map_err(disk::failed("release the volumes in", dir))?;
    disk::remove_tree(dir)
}

async fn adopt(dir: &Path) -> (Option<Keeper>, Option<Snapshot>) {
    let adopted = async {
        let Some(keeper) = Keeper::adopt(dir).await? else { return Ok(None) };
        let snapshot = keeper.state().await?;
        Ok::<_, KeeperError>(Some((keeper, snapshot)))
    };
    match adopted.await {
        Ok(Some((keeper, snapshot))) => (Some(keeper), Some(snapshot)),
        Ok(None) => (None, None),
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "a keeper cannot be adopted");
            (None, None)
        }
    }
}

fn found(dir: &Path, snapshot: &Snapshot, ip: Option<IpAddr>) -> SandboxFound {
    let found = |state: &ContainerState| ContainerFound {
        name: state.name.clone(),
        attempt: state.attempt,
        started_at: Some(state.started_at),
        exit: exit(dir, state),
    };
    SandboxFound { ip, containers: snapshot.containers.iter().map(found).collect() }
}

fn ended(snapshot: Snapshot) -> Vec<ContainerState> {
    let mut containers = snapshot.containers;
    containers.retain(|it| matches!(it.status, ContainerStatus::Exited { .. }));
    containers
}

fn exit(dir: &Path, state: &ContainerState) -> Option<Exit> {
    match state.status {
        ContainerStatus::Running { .. } => None,
        ContainerStatus::Exited { status, finished_at } => Some(Exit {
            code: status.code,
            signal: status.signal,
            oom: status.oom_killed,
            started_at: Some(state.started_at),
            finished_at,
            message: termination::message(dir, &state.name, state.attempt, status.code),
        }),
    }
}

/// The highest attempt of each container that has a log.
fn attempts(dir: &Path) -> BTreeMap<String, u32> {
    let entries = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten();
    let mut attempts = BTreeMap::new();
    for container in entries(dir.join("logs")) {
        let numbers = entries(container.path())
            .filter_map(|log| log.file_name().to_str()?.strip_suffix(".log")?.parse::<u32>().ok());
        if let (Some(highest), Ok(name)) = (numbers.max(), container.file_name().into_string()) {
            attempts.insert(name, highest);
        }
    }
    attempts
}
