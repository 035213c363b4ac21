//! Whether this server is the one that is cut off: when nearly all nodes fall silent together, that is more
//! likely than that they all died. Pure: time and counts are passed in.

use std::time::Duration;

/// Heartbeats are counted over so many seconds: one and a half intervals, in which each node that is alive and
/// reached sends one at least.
const WINDOW: usize = 15;
/// Of a smaller fleet all may well be gone at once: they hang off one switch.
const FLEET: usize = 100;
/// So many percent of the nodes heard, and the server is not cut off.
const HEARD_PERCENT: u64 = 5;
/// The doubt lasts no longer. Nodes that are gone are called so within twice their grace.
const DOUBT: Duration = Duration::from_secs(30);

/// The heartbeats of the last seconds.
#[derive(Debug, Default)]
pub(crate) struct Uplink {
    /// A ring: fresh heartbeats by second.
    counts: [u32; WINDOW],
    /// The newest second in it.
    second: u64,
    doubted_since: Option<Duration>,
}

impl Uplink {
    /// A fresh heartbeat of anyone.
    pub(crate) fn heard(&mut self, now: Duration) {
        self.turn(now);
        if let Some(count) = self.counts.get_mut(place(now.as_secs())) {
            *count = count.saturating_add(1);
        }
    }

    /// Whether silence says nothing about the nodes now, `ready` of which should be heard.
    pub(crate) fn is_doubtful(&mut self, now: Duration, ready: usize) -> bool {
        self.turn(now);
        let heard: u64 = self.counts.iter().copied().map(u64::from).sum();
        let expected = u64::try_from(ready).unwrap_or(u64::MAX);
        // A server that has just started has heard nobody yet.
        let judges = ready >= FLEET && now.as_secs() >= WINDOW as u64;
        if !judges || heard * 100 >= expected.saturating_mul(HEARD_PERCENT) {
            self.doubted_since = None;
            return false;
        }
        if self.doubted_since.is_none() {
            tracing::warn!(
                heard,
                ready,
                "nearly all nodes fell silent together: this server may be cut off"
            );
        }
        now - *self.doubted_since.get_or_insert(now) < DOUBT
    }

    /// Forgets what is older than the window.
    fn turn(&mut self, now: Duration) {
        let second = now.as_secs();
        let passed = second.saturating_sub(self.second).min(WINDOW as u64);
        for past in 0..passed {
            if let Some(count) = self.counts.get_mut(place(second - past)) {
                *count = 0;
            }
        }
        self.second = self.second.max(second);
    }
}

fn place(second: u64) -> usize {
    usize::try_from(second % WINDOW as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Heartbeats of `nodes` at an even pace, each every 10 s; the seconds in which there was doubt.
    fn doubts(
        nodes: usize,
        ready: usize,
        seconds: std::ops::Range<u64>,
        uplink: &mut Uplink,
    ) -> Vec<u64> {
        let mut doubts = Vec::new();
        for second in seconds {
            let now = Duration::from_secs(second);
            (0..nodes.div_ceil(10)).for_each(|_| uplink.heard(now));
            if uplink.is_doubtful(now, ready) {
                doubts.push(second);
            }
        }
        doubts
    }

    #[test]
    fn a_fleet_that_falls_silent_at_once_is_doubted_and_not_for_ever() {
        let mut uplink = Uplink::default();
        assert!(doubts(1_000, 1_000, 0..60, &mut uplink).is_empty());
        let doubted = doubts(0, 1_000, 60..200, &mut uplink);
        assert_eq!((doubted.first(), doubted.last()), (Some(&74), Some(&103)));
        assert_eq!(doubted.len(), 30);
        assert!(doubts(1_000, 1_000, 200..260, &mut uplink).is_empty());
        assert_eq!(doubts(0, 1_000, 260..400, &mut uplink).len(), 30, "another time");
    }

    #[test]
    fn a_part_of_a_fleet_or_a_small_one_is_gone_when_it_is_silent() {
        let mut uplink = Uplink::default();
        assert!(doubts(1_000, 1_000, 0..60, &mut uplink).is_empty());
        assert!(doubts(100, 1_000, 60..200, &mut uplink).is_empty(), "a tenth is heard");
        let mut uplink = Uplink::default();
        assert!(doubts(0, 99, 0..200, &mut uplink).is_empty());
        assert!(doubts(0, 1_000, 0..15, &mut Uplink::default()).is_empty(), "it has just started");
    }
}
