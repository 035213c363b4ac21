//! OpenYurt's kinds: a server installs what defines them before it listens, and `toono crds` prints it for any other
//! Kubernetes.
//!
//! What somebody else installed is left as it is, and so is what a newer program did.

use std::{io::Write as _, time::Duration};

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, PostParams},
    runtime::wait::{Condition, await_condition},
};
use serde_json::Value;
use toono_openyurt::crd::{ALL, Crd, RELEASE, RELEASE_NOW};

use crate::{cloud::kubeconfig::unreachable, failure::Failure};

/// Between two looks at those that others are to install.
const LOOK: Duration = Duration::from_secs(2);

/// Prints all of them, so that `kubectl apply -f -` takes them.
pub(crate) fn print() -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for crd in ALL {
        let document = document(crd)?;
        let text = serde_yaml_ng::to_string(&document).map_err(|error| defect(crd, &error))?;
        // Whoever reads no further has what he wants.
        if write!(out, "---\n{text}").is_err() {
            break;
        }
    }
    Ok(())
}

/// Installs those that are not there, exchanges those of an older program, and waits until all are served.
pub(crate) async fn install(client: &Client) -> Result<(), Failure> {
    let api = definitions(client);
    let ensure = async |crd: Crd| {
        put(&api, crd.name, wanted(crd)?).await.map_err(|error| unreachable(&error))?;
        let established = await_condition(api.clone(), crd.name, Established).await;
        established.map(drop).map_err(|error| {
            Failure::caused(
                "crds-not-served",
                &error,
                "look at the server's log; kubectl get crds shows why",
            )
        })
    };
    futures::future::try_join_all(ALL.map(ensure)).await.map(drop)
}

/// The same in a cluster of others, where this may only look at them: then it says what to run, and waits until
/// all are served.
pub(crate) async fn install_or_wait(client: &Client) -> Result<(), Failure> {
    let api = definitions(client);
    for crd in ALL {
        match put(&api, crd.name, wanted(crd)?).await {
            Err(kube::Error::Api(status)) if status.code == 403 => tracing::warn!(
                definition = crd.name,
                "is not installed, or of an earlier release, and may not be written: run `toono crds | kubectl apply --server-side -f -`"
            ),
            written => written.map_err(|error| unreachable(&error))?,
        }
    }
    for crd in ALL {
        while !Established.matches_object(present(&api, crd.name).await?.as_ref()) {
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

/// One that may not even be looked at is no use waiting for.
async fn present(api: &Api<DynamicObject>, name: &str) -> Result<Option<DynamicObject>, Failure> {
    match api.get_opt(name).await {
        Err(kube::Error::Api(status)) if status.code == 403 => Err(Failure::new(
            "no-rights",
            status.message,
            "grant what is needed: toono rbac | kubectl apply -f -",
        )),
        // Whoever was there a moment ago comes back.
        Err(error) => {
            tracing::debug!(%error, definition = name, "cannot be looked at now");
            Ok(None)
        }
        Ok(present) => Ok(present),
    }
}

fn wanted(crd: Crd) -> Result<DynamicObject, Failure> {
    serde_json::from_value(document(crd)?).map_err(|error| defect(crd, &error))
}

async fn put(
    api: &Api<DynamicObject>,
    name: &str,
    mut wanted: DynamicObject,
) -> Result<(), kube::Error> {
    match api.get_opt(name).await? {
        Some(present) if !is_older(&present) => Ok(()),
        Some(present) => {
            wanted.metadata.resource_version = present.metadata.resource_version.clone();
            let mut labels = present.metadata.labels.unwrap_or_default();
            labels.extend(wanted.metadata.labels.take().unwrap_or_default());
            wanted.metadata.labels = Some(labels);
            let mut annotations = present.metadata.annotations.unwrap_or_default();
            annotations.extend(wanted.metadata.annotations.take().unwrap_or_default());
            wanted.metadata.annotations = Some(annotations);
            settled(api.replace(name, &PostParams::default(), &wanted).await)?;
            tracing::info!(definition = name, "exchanged for that of this release");
            Ok(())
        }
        None => settled(api.create(&PostParams::default(), &wanted).await),
    }
}

/// Whether we made it, in an earlier release. One that does not say is somebody else's.
fn is_older(present: &DynamicObject) -> bool {
    let release = present.metadata.annotations.as_ref().and_then(|all| all.get(RELEASE));
    release.and_then(|text| text.parse::<u32>().ok()).is_some_and(|release| release < RELEASE_NOW)
}

/// A conflict means that another server of the store was faster.
fn settled(written: Result<DynamicObject, kube::Error>) -> Result<(), kube::Error> {
    match written {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        written => written.map(drop),
    }
}

/// The kind is served.
struct Established;

impl Condition<DynamicObject> for Established {
    fn matches_object(&self, object: Option<&DynamicObject>) -> bool {
        let conditions = object.and_then(|object| object.data.pointer("/status/conditions"));
        conditions.and_then(Value::as_array).into_iter().flatten().any(|condition| {
            condition.get("type").is_some_and(|kind| kind == "Established")
                && condition.get("status").is_some_and(|status| status == "True")
        })
    }
}

fn definitions(client: &Client) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "apiextensions.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "apiextensions.k8s.io/v1".to_owned(),
        kind: "CustomResourceDefinition".to_owned(),
        plural: "customresourcedefinitions".to_owned(),
    };
    Api::all_with(client.clone(), &resource)
}

/// A definition as it is installed, with the mark of this release.
fn document(crd: Crd) -> Result<Value, Failure> {
    let mut document: Value =
        serde_yaml_ng::from_str(crd.yaml).map_err(|error| defect(crd, &error))?;
    if let Some(metadata) = document.get_mut("metadata").and_then(Value::as_object_mut) {
        let marks = serde_json::json!({RELEASE: RELEASE_NOW.to_string()});
        metadata.insert("annotations".to_owned(), marks);
    }
    Ok(document)
}

fn defect(crd: Crd, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(
        "internal",
        format!("{} cannot be read: {error}", crd.name),
        "this is a defect: please report it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_or_newer_programs_installed_stays() {
        let with = |release: Option<&str>| {
            let annotations = release.map(|text| serde_json::json!({RELEASE: text}));
            let metadata = serde_json::json!({"name": "c", "annotations": annotations});
            let object = serde_json::json!({"metadata": metadata});
            is_older(&serde_json::from_value(object).unwrap())
        };
        let newer = (RELEASE_NOW + 1).to_string();
        assert!(with(Some("0")) && !with(None) && !with(Some("mine")));
        assert!(!with(Some(&RELEASE_NOW.to_string())) && !with(Some(&newer)));
    }
}
