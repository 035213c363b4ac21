//! The arguments of `toono pool`.

use clap::{Args, Subcommand, ValueEnum};

use super::ClientArgs;

#[derive(Debug, Args)]
pub(crate) struct PoolArgs {
    #[command(subcommand)]
    pub(crate) command: PoolCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// List the pools.
    Ls {
        #[command(flatten)]
        view: PoolView,
        /// Only pools with these labels, as kubectl has it.
        #[arg(short = 'l', long, value_name = "SELECTOR")]
        selector: Option<String>,
    },
    /// Show a pool with its nodes and leaders.
    Show {
        #[command(flatten)]
        view: PoolView,
        name: String,
    },
    /// Make a pool. Nodes are in it by their label apps.openyurt.io/nodepool.
    Create {
        #[command(flatten)]
        client: ClientArgs,
        name: String,
        /// Where its nodes are.
        #[arg(long = "type", value_enum, default_value_t = PoolKind::Edge)]
        r#type: PoolKind,
        /// Pods of its nodes share the network of their host.
        #[arg(long)]
        host_network: bool,
        /// Its nodes reach one another.
        #[arg(long)]
        interconnected: bool,
        /// So many of its nodes fetch for the others.
        #[arg(long, value_name = "COUNT", requires = "interconnected",
              value_parser = clap::value_parser!(i32).range(1..))]
        leaders: Option<i32>,
    },
    /// Set labels that a pool gives its nodes: KEY=VALUE, or KEY- to take one away.
    Label {
        #[command(flatten)]
        client: ClientArgs,
        name: String,
        #[arg(required = true, value_name = "LABEL", allow_hyphen_values = true)]
        labels: Vec<String>,
    },
}

/// How an answer about pools is to look.
#[derive(Debug, Args)]
pub(crate) struct PoolView {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The form of the answer.
    #[arg(short, long, value_enum, default_value_t = PoolFormat::Table)]
    pub(crate) output: PoolFormat,
}

/// The form of an answer about pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PoolFormat {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

/// Where a pool's nodes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PoolKind {
    Edge,
    Cloud,
}
