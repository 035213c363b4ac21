//! The two clocks that pod machines are told.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use toono_podmachine::Moment;

/// Counts from the agent's start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Moment {
        Moment { wall: Timestamp::now(), elapsed: self.start.elapsed() }
    }

    /// The instant of a time on [`Moment::elapsed`].
    pub(crate) fn instant(&self, elapsed: Duration) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.start + elapsed)
    }
}
