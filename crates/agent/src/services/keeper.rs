//! The task: what it waits for, and what it does then.

use std::time::Duration;

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep_until},
};
use toono_net::nft::watch::{Heard, Watch};
use toono_topology::{Changes, Family, Topology};

use super::{
    Services, Wish,
    kernel::{self, Found, Kernel, ServicesError},
    layout::Layout,
};
use crate::{
    join::chain,
    network::PodNetwork,
    pool::{Pool, Touch},
};

/// So long after somebody else changed the rulesets they are looked at: a script that makes ten changes is
/// looked at once.
const LOOK_AFTER: Duration = Duration::from_millis(200);
/// All elements are compared this often at most, where there are many: somebody else may change rulesets all day.
const COMPARE_EVERY: Duration = Duration::from_secs(60);
/// So many are compared whenever rulesets changed.
const FEW_ELEMENTS: usize = 2_000;
/// What is more than this is programmed on another thread.
const MOST_AT_ONCE: usize = 500;
/// What the kernel refused is tried again after this, each time after twice as long, up to the second.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// What an earlier agent left in the kernel serves on until those of this node who have something to serve have
/// said so.
const TAKE_OVER_AFTER: Duration = Duration::from_secs(1);

struct Keeper {
    topology: Topology,
    /// Away while another thread has it.
    kernel: Option<Kernel>,
    layout: Layout,
    /// Everything is to be compared then.
    due: Option<Instant>,
    /// The frame is to be looked at then.
    look: Option<Instant>,
    compared: Option<Instant>,
    pause: Duration,
}

impl Services {
    /// Keeps Services in the kernel for as long as the agent lives.
    pub(crate) async fn run(self, node: String, network: PodNetwork, pool: Pool) {
        let layout = Layout::v4(network.bridge().clone(), network.cidr());
        let mut keeper = Keeper {
            topology: Topology::new(node, Family::V4),
            kernel: None,
            layout,
            due: None,
            look: None,
            compared: None,
            pause: RETRY_FIRST,
        };
        keeper.read(&pool, &Touch::All);
        keeper.due = Some(keeper.first_comparison());
        let follower = pool.follow();
        let mut watch = None;
        loop {
            if watch.is_none() {
                watch = Watch::current()
                    .inspect_err(|error| {
                        tracing::warn!(error = chain(error), "changes of rulesets go unheard");
                    })
                    .ok();
            }
            tokio::select! {
                touch = follower.changed() => keeper.read(&pool, &touch),
                wishes = self.asked() => keeper.grant(&pool, wishes),
                heard = hear(watch.as_ref()) => match heard {
                    Some(heard) => keeper.hear(heard),
                    None => {
                        watch = None;
                        keeper.look = Some(Instant::now() + COMPARE_EVERY);
                    }
                },
                () = until(keeper.look) => {
                    keeper.look_at_frame();
                    mend(&network).await;
                }
                () = until(keeper.due) => keeper.compare().await,
            }
            keeper.program().await;
        }
    }
}

/// Who changed rulesets may have taken away more than those of Services.
async fn mend(network: &PodNetwork) {
    match network.mend().await {
        Ok(false) => {}
        Ok(true) => {
            tracing::warn!("somebody changed the rules of the pod network; they are made good")
        }
        Err(error) => {
            tracing::warn!(error = chain(&error), "the rules of the pod network may be gone");
        }
    }
}

