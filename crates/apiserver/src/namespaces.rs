//! Removing a namespace: first all that is in it, then itself.

use serde_json::Value;
use toono_api::{ApiError, UserInfo, kinds};
use toono_mvcc::{Expect, Op, Prefix, Rev, Txn};

use crate::{encode, limits, server::ApiServer, verbs};

impl ApiServer {
    /// Goes on where a restart interrupted.
    pub(crate) fn resume_namespace_deletions(&self) {
        let all = Prefix::resource("", "namespaces");
        let Ok(page) = self.inner.store.list(&all, self.revision(), None, usize::MAX) else {
            return;
        };
        for entry in page.entries {
            let deleting = toono_api::ObjectHeader::parse(&entry.value)
                .is_ok_and(|header| header.metadata.is_deleting());
            if deleting {
                self.sweep_namespace(entry.key.name().to_owned());
            }
        }
    }

    /// Removes the contents of a namespace whose deletion has begun, then the namespace. It ends
    /// with the namespace, or with the server.
    pub(crate) fn sweep_namespace(&self, name: String) {
        let alive = std::sync::Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            while let Some(inner) = alive.upgrade() {
                let server = Self { inner };
                match server.sweep_once(&name).await {
                    Ok(true) => return,
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(namespace = name, %error, "cannot empty a namespace")
                    }
                }
                drop(server);
                tokio::time::sleep(limits::NAMESPACE_SWEEP).await;
            }
        });
    }

    /// One round; whether the namespace is gone.
    async fn sweep_once(&self, name: &str) -> Result<bool, ApiError> {
        let mut left = 0;
        let options = verbs::DeleteOptions::default();
        let user = UserInfo::component("system:namespace-controller");
        let registry = self.registry();
        for resource in registry.resources().iter().filter(|resource| resource.namespaced) {
            let prefix = Prefix::namespace(&resource.stored_group, &resource.stored_plural, name);
            let page = self
                .inner
                .store
                .list(&prefix, self.revision(), None, usize::MAX)
                .map_err(crate::server::expired)?;
            left += page.entries.len();
            for entry in page.entries {
                match verbs::delete_object(self, &user, resource, name, entry.key.name(), &options)
                    .await
                {
                    Ok(_) | Err(ApiError::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if left > 0 { Ok(false) } else { self.finish_namespace(name).await }
    }

    async fn finish_namespace(&self, name: &str) -> Result<bool, ApiError> {
        let resource = self.built_in(&kinds::core::NAMESPACE);
        let key = crate::server::key(&resource, "", name);
        let Some(entry) = self.current(&key)? else { return Ok(true) };
        let mut object = encode::decode(&resource, &entry)?;
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove("finalizers");
        }
        let waits =
            toono_api::meta::items_at(&object, &["metadata", "finalizers"]).next().is_some();
        let draft = encode::draft(&resource, &object);
        let expect = Expect::At(entry.modified);
        let op = if waits {
            if encode::decode(&resource, &entry)? == object {
                return Ok(false);
            }
            Op::Put { key, value: draft, owner: entry.owner }
        } else {
            Op::Delete { key, last: draft }
        };
        let done = self.inner.store.commit(Txn::of(expect, op)).await;
        Ok(done.is_ok_and(|committed| committed.rev > Rev::ZERO) && !waits)
    }
}
