//! Whose turn it is when more is asked than can be done at once: a lane of seats, and behind it one
//! queue for each flow (each client), served in turn.
//!
//! It must not wait, know a clock, or know what is asked. The caller keeps what waits (`T`), is told
//! when its turn has come, and says when a seat is free again.
//!
//! The aim is that of Kubernetes' API Priority and Fairness
//! (<https://kubernetes.io/docs/concepts/cluster-administration/flow-control/>): one client that asks too
//! much gets what the others leave, and waits in its own queue. There, flows share a few queues by
//! hashing; here, each flow that waits has its own, since their number is bounded by what may wait.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// A flow: those whose requests wait in one queue, such as one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow(pub u64);

/// Names a request that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    flow: Flow,
    number: u64,
}

/// What becomes of a request that has arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival<T> {
    /// It has its seats; [`Lane::depart`] gives them back.
    Runs(T),
    /// It waits. When there was no place, the newest request of the longest queue had to go.
    Waits {
        /// By which it can be taken back.
        ticket: Ticket,
        /// What had to go.
        displaced: Option<T>,
    },
    /// There is no place for it: its own flow has the longest queue.
    Refused(T),
}

/// Seats, and the queues behind them.
#[derive(Debug)]
pub struct Lane<T> {
    seats: u32,
    taken: u32,
    places: usize,
    waiting: usize,
    flows: HashMap<Flow, VecDeque<Waiting<T>>>,
    /// Flows with waiting requests, in the order of their turns.
    turns: VecDeque<Flow>,
    /// Flows by the length of their queues, so that the longest is found at once.
    by_length: BTreeMap<(usize, Flow), ()>,
    next_number: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    number: u64,
    width: u32,
    what: T,
}

impl<T> Lane<T> {
    /// A lane in which requests of `seats` seats together run at once, and `places` requests may wait.
    /// At least one seat.
    #[must_use]
    pub fn new(seats: u32, places: usize) -> Self {
        Self {
            seats: seats.max(1),
            taken: 0,
            places,
            waiting: 0,
            flows: HashMap::new(),
            turns: VecDeque::new(),
            by_length: BTreeMap::new(),
            next_number: 0,
        }
    }

    /// Seats that are taken.
    #[must_use]
    pub fn taken(&self) -> u32 {
        self.taken
    }

    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many seats a request of that width takes: at least one, and not more than there are.
    #[must_use]
    pub fn width(&self, asked: u32) -> u32 {
        asked.clamp(1, self.seats)
    }

    /// A request of a flow has arrived, which takes so many seats.
    pub fn arrive(&mut self, flow: Flow, width: u32, what: T) -> Arrival<T> {
        let width = self.width(width);
        if self.waiting == 0 && self.taken + width <= self.seats {
            self.taken += width;
            return Arrival::Runs(what);
        }
        let displaced = if self.waiting < self.places {
            None
        } else {
            let own = self.flows.get(&flow).map_or(0, VecDeque::len);
            match self.by_length.last_key_value() {
                Some((&(longest, other), ())) if longest > own + 1 => self.pop_newest(other),
                _ => return Arrival::Refused(what),
            }
        };
        let number = self.next_number;
        self.next_number += 1;
        self.push(flow, Waiting { number, width, what });
        Arrival::Waits { ticket: Ticket { flow, number }, displaced }
    }

    /// A request that ran has ended. Answers those whose turn has come, with their widths: they run now.
    pub fn depart(&mut self, width: u32) -> Vec<(T, u32)> {
        self.taken = self.taken.saturating_sub(self.width(width));
        let mut started = Vec::new();
        while let Some(&flow) = self.turns.front() {
            let front = self.flows.get(&flow).and_then(VecDeque::front);
            // A wide request is not passed by narrow ones for ever: its turn stays its turn.
            let fits = front.is_some_and(|waiting| self.taken + waiting.width <= self.seats);
            let Some(next) = fits.then(|| self.pop_oldest(flow)).flatten() else { break };
            self.taken += next.width;
            started.push((next.what, next.width));
        }
        started
    }

