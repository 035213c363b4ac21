//! What every cluster has from its first start: four namespaces and two priority classes.

use serde_json::json;
use toono_api::{ApiError, UserInfo, kinds};
use toono_mvcc::{Expect, Op, Owner, Txn};
use toono_store::CommitError;

use crate::{
    encode,
    query::{FieldValidation, WriteOptions},
    server::{ApiServer, StartError, key},
    verbs,
};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Priority classes of what a node or the cluster cannot be without: name, value, description.
const PRIORITY_CLASSES: [(&str, i64, &str); 2] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another \
         node if necessary.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
];

impl ApiServer {
    /// Objects that no client may make, past the rules for clients.
    pub(crate) async fn create_priority_classes(&self) -> Result<(), StartError> {
        let resource = self.built_in(&kinds::scheduling::PRIORITY_CLASS);
        for (name, value, description) in PRIORITY_CLASSES {
            let key = key(&resource, "", name);
            let object = json!({
                "kind": "PriorityClass",
                "apiVersion": resource.api_version(),
                "metadata": {
                    "name": name,
                    "uid": uuid::Uuid::new_v4().to_string(),
                    "generation": 1,
                    "creationTimestamp": verbs::whole_seconds(Self::now()),
                },
                "value": value,
                "description": description,
                "preemptionPolicy": "PreemptLowerPriority",
            });
            let value = encode::draft(&resource, &object);
            let op = Op::Put { key, value, owner: Owner::PLATFORM };
            match self.inner.store.commit(Txn::of(Expect::Absent, op)).await {
                Ok(_) | Err(CommitError::Conflict { .. }) => {}
                Err(source) => return Err(StartError::PriorityClass { name, source }),
            }
        }
        Ok(())
    }

    pub(crate) async fn create_system_namespaces(&self) -> Result<(), StartError> {
        let user = UserInfo::component("system:apiserver");
        let options = WriteOptions {
            dry_run: false,
            field_validation: FieldValidation::Strict,
            record: verbs::Record::Changes("kube-apiserver"),
        };
        for name in NAMESPACES {
            let object = json!({"metadata": {"name": name}});
            let resource = self.built_in(&kinds::core::NAMESPACE);
            match verbs::create_object(self, &user, &resource, "", object, options).await {
                Ok(_) | Err(ApiError::AlreadyExists { .. }) => {}
                Err(source) => return Err(StartError::Namespace { name, source }),
            }
        }
        Ok(())
    }
}
