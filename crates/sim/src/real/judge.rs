//! Whether what the API said of the nodes is true of their links. It computes, and knows no clock.

use std::{ops::Range, time::Duration};

use super::links::{Links, longest_gap};

/// A node that is not heard for so long is silent.
const GRACE: Duration = Duration::from_secs(40);
/// A node whose link is whole is heard within this: 10 s from one heartbeat to the next, and what it may spend on
/// finding out that HTTPS gets no answer either.
const HEARD: Duration = Duration::from_secs(15);
/// Between what the cloud knows and what a watch tells of it, on a busy machine.
const TOLD: Duration = Duration::from_secs(1);
/// A node is ready so soon after its link is whole, whatever was before; by a WebSocket where it gets no UDP.
const BACK: Duration = Duration::from_secs(60);
/// A node that says nothing for so long is called silent, or the cut cut nothing.
const FOUND: Duration = Duration::from_secs(55);

/// A node's readiness, as the API told its change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) at: Duration,
    pub(super) ready: bool,
}

/// What is to be said of all nodes.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// What should not have been, one line each.
    pub(super) faults: Vec<String>,
    /// How often a node was called NotReady.
    pub(super) not_ready: usize,
    /// From the end of its way to the cloud to that.
    pub(super) found: Vec<Duration>,
    /// From the link's healing to Ready.
    pub(super) back: Vec<Duration>,
}

impl Verdict {
    /// Takes in what happened to one node within `time`, in which its link was whole at first, and it was ready.
    pub(super) fn judge(
        &mut self,
        (node, name): (usize, &str),
        links: &Links,
        turns: &[Turn],
        time: &Range<Duration>,
    ) {
        let (impaired, dark, mute) = (links.impaired(node), links.dark(node), links.mute(node));
        for (place, turn) in turns.iter().enumerate().filter(|(_, turn)| time.contains(&turn.at)) {
            if turn.ready {
                continue;
            }
            self.not_ready += 1;
            if !may_be_silent(&impaired, &dark, turn.at) {
                let since = turn.at.saturating_sub(last_end(&impaired, turn.at)).as_secs_f64();
                self.faults.push(format!(
                    "{name} was called NotReady at {:.1} s, with its link whole for {since:.1} s",
                    turn.at.as_secs_f64()
                ));
            }
            let lately = |spell: &&Range<Duration>| {
                spell.start <= turn.at && spell.end.saturating_add(GRACE) > turn.at
            };
            self.found.extend(mute.iter().rev().find(lately).map(|spell| turn.at - spell.start));
            let Some(again) = turns.get(place + 1) else { continue };
            // One that is heard though it is not answered is ready before it is healed.
            let before = dark.iter().rev().find(|spell| spell.start <= again.at);
            let healed = before.filter(|spell| spell.end <= again.at);
            self.back.extend(healed.map(|spell| again.at - spell.end.max(turn.at)));
        }
        self.judge_ends(name, &dark, turns, time.end);
        for spell in mute.iter().filter(|spell| spell.end - spell.start >= FOUND) {
            if ready_at(turns, spell.start + FOUND) {
                let from = spell.start.as_secs_f64();
                self.faults.push(format!("{name} said nothing from {from:.1} s on and was Ready"));
            }
        }
    }

    /// Whether the node was ready soon after each healing that lasted.
    fn judge_ends(&mut self, name: &str, dark: &[Range<Duration>], turns: &[Turn], end: Duration) {
        for (place, spell) in dark.iter().enumerate() {
            let due = spell.end.saturating_add(BACK);
            let again = dark.get(place + 1).map_or(end, |next| next.start);
            if due <= again && !ready_at(turns, due) {
                let healed = spell.end.as_secs_f64();
                self.faults.push(format!("{name} was not Ready {BACK:?} after {healed:.1} s"));
            }
        }
    }
}

/// Whether nothing may have been heard for [`GRACE`] from a node with this link.
fn may_be_silent(impaired: &[Range<Duration>], dark: &[Range<Duration>], at: Duration) -> bool {
    let unheard = at.saturating_sub(GRACE).saturating_add(TOLD)..at.saturating_sub(TOLD);
    let lately = at.saturating_sub(BACK)..at;
    let was_dark = dark.iter().any(|spell| spell.start < lately.end && spell.end > lately.start);
    was_dark && longest_gap(impaired, unheard) < HEARD
}

