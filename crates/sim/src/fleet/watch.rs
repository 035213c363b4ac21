//! What the API says of the nodes' readiness, as any client sees it: a watch of all Nodes.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Method, Request};
use http_body_util::BodyExt;
use serde::Deserialize;

use super::join::number;
use crate::{
    Failure,
    access::{Access, ask},
};

/// Before a server that is not there is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// Follows readiness until it is dropped.
pub(crate) struct Readiness {
    seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

struct Seen {
    /// By number.
    ready: Vec<bool>,
    count: usize,
    /// Numbers of nodes that were ready and then were not, in the order in which that was told.
    lost: Vec<usize>,
    /// Why the watch ended, if it did.
    failed: Option<String>,
}

impl Readiness {
    /// Follows it from now on; nodes that are ready already are not seen.
    pub(crate) async fn follow(access: &Access, nodes: usize) -> Result<Self, Failure> {
        let mut connection = access.connect().await?;
        let path = "/api/v1/nodes?limit=1";
        let (_, body) = ask(&mut connection, Method::GET, path, Bytes::new()).await?;
        let list: Object = serde_json::from_slice(&body)?;
        let seen = Seen { ready: vec![false; nodes], count: 0, lost: Vec::new(), failed: None };
        let seen = Arc::new(Mutex::new(seen));
        let (told, access) = (Arc::clone(&seen), access.clone());
        let task = tokio::spawn(async move {
            let mut revision = list.metadata.resource_version;
            loop {
                if let Err(error) = watch(&access, &mut revision, &told).await {
                    lock(&told).failed = Some(error.to_string());
                    return;
                }
            }
        });
        Ok(Self { seen, task })
    }

    /// How many are ready.
    pub(crate) fn ready(&self) -> Result<usize, Failure> {
        Ok(self.seen()?.count)
    }

    /// Who was ready and then was not, since the beginning.
    pub(crate) fn lost(&self) -> Result<Vec<usize>, Failure> {
        Ok(self.seen()?.lost.clone())
    }

    fn seen(&self) -> Result<MutexGuard<'_, Seen>, Failure> {
        let seen = lock(&self.seen);
        match &seen.failed {
            None => Ok(seen),
            Some(why) => Err(format!("the watch of Nodes ended: {why}").into()),
        }
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Deserialize)]
struct Event {
    r#type: String,
    object: Object,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Object {
    metadata: Metadata,
    status: serde_json::Value,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: String,
    resource_version: String,
}

/// Until the watch ends, or the server is not there; an error when nothing can go on from where it ended.
async fn watch(access: &Access, revision: &mut String, seen: &Mutex<Seen>) -> Result<(), Failure> {
    let Ok(mut connection) = access.connect().await else {
        tokio::time::sleep(PAUSE).await;
        return Ok(());
    };
    let path = format!("/api/v1/nodes?watch=1&allowWatchBookmarks=1&resourceVersion={revision}");
    let request = Request::get(path).body(toono_http::empty())?;
    let Ok(response) = connection.send(request).await else { return Ok(()) };
    if response.status().is_server_error() {
        tokio::time::sleep(PAUSE).await;
        return Ok(());
    }
    if !response.status().is_success() {
        return Err(response.status().to_string().into());
    }
    let mut body = response.into_body();
    let mut buffer = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Ok(()) };
        let Ok(data) = frame.into_data() else { continue };
        let mut searched = buffer.len();
        buffer.extend_from_slice(&data);
        while let Some(length) =
            buffer.get(searched..).and_then(|new| new.iter().position(|byte| *byte == b'\n'))
        {
            let line = buffer.split_to(searched + length + 1);
            searched = 0;
            let event: Event = serde_json::from_slice(&line)?;
            if event.r#type == "ERROR" {
                return Err(String::from_utf8_lossy(&line).into());
            }
            revision.clone_from(&event.object.metadata.resource_version);
            lock(seen).take(&event);
        }
    }
    Ok(())
}

impl Seen {
    fn take(&mut self, event: &Event) {
        let Some(number) = number(&event.object.metadata.name) else { return };
        let Some(known) = self.ready.get_mut(number) else { return };
        let conditions = event.object.status.get("conditions").and_then(|list| list.as_array());
        let ready = event.r#type != "DELETED"
            && conditions
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        match (std::mem::replace(known, ready), ready) {
            (false, true) => self.count += 1,
            (true, false) => {
                self.count -= 1;
                self.lost.push(number);
            }
            _ => {}
        }
    }
}
