//! The config map `kube-root-ca.crt` of every namespace: by its certificates pods know the API
//! server. What somebody changes in it is set right.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    context::Context,
    kinds::kind,
    per_namespace::{PerNamespace, Step},
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

/// Publishes the certificates.
pub(crate) struct Controller(PerNamespace<ConfigMap>);

impl Controller {
    pub(crate) fn new(context: &mut Context) -> Self {
        let which = ("ConfigMap", NAME, "metadata.name=kube-root-ca.crt");
        Self(PerNamespace::new(context, COMPONENT, which))
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        let root_ca = context.config.root_ca.clone();
        if !root_ca.is_empty() {
            self.0.run(context, |found| next(&root_ca, found)).await;
        }
    }
}

fn next(root_ca: &str, found: Option<&ConfigMap>) -> Step {
    let data = BTreeMap::from([(ENTRY.to_owned(), root_ca.to_owned())]);
    let metadata = json!({"annotations": {DESCRIPTION_ANNOTATION: DESCRIPTION}});
    let Some(found) = found else {
        return Step::Create(json!({"metadata": metadata, "data": data}));
    };
    if found.data == data && described(found) {
        return Step::Nothing;
    }
    // What else is in it is removed, as a merge patch wants it: by null.
    let mut entries = json!(data);
    if let Some(entries) = entries.as_object_mut() {
        for name in found.data.keys().filter(|name| name.as_str() != ENTRY) {
            entries.insert(name.clone(), Value::Null);
        }
    }
    Step::Change(json!({"metadata": metadata, "data": entries}))
}

fn described(map: &ConfigMap) -> bool {
    let annotations = map.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(DESCRIPTION_ANNOTATION)).is_some_and(|d| d == DESCRIPTION)
}
