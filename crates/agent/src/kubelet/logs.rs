//! `containerLogs`: the log of a container's run, in the format of the container runtime interface.

mod files;
mod lines;

use std::{io, time::Duration};

use bytes::Bytes;
use futures::stream;
use http::{Response, header};
use toono_http::Body;

use super::{Refusal, Target, query::Query};
use crate::views::Views;
use files::LogFiles;
use lines::{LogReader, Wanted};

/// How often a follower looks for more; only while somebody follows.
const FOLLOW_POLL: Duration = Duration::from_millis(200);

/// `GET /containerLogs/NS/POD/CONTAINER?follow,previous,tailLines,sinceSeconds,sinceTime,timestamps,limitBytes`.
pub(super) fn answer(
    views: &Views,
    target: &Target,
    query: &Query,
) -> Result<Response<Body>, Refusal> {
    let wanted = Wanted::parse(query).map_err(Refusal::bad_request)?;
    let Target { view, container, pod, .. } = target;
    let newest = view.containers.get(container).and_then(|it| it.newest);
    let waiting = || {
        let text = format!(
            "container \"{container}\" in pod \"{pod}\" is waiting to start: ContainerCreating"
        );
        Refusal::bad_request(text)
    };
    let attempt = if query.flag(&["previous"]) {
        let missing = || {
            let text =
                format!("previous terminated container \"{container}\" in pod \"{pod}\" not found");
            Refusal::bad_request(text)
        };
        newest.and_then(|newest| newest.checked_sub(1)).ok_or_else(missing)?
    } else {
        newest.ok_or_else(waiting)?
    };
    let path = view.log(container, attempt);
    let files = match LogFiles::open(&path, wanted.tail, wanted.since) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Refusal::not_found(format!(
                "the log of container \"{container}\" in pod \"{pod}\" is gone"
            )));
        }
        Err(error) => {
            return Err(Refusal::internal(format!("cannot read {}: {error}", path.display())));
        }
    };
    let reader = LogReader::new(files, wanted);
    let follower = Follower { reader, views: views.clone(), target: target.clone(), attempt };
    let chunks = stream::unfold(follower, |mut follower| async move {
        let chunk = follower.next().await.transpose()?;
        Some((chunk, follower))
    });
    let mut response = Response::new(toono_http::stream(chunks));
    let plain = header::HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    Ok(response)
}

/// Reads on while the container runs, if that is asked for.
struct Follower {
    reader: LogReader<LogFiles>,
    views: Views,
    target: Target,
    attempt: u32,
}

impl Follower {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            // Whether it runs is asked before the file is read: what it wrote last is then there.
            let Target { namespace, pod, container, .. } = &self.target;
            let running = self.views.is_running(namespace, pod, container, self.attempt);
            if let Some(bytes) = self.reader.next()? {
                // A long log must not hold up what else the node has to do.
                tokio::task::yield_now().await;
                return Ok(Some(bytes));
            }
            if !(self.reader.wanted.follow && running) || self.reader.is_full() {
                return Ok(None);
            }
            tokio::time::sleep(FOLLOW_POLL).await;
        }
    }
}
