//! Removing a definition: first every object of its kind, then itself.

use std::sync::Arc;

use serde_json::Value;
use toono_api::{ApiError, Resource, UserInfo, kinds};
use toono_mvcc::Prefix;

use super::{
    status::set_condition,
    view::{FINALIZER, View},
};
use crate::{
    limits,
    server::{ApiServer, expired},
    verbs,
};

impl ApiServer {
    /// Removes the objects of a definition that is being deleted, then lets it go. Ends with the
    /// definition, or with the server.
    pub(super) fn remove_objects(&self, name: String, uid: String, stored: Option<Arc<Resource>>) {
        if !self.inner.removals.begin(&name) {
            return;
        }
        let alive = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            while let Some(inner) = alive.upgrade() {
                let server = Self { inner };
                let gone = server.remove_once(&name, &uid, stored.as_deref()).await;
                match gone {
                    Ok(true) => {
                        server.inner.removals.end(&name);
                        return;
                    }
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(definition = name, %error, "cannot remove a kind's objects");
                    }
                }
                drop(server);
                tokio::time::sleep(limits::CUSTOM_KIND_SWEEP).await;
            }
        });
    }

    /// One round; whether the definition is done with.
    async fn remove_once(
        &self,
        name: &str,
        uid: &str,
        stored: Option<&Resource>,
    ) -> Result<bool, ApiError> {
        let left = match stored {
            Some(stored) => self.remove_present(name, uid, stored).await?,
            None => 0,
        };
        if left > 0 {
            return Ok(false);
        }
        self.edit_definition(name, uid, |object, now| {
            set_condition(
                object,
                ("Terminating", false),
                "InstanceDeletionCompleted",
                "removed all instances",
                now,
            );
            let finalizers = object.get_mut("metadata").and_then(|map| map.get_mut("finalizers"));
            if let Some(finalizers) = finalizers.and_then(Value::as_array_mut) {
                finalizers.retain(|one| one != FINALIZER);
            }
        })
        .await?;
        Ok(true)
    }

    /// Asks every object to go; how many there were.
    async fn remove_present(
        &self,
        name: &str,
        uid: &str,
        stored: &Resource,
    ) -> Result<usize, ApiError> {
        let prefix = Prefix::resource(&stored.stored_group, &stored.stored_plural);
        let page = self.inner.store.list(&prefix, self.revision(), None, usize::MAX);
        let entries = page.map_err(expired)?.entries;
        if entries.is_empty() {
            return Ok(0);
        }
        self.edit_definition(name, uid, |object, now| {
            set_condition(
                object,
                ("Terminating", true),
                "InstanceDeletionInProgress",
                "CustomResource deletion is in progress",
                now,
            );
        })
        .await?;
        let options = verbs::DeleteOptions::default();
        let user = UserInfo::component("system:apiserver");
        for entry in &entries {
            let (namespace, name) = (entry.key.namespace(), entry.key.name());
            match verbs::delete_object(self, &user, stored, namespace, name, &options).await {
                Ok(_) | Err(ApiError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        // Those that nothing held are gone by now.
        let page = self.inner.store.list(&prefix, self.revision(), None, usize::MAX);
        Ok(page.map_err(expired)?.entries.len())
    }

    async fn edit_definition(
        &self,
        name: &str,
        uid: &str,
        edit: impl Fn(&mut Value, &str),
    ) -> Result<(), ApiError> {
        let resource = self.built_in(&kinds::extensions::CUSTOM_RESOURCE_DEFINITION);
        let now = Self::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let edited = verbs::modify_own(self, &resource, "", name, |object| {
            if View(object).uid() == uid {
                edit(object, &now);
            }
            Ok(())
        });
        match edited.await {
            Ok(_) | Err(ApiError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