async fn hear(watch: Option<&Watch>) -> Option<Heard> {
    match watch {
        Some(watch) => watch.changed().await.ok(),
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn size_of(changes: &Changes) -> usize {
    changes.fronts.len() * 2 + changes.slots.len() + changes.members.len()
}

impl Keeper {
    fn first_comparison(&self) -> Instant {
        let now = Instant::now();
        let left = Kernel::open(self.layout.clone()).and_then(|mut kernel| kernel.is_there());
        if left.unwrap_or(false) { now + TAKE_OVER_AFTER } else { now }
    }

    fn read(&mut self, pool: &Pool, touch: &Touch) {
        let topology = &mut self.topology;
        let moves = topology.set_vantage(pool.vantage());
        pool.read(|records| match touch {
            Touch::Keys(keys) if !moves => topology.read(records, keys.iter().map(|key| &**key)),
            _ => topology.read_all(records),
        });
    }

    fn grant(&mut self, pool: &Pool, wishes: Vec<Wish>) {
        for wish in wishes {
            match wish {
                Wish::Here { service, port, at } => pool.read(|records| {
                    self.topology.serve_here(records, &service, &port, Some(at));
                }),
                Wish::HostPorts { uid, ports } => self.topology.set_host_ports(&uid, &ports),
            }
        }
    }

    fn hear(&mut self, heard: Heard) {
        let own = self.kernel.as_ref().and_then(Kernel::generation);
        if !matches!(heard, Heard::Generation(made) if Some(made) == own) && self.look.is_none() {
            self.look = Some(Instant::now() + LOOK_AFTER);
        }
    }

    /// Somebody else changed rulesets: rules first, which is cheap, and elements, if that is or was not lately.
    fn look_at_frame(&mut self) {
        self.look = None;
        let Some(kernel) = &mut self.kernel else { return };
        let next = self.compared.map(|at| at + COMPARE_EVERY).filter(|at| *at > Instant::now());
        let few = size_of(&self.topology.everything()) <= FEW_ELEMENTS;
        let is_framed = kernel.is_framed().unwrap_or(false);
        let at = if is_framed && !few { next } else { None };
        let at = at.unwrap_or_else(Instant::now);
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Programs what changed, if everything else is known to be right.
    async fn program(&mut self) {
        let Some(mut kernel) = self.kernel.take() else { return };
        let changes = self.topology.take_changes();
        if changes.is_empty() {
            self.kernel = Some(kernel);
            return;
        }
        let disturbs = changes.disturbs_udp;
        let done = if size_of(&changes) <= MOST_AT_ONCE {
            let done = kernel.change(&changes);
            Ok((kernel, done))
        } else {
            let work = move || {
                let done = kernel.change(&changes);
                (kernel, done)
            };
            spawn_blocking(work).await
        };
        match done {
            Ok((kernel, Ok(()))) => {
                self.kernel = Some(kernel);
                self.pause = RETRY_FIRST;
                if disturbs {
                    self.forget_stale();
                }
            }
            Ok((kernel, Err(error))) => {
                // It is not as it was thought to be; the comparison says in what.
                tracing::debug!(error = chain(&error), "a change of Services was refused");
                self.kernel = Some(kernel);
                self.due = Some(Instant::now());
            }
            Err(_) => self.due = Some(Instant::now()),
        }
    }

    async fn compare(&mut self) {
        self.due = None;
        match self.try_compare().await {
            Ok(found) => {
                if found != Found::Right && self.compared.is_some() {
                    tracing::warn!(?found, "Services in the kernel were not as they should be");
                }
                self.compared = Some(Instant::now());
                self.pause = RETRY_FIRST;
                self.forget_stale();
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "Services are not in the kernel");
                self.due = Some(Instant::now() + self.pause);
                self.pause = (self.pause * 2).min(RETRY_MOST);
            }
        }
    }

    async fn try_compare(&mut self) -> Result<Found, ServicesError> {
        let mut kernel = match self.kernel.take() {
            Some(kernel) => kernel,
            None => Kernel::open(self.layout.clone())?,
        };
        // What is compared has all changes up to now.
        self.topology.take_changes();
        let everything = self.topology.everything();
        if size_of(&everything) <= MOST_AT_ONCE {
            let found = kernel.compare(&everything);
            self.kernel = Some(kernel);
            return found;
        }
        let work = move || {
            let found = kernel.compare(&everything);
            (kernel, found)
        };
        let Ok((kernel, found)) = spawn_blocking(work).await else {
            return Ok(Found::Remade);
        };
        self.kernel = Some(kernel);
        found
    }

    fn forget_stale(&self) {
        match kernel::forget_stale(&self.topology) {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "flows that led nowhere are forgotten"),
            Err(error) => tracing::warn!(error = chain(&error), "stale flows are left"),
        }
    }
}
