//! Watches that go on after each end with what they were told last, at any of the servers.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::PodTemplate;
use kube::{
    Api, Client,
    api::{WatchEvent, WatchParams},
};
use toono_linear::{Change, dice::Dice};

use super::record::{Record, id, key, rev};
use crate::server::answers;

/// The server ends the watch by itself after this, so that some are resumed without a crash.
const SECONDS: u32 = 3;
const RETRY: Duration = Duration::from_millis(20);

/// Follows from this version on until it is dropped. Every event's type must fit what was told before.
pub(super) async fn follow(
    record: Arc<Record>,
    clients: Vec<Client>,
    begin: String,
    number: usize,
) {
    let mut dice = Dice(number as u64);
    let mut since = begin;
    let mut present = HashSet::new();
    let parameters = WatchParams::default().timeout(SECONDS);
    loop {
        let client = &clients[usize::try_from(dice.below(clients.len() as u64)).unwrap()];
        let templates: Api<PodTemplate> = Api::default_namespaced(client.clone());
        let Ok(events) = templates.watch(&parameters, &since).await else {
            answers(client).await;
            continue;
        };
        let mut events = std::pin::pin!(events);
        while let Ok(Some(event)) = events.try_next().await {
            let (object, deleted) = match event {
                WatchEvent::Added(object) => {
                    assert!(present.insert(key(&object)), "added twice: {object:?}");
                    (object, false)
                }
                WatchEvent::Modified(object) => {
                    assert!(present.contains(&key(&object)), "never added: {object:?}");
                    (object, false)
                }
                WatchEvent::Deleted(object) => {
                    assert!(present.remove(&key(&object)), "never added: {object:?}");
                    (object, true)
                }
                WatchEvent::Bookmark(bookmark) => {
                    let told: u64 = bookmark.metadata.resource_version.parse().unwrap();
                    assert!(told >= since.parse().unwrap(), "{told} comes after {since}");
                    since = record.told(told).to_string();
                    continue;
                }
                WatchEvent::Error(status) => panic!("resumed at {since}: {status:?}"),
            };
            let rev = record.told(rev(&object));
            since = rev.to_string();
            let change = Change { rev, key: key(&object), id: id(&object), deleted };
            record.seen.lock().unwrap().told[number].push(change);
            // Also wakes whoever waits for watches to catch up.
            record.answers.send_modify(|_| {});
        }
        tokio::time::sleep(RETRY).await;
    }
}
