//! What every cluster has from its first start: four namespaces.

use serde_json::json;
use toono_api::{ApiError, UserInfo, kinds};

use crate::{
    query::{FieldValidation, WriteOptions},
    server::{ApiServer, StartError},
    verbs,
};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

impl ApiServer {
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
