//! Workers: take a key, bring its object to what it should be, try again on failure.

use std::{future::Future, hash::Hash, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use tracing::{debug, warn};

use crate::{
    error::{SyncError, chain},
    queue::WorkQueue,
};

/// When an object wants to be looked at again though nothing changes.
pub(crate) type Again = Option<Duration>;

/// Runs `count` workers over a queue, for ever.
pub(crate) async fn run<T, F>(
    name: &'static str,
    count: usize,
    queue: Arc<WorkQueue<T>>,
    sync: impl Fn(T) -> F,
) where
    T: Clone + Eq + Hash + std::fmt::Display,
    F: Future<Output = Result<Again, SyncError>>,
{
    let sync = &sync;
    let queue = &queue;
    let mut workers: FuturesUnordered<_> = (0..count.max(1))
        .map(|_| async move {
            loop {
                let key = queue.next().await;
                let outcome = sync(key.clone()).await;
                finish(name, queue, &key, outcome);
                queue.done(&key);
            }
        })
        .collect();
    while let Some(()) = workers.next().await {}
}

fn finish<T>(name: &str, queue: &WorkQueue<T>, key: &T, outcome: Result<Again, SyncError>)
where
    T: Clone + Eq + Hash + std::fmt::Display,
{
    match outcome {
        Ok(again) => {
            queue.forget(key);
            if let Some(delay) = again {
                queue.add_after(key.clone(), delay);
            }
        }
        Err(error) => {
            if error.is_expected() {
                debug!(controller = name, %key, error = chain(&error), "will try again");
            } else {
                warn!(controller = name, %key, error = chain(&error), "will try again");
            }
            queue.retry(key.clone());
        }
    }
}
