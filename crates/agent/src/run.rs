//! The agent's life: take the directory, become someone, take up the pods, keep in touch.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{sync::mpsc, task::JoinSet};
use toono_images::ImageStore;
use toono_net::Cidr;

use crate::{
    AgentError, Config,
    addresses::Addresses,
    bundles::Bundles,
    clock::Clock,
    cloud::Cloud,
    disk,
    heartbeat::Heartbeat,
    identity::Identity,
    join,
    kubelet::Kubelet,
    network::{NetworkError, PodNetwork},
    node_status,
    outbox::Outbox,
    supervisor::Supervisor,
    sync::Sync,
    tunnel::Tunnels,
    views::Views,
    worker::Node,
};

/// Bundles that wait for the supervisor: the next is fetched when the last is taken.
const BUNDLE_QUEUE: usize = 1;

/// A node's agent.
#[derive(Debug)]
pub struct Agent;

impl Agent {
    /// Runs a node until `shutdown` completes. Every container goes on running after that.
    ///
    /// Needs a tokio runtime with I/O and time; one thread is enough. The first start joins the
    /// cluster, however long the network takes; later ones need no network.
    ///
    /// # Errors
    /// What will not get better by waiting; see [`AgentError`]. A first start that fails leaves
    /// nothing behind.
    pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
        let uid = nix::unistd::geteuid().as_raw();
        if uid != 0 {
            return Err(AgentError::NotRoot { uid });
        }
        let home = Home::take(&config.data)?;
        tokio::select! {
            result = live(&config, &home) => result,
            () = shutdown => Ok(()),
        }
    }
}

/// The data directory, held by a lock.
struct Home {
    dir: PathBuf,
    _lock: File,
    /// The directory was made by this start, and holds no identity yet.
    is_new: bool,
}

impl Home {
    fn take(dir: &Path) -> Result<Self, AgentError> {
        let is_new = !dir.exists();
        disk::make_dir(dir)?;
        let path = dir.join("lock");
        let mut options = File::options();
        let lock = options.write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(disk::failed("open", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock, is_new }),
            Err(TryLockError::WouldBlock) => Err(AgentError::Locked { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(disk::failed("lock", &path)(source)),
        }
    }

    /// Who this node is, after joining if need be.
    async fn identity(&self, config: &Config) -> Result<Identity, AgentError> {
        if let Some(identity) = Identity::load(&self.dir)? {
            if identity.node_name != config.name {
                let (dir, found) = (self.dir.clone(), identity.node_name);
                return Err(AgentError::OtherNode { dir, found, wanted: config.name.clone() });
            }
            return Ok(identity);
        }
        let address = node_status::own_address(&config.server);
        let status = node_status::status(&config.name, address, &self.dir, &config.version);
        let joined = join::join(config, status).await;
        if joined.is_err() && self.is_new {
            // Best effort: the cause is what matters.
            let _ = fs::remove_file(self.dir.join("lock"));
            let _ = fs::remove_dir(&self.dir);
        }
        joined
    }
}

/// Everything after the lock; ends only by an error, or by being dropped.
async fn live(config: &Config, home: &Home) -> Result<(), AgentError> {
    let identity = home.identity(config).await?;
    let clock = Clock::start();
    let cloud = Cloud::new(config.server.clone(), &identity)?;
    let outbox = Outbox::default();
    let views = Views::default();
    let sync = Sync::new(Bundles::load(&config.data)?);
    let address = node_status::own_address(&config.server);
    let node = Arc::new(Node {
        name: config.name.clone(),
        data: config.data.clone(),
        host_ip: address,
        memory_capacity: node_status::memory_kib() * 1024,
        cgroup_parent: config.cgroup_parent.clone(),
        keeper: config.keeper.clone(),
        images: ImageStore::open(config.data.join("images"), config.registries.clone())?,
        network: network(config, &identity).await?,
        outbox: outbox.clone(),
        views: views.clone(),
        clock,
    });
    tracing::info!(node = config.name, cidr = %node.network.cidr(), revision = sync.revision(), "starting");
    let supervisor = Supervisor::start(node, sync.clone()).await?;
    outbox.node(node_status::status(&config.name, address, &config.data, &config.version));

    let (changed, changes) = mpsc::channel(BUNDLE_QUEUE);
    let heartbeat = Heartbeat {
        data: config.data.clone(),
        tunnels: Tunnels::new(cloud.clone(), Kubelet::new(views)),
        cloud: cloud.clone(),
        sync: sync.clone(),
        outbox: outbox.clone(),
        identity,
        clock,
    };
    // Dropped with this future, and with them every worker; no container notices.
    let mut tasks = JoinSet::new();
    tasks.spawn(supervisor.run(changes));
    tasks.spawn(sync.run(cloud.clone(), changed));
    tasks.spawn(outbox.run(cloud));
    Err(heartbeat.run().await)
}

async fn network(config: &Config, identity: &Identity) -> Result<PodNetwork, AgentError> {
    let cidr = identity.pod_cidr.clone();
    let failed =
        |source: NetworkError| AgentError::Network { cidr: cidr.clone(), source: Box::new(source) };
    let network: Cidr = cidr.parse().map_err(|error| failed(NetworkError::Cidr(error)))?;
    let addresses = Addresses::load(&config.data, network)?;
    PodNetwork::set_up(&config.bridge, &config.name, network, addresses).await.map_err(failed)
}
