//! Changes of desired state while a fleet sends its heartbeats, and how long until the node has each.
//!
//! What is true: a change is a write over HTTPS, of a pod that is bound to its node. The node hears of it by a
//! poke or by the next reply, connects by TLS with its own certificate, fetches its bundle as `toono node` does,
//! and has the change when the pod is in it. What is simulated: the changes go to the nodes whose identities were
//! kept, one after another; nothing is put on a disk.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::Value;
use tokio::{sync::Semaphore, task::JoinSet};
use toono_pki::Issued;
use toono_wire::{bundle::Bundle, path};

use super::{
    drive::{Cue, Fetching},
    join,
};
use crate::{
    Failure,
    access::{Access, ask},
    api::writes::pod,
    percentiles::Percentiles,
};

/// Connections that the changes are written through.
const WRITERS: usize = 64;
/// Fetches at once: nodes have their own sockets, and a process has so many and no more.
const AT_ONCE: usize = 4_096;
/// After the last change no node waits so long: three heartbeats tell of it, if its poke was lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// A node whose fetch failed tries again after half of this to all of it, as nodes do first.
const AGAIN: Duration = Duration::from_secs(2);
/// The beginning of the name of each pod that is a change.
const PREFIX: &str = "change-";

/// The nodes that fetch their bundles.
#[derive(Clone)]
pub(super) struct Fetchers {
    shared: Arc<Shared>,
}

struct Shared {
    access: HashMap<usize, Access>,
    /// By node under way: the newest revision it was told of.
    wanted: Mutex<HashMap<usize, u64>>,
    slots: Semaphore,
    fetched: mpsc::Sender<(usize, u64, u32)>,
    seen: Mutex<HashMap<usize, Instant>>,
    fetches: AtomicU64,
    failed: AtomicU64,
}

/// What came of it.
pub(super) struct Outcome {
    /// Changes made.
    pub(super) changes: usize,
    /// How long the writes went on.
    pub(super) elapsed: Duration,
    /// From sending each write to its answer.
    pub(super) writes: Percentiles,
    /// From sending each write until the node had it.
    pub(super) delays: Percentiles,
    /// Changes that no node had in the end.
    pub(super) missing: usize,
    pub(super) fetches: u64,
    /// Fetches that failed, and were made again.
    pub(super) failed: u64,
}

