//! The arguments of `toono server --attach`.

use std::{convert::Infallible, path::PathBuf, str::FromStr};

use clap::Args;

/// The options of a server that is a cluster of its own.
const OF_A_SERVER: [&str; 19] = [
    "dir",
    "listen",
    "advertise",
    "cluster_cidr",
    "node_cidr_mask_size",
    "service_cidr",
    "service_node_ports",
    "node_monitor_grace_period",
    "pool_monitor_grace_period",
    "store",
    "compaction_interval",
    "etcd_cafile",
    "etcd_certfile",
    "etcd_keyfile",
    "token",
    "token_file",
    "cluster_signing_duration",
    "secret_max_age",
    "audit_log_path",
];

#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Be no cluster, and run the controllers of OpenYurt's kinds beside another Kubernetes: the one that this
    /// kubeconfig names, or with `in-cluster` the one that this runs in as a pod. Nothing is kept, no port is taken.
    #[arg(
        long,
        value_name = "KUBECONFIG|in-cluster",
        conflicts_with_all = OF_A_SERVER
    )]
    pub(crate) attach: Option<Cluster>,
    /// The context of that kubeconfig, when it is not the current one.
    #[arg(long, value_name = "NAME", requires = "attach")]
    pub(crate) context: Option<String>,
}

/// Which Kubernetes is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cluster {
    /// The one that runs this as a pod.
    Around,
    /// The one that a kubeconfig names.
    Of(PathBuf),
}

impl FromStr for Cluster {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(if text == "in-cluster" { Self::Around } else { Self::Of(text.into()) })
    }
}
