//! Whether a connection is in use: a request counts from its arrival until its response's body has
//! ended or was dropped.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::{sync::watch, time::timeout};

use crate::{Body, BoxError};

/// Counts the requests of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Activity(watch::Sender<usize>);

impl Activity {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// A request has arrived.
    pub(crate) fn begin(&self) -> InUse {
        self.0.send_modify(|requests| *requests += 1);
        InUse(self.0.clone())
    }

    /// Completes once nothing was asked for so long.
    pub(crate) async fn idle(&self, limit: Duration) {
        let mut requests = self.0.subscribe();
        loop {
            let busy = *requests.borrow_and_update() > 0;
            // `self` sends, so waiting for a change cannot fail.
            if busy {
                let _ = requests.changed().await;
            } else if timeout(limit, requests.changed()).await.is_err() {
                return;
            }
        }
    }
}

/// One request under way.
#[derive(Debug)]
pub(crate) struct InUse(watch::Sender<usize>);

impl InUse {
    /// Keeps the request under way as long as the body of its response.
    pub(crate) fn until_end_of(self, body: Body) -> Body {
        Tracked { body, _in_use: self }.boxed_unsync()
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.send_modify(|requests| *requests -= 1);
    }
}

struct Tracked {
    body: Body,
    _in_use: InUse,
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
