//! `toono`: parses the command line, wires the services together, chooses the exit code.

mod cli;
#[cfg(feature = "cloud")]
mod cloud;
mod failure;
mod logging;
mod node;
mod preflight;
mod shutdown;
mod table;

use std::process::ExitCode;

use clap::Parser as _;
use tokio::runtime::Builder;

use crate::{
    cli::{Cli, Command},
    failure::{EXIT_FAILURE, Failure},
};

/// The hidden command that a node starts for each pod.
const KEEPER: &str = "keeper";

fn main() -> ExitCode {
    // The keeper comes before everything, the command line's parser too: there is one for each
    // pod, so it must stay small and single-threaded.
    if std::env::args_os().nth(1).is_some_and(|first| first == KEEPER) {
        return toono_sandbox::keeper_main();
    }
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    logging::start(&cli.log)?;
    let mut runtime = match &cli.command {
        #[cfg(feature = "cloud")]
        Command::Cloud(command) => command.runtime(),
        Command::Node(_) => Builder::new_current_thread(),
    };
    let runtime = runtime.enable_all().build().map_err(|error| {
        Failure::caused(
            "no-runtime",
            &error,
            "is the limit of threads or file descriptors reached?",
        )
    })?;
    runtime.block_on(dispatch(cli.command))
}

async fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    match command {
        #[cfg(feature = "cloud")]
        Command::Cloud(command) => cloud::run(command).await,
        Command::Node(args) => node::run(*args).await.map(|()| ExitCode::SUCCESS),
    }
}
