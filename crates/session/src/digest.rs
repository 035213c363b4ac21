//! Digests of what nodes are to know, by which the two ends see whether they agree: computed, never sent for.
//!
//! They must come out the same at every server, in every version and on every node, so they are specified,
//! in `docs/protocol.md`, with vectors. They find mistakes, not forgers: 32 bits are no proof of anything.

use std::collections::BTreeMap;

use ring::digest::{Context, SHA256};
use serde::Deserialize;
use serde_json::value::RawValue;
use toono_wire::referent::Referent;

/// What is hashed for a pod begins with this, as no other input of the cluster's does.
const POD_DOMAIN: &[u8] = b"toono pod";
/// The same for a referent.
const REFERENT_DOMAIN: &[u8] = b"toono referent";
/// Stands for a `spec` that a pod does not have.
const NO_SPEC: &str = "{}";
/// The length of what is not there.
const ABSENT: u32 = u32::MAX;

/// What of a pod concerns its node: not its status, nor who wrote what when.
#[derive(Debug, Clone, Default)]
pub struct PodFacts<'a> {
    /// `metadata.uid`.
    pub uid: &'a str,
    /// The JSON text of `spec`, as the API has it.
    pub spec: &'a str,
    /// `metadata.deletionTimestamp`.
    pub deletion_timestamp: Option<&'a str>,
    /// `metadata.deletionGracePeriodSeconds`.
    pub deletion_grace_period_seconds: Option<i64>,
    /// `metadata.labels`, in any order.
    pub labels: Vec<(&'a str, &'a str)>,
    /// `metadata.annotations`, in any order.
    pub annotations: Vec<(&'a str, &'a str)>,
    /// What others state of the pod's readiness: [`gates`].
    pub gates: Vec<(String, String)>,
}

