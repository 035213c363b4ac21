//! The command line: what can be asked of every build, with its defaults. It decides nothing.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

#[cfg(feature = "cloud")]
use crate::cloud::cli::CloudCommand;
use crate::node::cli::NodeArgs;

/// Where everything is kept unless told otherwise.
pub(crate) const DEFAULT_DATA_DIR: &str = "/var/lib/toono";

/// Kubernetes for places with a bad network.
#[derive(Debug, Parser)]
#[command(name = "toono", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// What to log: a level, or filters such as `info,toono_fleet=debug`.
    #[arg(long, global = true, env = "TOONO_LOG", default_value = "info", value_name = "FILTER")]
    pub(crate) log: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[cfg(feature = "cloud")]
    #[command(flatten)]
    Cloud(CloudCommand),
    /// Run this machine as a node.
    Node(Box<NodeArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct DataDir {
    /// Where everything is kept.
    #[arg(long = "data", value_name = "DIR", default_value = DEFAULT_DATA_DIR)]
    pub(crate) dir: PathBuf,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
    Yaml,
}
