//! The administrator's kubeconfig: written by the server, read by the other commands.

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube::config::{KubeConfigOptions, Kubeconfig};
use toono_pki::{CaPin, Issued};

use crate::{cloud::cli::ClientArgs, failure::Failure};

/// The file's name in the data directory.
pub(crate) const FILE_NAME: &str = "admin.kubeconfig";

/// A kubeconfig with everything inside, as kubeadm writes it.
pub(crate) fn render(server: &str, ca_pem: &str, admin: &Issued) -> String {
    let encode = |pem: &str| STANDARD.encode(pem);
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: toono
  cluster:
    server: {server}
    certificate-authority-data: {ca}
users:
- name: kubernetes-admin
  user:
    client-certificate-data: {cert}
    client-key-data: {key}
contexts:
- name: toono
  context:
    cluster: toono
    user: kubernetes-admin
current-context: toono
",
        ca = encode(ca_pem),
        cert = encode(&admin.cert_pem),
        key = encode(&admin.key_pem),
    )
}

/// A client by `--kubeconfig`, `KUBECONFIG`, or the data directory's own file, in this order.
pub(crate) async fn client(args: &ClientArgs) -> Result<kube::Client, Failure> {
    client_from(&path_of(args)).await
}

fn path_of(args: &ClientArgs) -> PathBuf {
    args.kubeconfig.clone().unwrap_or_else(|| args.data.dir.join(FILE_NAME))
}

/// A client by this file.
pub(crate) async fn client_from(path: &Path) -> Result<kube::Client, Failure> {
    let unusable = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(
            "no-kubeconfig",
            format!("cannot use {}: {}", path.display(), crate::failure::chain(error)),
            "start a server, or name its admin.kubeconfig with --kubeconfig",
        )
    };
    let file = Kubeconfig::read_from(path).map_err(|error| unusable(&error))?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(|error| unusable(&error))?;
    kube::Client::try_from(config).map_err(|error| unusable(&error))
}

/// The server's URL and the pin of its CA, as the kubeconfig tells them.
pub(crate) fn server_and_pin(args: &ClientArgs) -> Result<(String, CaPin), Failure> {
    let path = path_of(args);
    let incomplete = || {
        Failure::new(
            "no-kubeconfig",
            format!("{} names no server with its CA certificate", path.display()),
            "use the admin.kubeconfig that the server wrote",
        )
    };
    let file = Kubeconfig::read_from(&path).map_err(|_| incomplete())?;
    let cluster = file.clusters.into_iter().find_map(|c| c.cluster).ok_or_else(incomplete)?;
    let ca = cluster.certificate_authority_data.ok_or_else(incomplete)?;
    let ca = STANDARD.decode(ca).map_err(|_| incomplete())?;
    let pin = toono_pki::pin_of(&String::from_utf8_lossy(&ca)).map_err(|_| incomplete())?;
    Ok((cluster.server.ok_or_else(incomplete)?, pin))
}

/// What to say when the API server does not answer as it should.
pub(crate) fn unreachable(error: &kube::Error) -> Failure {
    Failure::caused(
        "api-failed",
        error,
        "is the server running? look at its log, or try: kubectl get --raw /readyz",
    )
}

/// Writes the file for its owner alone, whole or not at all.
pub(crate) fn write(path: &Path, text: &str) -> std::io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let temporary: PathBuf = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}
