//! Which events are told, and how: Kubernetes' own rules for its clients. Pure but for the time
//! passed in.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{Happening, Subject};

/// So many wordings of one happening are told apart; later ones are combined into one event.
const MOST_WORDINGS: usize = 10;
/// A happening that rests this long begins anew.
const WORDINGS_REST: Duration = Duration::from_secs(10 * 60);
/// Events about one object that are told at once.
const BURST: f64 = 25.0;
/// After a burst one more each five minutes.
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;
/// Happenings, objects and events remembered; beyond it all are forgotten and counted anew.
const MAX_REMEMBERED: usize = 4_096;

/// What makes two events the same one: all similar ones share an event of no wording.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) subject: Subject,
    wording: Option<String>,
}

/// An event to be written.
pub(super) struct Told {
    pub(super) identity: Identity,
    pub(super) message: String,
}

/// An event that was written.
pub(super) struct Written {
    pub(super) event_name: String,
    pub(super) count: i32,
}

struct Wordings {
    known: HashSet<String>,
    newest: Instant,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// Remembers what was told.
#[derive(Default)]
pub(super) struct Correlator {
    wordings: HashMap<Subject, Wordings>,
    /// By component and object.
    buckets: HashMap<(&'static str, String), Bucket>,
    written: HashMap<Identity, Written>,
}

impl Correlator {
    /// Whether an event is told, and in which words.
    pub(super) fn judge(&mut self, happening: Happening, now: Instant) -> Option<Told> {
        let Happening { subject, message } = happening;
        let combined = self.is_combined(&subject, &message, now);
        if !self.may_speak(&subject, now) {
            return None;
        }
        Some(if combined {
            let message = format!("(combined from similar events): {message}");
            Told { identity: Identity { subject, wording: None }, message }
        } else {
            Told { identity: Identity { subject, wording: Some(message.clone()) }, message }
        })
    }

    fn is_combined(&mut self, subject: &Subject, message: &str, now: Instant) -> bool {
        bound(&mut self.wordings);
        let begin = || Wordings { known: HashSet::new(), newest: now };
        let wordings = self.wordings.entry(subject.clone()).or_insert_with(begin);
        if now.duration_since(wordings.newest) > WORDINGS_REST {
            wordings.known.clear();
        }
        wordings.newest = now;
        if wordings.known.len() < MOST_WORDINGS {
            wordings.known.insert(message.to_owned());
        }
        !wordings.known.contains(message)
    }

    fn may_speak(&mut self, subject: &Subject, now: Instant) -> bool {
        bound(&mut self.buckets);
        let about = (subject.component, format!("{}/{}", subject.kind, subject.uid));
        let bucket = self.buckets.entry(about).or_insert(Bucket { tokens: BURST, filled: now });
        let passed = now.duration_since(bucket.filled).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * REFILL_PER_SECOND).min(BURST);
        bucket.filled = now;
        let may = bucket.tokens >= 1.0;
        if may {
            bucket.tokens -= 1.0;
        }
        may
    }

    /// The event of this identity, when it was written before.
    pub(super) fn written(&mut self, identity: &Identity) -> Option<&mut Written> {
        self.written.get_mut(identity)
    }

    pub(super) fn remember(&mut self, identity: Identity, event_name: String) {
        bound(&mut self.written);
        self.written.insert(identity, Written { event_name, count: 1 });
    }
}

fn bound<K, V>(remembered: &mut HashMap<K, V>) {
    if remembered.len() >= MAX_REMEMBERED {
        remembered.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Severity;

    fn happening(uid: &str, message: &str) -> Happening {
        let subject = Subject {
            component: "test",
            severity: Severity::Normal,
            reason: "Tested",
            kind: "Pod".into(),
            api_version: "v1".into(),
            namespace: "ns".into(),
            name: uid.into(),
            uid: uid.into(),
        };
        Happening { subject, message: message.into() }
    }

    #[test]
    fn many_similar_events_become_one_and_then_none() {
        let (mut correlator, now) = (Correlator::default(), Instant::now());
        let told: Vec<_> = (0..500)
            .filter_map(|pod| correlator.judge(happening("set", &format!("pod {pod}")), now))
            .collect();
        assert_eq!(told.len(), 25, "then the object has said enough");
        let identities: HashSet<_> = told.iter().map(|told| told.identity.clone()).collect();
        assert_eq!(identities.len(), 11, "ten by themselves, the others combined");
        assert_eq!(told[24].message, "(combined from similar events): pod 24");
        assert!(correlator.judge(happening("other", "pod 1"), now).is_some());
        let later = now + Duration::from_secs(301);
        assert!(correlator.judge(happening("set", "pod 1"), later).is_some());
        assert!(correlator.judge(happening("set", "pod 1"), later).is_none());
    }

    #[test]
    fn the_same_words_are_one_event() {
        let (mut correlator, now) = (Correlator::default(), Instant::now());
        let first = correlator.judge(happening("pod", "no room"), now).unwrap().identity;
        assert!(correlator.written(&first).is_none());
        correlator.remember(first.clone(), "pod.1".into());
        let again = correlator.judge(happening("pod", "no room"), now).unwrap().identity;
        assert_eq!(again, first);
        assert_eq!(correlator.written(&again).unwrap().event_name, "pod.1");
    }
}
