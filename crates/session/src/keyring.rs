//! The epochs of the cluster secret: which is current, which are still accepted, when one is given up.
//!
//! It reads no clock and draws no random bytes: the caller passes Unix seconds and new secrets, keeps the
//! text of a ring where it is safe, and gives the same ring to all servers of a cluster.

use std::fmt::Write as _;

use crate::ClusterSecret;

/// Most epochs in a ring. A node of one that was pushed out asks for its key again over HTTPS, as one does
/// whose epoch ended.
pub const MAX_EPOCHS: usize = 4;

/// Which secrets a cluster has, newest first; never none.
#[derive(Clone, PartialEq, Eq)]
pub struct Keyring {
    epochs: Vec<Epoch>,
}

#[derive(Clone, PartialEq, Eq)]
struct Epoch {
    number: u8,
    /// Unix seconds from which on nodes are granted keys of it. Before, it is accepted already: a server
    /// that heard of it first must not grant keys that another one does not know yet.
    from: u64,
    secret: [u8; 32],
}

/// The text is no ring: not one to [`MAX_EPOCHS`] lines of `EPOCH FROM 64-HEX-DIGITS`, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {0} is not an epoch with its secret")]
pub struct BadKeyring(pub usize);

impl Keyring {
    /// The ring of a new cluster.
    #[must_use]
    pub fn new(secret: [u8; 32], now: u64) -> Self {
        Self { epochs: vec![Epoch { number: 1, from: now, secret }] }
    }

    /// Reads what [`render`](Self::render) wrote. A lone secret without its epoch, as before there were
    /// any, is epoch 1.
    ///
    /// # Errors
    /// Which line is none.
    pub fn parse(text: &str) -> Result<Self, BadKeyring> {
        let text = text.trim();
        if let Some(secret) = secret(text) {
            return Ok(Self { epochs: vec![Epoch { number: 1, from: 0, secret }] });
        }
        let mut epochs: Vec<Epoch> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let epoch = epoch(line).filter(|epoch| {
                epochs.len() < MAX_EPOCHS && epochs.iter().all(|other| other.number != epoch.number)
            });
            epochs.push(epoch.ok_or(BadKeyring(number))?);
        }
        if epochs.is_empty() { Err(BadKeyring(1)) } else { Ok(Self { epochs }) }
    }

    /// The text to keep: whoever reads it can speak as any node.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        for Epoch { number, from, secret } in &self.epochs {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{number} {from} {}", hex::encode(secret));
        }
        text
    }

    /// What servers accept now, the current one first.
    #[must_use]
    pub fn secrets(&self, now: u64) -> Vec<ClusterSecret> {
        let current = self.current(now).map(|epoch| epoch.number);
        let (first, others): (Vec<&Epoch>, Vec<&Epoch>) =
            self.epochs.iter().partition(|epoch| Some(epoch.number) == current);
        let secrets = first.into_iter().chain(others);
        secrets.map(|epoch| ClusterSecret::new(epoch.number, &epoch.secret)).collect()
    }

    /// The number of the epoch whose keys are granted.
    #[must_use]
    pub fn current_epoch(&self, now: u64) -> u8 {
        self.current(now).map_or(0, |epoch| epoch.number)
    }

    /// How long the current epoch has been that.
    #[must_use]
    pub fn age(&self, now: u64) -> u64 {
        self.current(now).map_or(0, |epoch| now.saturating_sub(epoch.from))
    }

    /// Whether a newer epoch waits for its time.
    #[must_use]
    pub fn is_turning(&self, now: u64) -> bool {
        self.epochs.first().is_some_and(|newest| newest.from > now)
    }

    /// Numbers of the epochs that are accepted although a newer one is current.
    #[must_use]
    pub fn older(&self, now: u64) -> Vec<u8> {
        let past = self.epochs.iter().skip_while(|epoch| epoch.from > now).skip(1);
        past.map(|epoch| epoch.number).collect()
    }

    /// Begins an epoch, which becomes current at `from`. The oldest one goes when the ring is full.
    pub fn rotate(&mut self, secret: [u8; 32], from: u64) {
        let mut number = self.epochs.first().map_or(0, |newest| newest.number);
        loop {
            // 0 is no epoch, so that a forgotten field is seen.
            number = number.checked_add(1).unwrap_or(1);
            if self.epochs.iter().all(|epoch| epoch.number != number) {
                break;
            }
        }
        self.epochs.insert(0, Epoch { number, from, secret });
        self.epochs.truncate(MAX_EPOCHS);
    }

    /// Gives up the epochs before the current one: all when `moved` says that no node needs them, else those
    /// that were succeeded `patience` seconds ago. Whether any was.
    pub fn retire(&mut self, now: u64, moved: bool, patience: u64) -> bool {
        let before = self.epochs.len();
        // Of a newer one at the earliest: one that waited for its time may have been overtaken.
        let mut succeeded_at: Option<u64> = None;
        self.epochs.retain(|epoch| {
            let at = succeeded_at;
            succeeded_at = Some(at.map_or(epoch.from, |at| at.min(epoch.from)));
            at.is_none_or(|at| at > now || !moved && now - at < patience)
        });
        self.epochs.len() < before
    }

    fn current(&self, now: u64) -> Option<&Epoch> {
        // A clock that was set back is before all of them: then the oldest one is what every server knows.
        self.epochs.iter().find(|epoch| epoch.from <= now).or(self.epochs.last())
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let epochs: Vec<_> = self.epochs.iter().map(|epoch| (epoch.number, epoch.from)).collect();
        f.debug_tuple("Keyring").field(&epochs).finish()
    }
}

