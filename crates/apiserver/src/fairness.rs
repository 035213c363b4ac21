//! The lanes of the server: which requests share seats, and how they wait for one. It decides by who
//! asks and for what, never by the content.
//!
//! Named as Kubernetes' priority levels where they serve the same clients.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};
use toono_api::{ApiError, UserInfo, user::GROUP_NODES};
use toono_fairness::{Arrival, Flow, Lane, Ticket};

use crate::{metrics::Metrics, trail::Trail};

/// A request that has waited so long is refused: its client tries again, and knows why.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// When a refused client should come back.
const RETRY_AFTER_SECONDS: u32 = 1;
/// Objects that a list without limit reads for each seat it takes, as in Kubernetes.
const OBJECTS_PER_SEAT: usize = 1000;
/// Most seats of one list.
const WIDTH_MAX: u32 = 10;

/// Which clients share a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Nodes,
    LeaderElection,
    System,
    Workload,
    Default,
}

impl Level {
    const ALL: [Self; 5] =
        [Self::Nodes, Self::LeaderElection, Self::System, Self::Workload, Self::Default];

    /// Name, seats, places to wait in. Seats do not bound cores but what is under way; most of it
    /// waits for the disk.
    fn limits(self) -> (&'static str, u32, usize) {
        match self {
            // A cluster is alive as long as its nodes are heard.
            Self::Nodes => ("node-high", 400, 20_000),
            Self::LeaderElection => ("leader-election", 100, 2_000),
            Self::System => ("system", 200, 2_000),
            Self::Workload => ("workload-low", 200, 4_000),
            Self::Default => ("global-default", 200, 4_000),
        }
    }
}

/// Called with its seat. Whoever no longer waits drops the seat, which gives it back.
type Waiter = oneshot::Sender<Seat>;

/// The lanes.
#[derive(Debug)]
pub(crate) struct Fairness {
    /// In the order of the levels.
    lanes: [Arc<Shared>; Level::ALL.len()],
}

#[derive(Debug)]
struct Shared {
    name: &'static str,
    lane: Mutex<Lane<Waiter>>,
}

/// Seats that a request has; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    shared: Arc<Shared>,
    width: u32,
}

impl Fairness {
    pub(crate) fn new() -> Self {
        let lanes = Level::ALL.map(|level| {
            let (name, seats, places) = level.limits();
            Arc::new(Shared { name, lane: Mutex::new(Lane::new(seats, places)) })
        });
        Self { lanes }
    }

    fn of(&self, level: Level) -> &Arc<Shared> {
        let [nodes, leader_election, system, workload, default] = &self.lanes;
        match level {
            Level::Nodes => nodes,
            Level::LeaderElection => leader_election,
            Level::System => system,
            Level::Workload => workload,
            Level::Default => default,
        }
    }

    /// Waits for the seats of a request; none are needed by requests of this process, since what they
    /// do may be what the others wait for, and by those that ask how the server is.
    ///
    /// `objects` is how many a list will read at most.
    ///
    /// # Errors
    /// [`ApiError::TooManyRequests`] when there is no place to wait, or the wait is too long.
    pub(crate) async fn seat(
        &self,
        metrics: &Metrics,
        user: &UserInfo,
        trail: &Trail,
        objects: usize,
    ) -> Result<Option<Seat>, ApiError> {
        if trail.in_process || is_health(trail) {
            return Ok(None);
        }
        let shared = self.of(lane_of(user, trail));
        let width = u32::try_from(objects / OBJECTS_PER_SEAT).unwrap_or(WIDTH_MAX);
        let width = width.clamp(1, WIDTH_MAX);
        let (call, called) = oneshot::channel();
        let flow = flow_of(user);
        let arrival = shared.lock().arrive(flow, width, call);
        let ticket = match arrival {
            Arrival::Runs(_) => {
                return Ok(Some(Seat { shared: Arc::clone(shared), width }));
            }
            Arrival::Refused(_) => return Err(refused(metrics, shared)),
            // A displaced request notices that nobody will call it.
            Arrival::Waits { ticket, .. } => ticket,
        };
        let _waits = metrics.waits(shared.name);
        let _place = Place { shared: Arc::clone(shared), ticket };
        match timeout(WAIT_MAX, called).await {
            Ok(Ok(seat)) => Ok(Some(seat)),
            Ok(Err(_)) | Err(_) => Err(refused(metrics, shared)),
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Lane<Waiter>> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let started = self.shared.lock().depart(self.width);
        for (waiter, width) in started {
            let _ = waiter.send(Self { shared: Arc::clone(&self.shared), width });
        }
    }
}

/// A place in the queue; it is given up when the request goes away while it waits.
struct Place {
    shared: Arc<Shared>,
    ticket: Ticket,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nothing is left to take back once it was called or displaced.
        let waiter = self.shared.lock().leave(self.ticket);
        drop(waiter);
    }
}

