//! `toono lab`: the sites that `up` built, to play with.

use std::{path::Path, process::ExitCode};

use tokio::net::TcpListener;
use toono_lab::{LabError, LabName};

use crate::{
    cli::{DEFAULT_DATA_DIR, LabArgs, LabCommand},
    failure::Failure,
    preflight,
    shutdown::Shutdown,
};

pub(crate) async fn run(args: LabArgs) -> Result<ExitCode, Failure> {
    match args.command {
        LabCommand::Cut { data, pool, udp } => {
            preflight::root()?;
            let cut = if udp { toono_lab::block_udp } else { toono_lab::cut };
            cut(&name(&data.dir)?, &pool).map_err(|error| explain(&error))?;
            let what = if udp { "sends no UDP to" } else { "is cut off from" };
            eprintln!("{pool} {what} the cloud; toono lab heal {pool} mends it");
        }
        LabCommand::Heal { data, pool } => {
            preflight::root()?;
            toono_lab::heal(&name(&data.dir)?, &pool).map_err(|error| explain(&error))?;
            eprintln!("{pool} reaches the cloud again");
        }
        LabCommand::Shell { data, node, command } => {
            preflight::root()?;
            let code = toono_lab::shell(&name(&data.dir)?, &node, &command)
                .map_err(|error| explain(&error))?;
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)));
        }
        LabCommand::Registry { listen, root } => registry(listen, &root).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn registry(listen: std::net::SocketAddr, root: &Path) -> Result<(), Failure> {
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
        never = toono_lab::registry::serve(listener, root.to_owned()) => match never {},
    }
}

/// The lab of a data directory. The default directory's is `toono`; others get a name of their
/// own, so that several edges fit on one machine.
pub(crate) fn name(data: &Path) -> Result<LabName, Failure> {
    let full = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    let name = if full == Path::new(DEFAULT_DATA_DIR) {
        toono_lab::DEFAULT_NAME.to_owned()
    } else {
        format!("{}-{}", toono_lab::DEFAULT_NAME, short_hash(&full))
    };
    LabName::new(name)
        .map_err(|error| Failure::caused("internal", &error, "this is a defect: please report it"))
}

/// Four characters of a path: FNV-1a with a finishing mix (without one, the last letters of a path
/// would not reach the upper bits), so that it is the same for ever.
fn short_hash(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let hash = path.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (0..4)
        .filter_map(|place| ALPHABET.get(usize::try_from(hash >> (44 + 5 * place)).ok()? & 31))
        .map(|byte| char::from(*byte))
        .collect()
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