fn epoch(line: &str) -> Option<Epoch> {
    let mut words = line.split(' ');
    let number = words.next()?.parse().ok().filter(|number| *number != 0)?;
    let from = words.next()?.parse().ok()?;
    let secret = secret(words.next()?)?;
    words.next().is_none().then_some(Epoch { number, from, secret })
}

fn secret(text: &str) -> Option<[u8; 32]> {
    let mut secret = [0; 32];
    hex::decode_to_slice(text, &mut secret).ok()?;
    Some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(ring: &Keyring, now: u64) -> Vec<u8> {
        ring.secrets(now).iter().map(ClusterSecret::epoch).collect()
    }

    #[test]
    fn a_new_epoch_is_accepted_first_and_granted_later() {
        let mut ring = Keyring::new([1; 32], 100);
        ring.rotate([2; 32], 1060);
        assert_eq!(numbers(&ring, 1000), [1, 2]);
        assert!(ring.is_turning(1000) && ring.older(1000).is_empty());
        assert_eq!(numbers(&ring, 1060), [2, 1]);
        assert_eq!((ring.current_epoch(1060), ring.older(1060), ring.age(1065)), (2, vec![1], 5));
    }

    #[test]
    fn an_old_epoch_ends_when_all_have_moved_or_the_time_is_up() {
        let mut ring = Keyring::new([1; 32], 100);
        ring.rotate([2; 32], 1000);
        assert!(!ring.retire(999, true, 0), "nobody can have moved to what is not granted");
        assert!(!ring.retire(1099, false, 100));
        let mut late = ring.clone();
        assert!(late.retire(1100, false, 100));
        assert!(ring.retire(1001, true, 100));
        for ring in [ring, late] {
            assert_eq!(numbers(&ring, 2000), [2]);
        }
    }

    #[test]
    fn an_epoch_that_waits_may_be_overtaken() {
        let mut ring = Keyring::new([1; 32], 100);
        ring.rotate([2; 32], 1030);
        ring.rotate([3; 32], 1001);
        assert_eq!(numbers(&ring, 1001), [3, 2, 1]);
        assert!(ring.retire(1001, true, 100));
        assert_eq!(numbers(&ring, 1001), [3]);
    }

    #[test]
    fn numbers_go_round_without_meeting_one_in_use() {
        let mut ring = Keyring::new([0; 32], 0);
        for turn in 1..600_u64 {
            ring.rotate([turn as u8; 32], turn);
            let all = numbers(&ring, turn);
            let mut unlike = all.clone();
            unlike.sort_unstable();
            unlike.dedup();
            assert_eq!((all.len(), unlike.len()), (all.len().min(MAX_EPOCHS), all.len()));
            assert!(!all.contains(&0));
        }
    }

    #[test]
    fn a_ring_is_read_as_it_was_written_and_nonsense_is_refused() {
        let mut ring = Keyring::new([1; 32], 100);
        ring.rotate([2; 32], 200);
        assert_eq!(Keyring::parse(&ring.render()), Ok(ring.clone()));
        let (old, line) = ("07".repeat(32), ring.render());
        let lone = Keyring::parse(&format!("{old}\n")).unwrap();
        assert_eq!((numbers(&lone, 5), lone.age(5)), (vec![1], 5));
        let line = line.lines().next().unwrap();
        for (text, at) in [
            (String::new(), 1),
            ("00".to_owned(), 1),
            (format!("0 1 {old}"), 1),
            (format!("256 1 {old}"), 1),
            (format!("1 1 {old} x"), 1),
            (format!("{line}\n{line}"), 2),
            (format!("{line}\n{old}"), 2),
            ((1..=5).map(|epoch| format!("{epoch} 1 {old}\n")).collect(), 5),
        ] {
            assert_eq!(Keyring::parse(&text), Err(BadKeyring(at)), "{text}");
        }
    }

    #[test]
    fn a_clock_before_all_epochs_has_a_current_one() {
        let mut ring = Keyring::new([1; 32], 100);
        ring.rotate([2; 32], 200);
        assert_eq!(numbers(&ring, 50), [1, 2]);
    }
}