fn refused(metrics: &Metrics, shared: &Shared) -> ApiError {
    metrics.rejected(shared.name);
    ApiError::TooManyRequests {
        message: "too many requests, please try again later".to_owned(),
        retry_after_seconds: RETRY_AFTER_SECONDS,
    }
}

fn is_health(trail: &Trail) -> bool {
    ["/healthz", "/livez", "/readyz"].iter().any(|path| trail.uri.starts_with(path))
}

fn lane_of(user: &UserInfo, trail: &Trail) -> Level {
    let lease = trail.target.as_ref().filter(|target| target.resource.plural == "leases");
    let of_node = lease.is_some_and(|target| target.namespace == "kube-node-lease");
    if user.is_in(GROUP_NODES) || of_node || trail.uri.starts_with("/fleet/") {
        Level::Nodes
    } else if lease.is_some() {
        Level::LeaderElection
    } else if user.name.starts_with("system:kube-") {
        Level::System
    } else if user.name.starts_with("system:serviceaccount:") {
        Level::Workload
    } else {
        Level::Default
    }
}

fn flow_of(user: &UserInfo) -> Flow {
    let mut hasher = DefaultHasher::new();
    user.name.hash(&mut hasher);
    Flow(hasher.finish())
}

#[cfg(test)]
mod tests {
    use http::Request;
    use jiff::Timestamp;

    use super::*;

    fn trail(path: &str) -> Trail {
        let request = Request::get(path).body(toono_http::empty()).unwrap();
        Trail::of(&request, Timestamp::UNIX_EPOCH)
    }

    #[tokio::test]
    async fn a_client_that_takes_every_seat_leaves_the_next_one_to_another() {
        let (fairness, metrics) = (Fairness::new(), Metrics::new());
        let (noisy, quiet) = (UserInfo::new("noisy", [""; 0]), UserInfo::new("quiet", [""; 0]));
        let trail = trail("/api/v1/pods");
        let seats = Level::Default.limits().1;
        let mut held = Vec::new();
        for _ in 0..seats {
            held.push(fairness.seat(&metrics, &noisy, &trail, 0).await.unwrap().unwrap());
        }
        let mut next: Vec<_> =
            (0..5).map(|_| Box::pin(fairness.seat(&metrics, &noisy, &trail, 0))).collect();
        for waiting in &mut next {
            assert!(futures::poll!(waiting.as_mut()).is_pending());
        }
        let mut other = Box::pin(fairness.seat(&metrics, &quiet, &trail, 0));
        assert!(futures::poll!(other.as_mut()).is_pending());
        // Two seats come free: one for each of them. Others of the noisy one still wait.
        held.truncate(held.len() - 2);
        let seat = other.await.unwrap();
        assert!(seat.is_some());
        // Whoever gives up waiting, or is called and does not come, takes no seat with it.
        drop((next, seat, held));
        assert_eq!(fairness.of(Level::Default).lock().taken(), 0);
    }

    #[tokio::test]
    async fn health_and_the_server_itself_never_wait() {
        let (fairness, metrics) = (Fairness::new(), Metrics::new());
        let user = UserInfo::anonymous();
        let seat = fairness.seat(&metrics, &user, &trail("/readyz?verbose"), 0).await.unwrap();
        assert!(seat.is_none());
    }
}
