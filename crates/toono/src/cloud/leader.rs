//! Controllers in one process of several: who holds a Lease runs them.

use toono_controllers::{ControllersConfig, Signers};

use crate::shutdown::Shutdown;

/// Bytes of a process's name that no other has.
const RANDOM_BYTES: usize = 8;

/// Runs controllers whenever this process holds the lease, until shutdown.
pub(crate) async fn run(
    client: kube::Client,
    lease: &str,
    config: ControllersConfig,
    signers: Signers,
    shutdown: Shutdown,
) {
    toono_controllers::lead(client.clone(), lease, &identity(), shutdown.wait(), |stop| {
        toono_controllers::run(client.clone(), config.clone(), signers.clone(), stop)
    })
    .await;
}

/// This process among others: its host, and something that no other has.
fn identity() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let process = toono_pki::random_secret().unwrap_or_default();
    let process: String =
        process.iter().take(RANDOM_BYTES).map(|byte| format!("{byte:02x}")).collect();
    format!("{}_{process}", host.unwrap_or_default())
}