/// What a pod's status states of the conditions that its `spec.readinessGates` name, in their order: types and
/// statuses. It is the one part of a status that the pod's node does not know by itself.
#[must_use]
pub fn gates(spec: &str, status: Option<&RawValue>) -> Vec<(String, String)> {
    #[derive(Deserialize)]
    struct Spec {
        #[serde(rename = "readinessGates", default)]
        gates: Option<Vec<Gate>>,
    }
    #[derive(Deserialize)]
    struct Gate {
        #[serde(rename = "conditionType")]
        kind: String,
    }
    #[derive(Deserialize)]
    struct Status {
        #[serde(default)]
        conditions: Option<Vec<Condition>>,
    }
    #[derive(Deserialize)]
    struct Condition {
        r#type: String,
        status: String,
    }
    // Of a million pods few have any, and a server reads them all.
    if !spec.contains("readinessGates") {
        return Vec::new();
    }
    let Ok(Spec { gates: Some(gates) }) = serde_json::from_str(spec) else { return Vec::new() };
    let status = status.and_then(|status| serde_json::from_str::<Status>(status.get()).ok());
    let conditions = status.and_then(|status| status.conditions).unwrap_or_default();
    let stated = |gate: Gate| {
        let found = conditions.iter().find(|it| it.r#type == gate.kind)?;
        Some((gate.kind, found.status.clone()))
    };
    gates.into_iter().filter_map(stated).collect()
}

/// The digest of one pod's [`PodFacts`]. Another one means another pod, or a change that its node must hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodDigest(pub u64);

/// The digest of a ConfigMap or Secret, without whatever its pods cannot see. Another one means another object, or
/// a change that nodes whose pods reference it must hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReferentDigest(pub u64);

/// What counts in a bundle: the first four bytes of its digest are added.
pub trait Counted {
    /// Its share of the sum.
    fn share(self) -> u32;
}

impl Counted for PodDigest {
    fn share(self) -> u32 {
        first_half(self.0)
    }
}

impl Counted for ReferentDigest {
    fn share(self) -> u32 {
        first_half(self.0)
    }
}

fn first_half(digest: u64) -> u32 {
    u32::try_from(digest >> 32).unwrap_or(0)
}

/// The digest of all pods of a node, and of what they reference: what heartbeats and bundles carry. It is a sum,
/// so it is kept up with a change of one part without looking at the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BundleDigest(pub u32);

/// A `v1.Pod`, as far as its digest goes.
#[derive(Deserialize)]
struct PodJson<'a> {
    #[serde(default)]
    metadata: MetaJson,
    #[serde(borrow, default)]
    spec: Option<&'a RawValue>,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct MetaJson {
    uid: String,
    deletion_timestamp: Option<String>,
    deletion_grace_period_seconds: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

impl PodDigest {
    /// Of a `v1.Pod` as the API has it.
    ///
    /// # Errors
    /// When the text is no JSON of a pod.
    pub fn of_json(pod: &str) -> Result<Self, serde_json::Error> {
        let PodJson { metadata, spec, status } = serde_json::from_str(pod)?;
        let spec = spec.map_or(NO_SPEC, RawValue::get);
        Ok(Self::of(PodFacts {
            uid: &metadata.uid,
            spec,
            deletion_timestamp: metadata.deletion_timestamp.as_deref(),
            deletion_grace_period_seconds: metadata.deletion_grace_period_seconds,
            labels: borrowed(&metadata.labels),
            annotations: borrowed(&metadata.annotations),
            gates: gates(spec, status),
        }))
    }

    /// Computes it.
    #[must_use]
    pub fn of(mut pod: PodFacts<'_>) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(POD_DOMAIN);
        text(&mut hash, Some(pod.uid));
        text(&mut hash, Some(pod.spec));
        text(&mut hash, pod.deletion_timestamp);
        let grace = pod.deletion_grace_period_seconds.map(|seconds| seconds.to_string());
        text(&mut hash, grace.as_deref());
        for pairs in [&mut pod.labels, &mut pod.annotations] {
            pairs.sort_unstable();
            length(&mut hash, pairs.len());
            for (key, value) in pairs {
                text(&mut hash, Some(key));
                text(&mut hash, Some(value));
            }
        }
        if !pod.gates.is_empty() {
            length(&mut hash, pod.gates.len());
        }
        for (kind, status) in &pod.gates {
            text(&mut hash, Some(kind));
            text(&mut hash, Some(status));
        }
        Self(finished(hash))
    }
}

impl ReferentDigest {
    /// Computes it.
    ///
    /// # Errors
    /// When `data` or `binaryData` is no map of texts.
    pub fn of(referent: &Referent<'_>) -> Result<Self, serde_json::Error> {
        let mut hash = Context::new(&SHA256);
        hash.update(REFERENT_DOMAIN);
        text(&mut hash, Some(referent.kind.plural()));
        text(&mut hash, Some(&referent.namespace));
        text(&mut hash, Some(&referent.name));
        for map in [referent.data, referent.binary_data] {
            let pairs: BTreeMap<String, String> =
                map.map_or_else(|| Ok(BTreeMap::new()), |map| serde_json::from_str(map.get()))?;
            length(&mut hash, pairs.len());
            for (key, value) in &pairs {
                text(&mut hash, Some(key));
                text(&mut hash, Some(value));
            }
        }
        text(&mut hash, referent.r#type.as_deref());
        text(&mut hash, referent.immutable.map(|it| if it { "true" } else { "false" }));
        Ok(Self(finished(hash)))
    }
}

impl BundleDigest {
    /// With one more pod or referent.
    #[must_use]
    pub fn with(self, part: impl Counted) -> Self {
        Self(self.0.wrapping_add(part.share()))
    }

    /// Without one that was in it.
    #[must_use]
    pub fn without(self, part: impl Counted) -> Self {
        Self(self.0.wrapping_sub(part.share()))
    }
}

/// What a node's bundle should be, as a server knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Desired {
    /// The revision of the newest change that concerns the node since this server started; 0 for none.
    pub changed: u64,
    /// The newest revision that the server has heard of.
    pub newest: u64,
    /// The digest of all that the node should hold.
    pub digest: BundleDigest,
}

/// What a node holds, compared with what it should hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// All that it should, as far as is known.
    Right,
    /// Something changed since then; the newest change is of this revision.
    Behind(u64),
    /// Something else, and it is not known since when.
    Differs,
}

impl Desired {
    /// How the bundle that a node holds compares with it.
    #[must_use]
    pub fn standing(&self, revision: u64, digest: BundleDigest) -> Standing {
        if revision == 0 {
            // Nothing is whole there, so its digest is of nothing.
            Standing::Behind(self.newest.max(1))
        } else if self.changed > revision {
            // Also when the digests agree: of all changes there may ever be, some leave 32 bits as they were.
            Standing::Behind(self.changed)
        } else if self.digest == digest {
            Standing::Right
        } else {
            Standing::Differs
        }
    }
}

impl<C: Counted> FromIterator<C> for BundleDigest {
    fn from_iter<I: IntoIterator<Item = C>>(parts: I) -> Self {
        parts.into_iter().fold(Self::default(), Self::with)
    }
}

