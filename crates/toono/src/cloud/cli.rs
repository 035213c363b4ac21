//! The command line of `toono server` and of those who administer it, with its defaults. It decides nothing.

mod app;
mod attach;
mod ota;
mod pool;

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Subcommand};
use jiff::SignedDuration;
use toono_api::allocation::{PortRange, ServiceRange};
use toono_controllers::Switches;
use toono_fleet::{ClusterCidr, Grace};
use toono_http::client::Endpoint;
use toono_pki::CLIENT_LIFETIME;

use crate::{
    cli::{DataDir, Output},
    cloud::{
        store::shared::TOKEN_MIN_BYTES,
        up::cli::{DownArgs, LabArgs, UpArgs},
    },
};

pub(crate) use app::{AppArgs, AppCommand, AppName};
pub(crate) use attach::{AttachArgs, Cluster};
pub(crate) use ota::{OtaArgs, OtaCommand, OtaScope};
pub(crate) use pool::{PoolArgs, PoolCommand, PoolFormat, PoolKind, PoolView};

/// The shortest time after which a node is silent: two heartbeats.
const MIN_GRACE: Duration = Duration::from_secs(20);
/// The shortest life of a node's certificate.
const MIN_CERTIFICATE: Duration = Duration::from_secs(10);

/// What the cloud side adds to the commands of a node.
#[derive(Debug, Subcommand)]
pub(crate) enum CloudCommand {
    /// Run the cloud side: API server, store, controllers, scheduler and fleet.
    Server(Box<ServerArgs>),
    /// Show the server, its pools and nodes.
    Status(StatusArgs),
    /// See and approve upgrades of pods that wait for it.
    Ota(OtaArgs),
    /// Manage the tokens that nodes join with.
    Token(TokenArgs),
    /// Print the definitions of OpenYurt's kinds (NodePool, YurtAppSet and others) for `kubectl apply -f -`.
    Crds,
    /// Print the account and the rights that `toono server --attach` needs, for `kubectl apply -f -`.
    Rbac,
    /// Show and make pools of nodes.
    Pool(PoolArgs),
    /// Look at workloads that run in many pools (YurtAppSets), and take them back to what they were.
    App(AppArgs),
    /// Build a working edge on this machine: a server, sites behind NAT, nodes, an application.
    Up(UpArgs),
    /// Stop what `up` started and remove every process, network, mount and cgroup of it.
    Down(DownArgs),
    /// Play with the sites that `up` built.
    Lab(LabArgs),
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ServerArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ServerCommand>,
    #[command(flatten)]
    pub(crate) attach: AttachArgs,
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// HTTPS and the nodes' datagrams arrive here (TCP and UDP, one number).
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:6443")]
    pub(crate) listen: SocketAddr,
    /// More names or addresses that clients and nodes dial; they go into the certificate. Of several servers each
    /// is dialled by nodes and by the others as the first of its own, which must lead to it alone, or else at the
    /// address of --listen.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) advertise: Vec<String>,
    /// Pod addresses, of which each node gets a share.
    #[arg(long, value_name = "CIDR", default_value = "10.244.0.0/16")]
    pub(crate) cluster_cidr: ClusterCidr,
    /// A node's share of the pod addresses, as a prefix length: 24 has room for 253 pods, 28 for 13. What a
    /// cluster with nodes has, it must keep.
    #[arg(long, value_name = "BITS")]
    pub(crate) node_cidr_mask_size: Option<u8>,
    /// Addresses of Services.
    #[arg(long, value_name = "CIDR", default_value_t = ServiceRange::default())]
    pub(crate) service_cidr: ServiceRange,
    /// Ports of Services on every node.
    #[arg(long, value_name = "FROM-TO", default_value_t = PortRange::default())]
    pub(crate) service_node_ports: PortRange,
    #[command(flatten)]
    pub(crate) grace: GraceArgs,
    /// Which controllers run: names, `-name` for those that do not, `*` for all others.
    #[arg(long, value_name = "LIST", default_value_t, allow_hyphen_values = true)]
    pub(crate) controllers: Switches,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// The secret that all servers of one etcd are given: with it a new one gets the cluster's
    /// credentials from there, and nodes are spread over all of them.
    #[arg(long, env = "TOONO_SERVER_TOKEN", hide_env_values = true, value_parser = server_token)]
    pub(crate) token: Option<String>,
    /// A file with that secret.
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub(crate) token_file: Option<PathBuf>,
    /// For how long a node's certificate is good. Nodes renew theirs after three quarters of it, and those that
    /// were away for longer when they are back.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "8760h",
        value_parser = certificate_lifetime
    )]
    pub(crate) cluster_signing_duration: Duration,
    /// The cluster has a new secret for nodes' session keys when the one it has is so old; `never`: only when
    /// `toono server rotate-secret` asks for it.
    #[arg(long, value_name = "TIME", default_value = "720h")]
    pub(crate) secret_max_age: MaxAge,
    /// Records every request in this file, in the form of Kubernetes' audit log at level Metadata.
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_log_path: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// Give the cluster a new secret, from which nodes' session keys come. They move to it by themselves.
    RotateSecret {
        #[command(flatten)]
        client: ClientArgs,
        /// Others know the secrets so far: accept none of them any more. Until each node has asked for a
        /// new key, which takes it half a minute, it is not heard.
        #[arg(long)]
        revoke: bool,
    },
}

