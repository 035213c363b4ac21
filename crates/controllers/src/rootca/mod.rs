//! The config map `kube-root-ca.crt` of every namespace: by its certificates pods know the API
//! server. What somebody changes in it is set right.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    context::Context,
    error::{SyncError, is_already_exists, is_namespace_terminating, is_not_found},
    informer::Informer,
    key::Key,
    kinds::{self, kind},
    patch,
    queue::WorkQueue,
    worker::{self, Again},
};

const COMPONENT: &str = "root-ca-certificate-publisher";
/// The config map's name.
const NAME: &str = "kube-root-ca.crt";
/// The entry with the certificates.
const ENTRY: &str = "ca.crt";
const DESCRIPTION_ANNOTATION: &str = "kubernetes.io/description";
/// Kubernetes' own words, which people compare.
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

/// A config map.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct ConfigMap {
    metadata: ObjectMeta,
    data: BTreeMap<String, String>,
}
kind!(ConfigMap, NamespaceResourceScope, "", "v1", "ConfigMap", "configmaps");

/// Publishes the certificates. The queue holds names of namespaces.
pub(crate) struct Controller {
    queue: Arc<WorkQueue<Key>>,
    published: Informer<ConfigMap>,
}

impl Controller {
    pub(crate) fn new(context: &mut Context) -> Self {
        let queue = Arc::new(WorkQueue::new());
        context.namespaces.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                if let Some(namespace) = &change.new {
                    queue.add(Key::of(&namespace.metadata));
                }
            }
        });
        let mut published =
            Informer::<ConfigMap>::new(Vec::new()).with_fields("metadata.name=kube-root-ca.crt");
        published.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                let Some(map) = change.latest() else { return };
                queue.add(Key::new("", map.metadata.namespace.as_deref().unwrap_or_default()));
            }
        });
        Self { queue, published }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        if context.config.root_ca.is_empty() {
            return;
        }
        let (published, shared) = (&self.published, &context);
        let sync = |key: Key| async move { sync(shared, published, &key).await };
        let work = async {
            context.namespaces.wait_synced().await;
            published.wait_synced().await;
            worker::run(COMPONENT, context.config.concurrent_syncs, self.queue, sync).await;
        };
        futures::join!(published.run(Api::all(context.client.clone())), work);
    }
}

async fn sync(
    context: &Context,
    published: &Informer<ConfigMap>,
    namespace: &Key,
) -> Result<Again, SyncError> {
    if !context.namespaces.get(namespace).is_some_and(|found| found.is_active()) {
        return Ok(None);
    }
    let key = Key::new(&namespace.name, NAME);
    let data = BTreeMap::from([(ENTRY.to_owned(), context.config.root_ca.clone())]);
    let written = match published.get(&key) {
        None => {
            let wanted = json!({
                "metadata": {"name": NAME, "namespace": &*namespace.name,
                    "annotations": {DESCRIPTION_ANNOTATION: DESCRIPTION}},
                "data": data,
            });
            kinds::create::<ConfigMap>(&context.client, Some(&namespace.name), wanted).await
        }
        Some(found) if found.data == data && described(&found) => return Ok(None),
        Some(found) => {
            // What else is in it is removed, as a merge patch wants it: by null.
            let mut entries = json!(data);
            if let Some(entries) = entries.as_object_mut() {
                for name in found.data.keys().filter(|name| name.as_str() != ENTRY) {
                    entries.insert(name.clone(), serde_json::Value::Null);
                }
            }
            let change = json!({
                "metadata": {"annotations": {DESCRIPTION_ANNOTATION: DESCRIPTION}},
                "data": entries,
            });
            let api: Api<ConfigMap> = context.api(&namespace.name);
            patch::merge(&api, NAME, &patch::on_top_of(&*found, change)).await
        }
    };
    match written {
        Ok(_) => Ok(None),
        Err(error)
            if is_already_exists(&error)
                || is_namespace_terminating(&error)
                || is_not_found(&error) =>
        {
            Ok(None)
        }
        Err(error) => Err(SyncError::api("publish", "ConfigMap", &key)(error)),
    }
}

fn described(map: &ConfigMap) -> bool {
    let annotations = map.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(DESCRIPTION_ANNOTATION)).is_some_and(|d| d == DESCRIPTION)
}
