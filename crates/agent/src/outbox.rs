//! What is to be told to the cloud: collected, sent in batches, kept until it is acknowledged.
//!
//! It knows only the newest status of each pod, so a node that was offline for a week sends each
//! pod once.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};
use toono_wire::{
    path,
    report::{EventReport, PodReport, Report, ReportReply},
};

use crate::{cloud::Cloud, join::chain, retry};

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
    /// Counts what was new.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    /// The last report failed, or there was none in this start: the next one waits until the cloud asks.
    waits: bool,
    /// It has asked since.
    asked: bool,
    /// A report is on its way.
    sending: bool,
    /// It may be lost: the link was away meanwhile.
    doubtful: bool,
    node: Option<serde_json::Value>,
    node_dirty: bool,
    pods: BTreeMap<String, Known>,
    dirty: BTreeSet<String>,
    events: VecDeque<EventReport>,
    acknowledged: u32,
    /// Pods that the API shows by mirrors: the uid of each one's mirror, once it has one.
    mirrored: BTreeMap<String, Option<String>>,
    /// Conditions that are told beside a pod's status, as JSON: what was answered to an offer.
    answers: BTreeMap<String, String>,
    /// Events of those that have none yet.
    held: VecDeque<EventReport>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            waits: true,
            asked: false,
            sending: false,
            doubtful: false,
            node: None,
            node_dirty: false,
            pods: BTreeMap::new(),
            dirty: BTreeSet::new(),
            events: VecDeque::new(),
            acknowledged: 0,
            mirrored: BTreeMap::new(),
            answers: BTreeMap::new(),
            held: VecDeque::new(),
        }
    }
}

/// The newest of one pod. The status stays text: parsed it would take some ten times the memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Known {
    namespace: String,
    name: String,
    status: String,
    gone: bool,
}

/// What of a pod's status says whether it can be reached, and where.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Reachable {
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
    conditions: Vec<Condition>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PodIp {
    ip: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
}

impl Reachable {
    fn is_ready(&self) -> bool {
        self.conditions.iter().any(|it| it.r#type == "Ready" && it.status == "True")
    }
}

impl Outbox {
    /// The node's status.
    pub(crate) fn node(&self, status: serde_json::Value) {
        let mut state = self.state();
        state.node = Some(status);
        state.node_dirty = true;
        self.inner.wake.notify_one();
    }

    /// Changes the node's status; `change` says whether it did, and only then it is sent.
    pub(crate) fn change_node(&self, change: impl FnOnce(&mut serde_json::Value) -> bool) {
        let mut state = self.state();
        if state.node.as_mut().is_some_and(change) {
            state.node_dirty = true;
            self.inner.wake.notify_one();
            self.inner.changes.send_modify(|count| *count += 1);
        }
    }

    /// A pod's status, as JSON, when it differs from the last; `gone` once nothing of it is left.
    pub(crate) fn pod(&self, uid: &str, namespace: &str, name: &str, status: String, gone: bool) {
        let known = Known { namespace: namespace.to_owned(), name: name.to_owned(), status, gone };
        let mut state = self.state();
        if state.pods.get(uid) != Some(&known) {
            state.pods.insert(uid.to_owned(), known);
            match state.mirrored.get(uid) {
                // The cloud need not hear of the end of what it has never heard of.
                Some(None) if gone => drop(state.pods.remove(uid)),
                Some(None) => {}
                _ => drop(state.dirty.insert(uid.to_owned())),
            }
            self.inner.wake.notify_one();
            self.inner.changes.send_modify(|count| *count += 1);
        }
    }

    /// Conditions to tell beside the status of a pod, which is called as the API calls it.
    pub(crate) fn answer(&self, uid: &str, conditions: Vec<serde_json::Value>) {
        let text = serde_json::Value::from(conditions).to_string();
        let mut state = self.state();
        let uid = state.own(uid);
        if state.answers.get(&uid) != Some(&text) {
            state.answers.insert(uid.clone(), text);
            if state.pods.contains_key(&uid) {
                state.dirty.insert(uid);
                self.inner.wake.notify_one();
            }
        }
    }

