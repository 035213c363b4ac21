//! The scheduler: gives each waiting pod a node by `toono-placement` and binds it.
//!
//! The picture of the cluster is updated by the watches' handlers themselves, so a decision is
//! made as soon as a change is seen. A decided pod counts on its node at once (it is *assumed*)
//! while its binding is under way, so decisions never wait for the API.

mod bind;
mod preempt;
mod queue;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};
use toono_api::intern::Pool;
use toono_placement::{Budget, Cluster, Placement, Preemption};

use crate::{
    context::Context,
    informer::Change,
    key::Key,
    kinds::{Namespace, node::Node, pod::Pod},
    object::Metadata,
    pods::{is_finished, node_name, uid},
};
use preempt::Nomination;
use queue::{PodQueue, Waiting};

/// The component that events and bindings name.
const COMPONENT: &str = "default-scheduler";

/// Why pods wait: many for the same reasons.
static REASONS: Pool<str> = Pool::new();

struct State {
    cluster: Cluster,
    queue: PodQueue,
    /// Decided and not yet seen as bound, with their uids.
    assumed: HashMap<Key, String>,
    /// Pods that wait for others to leave the nodes which they count on already.
    nominated: HashMap<Key, Nomination>,
}

struct Shared {
    state: Mutex<State>,
    wake: Notify,
    scheduler_name: String,
}

/// The scheduler.
pub(crate) struct Scheduler {
    shared: Arc<Shared>,
}

