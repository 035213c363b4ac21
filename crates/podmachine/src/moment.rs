//! Time as the machine is told it: what the wall says, and what really elapsed.

use std::time::Duration;

use jiff::Timestamp;

/// One instant on two clocks.
///
/// Delays are counted on the monotonic clock alone: an edge box without a battery-backed clock
/// starts in 1970 and jumps by decades when it finds a time server, and no container should be
/// killed or held back for that. The wall clock only labels what people read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// For statuses and events.
    pub wall: Timestamp,
    /// Since any fixed start; never goes back.
    pub elapsed: Duration,
}
