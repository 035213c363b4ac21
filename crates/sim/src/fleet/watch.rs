//! What the API says of the nodes' readiness, as any client sees it: a watch of all Nodes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::join::number;
use crate::{
    Failure,
    access::Access,
    events::{self, Event, NODES},
};

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
        let list = events::list(access, &format!("{NODES}?limit=1")).await?;
        let seen = Seen { ready: vec![false; nodes], count: 0, lost: Vec::new(), failed: None };
        let seen = Arc::new(Mutex::new(seen));
        let (told, access) = (Arc::clone(&seen), access.clone());
        let task = tokio::spawn(async move {
            let since = list.metadata.resource_version;
            let error =
                events::follow(&access, NODES, since, |event| lock(&told).take(event)).await;
            lock(&told).failed = Some(error.to_string());
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

impl Seen {
    fn take(&mut self, event: &Event) {
        let Some(number) = number(&event.object.metadata.name) else { return };
        let Some(known) = self.ready.get_mut(number) else { return };
        let ready = event.r#type != "DELETED" && event.object.is("Ready");
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
