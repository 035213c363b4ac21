//! The agent's life: take the directory, become someone, take up the pods, keep in touch.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};
use toono_images::ImageStore;
use toono_net::Cidr;
use toono_podmachine::pressure::Pressure;

use crate::{
    AgentError, Config,
    addresses::Addresses,
    api::{Api, Certificate},
    bundles::Bundles,
    certificate,
    clock::Clock,
    cloud::Cloud,
    disk,
    dns::{self, Dns, Questions},
    eviction::Eviction,
    heartbeat::Heartbeat,
    identity::{Credentials, Identity},
    images, join,
    kubelet::Kubelet,
    neighbours,
    network::{NetworkError, PodNetwork},
    node_status::{self, Allocatable},
    ota::Ota,
    outbox::Outbox,
    pool::{Health, Layers, Pool},
    services::Services,
    statics::{MirrorKeeper, Statics},
    stats::Stats,
    supervisor::Supervisor,
    sync::Sync,
    tokens::Tokens,
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
        let status = node_status::status(config, address);
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
    let parts = Parts::make(config, &identity).await?;
    tracing::info!(node = config.name, cidr = %parts.node.network.cidr(), revision = parts.sync.revision(), "starting");
    let statics = parts.statics(config);
    // It takes up what runs, before anything else can be asked of it.
    let supervisor =
        Supervisor::start(parts.node.clone(), parts.sync.clone(), statics.clone()).await?;
    let status = node_status::status(config, parts.node.host_ip);
    parts.outbox.node(images::with_images(status, &parts.node.images.list()?));
    let mirrors = MirrorKeeper {
        statics: statics.clone(),
        cloud: parts.cloud.clone(),
        node: (config.name.clone(), identity.node_uid.clone()),
    };
    let (node, sync, cloud) = (parts.node.clone(), parts.sync.clone(), parts.cloud.clone());
    let ota = Ota::load(node, sync, statics.clone(), cloud, config.ota_listen)?;
    Err(parts.run(config, supervisor, statics, mirrors, ota).await)
}

/// What lives as long as the agent does.
struct Parts {
    node: Arc<Node>,
    credentials: Credentials,
    cloud: Cloud,
    sync: Sync,
    pool: Pool,
    outbox: Outbox,
    views: Views,
    services: Services,
    dns: Dns,
    questions: Questions,
    awake: Arc<Notify>,
    clock: Clock,
}

impl Parts {
    /// From what is on disk; nothing is asked of the cloud.
    async fn make(config: &Config, identity: &Identity) -> Result<Self, AgentError> {
        let credentials = Credentials::new(identity.clone(), &config.data);
        let (clock, outbox, views) = (Clock::start(), Outbox::default(), Views::default());
        let (services, awake) = (Services::default(), Arc::new(Notify::new()));
        let cloud = Cloud::new(config.server.clone(), &credentials)?;
        let pool = Pool::load(&config.data, &credentials)?;
        let bundles = Bundles::load(&config.data)?;
        let referents = bundles.referents().clone();
        let registries = config.registries.clone().with_file(config.data.join("registries.yaml"));
        let network = network(config, identity).await?;
        let (dns, questions) = dns(config, identity, &network, &pool)?;
        dns.serve_as_service(&services);
        let node = Arc::new(Node {
            name: config.name.clone(),
            data: config.data.clone(),
            host_ip: node_status::own_address(&config.server),
            memory_capacity: node_status::memory_kib() * 1024,
            allocatable: Allocatable::read(&config.data, &config.room),
            referents,
            tokens: Tokens::new(cloud.clone()),
            certificate: Certificate::load(&config.data, &config.name)?,
            cgroup_parent: config.cgroup_parent.clone(),
            keeper: config.keeper.clone(),
            images: ImageStore::open(config.data.join("images"), registries)?,
            offers: Notify::new(),
            wants_room: Notify::new(),
            network,
            services: services.clone(),
            outbox: outbox.clone(),
            views: views.clone(),
            clock,
            pool: pool.clone(),
            resolv_conf: config.resolv_conf.clone(),
            dns: identity.dns.clone(),
            manifests: config.manifests.clone(),
            max_pods: config.room.max_pods,
            pressure: Mutex::new(Pressure::new(config.room.eviction.clone())),
            awake: awake.clone(),
        });
        let sync = Sync::new(bundles, pool.clone());
        Ok(Self {
            node,
            credentials,
            cloud,
            sync,
            pool,
            outbox,
            views,
            services,
            dns,
            questions,
            awake,
            clock,
        })
    }