    /// Takes a waiting request back, which nobody waits for any more; none if its turn had come.
    pub fn leave(&mut self, ticket: Ticket) -> Option<T> {
        let queue = self.flows.get_mut(&ticket.flow)?;
        let at = queue.iter().position(|waiting| waiting.number == ticket.number)?;
        let length = queue.len();
        let left = queue.remove(at)?;
        self.shrunk(ticket.flow, length);
        Some(left.what)
    }

    fn push(&mut self, flow: Flow, waiting: Waiting<T>) {
        let queue = self.flows.entry(flow).or_default();
        let length = queue.len();
        queue.push_back(waiting);
        self.waiting += 1;
        if length == 0 {
            self.turns.push_back(flow);
        }
        self.by_length.remove(&(length, flow));
        self.by_length.insert((length + 1, flow), ());
    }

    fn pop_newest(&mut self, flow: Flow) -> Option<T> {
        let queue = self.flows.get_mut(&flow)?;
        let length = queue.len();
        let newest = queue.pop_back()?;
        self.shrunk(flow, length);
        Some(newest.what)
    }

    /// Takes the flow's oldest request; the flow's next turn comes after all others'.
    fn pop_oldest(&mut self, flow: Flow) -> Option<Waiting<T>> {
        let queue = self.flows.get_mut(&flow)?;
        let length = queue.len();
        let oldest = queue.pop_front()?;
        self.turns.rotate_left(1);
        self.shrunk(flow, length);
        Some(oldest)
    }

