//! `toono lab`: the sites that `up` built, to play with.

use std::{num::NonZeroU32, path::Path, process::ExitCode};

use tokio::net::TcpListener;
use toono_lab::{LabError, LabName, Loss};

use crate::{
    cli::DEFAULT_DATA_DIR,
    cloud::up::cli::{LabArgs, LabCommand},
    failure::Failure,
    preflight,
    shutdown::Shutdown,
};

pub(crate) async fn run(args: LabArgs) -> Result<ExitCode, Failure> {
    match args.command {
        LabCommand::Cut { data, place, udp } => {
            preflight::root()?;
            let loss = if udp { Loss::Udp } else { Loss::All };
            toono_lab::cut(&name(&data.dir)?, &place, loss).map_err(|error| explain(&error))?;
            let what = if udp { "sends no UDP to" } else { "is cut off from" };
            eprintln!("{place} {what} the cloud; toono lab heal {place} mends it");
        }
        LabCommand::Heal { data, place } => {
            preflight::root()?;
            toono_lab::heal(&name(&data.dir)?, &place).map_err(|error| explain(&error))?;
            eprintln!("{place} reaches the cloud again");
        }
        LabCommand::Shell { data, node, command } => {
            preflight::root()?;
            let code = toono_lab::shell(&name(&data.dir)?, &node, &command)
                .map_err(|error| explain(&error))?;
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)));
        }
        LabCommand::Registry { listen, root, bytes_per_second } => {
            registry(listen, &root, bytes_per_second).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn registry(
    listen: std::net::SocketAddr,
    root: &Path,
    pace: Option<NonZeroU32>,
) -> Result<(), Failure> {
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        Failure::new(
            "port-taken",
            format!("cannot listen on {listen}: {error}"),
            "another program holds this port: stop it",
        )
    })?;
    let shutdown = Shutdown::on_signal()?;
    tokio::select! {
        () = shutdown.wait() => Ok(()),
        never = toono_lab::registry::serve(listener, root.to_owned(), pace) => match never {},
    }
}

/// The lab of a data directory. The default directory's is `toono`; others get a name of their
/// own, so that several edges fit on one machine.
pub(crate) fn name(data: &Path) -> Result<LabName, Failure> {
    let full = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    let name = if full == Path::new(DEFAULT_DATA_DIR) {
        LabName::new(toono_lab::DEFAULT_NAME)
    } else {
        LabName::of_directory(&full)
    };
    name.map_err(|error| Failure::caused("internal", &error, "this is a defect: please report it"))
}

pub(crate) fn explain(error: &LabError) -> Failure {
    let code = match error {
        LabError::NoPool { .. } => "no-such-pool",
        LabError::NoNode { .. } => "no-such-node",
        _ => "lab-failed",
    };
    Failure::caused(code, error, error.hint().unwrap_or("toono down, then toono up, makes it anew"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directory_has_a_lab_of_its_own() {
        assert_eq!(name(Path::new(DEFAULT_DATA_DIR)).unwrap().as_str(), "toono");
        let (one, two) = (name(Path::new("/tmp/a")).unwrap(), name(Path::new("/tmp/b")).unwrap());
        assert_ne!(one, two);
        assert_eq!(one, name(Path::new("/tmp/a")).unwrap());
    }
}