impl Fetchers {
    /// Those who have an identity, and what the heartbeats have to know of them.
    pub(super) fn start(
        access: &Access,
        identities: &HashMap<usize, Issued>,
    ) -> Result<(Self, Fetching), Failure> {
        let access = identities.iter().map(|(number, own)| Ok((*number, access.with(own)?)));
        let access = access.collect::<Result<HashMap<_, _>, Failure>>()?;
        let (fetched, taken) = mpsc::channel();
        let (cues, mut told) = tokio::sync::mpsc::unbounded_channel();
        let nodes = access.keys().copied().collect();
        let shared = Arc::new(Shared {
            access,
            wanted: Mutex::default(),
            slots: Semaphore::new(AT_ONCE),
            fetched,
            seen: Mutex::default(),
            fetches: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        let fetchers = Self { shared };
        let own = fetchers.clone();
        tokio::spawn(async move {
            while let Some(cue) = told.recv().await {
                own.take(cue);
            }
        });
        Ok((fetchers, Fetching { nodes, cues, fetched: taken }))
    }

    /// A node fetches one bundle at a time.
    fn take(&self, cue: Cue) {
        let mut wanted = self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.insert(cue.number, cue.desired).is_none() {
            tokio::spawn(self.clone().fetch(cue.number, cue.observed));
        }
    }

    /// Until the node has what it was told of last.
    async fn fetch(self, number: usize, mut observed: u64) {
        let Some(access) = self.shared.access.get(&number) else { return };
        loop {
            let digest;
            let Ok(slot) = self.shared.slots.acquire().await else { return };
            self.shared.fetches.fetch_add(1, Ordering::Relaxed);
            match self.fetch_once(access, observed).await {
                Ok(bundle) => (observed, digest) = (bundle.revision, bundle.digest),
                Err(_) => {
                    self.shared.failed.fetch_add(1, Ordering::Relaxed);
                    drop(slot);
                    tokio::time::sleep(AGAIN.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                    continue;
                }
            }
            let mut wanted = self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            if wanted.get(&number).is_none_or(|wanted| *wanted <= observed) {
                wanted.remove(&number);
                let _ = self.shared.fetched.send((number, observed, digest));
                return;
            }
        }
    }

    async fn fetch_once(&self, access: &Access, observed: u64) -> Result<Bundle, Failure> {
        let mut connection = access.connect().await?;
        let path = format!("{}?since={observed}", path::BUNDLE);
        let (status, body) = ask(&mut connection, Method::GET, &path, Bytes::new()).await?;
        if !status.is_success() {
            return Err(format!("answered {status}").into());
        }
        let bundle: Bundle = serde_json::from_slice(&body)?;
        let now = Instant::now();
        let mut seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for pod in &bundle.pods {
            let head: Head = serde_json::from_str(pod.get())?;
            if let Some(change) = change_of(&head.metadata.name) {
                seen.entry(change).or_insert(now);
            }
        }
        drop(seen);
        Ok(bundle)
    }

    /// Makes changes at a rate for so long, and waits until the nodes have them.
    pub(super) async fn change(
        &self,
        access: &Access,
        rate: usize,
        duration: Duration,
    ) -> Result<Outcome, Failure> {
        let changes = rate * usize::try_from(duration.as_secs())?;
        let (began, written) = (Instant::now(), self.write(access, rate, changes).await?);
        let (elapsed, ends) = (began.elapsed(), Instant::now() + PATIENCE);
        while self.seen_count() < changes && Instant::now() < ends {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let delay = |change: &Written| seen.get(&change.number).map(|at| *at - change.sent);
        let delays: Vec<_> = written.iter().filter_map(delay).collect();
        Ok(Outcome {
            changes,
            elapsed,
            writes: Percentiles::of(written.iter().map(|change| change.answered).collect()),
            missing: changes - delays.len(),
            delays: Percentiles::of(delays),
            fetches: self.shared.fetches.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
        })
    }

    fn seen_count(&self) -> usize {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    async fn write(
        &self,
        access: &Access,
        rate: usize,
        changes: usize,
    ) -> Result<Vec<Written>, Failure> {
        let mut nodes: Vec<_> = self.shared.access.keys().copied().collect();
        fastrand::shuffle(&mut nodes);
        let (nodes, next) = (Arc::new(nodes), Arc::new(AtomicUsize::new(0)));
        let (began, mut tasks) = (Instant::now(), JoinSet::new());
        for _ in 0..WRITERS {
            let (access, nodes, next) = (access.clone(), Arc::clone(&nodes), Arc::clone(&next));
            tasks.spawn(async move {
                let mut connection = access.connect().await?;
                let mut written = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= changes {
                        return Ok::<_, Failure>(written);
                    }
                    let due = began + Duration::from_secs_f64(number as f64 / rate as f64);
                    tokio::time::sleep_until(due.into()).await;
                    let node = nodes.get(number % nodes.len().max(1)).ok_or("no node fetches")?;
                    let pod = Bytes::from(bound(number, *node).to_string());
                    let sent = Instant::now();
                    let path = "/api/v1/namespaces/default/pods";
                    let (status, said) = ask(&mut connection, Method::POST, path, pod).await?;
                    if !status.is_success() {
                        let said = String::from_utf8_lossy(&said);
                        return Err(format!("{path} answered {status}: {said}").into());
                    }
                    written.push(Written { number, sent, answered: sent.elapsed() });
                }
            });
        }
        let mut all = Vec::with_capacity(changes);
        while let Some(written) = tasks.join_next().await {
            all.extend(written??);
        }
        Ok(all)
    }
}

/// A change that was made.
struct Written {
    number: usize,
    sent: Instant,
    answered: Duration,
}

#[derive(Deserialize)]
struct Head {
    metadata: Name,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

fn change_of(name: &str) -> Option<usize> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// A pod that is bound from the start.
fn bound(number: usize, node: usize) -> Value {
    let mut pod = pod(number);
    if let Some(name) = pod.pointer_mut("/metadata/name") {
        *name = format!("{PREFIX}{number:07}").into();
    }
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("nodeName".to_owned(), join::name(node).into());
    }
    pod
}