    /// Changes with every status that is new, of a pod or of the node.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// The newest status of a pod, as JSON.
    pub(crate) fn status_of(&self, uid: &str) -> Option<String> {
        self.state().pods.get(uid).map(|known| known.status.clone())
    }

    /// The addresses of the pods that are ready.
    pub(crate) fn ready_addresses(&self) -> BTreeSet<IpAddr> {
        let state = self.state();
        let known = state.pods.values().filter(|known| !known.gone);
        known
            .filter_map(|known| serde_json::from_str::<Reachable>(&known.status).ok())
            .filter(Reachable::is_ready)
            .flat_map(|status| status.pod_ips)
            .filter_map(|it| it.ip.parse().ok())
            .collect()
    }

    /// The newest status of the node.
    pub(crate) fn node_status(&self) -> Option<serde_json::Value> {
        self.state().node.clone()
    }

    /// Events, oldest first.
    pub(crate) fn events(&self, events: Vec<EventReport>) {
        if events.is_empty() {
            return;
        }
        let mut state = self.state();
        for event in events {
            state.add(event);
        }
        state.trim();
        self.inner.wake.notify_one();
    }

    /// A pod that the API will show by a mirror is not told of before there is one.
    pub(crate) fn hold(&self, uid: &str) {
        self.state().mirrored.entry(uid.to_owned()).or_default();
    }

    /// The API shows the pod by this mirror.
    pub(crate) fn release(&self, uid: &str, mirror: &str) {
        let mut state = self.state();
        let before = state.mirrored.insert(uid.to_owned(), Some(mirror.to_owned()));
        if before.flatten().as_deref() == Some(mirror) {
            return;
        }
        if state.pods.contains_key(uid) {
            state.dirty.insert(uid.to_owned());
        }
        for event in std::mem::take(&mut state.held) {
            state.add(event);
        }
        self.inner.wake.notify_one();
    }

    /// The cloud asks for all there is: it has lost what it was told, or it is this node's turn to tell.
    pub(crate) fn resend_all(&self) {
        let mut state = self.state();
        // Before the first acknowledgement everything is new anyway, or is on its way.
        if state.acknowledged != 0 {
            state.node_dirty = state.node.is_some();
            let told = |uid: &&String| !matches!(state.mirrored.get(*uid), Some(None));
            state.dirty = state.pods.keys().filter(told).cloned().collect();
        }
        state.asked = true;
        self.inner.wake.notify_one();
    }

    /// The digest of what the cloud has acknowledged; 0 before the first, and to be asked for a report.
    pub(crate) fn digest(&self) -> u32 {
        let state = self.state();
        if state.doubtful || state.waits && state.has_news() { 0 } else { state.acknowledged }
    }

    /// The link came back after a gap. Whether the digest says since then that there is something to tell, so
    /// that the cloud is best told now, not an interval later.
    pub(crate) fn link_is_back(&self) -> bool {
        let mut state = self.state();
        state.doubtful = state.sending;
        state.doubtful || state.waits && state.has_news()
    }

    /// Sends, for as long as the agent lives.
    pub(crate) async fn run(self, cloud: Cloud) {
        loop {
            self.until_due().await;
            tokio::time::sleep(COALESCE).await;
            let Some(report) = self.state().take() else { continue };
            let body = serde_json::to_vec(&report).unwrap_or_default();
            let sent = cloud.post::<ReportReply>(path::REPORT, body).await;
            let mut state = self.state();
            (state.sending, state.doubtful) = (false, false);
            // A report that the cloud took in part is as one that failed: the rest has its turn.
            state.waits = !sent.as_ref().is_ok_and(|reply| reply.retry.is_empty());
            match sent {
                Ok(reply) => {
                    // Whatever was asked meanwhile, this was the answer.
                    state.asked = false;
                    state.acknowledge(&report, &reply);
                }
                Err(error) => {
                    state.put_back(report);
                    tracing::debug!(error = chain(&error), "cannot report");
                }
            }
        }
    }

