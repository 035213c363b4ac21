//! What an endpoint's record is to say here, by what is seen of its node. Pure, and decides nothing of which
//! endpoints there are.

use std::net::IpAddr;

use toono_wire::pool::EndpointRecord;

use crate::{member::Standing, word::Word};

/// What is seen of the node that an endpoint is on.
#[derive(Debug, Clone, Copy)]
pub struct View<'v> {
    /// Of the node.
    pub standing: Standing,
    /// What it says of its pods, if that is not older than what the cloud says.
    pub word: Option<&'v Word>,
    /// Whether the endpoint's address is one of the node's pods alone; several pods may be at the node's own.
    pub is_pod: bool,
    /// The cloud cannot be asked, so that what it said last may be old.
    pub is_cut_off: bool,
}

/// The record as it is to be here; none where the cloud's word stands.
#[must_use]
pub fn judge(record: &EndpointRecord, address: IpAddr, view: &View<'_>) -> Option<EndpointRecord> {
    let unready = || EndpointRecord { is_unready: true, still_serves: false, ..record.clone() };
    let is_used = !record.is_unready || record.still_serves;
    match view.standing {
        Standing::Unknown => None,
        Standing::Dead => is_used.then(|| EndpointRecord { is_silent: true, ..unready() }),
        Standing::Alive => {
            let word = view.word.filter(|_| view.is_pod)?;
            if !word.is_ready(address) {
                return (!record.is_unready).then(unready);
            }
            // What the cloud ends stays so.
            let is_back = view.is_cut_off && record.is_unready && !record.is_terminating;
            let ready = EndpointRecord { is_unready: false, still_serves: false, ..record.clone() };
            is_back.then_some(ready)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `r` ready, `u` unready, `t` terminating and still serving, `s` silent; none where it stays.
    fn judged(record: &str, standing: Standing, word: Option<bool>, cut: bool) -> Option<String> {
        let of = |text: &str| EndpointRecord {
            is_unready: text != "r",
            still_serves: text == "t",
            is_terminating: text == "t",
            ..EndpointRecord::default()
        };
        let address: IpAddr = [10, 244, 0, 2].into();
        let word = word.map(|ready| Word::new(ready.then_some(address).into_iter().collect()));
        let word = word.flatten();
        let view = View { standing, word: word.as_ref(), is_pod: true, is_cut_off: cut };
        let now = judge(&of(record), address, &view)?;
        Some(match (now.is_unready, now.still_serves, now.is_silent) {
            (false, ..) => "r".to_owned(),
            (true, true, _) => "t".to_owned(),
            (true, false, false) => "u".to_owned(),
            (true, false, true) => "s".to_owned(),
        })
    }

    #[test]
    fn a_node_is_believed_about_its_pods_and_the_dead_have_none() {
        use Standing::{Alive, Dead, Unknown};
        for (record, standing, word, cut, expected) in [
            ("r", Unknown, None, true, None),
            ("r", Dead, Some(true), false, Some("s")),
            ("t", Dead, None, false, Some("s")),
            ("u", Dead, None, true, None),
            ("r", Alive, None, true, None),
            ("r", Alive, Some(true), false, None),
            ("r", Alive, Some(false), false, Some("u")),
            ("t", Alive, Some(false), false, None),
            ("u", Alive, Some(true), false, None),
            ("u", Alive, Some(true), true, Some("r")),
            ("t", Alive, Some(true), true, None),
        ] {
            let found = judged(record, standing, word, cut);
            assert_eq!(found.as_deref(), expected, "{record} {standing:?} {word:?} {cut}");
        }
    }
}
