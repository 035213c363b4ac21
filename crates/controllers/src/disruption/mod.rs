//! Disruption budgets: how many pods may be evicted now. Evictions take from that number; here it
//! is counted anew with each change of a pod.

mod kinds;
mod numbers;
mod scale;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{Api, core::Selector};

use crate::{
    claim::selects,
    context::Context,
    error::{SyncError, is_not_found},
    informer::{Change, Index, Informer, Reader, by_namespace},
    key::Key,
    kinds::{pod::Pod, replace_part},
    object::Metadata,
    queue::WorkQueue,
    recorder::Severity,
    worker::{self, Again},
};
use kinds::{Budget, BudgetStatus};

const COMPONENT: &str = "disruption-controller";
/// When a budget whose numbers could not be had is tried again, should no pod change before.
const FAILED_RETRY: Duration = Duration::from_secs(30);

/// Keeps budgets' numbers.
pub(crate) struct Controller {
    queue: Arc<WorkQueue<Key>>,
    budgets: Informer<Budget>,
}

impl Controller {
    pub(crate) fn new(context: &mut Context) -> Self {
        let queue = Arc::new(WorkQueue::new());
        let mut budgets = Informer::<Budget>::new(vec![(Index::Namespace, by_namespace)]);
        budgets.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                if let Some(budget) = &change.new {
                    queue.add(Key::of(&budget.metadata));
                }
            }
        });
        context.pods.on_change({
            let (queue, budgets) = (Arc::clone(&queue), budgets.reader());
            move |change| pod_changed(change, &budgets, &queue)
        });
        Self { queue, budgets }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        let (budgets, shared) = (&self.budgets, &context);
        let sync = |key: Key| async move { sync(shared, budgets, &key).await };
        let work = async {
            budgets.wait_synced().await;
            context.pods.wait_synced().await;
            context.replica_sets.wait_synced().await;
            context.deployments.wait_synced().await;
            let workers = context.config.concurrent_syncs;
            worker::run(COMPONENT, workers, Arc::clone(&self.queue), sync).await;
        };
        futures::join!(budgets.run(Api::all(context.client.clone())), work);
    }
}

fn pod_changed(change: &Change<Pod>, budgets: &Reader<Budget>, queue: &WorkQueue<Key>) {
    let Some(pod) = change.latest() else { return };
    let namespace = pod.metadata.namespace();
    for budget in budgets.by(Index::Namespace, namespace) {
        let Some(selector) = selector(&budget) else { continue };
        let both = [&change.old, &change.new];
        if both.into_iter().flatten().any(|pod| selects(&selector, &**pod)) {
            queue.add(Key::of(&budget.metadata));
        }
    }
}

/// A budget without a selector is for no pod, one with an empty selector for all.
fn selector(budget: &Budget) -> Option<Selector> {
    budget.spec.selector.clone().and_then(|selector| Selector::try_from(selector).ok())
}

async fn sync(
    context: &Context,
    budgets: &Informer<Budget>,
    key: &Key,
) -> Result<Again, SyncError> {
    let Some(budget) = budgets.get(key) else { return Ok(None) };
    let selector = selector(&budget);
    let mut pods = context.pods.by(Index::Namespace, &key.namespace);
    pods.retain(|pod| selector.as_ref().is_some_and(|selector| selects(selector, &**pod)));
    if pods.is_empty() {
        let message = "No matching pods found".to_owned();
        context.recorder.record(COMPONENT, &*budget, Severity::Normal, "NoPods", message);
    }
    let expected = match expected(context, &budget, &pods).await {
        Ok(expected) => expected,
        Err(why) => {
            let message = format!("Failed to calculate the number of expected pods: {why}");
            let reason = "CalculateExpectedPodCountFailed";
            context.recorder.record(COMPONENT, &*budget, Severity::Warning, reason, message);
            write(context, &budget, numbers::failed(&budget, why), key).await?;
            return Ok(Some(FAILED_RETRY));
        }
    };
    let (disrupted, again) = numbers::disrupted(&budget, &pods, Timestamp::now());
    let healthy = numbers::healthy(&pods, &disrupted);
    let status = numbers::status(&budget, expected, healthy, disrupted);
    write(context, &budget, status, key).await?;
    Ok(again)
}

async fn expected(
    context: &Context,
    budget: &Budget,
    pods: &[Arc<Pod>],
) -> Result<numbers::Expected, String> {
    let total = if numbers::counts_owners(&budget.spec) {
        let (total, unmanaged) = scale::of_owners(context, pods).await?;
        if unmanaged {
            let message = "Pods selected by this PodDisruptionBudget were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.";
            let reason = "UnmanagedPods";
            context.recorder.record(COMPONENT, budget, Severity::Warning, reason, message.into());
        }
        total
    } else {
        i32::try_from(pods.len()).unwrap_or(i32::MAX)
    };
    numbers::expected(&budget.spec, total)
}

/// Writes only on top of what was read: an eviction may have taken from the number meanwhile.
async fn write(
    context: &Context,
    budget: &Budget,
    status: BudgetStatus,
    key: &Key,
) -> Result<(), SyncError> {
    if status == budget.status {
        return Ok(());
    }
    let written = Budget { status, ..budget.clone() };
    match replace_part(&context.client, &written, "status").await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => {
            Err(SyncError::api("update the status of", "PodDisruptionBudget", key)(error))
        }
    }
}
