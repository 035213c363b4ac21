//! The arguments of `toono ota`.

use clap::{Args, Subcommand};

use super::ClientArgs;
use crate::cli::Output;

#[derive(Debug, Args)]
pub(crate) struct OtaArgs {
    #[command(subcommand)]
    pub(crate) command: OtaCommand,
}

/// Which pods are meant.
#[derive(Debug, Args)]
pub(crate) struct OtaScope {
    /// The pods' namespace.
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// Pods of all namespaces.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Pods with these labels.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Pods of this node.
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OtaCommand {
    /// List what is offered to pods, and how far it is.
    Status {
        #[command(flatten)]
        client: ClientArgs,
        #[command(flatten)]
        scope: OtaScope,
        /// The form of the answer.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Approve what is offered to pods: of the revision that is offered now, and no later one.
    Approve {
        #[command(flatten)]
        client: ClientArgs,
        #[command(flatten)]
        scope: OtaScope,
        /// All pods that something is offered to.
        #[arg(long)]
        all: bool,
        /// Let the node pull the images first; the old pod runs meanwhile.
        #[arg(long)]
        pull: bool,
        /// The pods' names.
        #[arg(value_name = "POD", conflicts_with = "all_namespaces")]
        pods: Vec<String>,
    },
    /// Let nodes pull the images of what is offered, and no more.
    Pull {
        #[command(flatten)]
        client: ClientArgs,
        #[command(flatten)]
        scope: OtaScope,
        /// All pods that something is offered to.
        #[arg(long)]
        all: bool,
        /// The pods' names.
        #[arg(value_name = "POD", conflicts_with = "all_namespaces")]
        pods: Vec<String>,
    },
}
