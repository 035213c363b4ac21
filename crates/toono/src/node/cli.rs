//! The command line of `toono node`, with its defaults. It decides nothing.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use toono_agent::{GracePeriods, Reserve, Thresholds};
use toono_api::Quantity;
use toono_http::client::Endpoint;
use toono_pki::{BootstrapToken, CaPin};

use crate::cli::{DataDir, Output};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    pub(crate) command: Option<NodeCommand>,
    /// The server's URL, such as `https://cloud.example:6443`.
    #[arg(long, value_name = "URL", required = true)]
    pub(crate) server: Option<Endpoint>,
    /// A bootstrap token; needed for the first start only.
    #[arg(long, env = "TOONO_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<BootstrapToken>,
    /// The hash of the cluster's CA key; needed for the first start only.
    #[arg(long, value_name = "sha256:HEX")]
    pub(crate) ca_cert_hash: Option<CaPin>,
    /// The node's name; the host's unless given.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The node pool to join.
    #[arg(long)]
    pub(crate) pool: Option<String>,
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Pods' cgroups are made below this one.
    #[arg(long, value_name = "PATH", default_value = "/toono")]
    pub(crate) cgroup_root: String,
    /// The node's resolvers: its DNS asks them for names outside of the cluster.
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub(crate) resolv_conf: PathBuf,
    /// Where the images of a registry host are fetched; may be repeated.
    #[arg(long, value_name = "HOST=URL[,URL...]")]
    pub(crate) registry: Vec<String>,
    /// Upgrades may be approved at this loopback address too, as with OpenYurt's hub on 127.0.0.1:10267: by
    /// everyone on this machine. Without it only root may, by `toono node ota`.
    #[arg(long, value_name = "ADDR:PORT", value_parser = loopback)]
    pub(crate) ota_listen: Option<SocketAddr>,
    /// Gets every layer of images from its registry, and gives none to other nodes of the pool.
    #[arg(long)]
    pub(crate) no_neighbour_layers: bool,
    #[command(flatten)]
    pub(crate) room: RoomArgs,
}

/// Nobody beyond this machine approves what runs on it.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "give ADDR:PORT, such as 127.0.0.1:10267")?;
    match address.ip().is_loopback() {
        true => Ok(address),
        false => Err("give a loopback address, such as 127.0.0.1:10267".to_owned()),
    }
}

/// What of the machine pods may have; the kubelet's flags.
#[derive(Debug, Args)]
pub(crate) struct RoomArgs {
    /// What must be left of the machine, lest pods are evicted.
    #[arg(long, value_name = "SIGNAL<QUANTITY,...")]
    pub(crate) eviction_hard: Option<Thresholds>,
    /// With less than this for a while, pods are evicted; the while is --eviction-soft-grace-period.
    #[arg(long, value_name = "SIGNAL<QUANTITY,...")]
    pub(crate) eviction_soft: Option<Thresholds>,
    /// How long there may be less than --eviction-soft, such as `memory.available=1m30s`.
    #[arg(long, value_name = "SIGNAL=DURATION,...")]
    pub(crate) eviction_soft_grace_period: Option<GracePeriods>,
    /// The most seconds that a pod gets to end in when it is evicted because of --eviction-soft.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) eviction_max_pod_grace_period: u32,
    /// How long the Node tells that it is short of something after it was, such as `5m`.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = period)]
    pub(crate) eviction_pressure_transition_period: Duration,
    /// What pods do not get, for the system: cpu, memory, ephemeral-storage.
    #[arg(long, value_name = "RESOURCE=QUANTITY,...")]
    pub(crate) system_reserved: Option<Reserved>,
    /// What pods do not get, for the node's own programs.
    #[arg(long, value_name = "RESOURCE=QUANTITY,...")]
    pub(crate) kube_reserved: Option<Reserved>,
    /// How many pods may run here.
    #[arg(long, value_name = "N", default_value_t = 110)]
    pub(crate) max_pods: u32,
    /// Pods that run whatever the cloud says, one a file; `manifests` in the data directory unless given.
    #[arg(long, value_name = "DIR")]
    pub(crate) pod_manifest_path: Option<PathBuf>,
}

fn period(text: &str) -> Result<Duration, String> {
    toono_agent::period(text).ok_or_else(|| format!("{text:?} is not a duration such as 1m30s"))
}

/// A list of reserved resources.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reserved(pub(crate) Reserve);

impl std::str::FromStr for Reserved {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut reserve = Reserve::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let wrong = || format!("{part:?} is not RESOURCE=QUANTITY");
            let (resource, amount) = part.split_once('=').ok_or_else(wrong)?;
            let amount: Quantity = amount.parse().map_err(|_| wrong())?;
            match resource {
                "cpu" => reserve.cpu_millis = amount.millis(),
                "memory" => reserve.memory = amount.units(),
                "ephemeral-storage" => reserve.storage = amount.units(),
                other => return Err(format!("{other:?} cannot be reserved")),
            }
        }
        Ok(Self(reserve))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Manage the images on this node, whether it runs or not.
    Image(ImageArgs),
    /// See and approve upgrades that are offered to pods of this node.
    Ota(OtaArgs),
}

#[derive(Debug, Args)]
pub(crate) struct OtaArgs {
    #[command(subcommand)]
    pub(crate) command: OtaCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OtaCommand {
    /// List what is offered, and how far it is.
    Status {
        #[command(flatten)]
        data: DataDir,
        /// The form of the answer.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Approve: the images are pulled, then the pod is replaced. Without a link to the cloud it is kept, and
    /// carried out when the link is back.
    Approve {
        #[command(flatten)]
        data: DataDir,
        /// The pods' namespace.
        #[arg(short, long, default_value = "default")]
        namespace: String,
        /// The pods' names.
        #[arg(value_name = "POD", required = true)]
        pods: Vec<String>,
    },
    /// Pull the images of what is offered, and no more.
    Pull {
        #[command(flatten)]
        data: DataDir,
        /// The pods' namespace.
        #[arg(short, long, default_value = "default")]
        namespace: String,
        /// The pods' names.
        #[arg(value_name = "POD", required = true)]
        pods: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// List the images.
    Ls {
        #[command(flatten)]
        data: DataDir,
        /// The form of the answer.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Remove images; what containers have of them stays until they end.
    Rm {
        #[command(flatten)]
        data: DataDir,
        /// Also those that pods use.
        #[arg(long)]
        force: bool,
        /// Their names.
        #[arg(value_name = "IMAGE", required = true)]
        images: Vec<String>,
    },
    /// Add the images of an archive: an OCI image layout, or what `docker save` writes; compressed or not.
    Import {
        #[command(flatten)]
        data: DataDir,
        /// The name of an image that has none in the archive.
        #[arg(long, value_name = "IMAGE")]
        name: Option<String>,
        /// The archive; `-` is standard input.
        #[arg(value_name = "ARCHIVE")]
        archive: PathBuf,
    },
}
