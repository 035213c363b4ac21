//! The arguments of `toono app`.

use clap::{Args, Subcommand};

use super::ClientArgs;
use crate::cli::Output;

#[derive(Debug, Args)]
pub(crate) struct AppArgs {
    #[command(subcommand)]
    pub(crate) command: AppCommand,
}

/// Names one app.
#[derive(Debug, Args)]
pub(crate) struct AppName {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// Its name.
    pub(crate) name: String,
    /// Its namespace.
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AppCommand {
    /// List apps, and how many of their workloads are ready.
    Ls {
        #[command(flatten)]
        client: ClientArgs,
        /// Those of this namespace.
        #[arg(short, long, default_value = "default")]
        namespace: String,
        /// Those of all namespaces.
        #[arg(short = 'A', long, conflicts_with = "namespace")]
        all_namespaces: bool,
        /// The form of the answer.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Show one app: its conditions, its workload in each pool, its revisions.
    Show {
        #[command(flatten)]
        app: AppName,
        /// The form of the answer.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Take an app back to an older revision.
    Rollback {
        #[command(flatten)]
        app: AppName,
        /// The number of the revision; when not given, the one before the present one.
        #[arg(long, value_name = "NUMBER")]
        to_revision: Option<i64>,
    },
}
