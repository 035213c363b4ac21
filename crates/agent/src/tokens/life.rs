//! When a token is to be renewed: told its age, and the time; knows no clock.

use std::time::Duration;

/// The longest that a token is used, however long it lasts; as the kubelet has it.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// A node renews its tokens at moments that are so far apart at most, so that one connection serves all that are
/// due. Each node has moments of its own: a million do not ask at once, not even after an outage of all of them.
const SPREAD: Duration = Duration::from_secs(5 * 60);
/// What is due within this is asked for at the same moment.
pub(super) const TOGETHER: Duration = Duration::from_secs(1);

/// How long a token of this age may still wait for its renewal: until the last of the node's moments before four
/// fifths of its life are over, or the next one from now. The age is none where the node's clock was set back since,
/// and says nothing. `now` is any clock that only goes on; `phase` is the node's own.
pub(super) fn wait(
    age: Option<Duration>,
    lifetime: Duration,
    now: Duration,
    phase: u32,
) -> Duration {
    let spread = (lifetime / 10).clamp(Duration::from_secs(1), SPREAD);
    let life = (lifetime / 10 * 8).min(LONGEST);
    let left = age.map_or(Duration::ZERO, |age| life.saturating_sub(age));
    let offset = spread.mul_f64(f64::from(phase) / (f64::from(u32::MAX) + 1.0));
    // Beside the moment before: a whole spread later is the earliest that there is.
    let (due, first) = (now + left + spread, offset);
    let since = due.saturating_sub(first).as_nanos() % spread.as_nanos().max(1);
    let moment = due.saturating_sub(Duration::from_nanos(u64::try_from(since).unwrap_or(0)));
    let last = moment.saturating_sub(spread);
    if last >= now { last - now } else { moment.saturating_sub(now) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_is_renewed_before_four_fifths_of_its_life_are_over() {
        for lifetime in [at(600), HOUR, at(3607), DAY * 365] {
            let life = (lifetime * 8 / 10).min(DAY);
            for phase in [0, 1, u32::MAX / 3, u32::MAX] {
                for now in [at(0), at(7), HOUR * 100] {
                    let wait = wait(Some(at(0)), lifetime, now, phase);
                    assert!(wait <= life, "{lifetime:?} {phase} {now:?}: {wait:?}");
                    assert!(wait + (lifetime / 10).min(SPREAD) >= life, "{wait:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_overdue_or_of_no_known_age_is_due_at_the_nodes_next_moment() {
        let waits: Vec<Duration> =
            (0..100).map(|it| wait(Some(HOUR * 9), HOUR, at(1000), it * 42_000_000)).collect();
        assert!(waits.iter().all(|wait| *wait <= SPREAD), "{waits:?}");
        let early = waits.iter().filter(|wait| **wait < SPREAD / 2).count();
        assert!((30..70).contains(&early), "nodes ask at different times: {waits:?}");
        assert_eq!(wait(None, HOUR, at(1000), 77), wait(Some(HOUR * 9), HOUR, at(1000), 77));
    }

    #[test]
    fn a_nodes_tokens_are_due_at_the_same_moments() {
        let phase = 1_234_567_890;
        let due = |made: u64, now: u64| at(now) + wait(Some(at(now - made)), HOUR, at(now), phase);
        // Within one spread of each other, and looked at at different times.
        let first = due(0, 10);
        assert_eq!(first, due(0, 900));
        let moments: std::collections::BTreeSet<_> = (0..300).map(|made| due(made, 400)).collect();
        assert!(moments.len() <= 2 && moments.contains(&first), "{moments:?}");
    }
}