/// When the last of these that ended by then did.
fn last_end(spells: &[Range<Duration>], at: Duration) -> Duration {
    let running = spells.iter().any(|spell| spell.contains(&at));
    let ended = spells.iter().map(|spell| spell.end).filter(|end| *end <= at).max();
    if running { at } else { ended.unwrap_or_default() }
}

fn ready_at(turns: &[Turn], at: Duration) -> bool {
    turns.iter().take_while(|turn| turn.at <= at).last().is_some_and(|turn| turn.ready)
}

#[cfg(test)]
mod tests {
    use toono_lab::Loss;

    use super::*;
    use crate::real::plan::Place;

    const NODE: (usize, &str) = (0, "pool-a-1");

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn links(cuts: &[(Loss, Range<u64>)]) -> Links {
        let mut links = Links::new(1);
        for (place, (loss, time)) in cuts.iter().enumerate() {
            links.cut(0..1, Place::Site(place), *loss, seconds(time.start));
            links.heal(0..1, Place::Site(place), seconds(time.end));
        }
        links
    }

    /// Ready at 0, then the other way at each of these.
    fn verdict(cuts: &[(Loss, Range<u64>)], turns: &[u64]) -> Verdict {
        let turns = [0].iter().chain(turns).zip([true, false].iter().cycle());
        let turns: Vec<_> =
            turns.map(|(at, ready)| Turn { at: seconds(*at), ready: *ready }).collect();
        let mut verdict = Verdict::default();
        verdict.judge(NODE, &links(cuts), &turns, &(Duration::ZERO..seconds(600)));
        verdict
    }

    #[test]
    fn what_should_be_is_no_fault() {
        for (cuts, turns) in [
            (vec![], vec![]),
            // Longer than the grace: silent, found, back.
            (vec![(Loss::All, 100..200)], vec![140, 209]),
            (vec![(Loss::Outbound, 100..200)], vec![131, 259]),
            // Shorter: silent or not, since a heartbeat may have been due when it was cut.
            (vec![(Loss::All, 100..130)], vec![]),
            (vec![(Loss::All, 100..130)], vec![135, 140]),
            // The cloud hears a node that is not answered; it may look for another way and be silent meanwhile.
            (vec![(Loss::Inbound, 100..200)], vec![]),
            (vec![(Loss::Inbound, 100..200)], vec![150, 160]),
            (vec![(Loss::Udp, 100..200)], vec![]),
            // No rest that is long enough to be heard in.
            (vec![(Loss::All, 100..120), (Loss::All, 130..150)], vec![141, 160]),
            // Healed for too short a time to be judged.
            (vec![(Loss::All, 100..160), (Loss::All, 180..240)], vec![140, 250]),
        ] {
            let verdict = verdict(&cuts, &turns);
            assert!(verdict.faults.is_empty(), "{cuts:?} {turns:?}: {:?}", verdict.faults);
        }
    }

    #[test]
    fn what_should_not_be_is_a_fault() {
        for (cuts, turns) in [
            // Without a cut, long after one, too soon after one.
            (vec![], vec![50, 60]),
            (vec![(Loss::All, 100..150)], vec![140, 155, 250, 260]),
            (vec![(Loss::All, 100..200)], vec![120, 205]),
            // UDP alone is no excuse.
            (vec![(Loss::Udp, 100..200)], vec![145, 150]),
            // Not back, or too late.
            (vec![(Loss::All, 100..200)], vec![140]),
            (vec![(Loss::All, 100..200)], vec![140, 270]),
            // A rest in which it must have been heard.
            (vec![(Loss::All, 100..120), (Loss::All, 140..160)], vec![145, 170]),
            // Never found.
            (vec![(Loss::All, 100..200)], vec![]),
            (vec![(Loss::Outbound, 100..200)], vec![170, 210]),
        ] {
            let verdict = verdict(&cuts, &turns);
            assert_eq!(verdict.faults.len(), 1, "{cuts:?} {turns:?}: {:?}", verdict.faults);
        }
    }

    #[test]
    fn times_are_told() {
        let heard = verdict(&[(Loss::All, 100..150), (Loss::Inbound, 160..250)], &[140, 170]);
        assert_eq!((heard.not_ready, heard.back), (1, vec![]));
        let verdict = verdict(&[(Loss::All, 100..200)], &[141, 207]);
        assert_eq!(
            (verdict.not_ready, verdict.found, verdict.back),
            (1, vec![seconds(41)], vec![seconds(7)])
        );
    }
}
