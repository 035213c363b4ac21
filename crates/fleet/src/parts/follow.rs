//! Keeps the parts in step with the API's Services and EndpointSlices, a step a second at most.
//!
//! What changes several times in a second changes once here: nodes fetch once, and all of them from the same
//! version to the same, which is encoded once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{BoxStream, select},
};
use tokio::time::Instant;

use super::{
    index::{Kind, Parts, PoolOf},
    objects::{ServiceObject, SliceObject},
};
use crate::{Change, fleet::Inner, parts};

/// From one step to the next. A change after a quiet second is told at once.
const STEP: Duration = Duration::from_secs(1);
/// Objects whose newest change waits for the next step. Beyond it the step is taken.
const MOST_WAITING: usize = 4_096;

/// An object's newest change.
#[derive(Debug)]
enum News {
    Service(ServiceObject),
    Slice(SliceObject),
    Gone { revision: u64 },
}

/// By kind, namespace and name.
type Waiting = BTreeMap<(bool, String, String), News>;

/// Follows both for as long as they are told.
pub(crate) async fn follow(
    inner: Arc<Inner>,
    services: BoxStream<'static, Change>,
    slices: BoxStream<'static, Change>,
) {
    let services = services.map(|change| (Kind::Service, change));
    let mut changes = select(services, slices.map(|change| (Kind::Slice, change)));
    let (mut waiting, mut next) = (Waiting::new(), Instant::now());
    let mut nodes_wait = false;
    loop {
        tokio::select! {
            change = changes.next() => match change {
                None => return,
                Some((kind, Change::Put(json))) => wait_put(&mut waiting, kind, &json),
                Some((kind, Change::Delete(json))) => wait_gone(&mut waiting, kind, &json),
                Some((kind, listed)) => {
                    // What waits is older than the list.
                    step(&inner, &mut waiting);
                    take_listed(&inner, kind, listed);
                }
            },
            () = inner.parts.nodes.wait() => nodes_wait = true,
            () = tokio::time::sleep_until(next), if nodes_wait || !waiting.is_empty() => {
                nodes_wait = false;
                step(&inner, &mut waiting);
                next = Instant::now() + STEP;
            }
        }
        if waiting.len() > MOST_WAITING {
            step(&inner, &mut waiting);
        }
    }
}

fn wait_put(waiting: &mut Waiting, kind: Kind, json: &Bytes) {
    match parse(kind, json) {
        Some(News::Service(service)) => {
            let name = (true, service.namespace.clone(), service.name.clone());
            waiting.insert(name, News::Service(service));
        }
        Some(News::Slice(slice)) => {
            let name = (false, slice.namespace.clone(), slice.name.clone());
            waiting.insert(name, News::Slice(slice));
        }
        _ => {}
    }
}

fn wait_gone(waiting: &mut Waiting, kind: Kind, json: &Bytes) {
    let (name, revision) = match parse(kind, json) {
        Some(News::Service(it)) => ((true, it.namespace, it.name), it.revision),
        Some(News::Slice(it)) => ((false, it.namespace, it.name), it.revision),
        _ => return,
    };
    waiting.insert(name, News::Gone { revision });
}

fn parse(kind: Kind, json: &Bytes) -> Option<News> {
    let parsed = match kind {
        Kind::Service => ServiceObject::parse(json).map(News::Service),
        Kind::Slice => SliceObject::parse(json).map(News::Slice),
    };
    parsed.inspect_err(|error| tracing::warn!(?kind, %error, "an object that cannot be read")).ok()
}

/// Takes what waits.
fn step(inner: &Inner, waiting: &mut Waiting) {
    parts::change(inner, |parts, pool_of| {
        inner.parts.nodes.take(parts);
        for ((is_service, namespace, name), news) in std::mem::take(waiting) {
            match news {
                News::Service(service) => parts.put_service(&service, pool_of),
                News::Slice(slice) => parts.put_slice(slice, pool_of),
                News::Gone { revision } if is_service => {
                    parts.delete_service(&namespace, &name, revision, pool_of);
                }
                News::Gone { revision } => parts.delete_slice(&namespace, &name, revision),
            }
        }
    });
}

fn take_listed(inner: &Inner, kind: Kind, change: Change) {
    parts::change(inner, |parts, pool_of| match change {
        Change::List => parts.list(kind),
        Change::Page(objects) => {
            for news in objects.iter().filter_map(|json| parse(kind, json)) {
                put(parts, news, pool_of);
            }
        }
        Change::Listed { revision } => parts.list_ended(kind, revision, pool_of),
        Change::Put(_) | Change::Delete(_) => {}
    });
}

fn put(parts: &mut Parts, news: News, pool_of: PoolOf<'_>) {
    match news {
        News::Service(service) => parts.put_service(&service, pool_of),
        News::Slice(slice) => parts.put_slice(slice, pool_of),
        News::Gone { .. } => {}
    }
}
