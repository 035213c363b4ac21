//! The service account `default` of every namespace: pods that name none run as it. And the tokens of
//! accounts that are kept in secrets.

pub(crate) mod tokens;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    context::Context,
    kinds::kind,
    per_namespace::{PerNamespace, Step},
};

const COMPONENT: &str = "service-account-controller";

/// A service account, of which only the existence matters here.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct ServiceAccount {
    metadata: ObjectMeta,
}
kind!(ServiceAccount, NamespaceResourceScope, "", "v1", "ServiceAccount", "serviceaccounts");

/// Keeps the accounts that every namespace has.
pub(crate) struct Controller(PerNamespace<ServiceAccount>);

impl Controller {
    pub(crate) fn new(context: &mut Context) -> Self {
        let which = ("ServiceAccount", "default", "metadata.name=default");
        Self(PerNamespace::new(context, COMPONENT, which))
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        let next = |found: Option<&ServiceAccount>| match found {
            None => Step::Create(json!({"metadata": {}})),
            Some(_) => Step::Nothing,
        };
        self.0.run(context, next).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::kinds::Namespace;

    #[test]
    fn a_namespace_that_is_being_deleted_gets_nothing() {
        let read = |value: serde_json::Value| serde_json::from_value::<Namespace>(value).unwrap();
        assert!(read(json!({"metadata": {}})).is_active());
        assert!(!read(json!({"metadata": {}, "status": {"phase": "Terminating"}})).is_active());
        let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        assert!(!read(deleted).is_active());
    }
}