/// How old the cluster secret may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MaxAge(pub(crate) Option<Duration>);

impl FromStr for MaxAge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" { Ok(Self(None)) } else { duration(text).map(|age| Self(Some(age))) }
    }
}

/// How long nodes may be silent.
#[derive(Debug, Args)]
pub(crate) struct GraceArgs {
    /// How long a node may be silent until it is not ready, as kube-controller-manager has it. At least 20s,
    /// which is two heartbeats.
    #[arg(long, value_name = "TIME", default_value = "40s", value_parser = grace)]
    node_monitor_grace_period: Duration,
    /// The same for the nodes of a pool (label apps.openyurt.io/nodepool), such as `ships=5m,shops=20s`.
    #[arg(long, value_name = "POOL=TIME", value_delimiter = ',', value_parser = pool_grace)]
    pool_monitor_grace_period: Vec<(String, Duration)>,
}

impl GraceArgs {
    pub(crate) fn of_pools(&self) -> Grace {
        let all = Grace::of_all(self.node_monitor_grace_period);
        let pools = self.pool_monitor_grace_period.iter();
        pools.fold(all, |grace, (pool, own)| grace.with_pool(pool, *own))
    }
}

/// A node that loses one heartbeat is not silent.
fn grace(text: &str) -> Result<Duration, String> {
    let grace = duration(text)?;
    if grace < MIN_GRACE {
        return Err(format!("nodes are heard each 10s: give at least {}s", MIN_GRACE.as_secs()));
    }
    Ok(grace)
}

fn pool_grace(text: &str) -> Result<(String, Duration), String> {
    let (pool, time) = text.split_once('=').ok_or("give POOL=TIME, such as `ships=5m`")?;
    match toono_api::names::label_value(pool).first() {
        _ if pool.is_empty() => Err("name the pool before the `=`".to_owned()),
        Some(why) => Err(format!("{pool:?}: {why}")),
        None => Ok((pool.to_owned(), grace(time)?)),
    }
}

/// A secret that cannot be guessed.
pub(crate) fn server_token(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.len() < TOKEN_MIN_BYTES {
        return Err(format!("it must have at least {TOKEN_MIN_BYTES} characters"));
    }
    Ok(text.to_owned())
}

/// Where the cluster's objects are kept.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// Where objects are kept: `journal`, below the data directory, or `etcd=URL[,URL...]`, which
    /// several servers may share.
    #[arg(long, value_name = "STORE", default_value = "journal")]
    pub(crate) store: StoreKind,
    /// How long older versions of objects stay readable, for watches that resume and lists that go on:
    /// what kube-apiserver calls --etcd-compaction-interval.
    #[arg(
        long,
        alias = "etcd-compaction-interval",
        value_name = "TIME",
        default_value = "5m",
        value_parser = duration
    )]
    pub(crate) compaction_interval: Duration,
    /// The CA that etcd's certificates are from, PEM; needed with https.
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_cafile: Option<PathBuf>,
    /// The certificate to show to etcd, PEM.
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile")]
    pub(crate) etcd_certfile: Option<PathBuf>,
    /// The key of that certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    pub(crate) etcd_keyfile: Option<PathBuf>,
}

/// Long enough that a slow link is no reason to renew again.
fn certificate_lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = duration(text)?;
    if lifetime < MIN_CERTIFICATE || lifetime > CLIENT_LIFETIME.unsigned_abs() {
        return Err("give a time from 10s to 8760h".to_owned());
    }
    Ok(lifetime)
}

/// `5m`, `90s`, `1h`: a duration as Kubernetes' components take it, and not none at all.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    match Duration::try_from(parsed) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("give a time above zero, such as `5m` or `90s`".to_owned()),
    }
}

/// One of the two engines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoreKind {
    Journal,
    Etcd(Vec<Endpoint>),
}

impl FromStr for StoreKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "journal" {
            return Ok(Self::Journal);
        }
        let urls = text.strip_prefix("etcd=").ok_or("give `journal` or `etcd=URL[,URL...]`")?;
        let endpoints: Result<Vec<Endpoint>, _> = urls.split(',').map(str::parse).collect();
        endpoints.map(Self::Etcd).map_err(|error| error.to_string())
    }
}

#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// The kubeconfig to use.
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The form of the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print the command that a node joins with.
    Create {
        #[command(flatten)]
        client: ClientArgs,
        /// Hours until it expires; 0 means never.
        #[arg(long, value_name = "HOURS", default_value_t = 24)]
        ttl_hours: u32,
    },
    /// List the tokens, without their secrets.
    Ls {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Delete a token, by its id or whole.
    Rm {
        #[command(flatten)]
        client: ClientArgs,
        /// The first six characters, or the whole token.
        token: String,
    },
}
