//! The way to the other Kubernetes: by a kubeconfig or from a pod, and whether it answers.

use std::{error::Error, path::Path, time::Duration};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::time::Instant;

use crate::{
    cloud::cli::Cluster,
    failure::{Failure, chain},
};

/// Between two tries of a server that does not answer.
const RETRY: Duration = Duration::from_secs(2);
/// That it does not is said so often.
const COMPLAINTS_APART: Duration = Duration::from_secs(60);

/// A client of that cluster.
pub(super) async fn client(cluster: &Cluster, context: Option<&str>) -> Result<Client, Failure> {
    let config = match cluster {
        Cluster::Around => around(context)?,
        Cluster::Of(path) => by_file(path, context).await?,
    };
    tracing::info!(server = %config.cluster_url, "attaching");
    Client::try_from(config).map_err(|error| {
        Failure::caused(
            "no-kubeconfig",
            &error,
            "look at the credentials that the kubeconfig names",
        )
    })
}

fn around(context: Option<&str>) -> Result<Config, Failure> {
    if context.is_some() {
        let what = "inside a cluster there is no context to choose";
        return Err(Failure::new(
            "no-kubeconfig",
            what,
            "leave out --context, or give a kubeconfig",
        ));
    }
    Config::incluster_env().map_err(|error| {
        let hint = "this works in a pod that has a service account; give a kubeconfig elsewhere";
        Failure::caused("no-kubeconfig", &error, hint)
    })
}

async fn by_file(path: &Path, context: Option<&str>) -> Result<Config, Failure> {
    let unusable = |what: String, hint: String| {
        Failure::new("no-kubeconfig", format!("cannot use {}: {what}", path.display()), hint)
    };
    let bad = |error: &(dyn Error + 'static)| {
        unusable(
            chain(error),
            "give --attach a kubeconfig that `kubectl --kubeconfig` works with".to_owned(),
        )
    };
    let file = Kubeconfig::read_from(path).map_err(|error| bad(&error))?;
    let known: Vec<&str> = file.contexts.iter().map(|context| context.name.as_str()).collect();
    let wanted = context.or(file.current_context.as_deref()).unwrap_or_default();
    if !known.contains(&wanted) {
        let what = match wanted {
            "" => "it has no current context".to_owned(),
            name => format!("it has no context {name:?}"),
        };
        let hint = match known[..] {
            [] => "it has none at all: is it a kubeconfig?".to_owned(),
            _ => format!("choose one with --context: {}", known.join(", ")),
        };
        return Err(unusable(what, hint));
    }
    let options = KubeConfigOptions { context: Some(wanted.to_owned()), ..Default::default() };
    Config::from_custom_kubeconfig(file, &options).await.map_err(|error| bad(&error))
}

/// Waits until the server answers. What no waiting helps against is a failure at once.
pub(super) async fn await_answer(client: &Client) -> Result<(), Failure> {
    let mut told: Option<Instant> = None;
    loop {
        match client.apiserver_version().await {
            Ok(version) => {
                tracing::info!(version = version.git_version, "the API server answers");
                return Ok(());
            }
            // Who may not even ask for that may still do what is needed.
            Err(kube::Error::Api(status)) if status.code == 403 => return Ok(()),
            Err(error) => {
                if let Some(failure) = hopeless(&error) {
                    return Err(failure);
                }
                if told.is_none_or(|told| told.elapsed() >= COMPLAINTS_APART) {
                    let error = chain(&error);
                    tracing::warn!(error, "the API server does not answer; trying again");
                    told = Some(Instant::now());
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn hopeless(error: &kube::Error) -> Option<Failure> {
    if let kube::Error::Api(status) = error {
        let hint = "the token or certificate of the kubeconfig is not, or no more, good there";
        return (status.code == 401).then(|| {
            Failure::new("no-rights", format!("the API server refused: {}", status.message), hint)
        });
    }
    if matches!(error, kube::Error::Auth(_)) {
        let hint = "look at the credentials that the kubeconfig names";
        return Some(Failure::caused("no-kubeconfig", error, hint));
    }
    let hint = "is it the server that the kubeconfig means, with the CA it names, by a name of its certificate?";
    is_distrust(error).then(|| Failure::caused("not-trusted", error, hint))
}

/// Whether one of both ends does not trust the other's certificate.
fn is_distrust(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref() {
        return matches!(
            error,
            rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_)
        );
    }
    // An I/O error is not the source of what it wraps, and hides that; some wrap others of their kind.
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    wrapped.is_some_and(|inner| is_distrust(inner)) || error.source().is_some_and(is_distrust)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distrust_is_seen_however_it_is_wrapped() {
        let bad = || rustls::Error::InvalidCertificate(rustls::CertificateError::BadSignature);
        let inner = std::io::Error::new(std::io::ErrorKind::InvalidData, bad());
        assert!(is_distrust(&bad()) && is_distrust(&std::io::Error::other(inner)));
        assert!(!is_distrust(&std::io::Error::other("refused")));
        assert!(!is_distrust(&rustls::Error::HandshakeNotComplete));
    }
}
