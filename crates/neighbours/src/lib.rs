//! Nodes of a pool judge each other's endpoints by themselves, whether or not the cloud can be asked. Sans-I/O:
//! datagrams and time go in, datagrams and changes come out; no socket, no clock, and nothing of what is done with
//! an endpoint.
//!
//! # How
//!
//! **Nobody is believed but by one's own eyes.** A node *probes* a neighbour; an *answer* shows that both ways work,
//! and brings the neighbour's *word*: which of its pods are ready. So a node that does not reach a neighbour does not
//! use it, though others may; and nobody can be talked into thinking a living neighbour dead.
//!
//! **Who is probed.** Only those whose endpoints a node uses, at most [`MOST_WATCHED`] of them: its successors in
//! the ring of all that are used. So in a small pool everybody sees everybody, and in one of 512 each node is watched by
//! sixteen. They are probed all at once every [`EVERY`], which is one wake-up; who does not answer is asked again each
//! [`TRY`], and is dead after [`TRIES`]. The rest is looked at in turn, every few minutes, and at once when
//! [`MANY_SILENT`] are silent: then the pool may be cut in two, and those far from the cut in the ring are watched
//! by none of this half.
//!
//! **What is told.** Who watches a neighbour and finds it dead asks all others to *look*; each that uses it probes it at
//! once, and finds it dead, or not, within [`TRIES_WHEN_TOLD`] tries. A node whose pods became ready or unready while the cloud
//! is away asks the same about itself. Such a request is no more than a hint, so it needs no proof and no number, and
//! one that was forged or replayed costs one probe. All in all a dead node is out of use everywhere after
//! 2.5 + 8 × 0.4 + 6 × 0.4 = 8.1 s, without the cloud, and the other half of a pool that is cut in two after one try
//! more, 8.5 s. It is asked again each [`EVERY_DEAD`], answers when it is back,
//! and asks by itself when it starts.
//!
//! **What it costs.** Nothing where no endpoints of others are used: no datagram, no time to wake up at. Else at most
//! 6.4 probes a second, and as many answers to them, each of 42 bytes and 28 of headers with names of eight letters:
//! 450 bytes a second out and 450 in for what a node asks. For what it is asked the same, where as many nodes have
//! endpoints as use them; a node that alone has some is asked by all who use it, 0.4 times a second each. Words
//! travel only when they are another one than the asking node has. Each dead neighbour is one probe in [`EVERY_DEAD`].
//!
//! **Whom it trusts.** Datagrams are authenticated with a key that the cloud gives to the nodes of one pool. A node of
//! the pool could lie about another of the same pool; it cannot add an endpoint that the cloud did not name, and it
//! shares a wire with the others anyway.
//!
//! **Who never answered** is not judged: an agent that does not do this yet, or a firewall, is no dead node. Who has
//! answered once, and is remembered on disk, is.

mod circle;
mod datagram;
mod judge;
mod member;
mod word;

pub use circle::{Circle, Neighbour};
pub use datagram::{Key, MAX_DATAGRAM};
pub use judge::{View, judge};
pub use member::Standing;
pub use word::Word;

use std::time::Duration;

/// Neighbours that are probed at each round.
pub const MOST_WATCHED: usize = 16;
/// From one round to the next.
pub const EVERY: Duration = Duration::from_millis(2_500);
/// How long an answer is waited for before the neighbour is asked again; one that comes later counts as well.
pub const TRY: Duration = Duration::from_millis(400);
/// So many unanswered probes are a dead neighbour. Where one in twenty datagrams is lost, a round ends so once in 10⁸,
/// in a pool of 200 once a day; where one in ten is, once in 600,000.
pub const TRIES: u32 = 8;
/// The same when somebody else has found it dead already.
pub const TRIES_WHEN_TOLD: u32 = 6;
/// When so many are silent, all others who are used are looked at: half of those who are watched.
pub const MANY_SILENT: usize = MOST_WATCHED / 2;
/// All are looked at once in this time, however many are silent.
pub const LOOK_AROUND_REST: Duration = Duration::from_secs(10);
/// How often who is dead, or never answered, is asked again.
pub const EVERY_DEAD: Duration = Duration::from_secs(5);
/// All who are used and not watched are asked once in this time.
pub const SWEEP: Duration = Duration::from_secs(300);
/// Nobody is probed twice within this, whatever others ask for.
pub const SHORTEST: Duration = Duration::from_millis(200);
/// What all are asked for is said once more after this: datagrams get lost.
pub const SAY_AGAIN: Duration = Duration::from_millis(700);
