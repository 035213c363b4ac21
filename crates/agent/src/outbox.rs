//! What is to be told to the cloud: collected, sent in batches, kept until it is acknowledged.
//!
//! It knows only the newest status of each pod, so a node that was offline for a week sends each
//! pod once.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::value::RawValue;
use tokio::sync::Notify;
use toono_wire::{
    path,
    report::{EventReport, PodReport, Report, ReportReply},
};

use crate::{cloud::Cloud, join::chain, retry::Retry};

/// How long a change waits for others: the changes of one pod's start come within this.
const COALESCE: Duration = Duration::from_millis(100);
/// Events kept while the cloud is away. They help a person to see what happened, and the newest
/// help most.
const MAX_EVENTS: usize = 1000;

/// Shared by all who have something to tell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbox {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    wake: Notify,
    /// The cloud answered a heartbeat: a retry need not wait any longer.
    online: Notify,
}

#[derive(Debug, Default)]
struct State {
    node: Option<serde_json::Value>,
    node_dirty: bool,
    pods: BTreeMap<String, Known>,
    dirty: BTreeSet<String>,
    events: VecDeque<EventReport>,
    acknowledged: u64,
}

/// The newest of one pod. The status stays text: parsed it would take some ten times the memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Known {
    namespace: String,
    name: String,
    status: String,
    gone: bool,
}

impl Outbox {
    /// The node's status, when it differs from the last.
    pub(crate) fn node(&self, status: serde_json::Value) {
        let mut state = self.state();
        if state.node.as_ref() != Some(&status) {
            state.node = Some(status);
            state.node_dirty = true;
            self.inner.wake.notify_one();
        }
    }

    /// A pod's status, as JSON, when it differs from the last; `gone` once nothing of it is left.
    pub(crate) fn pod(&self, uid: &str, namespace: &str, name: &str, status: String, gone: bool) {
        let known = Known { namespace: namespace.to_owned(), name: name.to_owned(), status, gone };
        let mut state = self.state();
        if state.pods.get(uid) != Some(&known) {
            state.pods.insert(uid.to_owned(), known);
            state.dirty.insert(uid.to_owned());
            self.inner.wake.notify_one();
        }
    }

    /// Events, oldest first.
    pub(crate) fn events(&self, events: Vec<EventReport>) {
        if events.is_empty() {
            return;
        }
        let mut state = self.state();
        state.events.extend(events);
        state.trim();
        self.inner.wake.notify_one();
    }

    /// The cloud has lost what it was told.
    pub(crate) fn resend_all(&self) {
        let mut state = self.state();
        state.node_dirty = state.node.is_some();
        state.dirty = state.pods.keys().cloned().collect();
        self.inner.wake.notify_one();
    }

    /// The cloud can be reached.
    pub(crate) fn online(&self) {
        self.inner.online.notify_waiters();
    }

    /// The digest of what the cloud has acknowledged; 0 before the first.
    pub(crate) fn digest(&self) -> u64 {
        self.state().acknowledged
    }

