//! What the API says of a collection's objects, as any client sees it: a list, and a watch from there on.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Method, Request};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::{
    Failure,
    access::{Access, ask},
};

/// All Nodes.
pub(crate) const NODES: &str = "/api/v1/nodes";
/// Before a server that is not there is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// One change.
#[derive(Deserialize)]
pub(crate) struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED` or `BOOKMARK`.
    pub(crate) r#type: String,
    pub(crate) object: Object,
}

/// What is looked at of an object.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Object {
    pub(crate) metadata: Metadata,
    pub(crate) spec: Value,
    pub(crate) status: Value,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    pub(crate) deletion_timestamp: Option<String>,
}

/// Objects at a revision.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct List {
    pub(crate) metadata: Metadata,
    pub(crate) items: Vec<Object>,
}

impl Object {
    /// Whether this condition is true.
    pub(crate) fn is(&self, condition: &str) -> bool {
        let conditions = self.status.get("conditions").and_then(Value::as_array);
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|it| it["type"] == condition && it["status"] == "True")
    }
}

/// What is made of all that is told, by watches that last until this is dropped.
pub(crate) struct Watch<S> {
    told: Arc<Mutex<Told<S>>>,
    tasks: Vec<JoinHandle<()>>,
}

struct Told<S> {
    seen: S,
    /// Why something may be missing.
    failed: Option<String>,
}

impl<S: Send + 'static> Watch<S> {
    /// Begins with what is there. `take` is told every change, with the collection that it is in.
    pub(crate) async fn begin(
        access: &Access,
        collections: &[&'static str],
        seen: S,
        take: fn(&mut S, &str, &Event),
    ) -> Result<Self, Failure> {
        let told = Arc::new(Mutex::new(Told { seen, failed: None }));
        let mut watch = Self { told, tasks: Vec::new() };
        for &collection in collections {
            let list = list(access, collection).await?;
            for object in list.items {
                let event = Event { r#type: "ADDED".to_owned(), object };
                take(&mut lock(&watch.told).seen, collection, &event);
            }
            let (told, access) = (Arc::clone(&watch.told), access.clone());
            watch.tasks.push(tokio::spawn(async move {
                let since = list.metadata.resource_version;
                let tell = |event: &Event| take(&mut lock(&told).seen, collection, event);
                let error = follow(&access, collection, since, tell).await;
                lock(&told).failed = Some(format!("the watch of {collection} ended: {error}"));
            }));
        }
        Ok(watch)
    }

    /// What was told so far; an error if a watch has ended, since something may be missing then.
    pub(crate) fn seen(&self) -> Result<Seen<'_, S>, Failure> {
        let told = lock(&self.told);
        match &told.failed {
            None => Ok(Seen(told)),
            Some(why) => Err(why.clone().into()),
        }
    }
}

impl<S> Drop for Watch<S> {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What was told, held still while it is looked at.
pub(crate) struct Seen<'w, S>(MutexGuard<'w, Told<S>>);

impl<S> Deref for Seen<'_, S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.0.seen
    }
}

impl<S> DerefMut for Seen<'_, S> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.0.seen
    }
}

fn lock<S>(told: &Mutex<Told<S>>) -> MutexGuard<'_, Told<S>> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is there now.
pub(crate) async fn list(access: &Access, path: &str) -> Result<List, Failure> {
    let mut connection = access.connect().await?;
    let (status, body) = ask(&mut connection, Method::GET, path, Bytes::new()).await?;
    if !status.is_success() {
        return Err(format!("{path} answered {status}").into());
    }
    Ok(serde_json::from_slice(&body)?)
}

/// Tells every change of a collection since that revision, over restarts of the server; returns when nothing can go
/// on from where it ended, and why.
pub(crate) async fn follow(
    access: &Access,
    collection: &str,
    since: String,
    mut tell: impl FnMut(&Event),
) -> Failure {
    let mut revision = since;
    loop {
        if let Err(error) = watch(access, collection, &mut revision, &mut tell).await {
            return error;
        }
    }
}

/// Until the watch ends, or the server is not there.
async fn watch(
    access: &Access,
    collection: &str,
    revision: &mut String,
    tell: &mut impl FnMut(&Event),
) -> Result<(), Failure> {
    let Ok(mut connection) = access.connect().await else {
        tokio::time::sleep(PAUSE).await;
        return Ok(());
    };
    let path = format!("{collection}?watch=1&allowWatchBookmarks=1&resourceVersion={revision}");
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
            tell(&event);
        }
    }
    Ok(())
}
