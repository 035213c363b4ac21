//! The cloud side, and what administers it: everything that a build for nodes alone leaves out.

mod allocator;
mod app;
mod attach;
pub(crate) mod cli;
mod crds;
mod kubeconfig;
mod lab;
mod leader;
mod node_link;
mod ota;
mod pool;
mod rotation;
mod secret;
mod server;
mod servers;
mod status;
mod store;
mod store_feed;
mod token;
mod up;

use std::process::ExitCode;

use tokio::runtime::Builder;

use self::cli::CloudCommand;
use crate::failure::Failure;

impl CloudCommand {
    /// The server has work for every processor; all others wait for something most of the time.
    pub(crate) fn runtime(&self) -> Builder {
        match self {
            Self::Server(_) => Builder::new_multi_thread(),
            _ => Builder::new_current_thread(),
        }
    }
}

pub(crate) async fn run(command: CloudCommand) -> Result<ExitCode, Failure> {
    let done = |()| ExitCode::SUCCESS;
    match command {
        CloudCommand::Server(args) => server::run(&args).await.map(done),
        CloudCommand::Up(args) => up::run(&args).await.map(done),
        CloudCommand::Down(args) => up::down(&args).await.map(done),
        CloudCommand::Status(args) => status::run(&args).await.map(done),
        CloudCommand::Pool(args) => pool::run(&args.command).await.map(done),
        CloudCommand::Crds => crds::print().map(done),
        CloudCommand::Rbac => attach::print_rights().map(done),
        CloudCommand::Ota(args) => ota::run(&args).await.map(done),
        CloudCommand::Token(args) => token::run(&args).await.map(done),
        CloudCommand::App(args) => app::run(&args).await.map(done),
        CloudCommand::Lab(args) => lab::run(args).await,
    }
}