    /// Sends, for as long as the agent lives.
    pub(crate) async fn run(self, cloud: Cloud) {
        let mut retry = Retry::default();
        loop {
            if !self.state().has_news() {
                self.inner.wake.notified().await;
            }
            tokio::time::sleep(COALESCE).await;
            let Some(report) = self.state().take() else { continue };
            let body = serde_json::to_vec(&report).unwrap_or_default();
            match cloud.post::<ReportReply>(path::REPORT, body).await {
                Ok(reply) => {
                    let complete = reply.retry.is_empty();
                    self.state().acknowledge(&report, &reply);
                    if complete {
                        retry.reset();
                    } else {
                        tokio::time::sleep(retry.delay()).await;
                    }
                }
                Err(error) => {
                    self.state().put_back(report);
                    let delay = retry.delay();
                    tracing::debug!(error = chain(&error), ?delay, "cannot report");
                    tokio::select! {
                        () = tokio::time::sleep(delay) => {}
                        () = self.inner.online.notified() => {}
                    }
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_news(&self) -> bool {
        self.node_dirty || !self.dirty.is_empty() || !self.events.is_empty()
    }

    /// Takes all that is new. What is not acknowledged comes back by [`Self::put_back`].
    fn take(&mut self) -> Option<Report> {
        if !self.has_news() {
            return None;
        }
        let dirty = std::mem::take(&mut self.dirty);
        let pods = dirty.into_iter().filter_map(|uid| {
            let known = self.pods.get(&uid)?;
            let status = serde_json::from_str(&known.status).ok()?;
            let (namespace, name) = (known.namespace.clone(), known.name.clone());
            Some(PodReport { namespace, name, uid, status, gone: known.gone })
        });
        let pods = pods.collect();
        let node = if std::mem::take(&mut self.node_dirty) { self.node.clone() } else { None };
        Some(Report { digest: self.digest(), node, pods, events: self.events.drain(..).collect() })
    }

    fn put_back(&mut self, report: Report) {
        self.node_dirty |= report.node.is_some();
        self.dirty.extend(report.pods.into_iter().map(|pod| pod.uid));
        for event in report.events.into_iter().rev() {
            self.events.push_front(event);
        }
        self.trim();
    }

    fn acknowledge(&mut self, report: &Report, reply: &ReportReply) {
        for uid in &reply.gone {
            self.pods.remove(uid);
        }
        for pod in report.pods.iter().filter(|pod| pod.gone && !reply.retry.contains(&pod.uid)) {
            self.pods.remove(&pod.uid);
        }
        self.dirty.extend(reply.retry.iter().filter(|uid| self.pods.contains_key(*uid)).cloned());
        if reply.retry.is_empty() {
            self.acknowledged = report.digest;
        }
    }

    /// Of everything that is told, whether it is sent now or was before; never 0.
    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.node.as_ref().map(ToString::to_string).hash(&mut hasher);
        self.pods.hash(&mut hasher);
        hasher.finish().max(1)
    }

    fn trim(&mut self) {
        let excess = self.events.len().saturating_sub(MAX_EVENTS);
        self.events.drain(..excess);
    }
}

/// A status as the text that [`Outbox::pod`] takes.
pub(crate) fn text(status: &k8s_openapi::api::core::v1::PodStatus) -> String {
    serde_json::value::to_raw_value(status)
        .map_or_else(|_| "{}".to_owned(), |raw: Box<RawValue>| raw.get().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: usize) -> EventReport {
        EventReport {
            namespace: "d".into(),
            pod: "p".into(),
            pod_uid: "u".into(),
            field_path: String::new(),
            kind: "Normal".into(),
            reason: "Started".into(),
            message: number.to_string(),
            at: String::new(),
        }
    }

    fn uids(report: &Report) -> Vec<&str> {
        report.pods.iter().map(|pod| pod.uid.as_str()).collect()
    }

    #[test]
    fn only_changes_are_sent_and_failures_come_back() {
        let outbox = Outbox::default();
        outbox.pod("a", "d", "pa", r#"{"phase":"Running"}"#.into(), false);
        outbox.pod("b", "d", "pb", r#"{"phase":"Pending"}"#.into(), false);
        outbox.events(vec![event(1), event(2)]);
        let report = outbox.state().take().unwrap();
        assert_eq!((uids(&report), report.events.len()), (vec!["a", "b"], 2));
        assert!(outbox.state().take().is_none());

        outbox.pod("b", "d", "pb", r#"{"phase":"Running"}"#.into(), false);
        outbox.events(vec![event(3)]);
        outbox.state().put_back(report);
        let report = outbox.state().take().unwrap();
        assert_eq!(uids(&report), ["a", "b"]);
        assert_eq!(report.pods[1].status["phase"], "Running", "the newest, once");
        let order: Vec<_> = report.events.iter().map(|it| it.message.as_str()).collect();
        assert_eq!(order, ["1", "2", "3"]);

        let reply = ReportReply { gone: vec![], retry: vec!["a".into()] };
        outbox.state().acknowledge(&report, &reply);
        assert_eq!(outbox.digest(), 0, "not in full");
        let report = outbox.state().take().unwrap();
        assert_eq!(uids(&report), ["a"]);
        outbox.state().acknowledge(&report, &ReportReply::default());
        assert_eq!(outbox.digest(), report.digest);
        outbox.pod("a", "d", "pa", r#"{"phase":"Running"}"#.into(), false);
        assert!(outbox.state().take().is_none(), "the same again is no news");
        outbox.resend_all();
        assert_eq!(uids(&outbox.state().take().unwrap()), ["a", "b"]);
    }

    #[test]
    fn a_pod_that_is_gone_is_told_until_it_is_heard() {
        let outbox = Outbox::default();
        outbox.pod("a", "d", "pa", "{}".into(), true);
        let report = outbox.state().take().unwrap();
        outbox.state().put_back(report);
        let report = outbox.state().take().unwrap();
        assert!(report.pods[0].gone);
        outbox.state().acknowledge(&report, &ReportReply::default());
        outbox.resend_all();
        assert!(outbox.state().take().is_none());
    }

    #[test]
    fn events_are_bounded_and_the_newest_stay() {
        let outbox = Outbox::default();
        outbox.events((0..MAX_EVENTS + 5).map(event).collect());
        let state = outbox.state();
        assert_eq!(state.events.len(), MAX_EVENTS);
        assert_eq!(state.events.back().unwrap().message, (MAX_EVENTS + 4).to_string());
    }
}
