//! The pool's records as they are shown on this node: the cloud's, but for endpoints of which the node knows better.
//!
//! The cloud's own stay as they were signed: their digest is what heartbeats carry. A second set is there only while
//! something differs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use toono_neighbours::{Standing, View, Word, judge};
use toono_net::Cidr;
use toono_wire::pool::{EndpointRecord, Records, Touched};

/// What is seen of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) standing: Standing,
    pub(super) word: Option<Word>,
    /// Where its pods are.
    pub(super) pods: Vec<Cidr>,
}

/// All that is seen, and what is shown by that.
#[derive(Debug, Default)]
pub(super) struct Shown {
    sights: BTreeMap<Arc<str>, Sight>,
    is_cut_off: bool,
    /// Keys of the records that differ.
    differing: BTreeSet<Arc<str>>,
    records: Option<Records>,
}

impl Shown {
    /// The records to be shown in place of the cloud's; none while nothing differs.
    pub(super) fn records(&self) -> Option<&Records> {
        self.records.as_ref()
    }

    pub(super) fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    /// The cloud's records have changed.
    pub(super) fn follow(&mut self, signed: &Records, touched: &[Touched]) {
        for touched in touched {
            match touched {
                Touched::All => {
                    self.differing.clear();
                    self.records = None;
                    self.look_at_all(signed, |_| true);
                }
                Touched::Keys(keys) => {
                    for key in keys {
                        self.look_at(signed, key);
                    }
                }
            }
        }
        self.tidy();
    }

    /// The cloud can be asked, or cannot. The records that are shown otherwise by that.
    pub(super) fn cut_off(&mut self, signed: &Records, is_cut_off: bool) -> Vec<Arc<str>> {
        if std::mem::replace(&mut self.is_cut_off, is_cut_off) == is_cut_off {
            return Vec::new();
        }
        let changed = self.look_at_all(signed, |_| true);
        self.tidy();
        changed
    }

    /// Something else is seen of a node. The records that are shown otherwise by that.
    pub(super) fn see(
        &mut self,
        signed: &Records,
        node: &str,
        sight: Option<Sight>,
    ) -> Vec<Arc<str>> {
        let known = match &sight {
            Some(sight) => self.sights.insert(node.into(), sight.clone()),
            None => self.sights.remove(node),
        };
        if known == sight {
            return Vec::new();
        }
        let changed = self.look_at_all(signed, |text| text.contains(node));
        self.tidy();
        changed
    }

    fn look_at_all(&mut self, signed: &Records, wanted: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        if self.sights.is_empty() && self.differing.is_empty() {
            return Vec::new();
        }
        let endpoints = signed.below("endpoint/").filter(|(_, text)| wanted(text));
        let keys: Vec<Arc<str>> = endpoints.map(|(key, _)| key.clone()).collect();
        keys.into_iter().filter(|key| self.look_at(signed, key)).collect()
    }

    /// Shows one record as it is to be. Whether it was shown otherwise.
    fn look_at(&mut self, signed: &Records, key: &Arc<str>) -> bool {
        let text = signed.get(key);
        let judged = text.and_then(|text| self.judged(key, text));
        if judged.is_none() && self.records.is_none() {
            return false;
        }
        match &judged {
            Some(_) => self.differing.insert(key.clone()),
            None => self.differing.remove(key),
        };
        let shown = self.records.get_or_insert_with(|| signed.clone());
        let text = judged.as_deref().or(text.map(|text| &**text));
        match text {
            Some(text) => shown.put(key, text).is_some(),
            None => shown.remove(key).is_some(),
        }
    }

    fn judged(&self, key: &str, text: &str) -> Option<String> {
        let address = key.strip_prefix("endpoint/")?.rsplit_once('/')?.1.parse().ok()?;
        if self.sights.is_empty() {
            return None;
        }
        let record: EndpointRecord = serde_json::from_str(text).ok()?;
        let sight = self.sights.get(&*record.node)?;
        let view = View {
            standing: sight.standing,
            word: sight.word.as_ref(),
            is_pod: sight.pods.iter().any(|cidr| cidr.contains(address)),
            is_cut_off: self.is_cut_off,
        };
        serde_json::to_string(&judge(&record, address, &view)?).ok()
    }

    fn tidy(&mut self) {
        if self.differing.is_empty() {
            self.records = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(standing: Standing, ready: &[&str]) -> Sight {
        let word = Word::new(ready.iter().map(|it| it.parse().unwrap()).collect());
        Sight { standing, word, pods: vec!["10.244.1.0/24".parse().unwrap()] }
    }

    #[test]
    fn what_is_seen_is_shown_and_the_clouds_word_stays_as_it_was() {
        let (mut shown, mut signed) = (Shown::default(), Records::default());
        let (a, b) = ("endpoint/s/web/10.244.1.2", "endpoint/s/web/10.244.2.2");
        signed.put(a, r#"{"node":"a"}"#);
        signed.put(b, r#"{"node":"b"}"#);
        let digest = signed.digest();
        assert!(shown.see(&signed, "a", Some(sight(Standing::Alive, &["10.244.1.2"]))).is_empty());
        assert!(shown.records().is_none(), "nothing differs");
        let changed = shown.see(&signed, "a", Some(sight(Standing::Dead, &[])));
        assert_eq!(changed, [Arc::from(a)]);
        let text = |shown: &Shown, key| shown.records().unwrap().get(key).unwrap().to_string();
        assert_eq!(text(&shown, a), r#"{"node":"a","unready":true,"silent":true}"#);
        assert_eq!((text(&shown, b), signed.digest()), (r#"{"node":"b"}"#.to_owned(), digest));
        // The cloud says something else meanwhile.
        let key = signed.put(a, r#"{"node":"a","zone":"z"}"#).unwrap();
        shown.follow(&signed, &[Touched::Keys(vec![key])]);
        assert_eq!(text(&shown, a), r#"{"node":"a","zone":"z","unready":true,"silent":true}"#);
        let key = signed.remove(b).unwrap();
        shown.follow(&signed, &[Touched::Keys(vec![key])]);
        assert!(shown.records().unwrap().get(b).is_none());
        shown.follow(&signed, &[Touched::All]);
        assert_eq!(text(&shown, a), r#"{"node":"a","zone":"z","unready":true,"silent":true}"#);
        assert_eq!(shown.see(&signed, "a", None), [Arc::from(a)]);
        assert!(shown.records().is_none(), "nothing differs any more");
        // What the cloud saw last counts until it cannot be asked.
        signed.put(a, r#"{"node":"a","unready":true}"#);
        assert!(shown.see(&signed, "a", Some(sight(Standing::Alive, &["10.244.1.2"]))).is_empty());
        assert_eq!(shown.cut_off(&signed, true), [Arc::from(a)]);
        assert_eq!(text(&shown, a), r#"{"node":"a"}"#);
        assert_eq!(shown.cut_off(&signed, false), [Arc::from(a)]);
        assert!(shown.records().is_none());
    }
}
