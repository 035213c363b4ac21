//! Bootstrap tokens go when they expire.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};

use crate::{
    context::Context,
    error::{SyncError, is_not_found},
    informer::Informer,
    key::Key,
    kinds::Secret,
    queue::WorkQueue,
    worker::{self, Again},
};

const COMPONENT: &str = "token-cleaner-controller";
/// Where tokens are.
const NAMESPACE: &str = "kube-system";
/// The entry with the end of a token's life.
const EXPIRATION: &str = "expiration";

/// Removes tokens.
pub(crate) struct Controller {
    queue: Arc<WorkQueue<Key>>,
    secrets: Informer<Secret>,
}

impl Controller {
    pub(crate) fn new() -> Self {
        let queue = Arc::new(WorkQueue::new());
        let mut secrets =
            Informer::<Secret>::new(Vec::new()).with_fields("type=bootstrap.kubernetes.io/token");
        secrets.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                if let Some(secret) = &change.new {
                    queue.add(Key::of(&secret.metadata));
                }
            }
        });
        Self { queue, secrets }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        let (secrets, shared) = (&self.secrets, &context);
        let sync = |key: Key| async move { sync(shared, secrets, &key).await };
        let work = worker::run(COMPONENT, 1, Arc::clone(&self.queue), sync);
        futures::join!(secrets.run(context.api(NAMESPACE)), work);
    }
}

async fn sync(
    context: &Context,
    secrets: &Informer<Secret>,
    key: &Key,
) -> Result<Again, SyncError> {
    let Some(secret) = secrets.get(key) else { return Ok(None) };
    match remaining(&secret, Timestamp::now()) {
        Some(Duration::ZERO) => {}
        wait => return Ok(wait),
    }
    let api: Api<Secret> = context.api(&key.namespace);
    // One whose life was just made longer stays.
    let only_this = Preconditions {
        uid: secret.metadata.uid.clone(),
        resource_version: secret.metadata.resource_version.clone(),
    };
    match api.delete(&key.name, &DeleteParams::default().preconditions(only_this)).await {
        Ok(_) => Ok(None),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(SyncError::api("delete", "Secret", key)(error)),
    }
}

/// How long the token lives from now on; nothing when for ever. One whose end cannot be read has
/// ended.
fn remaining(secret: &Secret, now: Timestamp) -> Option<Duration> {
    let text = &secret.data.get(EXPIRATION).filter(|text| !text.0.is_empty())?.0;
    let end = std::str::from_utf8(text).ok().and_then(|text| text.parse::<Timestamp>().ok());
    let left = end.map(|end| end.duration_since(now));
    Some(left.and_then(|left| Duration::try_from(left).ok()).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn tokens_end_when_they_say() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let left = |text: &str| {
            let data = BTreeMap::from([(EXPIRATION.to_owned(), ByteString(text.into()))]);
            remaining(&Secret { data, ..Secret::default() }, now)
        };
        assert_eq!(left("2026-01-01T01:00:00+00:00"), Some(Duration::from_secs(3600)));
        assert_eq!(left("2025-12-31T23:59:59Z"), Some(Duration::ZERO));
        assert_eq!(left("some day"), Some(Duration::ZERO));
        assert_eq!(left(""), None);
        assert_eq!(remaining(&Secret::default(), now), None);
    }
}