    /// The pods of the manifests as they are now.
    fn statics(&self, config: &Config) -> Statics {
        let (manifests, data) = (config.manifests.clone(), config.data.clone());
        let statics = Statics::new(manifests, data, config.name.clone(), self.outbox.clone());
        if let Err(error) = statics.scan() {
            tracing::warn!(%error, "manifests are not read");
        }
        statics
    }

    fn heartbeat(&self, config: &Config, kubelet: Kubelet) -> Heartbeat {
        Heartbeat {
            data: config.data.clone(),
            tunnels: Tunnels::new(self.cloud.clone(), kubelet),
            cloud: self.cloud.clone(),
            sync: self.sync.clone(),
            pool: self.pool.clone(),
            outbox: self.outbox.clone(),
            server: config.server.clone(),
            credentials: self.credentials.clone(),
            clock: self.clock,
            awake: self.awake.clone(),
        }
    }

    /// Runs everything; ends with what ends the heartbeat.
    async fn run(
        self,
        config: &Config,
        supervisor: Supervisor,
        statics: Statics,
        mirrors: MirrorKeeper,
        ota: Ota,
    ) -> AgentError {
        let (changed, changes) = mpsc::channel(BUNDLE_QUEUE);
        let (evict, evictions) = mpsc::unbounded_channel();
        let stats = Stats::new(&self.node);
        let heartbeat = self.heartbeat(config, Kubelet::new(self.node.clone(), stats.clone()));
        let Self { node, credentials, cloud, sync, pool, outbox, views, services, .. } = self;
        let (name, network) = (config.name.clone(), node.network.clone());
        let address = node_status::keep_address(
            name.clone(),
            config.server.clone(),
            outbox.clone(),
            self.awake.clone(),
        );
        let api = Api {
            node: node.clone(),
            cloud: cloud.clone(),
            pool: pool.clone(),
            sync: sync.clone(),
        };
        // Dropped with this future, and with them every worker; no container notices.
        let mut tasks = JoinSet::new();
        tasks.spawn(supervisor.run(changes, evictions));
        tasks.spawn(statics.run(self.awake, views, changed.clone()));
        tasks.spawn(mirrors.run());
        tasks.spawn(ota.clone().run());
        tasks.spawn(ota.serve());
        tasks.spawn(address);
        tasks.spawn(api.run(changed.clone()));
        tasks.spawn(sync.run(node.clone(), cloud.clone(), changed));
        tasks.spawn(pool.clone().run(cloud.clone()));
        if config.neighbour_layers {
            tasks.spawn(Layers::join(pool.clone(), node.images.clone()).run());
        }
        tasks.spawn(self.dns.run(self.questions));
        tasks.spawn(certificate::keep(credentials, cloud.clone()));
        tasks.spawn(
            Health {
                pool: pool.clone(),
                outbox: outbox.clone(),
                link: cloud.link(),
                clock: self.clock,
                cidr: network.cidr(),
                data: config.data.clone(),
            }
            .run(),
        );
        tasks.spawn(outbox.run(cloud));
        tasks.spawn(neighbours::keep(name.clone(), network.clone(), pool.clone()));
        tasks.spawn(services.run(name, network, pool));
        tasks.spawn(images::keep(node.clone()));
        tasks.spawn(Eviction::new(node, stats, evict).run());
        heartbeat.run().await
    }
}

fn dns(
    config: &Config,
    identity: &Identity,
    network: &PodNetwork,
    pool: &Pool,
) -> Result<(Dns, Questions), AgentError> {
    let cluster = pool.read(|records| dns::cluster(records, identity.dns.as_ref()));
    let (bridge, pods) = (network.gateway().into(), network.cidr());
    let made = Dns::new(bridge, pods, &config.resolv_conf, &cluster, pool.clone());
    made.map_err(|error| AgentError::Identity {
        path: config.data.join("identity.json"),
        reason: format!("{}: {error}", cluster.domain),
    })
}

async fn network(config: &Config, identity: &Identity) -> Result<PodNetwork, AgentError> {
    let cidr = identity.pod_cidr.clone();
    let failed =
        |source: NetworkError| AgentError::Network { cidr: cidr.clone(), source: Box::new(source) };
    let network: Cidr = cidr.parse().map_err(|error| failed(NetworkError::Cidr(error)))?;
    let addresses = Addresses::load(&config.data, network)?;
    PodNetwork::set_up(&config.bridge, &config.name, network, addresses).await.map_err(failed)
}