    /// Until there is something to tell, and it may be told.
    async fn until_due(&self) {
        let mut unasked = None;
        loop {
            let (due, news) = {
                let state = self.state();
                (state.is_due(), state.has_news())
            };
            if due {
                return;
            }
            if !news {
                unasked = None;
                self.inner.wake.notified().await;
                continue;
            }
            let until = *unasked.get_or_insert_with(|| Instant::now() + retry::unasked());
            if timeout_at(until, self.inner.wake.notified()).await.is_err() {
                return;
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

    fn is_due(&self) -> bool {
        self.has_news() && (!self.waits || self.asked)
    }

    /// Takes all that is new. What is not acknowledged comes back by [`Self::put_back`].
    fn take(&mut self) -> Option<Report> {
        if !self.has_news() {
            return None;
        }
        self.asked = false;
        self.sending = true;
        let dirty = std::mem::take(&mut self.dirty);
        let pods = dirty.into_iter().filter_map(|uid| {
            let known = self.pods.get(&uid)?;
            let status = self.told(&uid, &known.status)?;
            let (namespace, name) = (known.namespace.clone(), known.name.clone());
            let uid = self.mirrored.get(&uid).cloned().flatten().unwrap_or(uid);
            Some(PodReport { namespace, name, uid, status, gone: known.gone })
        });
        let pods = pods.collect();
        let node = if std::mem::take(&mut self.node_dirty) { self.node.clone() } else { None };
        Some(Report { digest: self.digest(), node, pods, events: self.events.drain(..).collect() })
    }

    /// A pod's status, with what was answered for it.
    fn told(&self, uid: &str, status: &str) -> Option<serde_json::Value> {
        let mut status: serde_json::Value = serde_json::from_str(status).ok()?;
        let answers = self.answers.get(uid);
        if let Some(answers) = answers.and_then(|text| serde_json::from_str(text).ok())
            && let serde_json::Value::Array(answers) = answers
            && let Some(fields) = status.as_object_mut()
        {
            let conditions = fields.entry("conditions").or_insert_with(|| Vec::<()>::new().into());
            conditions.as_array_mut()?.extend(answers);
        }
        Some(status)
    }

    fn put_back(&mut self, report: Report) {
        self.node_dirty |= report.node.is_some();
        let uids: Vec<String> = report.pods.iter().map(|pod| self.own(&pod.uid)).collect();
        self.dirty.extend(uids);
        for event in report.events.into_iter().rev() {
            self.events.push_front(event);
        }
        self.trim();
    }

    fn acknowledge(&mut self, report: &Report, reply: &ReportReply) {
        for uid in &reply.gone {
            // A mirror that is gone comes again.
            self.pods.remove(uid);
            self.answers.remove(uid);
        }
        for pod in report.pods.iter().filter(|pod| pod.gone && !reply.retry.contains(&pod.uid)) {
            let uid = self.own(&pod.uid);
            self.pods.remove(&uid);
            self.answers.remove(&uid);
            self.mirrored.remove(&uid);
        }
        let again: Vec<String> = reply.retry.iter().map(|uid| self.own(uid)).collect();
        self.dirty.extend(again.into_iter().filter(|uid| self.pods.contains_key(uid)));
        if reply.retry.is_empty() {
            self.acknowledged = report.digest;
        }
    }

    fn add(&mut self, mut event: EventReport) {
        match self.mirrored.get(&event.pod_uid) {
            Some(None) => return self.held.push_back(event),
            Some(Some(mirror)) => event.pod_uid.clone_from(mirror),
            None => {}
        }
        self.events.push_back(event);
    }

    /// The node's own name for a pod of the API.
    fn own(&self, uid: &str) -> String {
        let mirrored = self.mirrored.iter().find(|(_, mirror)| mirror.as_deref() == Some(uid));
        mirrored.map_or(uid, |(own, _)| own).to_owned()
    }

    /// Of everything that is told, whether it is sent now or was before; never 0.
    fn digest(&self) -> u32 {
        let mut hasher = DefaultHasher::new();
        self.node.as_ref().map(ToString::to_string).hash(&mut hasher);
        self.pods.hash(&mut hasher);
        self.answers.hash(&mut hasher);
        u32::try_from(hasher.finish() >> 32).unwrap_or(0).max(1)
    }

    fn trim(&mut self) {
        for events in [&mut self.events, &mut self.held] {
            let excess = events.len().saturating_sub(MAX_EVENTS);
            events.drain(..excess);
        }
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
        assert_eq!(outbox.state().acknowledged, 0, "not in full");
        let report = outbox.state().take().unwrap();
        assert_eq!(uids(&report), ["a"]);
        outbox.state().acknowledge(&report, &ReportReply::default());
        assert_eq!(outbox.state().acknowledged, report.digest);
        outbox.pod("a", "d", "pa", r#"{"phase":"Running"}"#.into(), false);
        assert!(outbox.state().take().is_none(), "the same again is no news");
        outbox.resend_all();
        assert_eq!(uids(&outbox.state().take().unwrap()), ["a", "b"]);
    }

    #[test]
    fn after_a_start_or_a_failure_the_cloud_says_when() {
        let outbox = Outbox::default();
        assert!(!outbox.state().is_due(), "there is nothing to tell");
        outbox.pod("a", "d", "pa", "{}".into(), false);
        assert!(!outbox.state().is_due() && outbox.digest() == 0);
        outbox.resend_all();
        assert!(outbox.state().is_due());
        let report = outbox.state().take().unwrap();
        outbox.state().waits = false;
        outbox.state().acknowledge(&report, &ReportReply::default());
        assert_eq!(outbox.digest(), report.digest);
        outbox.pod("b", "d", "pb", "{}".into(), false);
        assert!(outbox.state().is_due(), "in touch it tells what is new at once");
        assert_eq!(outbox.digest(), report.digest);
        let failed = outbox.state().take().unwrap();
        outbox.state().waits = true;
        outbox.state().put_back(failed);
        assert!(!outbox.state().is_due() && outbox.digest() == 0);
        outbox.resend_all();
        assert_eq!(uids(&outbox.state().take().unwrap()), ["a", "b"]);
        assert!(!outbox.state().is_due(), "that was one turn");
    }

    #[test]
    fn a_report_that_a_gap_may_have_swallowed_is_doubted() {
        let outbox = Outbox::default();
        assert!(!outbox.link_is_back(), "there is nothing to tell");
        outbox.state().waits = false;
        outbox.state().acknowledged = 7;
        outbox.pod("a", "d", "pa", "{}".into(), false);
        assert!(!outbox.link_is_back(), "it will be told at once");
        let report = outbox.state().take().unwrap();
        assert_eq!(outbox.digest(), 7);
        assert!(outbox.link_is_back());
        assert_eq!(outbox.digest(), 0);
        // The cloud's answer may come before the loss is noticed, and then holds for the next report.
        outbox.resend_all();
        let mut state = outbox.state();
        (state.sending, state.doubtful, state.waits) = (false, false, true);
        state.put_back(report);
        assert!(state.is_due());
    }

    #[test]
    fn a_mirrored_pod_is_told_as_its_mirror() {
        let outbox = Outbox::default();
        outbox.hold("a");
        outbox.pod("a", "d", "pa", "{}".into(), false);
        outbox.events(vec![EventReport { pod_uid: "a".into(), ..event(1) }]);
        assert!(outbox.state().take().is_none(), "there is nothing to tell it by");
        outbox.release("a", "m");
        let report = outbox.state().take().unwrap();
        assert_eq!((uids(&report), report.events[0].pod_uid.as_str()), (vec!["m"], "m"));
        outbox.state().put_back(report);
        let report = outbox.state().take().unwrap();
        let reply = ReportReply { gone: vec![], retry: vec!["m".into()] };
        outbox.state().acknowledge(&report, &reply);
        let report = outbox.state().take().unwrap();
        let reply = ReportReply { gone: vec!["m".into()], retry: vec![] };
        outbox.state().acknowledge(&report, &reply);
        outbox.release("a", "n");
        let report = outbox.state().take().unwrap();
        assert_eq!(uids(&report), ["n"], "the next mirror is told, too");
        outbox.state().acknowledge(&report, &ReportReply::default());
        outbox.pod("a", "d", "pa", "{}".into(), true);
        let report = outbox.state().take().unwrap();
        outbox.state().acknowledge(&report, &ReportReply::default());
        assert!(outbox.state().mirrored.is_empty() && outbox.state().pods.is_empty());
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
