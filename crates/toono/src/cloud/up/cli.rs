//! The command line of `toono up`, `down` and `lab`, with its defaults. It decides nothing.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf};

use clap::{Args, Subcommand};

use crate::cli::DataDir;

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// How many sites.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=26))]
    pub(crate) pools: u8,
    /// How many nodes in each.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) nodes_per_pool: u8,
    /// The server's address and port.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:6443")]
    pub(crate) listen: SocketAddr,
    /// The addresses of the imitated Internet between the sites and the cloud, a /24.
    #[arg(long, value_name = "CIDR", default_value = "100.64.0.0/24")]
    pub(crate) lab_subnet: String,
    /// The program that nodes run, such as the one of `make edge`; this one unless given.
    #[arg(long, value_name = "FILE")]
    pub(crate) node_program: Option<PathBuf>,
    /// More options of `toono server`.
    #[arg(last = true, value_name = "OPTION")]
    pub(crate) server_options: Vec<String>,
    /// The resolvers of all nodes.
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub(crate) resolv_conf: PathBuf,
    /// Start what is not running, and return without waiting for nodes and pods.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Remove the data as well.
    #[arg(long)]
    pub(crate) purge: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LabArgs {
    #[command(subcommand)]
    pub(crate) command: LabCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// Cut a site's link to the cloud, or one node's way there: packets vanish, nobody is told.
    Cut {
        #[command(flatten)]
        data: DataDir,
        /// The pool, such as pool-a, or a node, such as pool-a-1.
        place: String,
        /// Only UDP vanishes, as behind a firewall that knows of the web alone.
        #[arg(long)]
        udp: bool,
    },
    /// Heal what was cut.
    Heal {
        #[command(flatten)]
        data: DataDir,
        /// The pool or node, as it was cut.
        place: String,
    },
    /// Run a command in the network of a node's host.
    Shell {
        #[command(flatten)]
        data: DataDir,
        /// The node, such as pool-a-1.
        node: String,
        /// The command; a shell if none is given.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Serve the images in a directory; `up` starts it.
    #[command(hide = true)]
    Registry {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        root: PathBuf,
        /// As behind a slow link.
        #[arg(long)]
        bytes_per_second: Option<NonZeroU32>,
    },
}
