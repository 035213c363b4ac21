//! What `up` makes and where: names, directories, addresses. It touches nothing.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use toono_lab::{Daemon, LabConfig, LabName};

use crate::{
    cloud::{kubeconfig, lab, up::cli::UpArgs},
    failure::Failure,
};

/// Where the registry listens on the cloud's address.
const REGISTRY_PORT: u16 = 5000;
/// A daemon that was asked to end is killed after this long.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(10);

/// One edge on this machine.
pub(crate) struct Plan {
    pub(crate) lab: LabConfig,
    pub(crate) listen: SocketAddr,
    /// The nodes' resolvers.
    pub(crate) resolv_conf: PathBuf,
    cloud: Ipv4Addr,
    dir: PathBuf,
    /// What the server is told besides.
    pub(crate) server_options: Vec<String>,
    /// What nodes run, where it is not this program.
    pub(crate) node_program: Option<PathBuf>,
}

/// One node of the edge.
pub(crate) struct NodePlan {
    pub(crate) name: String,
    pub(crate) pool: String,
}

impl Plan {
    pub(crate) fn new(args: &UpArgs) -> Result<Self, Failure> {
        let dir = absolute(&args.data.dir)?;
        let mut lab = LabConfig::uniform(
            lab::name(&dir)?,
            usize::from(args.pools),
            usize::from(args.nodes_per_pool),
        );
        lab.subnet.clone_from(&args.lab_subnet);
        let cloud = lab
            .cloud_address()
            .map_err(|error| Failure::caused("bad-lab", &error, "see toono up --help"))?;
        let node_program = args.node_program.as_deref().map(absolute).transpose()?;
        let plan = Self {
            lab,
            listen: args.listen,
            resolv_conf: absolute(&args.resolv_conf)?,
            cloud,
            dir,
            server_options: args.server_options.clone(),
            node_program,
        };
        match args.listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() || ip == plan.cloud => Ok(plan),
            _ => Err(Failure::new(
                "bad-lab",
                format!("the sites reach the cloud at {cloud}, where the server does not listen"),
                format!("use --listen 0.0.0.0:{}", args.listen.port()),
            )),
        }
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodePlan> {
        self.lab.pools.iter().flat_map(|pool| {
            (1..=pool.nodes).map(|number| NodePlan {
                name: format!("{}-{number}", pool.name),
                pool: pool.name.clone(),
            })
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.join(kubeconfig::FILE_NAME)
    }

    /// As the nodes dial it.
    pub(crate) fn server_url(&self) -> String {
        format!("https://{}:{}", self.cloud, self.listen.port())
    }

    pub(crate) fn registry_address(&self) -> SocketAddr {
        SocketAddr::from((self.cloud, REGISTRY_PORT))
    }

    pub(crate) fn image_dir(&self) -> PathBuf {
        self.dir.join("images")
    }

    pub(crate) fn server(&self) -> Daemon {
        server(&self.dir)
    }

    pub(crate) fn registry(&self) -> Daemon {
        registry(&self.dir)
    }

    pub(crate) fn node(&self, name: &str) -> Daemon {
        node(&self.dir, name)
    }

    pub(crate) fn node_dir(&self, name: &str) -> PathBuf {
        nodes_dir(&self.dir).join(name)
    }

    pub(crate) fn cgroup_root(&self, node: &str) -> String {
        cgroup_root(&self.lab.name, node)
    }
}

/// Directories of all nodes.
pub(crate) fn nodes_dir(dir: &Path) -> PathBuf {
    dir.join("nodes")
}

/// The cgroup above those of all nodes.
pub(crate) fn cgroup_parent(lab: &LabName) -> String {
    format!("/{lab}")
}

pub(crate) fn cgroup_root(lab: &LabName, node: &str) -> String {
    format!("{}/{node}", cgroup_parent(lab))
}

pub(crate) fn server(dir: &Path) -> Daemon {
    Daemon::new(run_dir(dir), "server")
}

pub(crate) fn registry(dir: &Path) -> Daemon {
    Daemon::new(run_dir(dir), "registry")
}

pub(crate) fn node(dir: &Path, name: &str) -> Daemon {
    Daemon::new(run_dir(dir), name)
}

/// Pid files and logs.
pub(crate) fn run_dir(dir: &Path) -> PathBuf {
    dir.join("run")
}

pub(crate) fn absolute(dir: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(dir)
        .map_err(|error| Failure::caused("data-dir", &error, "name a directory with --data"))
}
