//! How long to wait before trying again, as the kubelet does.

use std::time::Duration;

/// The first real delay of both back-offs (the kubelet's `backOffPeriod` and image back-off).
pub(crate) const INITIAL: Duration = Duration::from_secs(10);
/// The longest delay (the kubelet's `MaxContainerBackOff`).
pub(crate) const MAXIMUM: Duration = Duration::from_secs(300);
/// A container that ran this long has recovered: its next crash starts from the beginning. Twice
/// [`MAXIMUM`], as in the kubelet.
pub(crate) const FORGIVEN_AFTER: Duration = Duration::from_secs(600);
/// A sandbox is made of local parts only, so its creation is tried again sooner than a pull.
pub(crate) const SANDBOX_INITIAL: Duration = Duration::from_secs(2);

/// A doubling delay.
#[derive(Debug, Clone)]
pub(crate) struct BackOff {
    initial: Duration,
    /// The first failure is answered at once.
    forgiving: bool,
    next: Duration,
}

impl BackOff {
    /// For crashes: the first restart is immediate, the second waits for [`INITIAL`].
    pub(crate) fn for_crashes() -> Self {
        Self { initial: INITIAL, forgiving: true, next: Duration::ZERO }
    }

    /// For pulls: every failure waits.
    pub(crate) fn for_pulls() -> Self {
        Self { initial: INITIAL, forgiving: false, next: INITIAL }
    }

    /// For sandboxes.
    pub(crate) fn for_sandboxes() -> Self {
        Self { initial: SANDBOX_INITIAL, forgiving: false, next: SANDBOX_INITIAL }
    }

    /// The delay after one more failure.
    pub(crate) fn after_failure(&mut self) -> Duration {
        let now = self.next;
        self.next = if now.is_zero() { self.initial } else { (now * 2).min(MAXIMUM) };
        now
    }

    /// The delay after a run of that length.
    pub(crate) fn after_run(&mut self, ran: Duration) -> Duration {
        if ran >= FORGIVEN_AFTER {
            self.reset();
        }
        self.after_failure()
    }

    pub(crate) fn reset(&mut self) {
        self.next = if self.forgiving { Duration::ZERO } else { self.initial };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: usize, mut next: impl FnMut() -> Duration) -> Vec<u64> {
        (0..count).map(|_| next().as_secs()).collect()
    }

    #[test]
    fn crashes_double_from_an_immediate_restart_to_five_minutes() {
        let mut crash = BackOff::for_crashes();
        let delays = seconds(8, || crash.after_run(Duration::from_secs(1)));
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(crash.after_run(FORGIVEN_AFTER), Duration::ZERO, "ten good minutes forgive");
        assert_eq!(crash.after_run(Duration::ZERO), INITIAL);
    }

    #[test]
    fn pulls_never_retry_at_once() {
        let mut pull = BackOff::for_pulls();
        assert_eq!(seconds(6, || pull.after_failure()), [10, 20, 40, 80, 160, 300]);
        pull.reset();
        assert_eq!(pull.after_failure(), INITIAL);
    }
}