impl Scheduler {
    pub(crate) fn new(context: &mut Context) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                cluster: Cluster::new(),
                queue: PodQueue::default(),
                assumed: HashMap::new(),
                nominated: HashMap::new(),
            }),
            wake: Notify::new(),
            scheduler_name: context.config.scheduler_name.clone(),
        });
        context.nodes.on_change({
            let shared = Arc::clone(&shared);
            move |change| shared.node_changed(change)
        });
        context.pods.on_change({
            let shared = Arc::clone(&shared);
            move |change| shared.pod_changed(change)
        });
        context.namespaces.on_change({
            let shared = Arc::clone(&shared);
            move |change| shared.namespace_changed(change)
        });
        Self { shared }
    }

    pub(crate) async fn run(self: Arc<Self>, context: Arc<Context>) {
        // With half the cluster known the choice would be wrong for good.
        context.nodes.wait_synced().await;
        context.pods.wait_synced().await;
        context.namespaces.wait_synced().await;
        let bindings = Arc::new(Semaphore::new(context.config.concurrent_bindings.max(1)));
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let Ok(permit) = Arc::clone(&bindings).acquire_owned().await else { return };
            let (waiting, placement) = self.decide().await;
            let (shared, context) = (Arc::clone(&self.shared), Arc::clone(&context));
            tasks.spawn(async move {
                match placement {
                    Placement::Node(node) => bind::bind(&shared, &context, waiting, &node).await,
                    Placement::NoFit { reasons } => {
                        bind::refuse(&context, &waiting, &reasons).await;
                        preempt::make_room(&shared, &context, &waiting).await;
                    }
                }
                drop(permit);
            });
        }
    }

    /// The next decision; waits until a pod is due.
    async fn decide(&self) -> (Waiting, Placement) {
        loop {
            let due = {
                let mut state = self.shared.state();
                let state = &mut *state;
                if let Some(waiting) = state.queue.pop(Instant::now()) {
                    return state.place(waiting);
                }
                state.queue.next_due()
            };
            let woken = self.shared.wake.notified();
            match due {
                Some(due) => {
                    tokio::select! {
                        () = woken => {}
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
                None => woken.await,
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node_changed(&self, change: &Change<Node>) {
        if let (Some(new), Some(old)) = (&change.new, &change.old)
            && new.is_placed_on_as(old)
        {
            return;
        }
        let mut state = self.state();
        match (&change.new, &change.old) {
            (Some(node), _) => {
                if state.cluster.set_node(&node.placement()) {
                    state.queue.reconsider(Instant::now());
                }
            }
            (None, Some(node)) => state.cluster.remove_node(node.metadata.name()),
            (None, None) => {}
        }
        drop(state);
        self.wake.notify_one();
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        let mut state = self.state();
        let now = Instant::now();
        match (&change.new, &change.old) {
            (Some(pod), _) if is_finished(pod) => state.release(pod, now),
            (Some(pod), _) if node_name(pod).is_some() => state.bound(pod, now),
            (Some(pod), _) => state.unbound(pod, &self.scheduler_name),
            (None, Some(pod)) => state.release(pod, now),
            (None, None) => {}
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Inter-pod affinity may select namespaces by their labels.
    fn namespace_changed(&self, change: &Change<Namespace>) {
        let mut state = self.state();
        match (&change.new, &change.old) {
            (Some(namespace), _) => {
                let labels = namespace.metadata.labels.clone().unwrap_or_default();
                state.cluster.set_namespace(namespace.metadata.name(), labels);
            }
            (None, Some(namespace)) => state.cluster.remove_namespace(namespace.metadata.name()),
            (None, None) => {}
        }
        state.queue.reconsider_company(Instant::now());
        drop(state);
        self.wake.notify_one();
    }

    /// A binding failed for a reason that may pass: the pod waits again.
    fn try_again(&self, waiting: Waiting) {
        let mut state = self.state();
        state.drop_assumption(&waiting);
        state.queue.put_back(waiting, Instant::now());
        drop(state);
        self.wake.notify_one();
    }

    /// The pod needs no binding any more.
    fn forget(&self, waiting: &Waiting) {
        self.state().drop_assumption(waiting);
    }
}

impl State {
    /// Decides, and counts the decision in the same breath: a change that comes later finds the
    /// pod assumed or parked.
    fn place(&mut self, waiting: Waiting) -> (Waiting, Placement) {
        let view = waiting.pod.placement();
        if self.nominated.contains_key(&waiting.key()) {
            self.cluster.remove_pod(&view.key);
        }
        let placement = self.cluster.place(&view);
        match &placement {
            Placement::Node(node) => {
                self.cluster.assume(&view, node);
                self.nominated.remove(&waiting.key());
                self.assumed.insert(waiting.key(), uid(&waiting.pod.metadata).to_owned());
            }
            Placement::NoFit { reasons } => {
                if let Some(nomination) = self.nominated.get(&waiting.key()) {
                    self.cluster.assume(&view, &nomination.node);
                }
                let mut parked = waiting.clone();
                parked.told = Some(REASONS.share(reasons.as_str()));
                self.queue.park(parked, Instant::now());
            }
        }
        (waiting, placement)
    }

    /// Whether the pod may push others out, and does not wait for some to go already.
    fn wants_room(&self, waiting: &Waiting) -> bool {
        let waits = self.nominated.get(&waiting.key()).is_some_and(|nomination| {
            nomination.victims.iter().any(|victim| self.cluster.node_of(victim).is_some())
        });
        !waits && self.cluster.may_preempt(&waiting.pod.placement())
    }

    /// Chooses whom to push out for the pod, and counts it on their node from now on.
    fn nominate(&mut self, waiting: &Waiting, budgets: &[Budget]) -> Option<Preemption> {
        let (key, view) = (waiting.key(), waiting.pod.placement());
        // It may have been bound, changed or deleted meanwhile.
        if !self.queue.holds(waiting) {
            return None;
        }
        if self.nominated.remove(&key).is_some() {
            self.cluster.remove_pod(&view.key);
        }
        let preemption = self.cluster.preempt(&view, budgets)?;
        for victim in &preemption.victims {
            // Another that only waits for its node loses the claim; there is nothing to delete.
            if self.nominated.remove(&Key::new(&victim.namespace, &victim.name)).is_some() {
                self.cluster.remove_pod(victim);
            }
        }
        self.cluster.assume(&view, &preemption.node);
        let (node, victims) = (preemption.node.clone(), preemption.victims.clone());
        self.nominated.insert(key, Nomination { node, victims });
        Some(preemption)
    }

    fn bound(&mut self, pod: &Arc<Pod>, now: Instant) {
        let key = pod.metadata.key();
        self.assumed.remove(&key);
        self.nominated.remove(&key);
        self.queue.remove(&key);
        self.cluster.set_pod(&pod.placement());
        // A pod that is leaving or joined may be what a spread constraint or an affinity waits for.
        self.queue.reconsider_company(now);
    }

    fn unbound(&mut self, pod: &Arc<Pod>, scheduler_name: &str) {
        let key = pod.metadata.key();
        if self.assumed.get(&key).is_some_and(|assumed| assumed == uid(&pod.metadata)) {
            return;
        }
        let template = pod.template();
        let ours = template.scheduler_name.as_deref().unwrap_or(scheduler_name) == scheduler_name;
        if ours && !template.gated && !pod.metadata.is_leaving() {
            self.queue.offer(Arc::clone(pod));
        } else {
            self.queue.remove(&key);
        }
    }

    fn release(&mut self, pod: &Pod, now: Instant) {
        let key = pod.metadata.key();
        self.assumed.remove(&key);
        self.nominated.remove(&key);
        self.queue.remove(&key);
        self.cluster.remove_pod(&pod.placement_key());
        self.queue.reconsider(now);
    }

    fn drop_assumption(&mut self, waiting: &Waiting) {
        let key = waiting.key();
        if self.assumed.get(&key).is_some_and(|assumed| assumed == uid(&waiting.pod.metadata)) {
            self.assumed.remove(&key);
            self.cluster.remove_pod(&waiting.pod.placement_key());
        }
    }
}