    /// A queue that had `length` requests has one less.
    fn shrunk(&mut self, flow: Flow, length: usize) {
        self.waiting -= 1;
        self.by_length.remove(&(length, flow));
        if length > 1 {
            self.by_length.insert((length - 1, flow), ());
        } else {
            self.flows.remove(&flow);
            self.turns.retain(|other| *other != flow);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(started: Vec<(&'static str, u32)>) -> Vec<&'static str> {
        started.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_noisy_flow_waits_behind_itself() {
        let (noisy, quiet) = (Flow(1), Flow(2));
        let mut lane = Lane::new(1, 10);
        assert_eq!(lane.arrive(noisy, 1, "n0"), Arrival::Runs("n0"));
        for name in ["n1", "n2", "n3"] {
            assert!(matches!(lane.arrive(noisy, 1, name), Arrival::Waits { .. }));
        }
        assert!(matches!(lane.arrive(quiet, 1, "q1"), Arrival::Waits { .. }));
        let order: Vec<_> = (0..4).flat_map(|_| names(lane.depart(1))).collect();
        assert_eq!(order, ["n1", "q1", "n2", "n3"]);
    }

    #[test]
    fn the_longest_queue_makes_room() {
        let (noisy, quiet) = (Flow(1), Flow(2));
        let mut lane = Lane::new(1, 2);
        assert_eq!(lane.arrive(noisy, 1, "n0"), Arrival::Runs("n0"));
        assert!(matches!(lane.arrive(noisy, 1, "n1"), Arrival::Waits { displaced: None, .. }));
        assert!(matches!(lane.arrive(noisy, 1, "n2"), Arrival::Waits { displaced: None, .. }));
        assert_eq!(lane.arrive(noisy, 1, "n3"), Arrival::Refused("n3"));
        let arrival = lane.arrive(quiet, 1, "q1");
        assert!(matches!(arrival, Arrival::Waits { displaced: Some("n2"), .. }), "{arrival:?}");
        assert_eq!(lane.arrive(quiet, 1, "q2"), Arrival::Refused("q2"));
    }

    #[test]
    fn a_wide_request_gets_its_turn() {
        let mut lane = Lane::new(2, 10);
        assert_eq!(lane.arrive(Flow(1), 1, "a"), Arrival::Runs("a"));
        assert_eq!(lane.arrive(Flow(1), 1, "b"), Arrival::Runs("b"));
        // Wider than the lane: it takes the whole of it.
        assert!(matches!(lane.arrive(Flow(2), 9, "wide"), Arrival::Waits { .. }));
        assert!(matches!(lane.arrive(Flow(3), 1, "c"), Arrival::Waits { .. }));
        assert_eq!(names(lane.depart(1)), [""; 0]);
        assert_eq!(lane.depart(1), [("wide", 2)]);
        assert_eq!(names(lane.depart(9)), ["c"]);
    }

    #[test]
    fn who_leaves_is_not_called() {
        let mut lane = Lane::new(1, 10);
        assert_eq!(lane.arrive(Flow(1), 1, "a"), Arrival::Runs("a"));
        let Arrival::Waits { ticket, .. } = lane.arrive(Flow(1), 1, "b") else { panic!() };
        assert_eq!(lane.leave(ticket), Some("b"));
        assert_eq!(lane.leave(ticket), None);
        assert_eq!(names(lane.depart(1)), [""; 0]);
        assert_eq!((lane.taken(), lane.waiting()), (0, 0));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Arrive { flow: u64, width: u32 },
        Depart { which: usize },
        Leave { which: usize },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..5_u64, 1..6_u32).prop_map(|(flow, width)| Step::Arrive { flow, width }),
            2 => any::<usize>().prop_map(|which| Step::Depart { which }),
            1 => any::<usize>().prop_map(|which| Step::Leave { which }),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// Seats are never oversold, no request is lost or run twice, the bounds hold, and nobody waits
        /// while the lane is empty.
        #[test]
        fn the_books_balance(steps in steps(), seats in 1..5_u32, places in 0..8_usize) {
            let mut lane = Lane::new(seats, places);
            let mut running: Vec<(usize, u32)> = Vec::new();
            let mut waiting: Vec<(usize, Ticket)> = Vec::new();
            for (id, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Arrive { flow, width } => match lane.arrive(Flow(flow), width, id) {
                        Arrival::Runs(what) => running.push((what, lane.width(width))),
                        Arrival::Waits { ticket, displaced } => {
                            waiting.retain(|(other, _)| Some(*other) != displaced);
                            waiting.push((id, ticket));
                        }
                        Arrival::Refused(what) => prop_assert_eq!(what, id),
                    },
                    Step::Depart { which } if !running.is_empty() => {
                        let (_, width) = running.remove(which % running.len());
                        for (what, width) in lane.depart(width) {
                            let before = waiting.len();
                            waiting.retain(|(other, _)| *other != what);
                            prop_assert_eq!(waiting.len() + 1, before);
                            running.push((what, width));
                        }
                    }
                    Step::Leave { which } if !waiting.is_empty() => {
                        let (what, ticket) = waiting.remove(which % waiting.len());
                        prop_assert_eq!(lane.leave(ticket), Some(what));
                    }
                    Step::Depart { .. } | Step::Leave { .. } => {}
                }
                let taken: u32 = running.iter().map(|(_, width)| width).sum();
                prop_assert_eq!(lane.taken(), taken);
                prop_assert!(taken <= seats);
                prop_assert_eq!(lane.waiting(), waiting.len());
                prop_assert!(waiting.len() <= places);
            }
        }

        /// Each of several flows that always have something waiting gets the same number of turns.
        #[test]
        fn turns_are_equal(flows in 1..6_u64, rounds in 1..20_u64) {
            let mut lane = Lane::new(1, 10_000);
            let mut turns: HashMap<u64, u64> = HashMap::new();
            let _ = lane.arrive(Flow(0), 1, 0);
            for flow in 0..flows {
                for _ in 0..=rounds {
                    let _ = lane.arrive(Flow(flow), 1, flow);
                }
            }
            for _ in 0..flows * rounds {
                for (flow, _) in lane.depart(1) {
                    *turns.entry(flow).or_default() += 1;
                }
            }
            prop_assert!(turns.values().all(|count| *count == rounds), "{:?}", turns);
        }
    }
}
