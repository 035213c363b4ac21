//! Events are news: those that nothing renewed for a while are deleted.
//!
//! Kubernetes has its store do this, by a lease per event. Here it is a controller, so that the
//! store need not know what an event is.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;
use kube::{
    Api,
    api::{DeleteParams, ListParams, Preconditions},
};
use tracing::debug;

use crate::{
    context::Context,
    error::{SyncError, chain, is_conflict, is_not_found},
    key::Key,
};

/// Events read at once: some hundred KB.
const PAGE: u32 = 500;
/// An event lives at most this part of its time too long.
const LOOKS_PER_LIFETIME: u32 = 12;
/// The shortest pause between two looks, however short events live.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// Looks for ever.
pub(crate) async fn run(context: Arc<Context>) {
    let lifetime = Duration::from_secs(context.config.event_lifetime_seconds);
    let pause = (lifetime / LOOKS_PER_LIFETIME).max(SHORTEST_PAUSE);
    loop {
        if let Err(error) = look(&context, lifetime).await {
            debug!(error = chain(&error), "old events are deleted later");
        }
        tokio::time::sleep(pause).await;
    }
}

async fn look(context: &Context, lifetime: Duration) -> Result<(), SyncError> {
    let api: Api<Event> = Api::all(context.client.clone());
    let Ok(lifetime) = SignedDuration::try_from(lifetime) else { return Ok(()) };
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let everywhere = Key::new("", "");
        let page = api.list(&params).await.map_err(SyncError::api("list", "Event", &everywhere))?;
        let now = Timestamp::now();
        for event in &page.items {
            if renewed(event).is_some_and(|at| now.duration_since(at) >= lifetime) {
                delete(context, event).await?;
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = ListParams::default().limit(PAGE).continue_token(&token),
            None => return Ok(()),
        }
    }
}

/// When it was last counted, or made.
fn renewed(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let times = [
        series.map(|time| time.0),
        event.last_timestamp.as_ref().map(|time| time.0),
        event.event_time.as_ref().map(|time| time.0),
        event.metadata.creation_timestamp.as_ref().map(|time| time.0),
    ];
    times.into_iter().flatten().max()
}

async fn delete(context: &Context, event: &Event) -> Result<(), SyncError> {
    let key = Key::of(&event.metadata);
    // One that is counted at this moment stays.
    let only_this = Preconditions {
        uid: event.metadata.uid.clone(),
        resource_version: event.metadata.resource_version.clone(),
    };
    let params = DeleteParams::background().preconditions(only_this);
    match context.api::<Event>(&key.namespace).delete(&key.name, &params).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
        Err(error) => Err(SyncError::api("delete", "Event", &key)(error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_of_an_events_times_counts() {
        let event = |value: serde_json::Value| serde_json::from_value::<Event>(value).unwrap();
        let at = |text: &str| Some(text.parse().unwrap());
        assert_eq!(renewed(&event(json!({"metadata": {}, "involvedObject": {}}))), None);
        let counted = event(json!({
            "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "involvedObject": {},
            "lastTimestamp": "2026-01-01T00:50:00Z"}));
        assert_eq!(renewed(&counted), at("2026-01-01T00:50:00Z"));
        let series = event(json!({
            "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "involvedObject": {},
            "eventTime": "2026-01-01T00:00:00.5Z",
            "series": {"count": 2, "lastObservedTime": "2026-01-01T02:00:00.5Z"}}));
        assert_eq!(renewed(&series), at("2026-01-01T02:00:00.5Z"));
    }
}