/// The first eight bytes.
fn finished(hash: Context) -> u64 {
    hash.finish().as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

fn borrowed(pairs: &Option<BTreeMap<String, String>>) -> Vec<(&str, &str)> {
    pairs.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// Lengths go first, so that no two different pods make one input.
fn length(hash: &mut Context, length: usize) {
    hash.update(&u32::try_from(length).unwrap_or(ABSENT - 1).to_be_bytes());
}

fn text(hash: &mut Context, text: Option<&str>) {
    match text {
        Some(text) => {
            length(hash, text.len());
            hash.update(text.as_bytes());
        }
        None => hash.update(&ABSENT.to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> PodFacts<'static> {
        PodFacts { uid: "u", spec: "{}", labels: vec![("a", "b")], ..PodFacts::default() }
    }

    #[test]
    fn every_fact_counts_and_only_the_order_of_pairs_does_not() {
        let others = [
            facts(),
            PodFacts { uid: "u{", spec: "}", ..facts() },
            PodFacts { spec: "{ }", ..facts() },
            PodFacts { deletion_timestamp: Some(""), ..facts() },
            PodFacts { deletion_grace_period_seconds: Some(0), ..facts() },
            PodFacts { labels: vec![("a", "b"), ("c", "d")], ..facts() },
            PodFacts { labels: vec![("ab", "")], ..facts() },
            PodFacts { labels: Vec::new(), annotations: vec![("a", "b")], ..facts() },
        ];
        let mut digests: Vec<u64> = others.into_iter().map(|pod| PodDigest::of(pod).0).collect();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), 8);
        let turned = PodFacts { labels: vec![("c", "d"), ("a", "b")], ..facts() };
        let sorted = PodFacts { labels: vec![("a", "b"), ("c", "d")], ..facts() };
        assert_eq!(PodDigest::of(turned), PodDigest::of(sorted));
    }

    #[test]
    fn json_is_taken_as_it_is_written_and_the_status_is_nothing() {
        let of = |text: &str| PodDigest::of_json(text).unwrap();
        let pod = r#"{"metadata":{"uid":"u","name":"n","labels":{"a":"b"}},"spec":{},"status":{}}"#;
        assert_eq!(of(pod), PodDigest::of(facts()));
        assert_eq!(of(&pod.replace(r#""status":{}"#, r#""status":{"phase":"Running"}"#)), of(pod));
        assert_ne!(of(&pod.replace(r#""spec":{}"#, r#""spec":{ }"#)), of(pod));
        assert_eq!(of("{}"), PodDigest::of(PodFacts { spec: "{}", ..PodFacts::default() }));
        assert!(PodDigest::of_json("[").is_err());
    }

    #[test]
    fn of_a_status_only_what_opens_gates_counts() {
        let of = |gates: &str, conditions: &str| {
            let text = format!(
                r#"{{"metadata":{{"uid":"u"}},"spec":{{{gates}}},"status":{{"conditions":[{conditions}]}}}}"#
            );
            PodDigest::of_json(&text).unwrap().0
        };
        let gates = r#""readinessGates":[{"conditionType":"a/b"}]"#;
        let (open, closed) =
            (r#"{"type":"a/b","status":"True"}"#, r#"{"type":"a/b","status":"False"}"#);
        let other = r#"{"type":"Ready","status":"True"}"#;
        assert_ne!(of(gates, open), of(gates, closed));
        assert_ne!(of(gates, open), of(gates, ""));
        assert_eq!(of(gates, other), of(gates, ""));
        assert_eq!(of("", open), of("", closed));
    }

    #[test]
    fn every_fact_of_a_referent_counts_and_the_order_of_keys_does_not() {
        let of = |text: &str| ReferentDigest::of(&serde_json::from_str(text).unwrap()).unwrap().0;
        let base = r#"{"kind":"ConfigMap","namespace":"d","name":"n","data":{"a":"b","c":"d"}}"#;
        let turned =
            r#"{"name":"n","namespace":"d","kind":"ConfigMap","data":{"c":"d", "a":"\u0062"}}"#;
        assert_eq!(of(base), of(turned));
        let data = r#""data":{"a":"b","c":"d"}"#;
        let others = [
            base.to_owned(),
            base.replace("ConfigMap", "Secret"),
            base.replace(r#""namespace":"d""#, r#""namespace":"e""#),
            base.replace(r#""name":"n""#, r#""name":"m""#),
            base.replace(data, r#""data":{"a":"b"}"#),
            base.replace(data, r#""binaryData":{"a":"b","c":"d"}"#),
            base.replace(data, &format!(r#"{data},"type":"Opaque""#)),
            base.replace(data, &format!(r#"{data},"immutable":true"#)),
            base.replace(data, &format!(r#"{data},"immutable":false"#)),
        ];
        let mut digests: Vec<u64> = others.iter().map(|text| of(text)).collect();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), others.len());
        let wrong: Referent<'_> =
            serde_json::from_str(r#"{"kind":"Secret","namespace":"d","name":"n","data":[]}"#)
                .unwrap();
        assert!(ReferentDigest::of(&wrong).is_err());
    }

    #[test]
    fn a_sum_forgets_what_is_taken_away_in_any_order() {
        let [a, b, c] = [u64::MAX, 7 << 32, 0x8000_0000_1234_5678].map(PodDigest);
        let all: BundleDigest = [a, b, c].into_iter().collect();
        assert_eq!(all.without(b).without(a).without(c), BundleDigest::default());
        assert_eq!(all.without(c), BundleDigest::default().with(b).with(a));
    }
}
