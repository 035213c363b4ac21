//! What a set's status says of its pools: numbers, and conditions that name them. Pure.

use std::{collections::BTreeMap, fmt::Write as _};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use toono_openyurt::{
    node_pool::NodePoolCondition,
    yurt_app_set::{
        YurtAppSetStatus,
        condition::{APP_DELETED, APP_DISPATCHED, APP_READY, APP_UPDATED, POOL_FOUND},
    },
};

use super::{choice::Choice, live::Progress};

/// Pools that a condition names; of more it tells the number.
const MAX_NAMED: usize = 8;
/// Most characters that it says of one of them.
const MAX_SAID: usize = 300;

/// What was found and done.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// By pool, how its workload fares.
    pub(super) progress: BTreeMap<String, Progress>,
    /// Pools whose workload was made just now, and fares nohow yet.
    pub(super) created: Vec<String>,
    /// Pools whose workload is as it should be, as far as its spec goes.
    pub(super) current: Vec<String>,
    /// By pool, why its workload could not be made.
    pub(super) not_created: BTreeMap<String, String>,
    /// By pool, why its workload could not be changed.
    pub(super) not_updated: BTreeMap<String, String>,
    /// By workload, why it could not be deleted.
    pub(super) not_deleted: BTreeMap<String, String>,
    /// Pools whose workload somebody deletes.
    pub(super) leaving: Vec<String>,
    /// By pool, what is to be noted.
    pub(super) notes: BTreeMap<String, String>,
}

/// A condition's status, reason and message.
type Verdict = (bool, &'static str, String);

impl Facts {
    /// The status, but for what the history says, after the one before.
    pub(super) fn status(&self, choice: &Choice, before: &YurtAppSetStatus) -> YurtAppSetStatus {
        let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let ready = self.progress.values().filter(|progress| progress.is_ready());
        let progress = self.current.iter().filter_map(|pool| self.progress.get(pool));
        YurtAppSetStatus {
            total_workloads: count(self.progress.len() + self.created.len()),
            ready_workloads: count(ready.count()),
            updated_workloads: count(progress.filter(|progress| progress.is_updated()).count()),
            conditions: conditions(
                &before.conditions,
                [
                    (POOL_FOUND, pools_found(choice)),
                    (APP_DISPATCHED, self.dispatched()),
                    (APP_UPDATED, self.updated()),
                    (APP_DELETED, self.deleted()),
                    (APP_READY, self.ready()),
                ],
            ),
            ..before.clone()
        }
    }

    fn dispatched(&self) -> Verdict {
        if !self.not_created.is_empty() {
            return (false, "CreateWorkloadError", list("no workload for", &self.not_created));
        }
        if !self.leaving.is_empty() {
            let pools =
                names("the workloads are being deleted, and follow anew, of", &self.leaving);
            return (false, "WaitingForDeletion", pools);
        }
        (true, "WorkloadsCreated", "each pool has its workload".to_owned())
    }

    fn updated(&self) -> Verdict {
        if !self.not_updated.is_empty() {
            return (false, "UpdateWorkloadError", list("not updated:", &self.not_updated));
        }
        let said = "each workload is as the set says".to_owned();
        if self.notes.is_empty() {
            return (true, "WorkloadsUpdated", said);
        }
        (true, "WorkloadsUpdatedWithNotes", list(&format!("{said}; note of"), &self.notes))
    }

    fn deleted(&self) -> Verdict {
        if self.not_deleted.is_empty() {
            (true, "WorkloadsDeleted", "no workload is left over".to_owned())
        } else {
            (false, "DeleteWorkloadError", list("not deleted:", &self.not_deleted))
        }
    }

    fn ready(&self) -> Verdict {
        let total = self.progress.len() + self.created.len();
        if total == 0 {
            return (false, "NoWorkloadFound", "there is no workload".to_owned());
        }
        let mut waiting: BTreeMap<String, String> = self
            .progress
            .iter()
            .filter(|(_, progress)| !progress.is_ready())
            .map(|(pool, progress)| (pool.clone(), fares(progress)))
            .collect();
        let new = self.created.iter().map(|pool| (pool.clone(), "just made".to_owned()));
        waiting.extend(new);
        if waiting.is_empty() {
            (true, "AllWorkloadsReady", format!("all {total} workloads are ready"))
        } else {
            (false, "NotAllWorkloadsReady", list("not ready:", &waiting))
        }
    }
}

fn fares(progress: &Progress) -> String {
    let Progress { ready, wanted, stuck, .. } = progress;
    match stuck {
        Some(why) => format!("{ready} of {wanted} ready, {why}"),
        None => format!("{ready} of {wanted} ready"),
    }
}

fn pools_found(choice: &Choice) -> Verdict {
    let mut said = Vec::new();
    if !choice.missing.is_empty() {
        said.push(names("not there:", &choice.missing));
    }
    said.extend(choice.idle.iter().take(MAX_NAMED).cloned());
    if choice.tweaks.is_empty() {
        said.insert(0, "the set names and selects no pool that is there".to_owned());
        return (false, "NoFindPools", said.join("; "));
    }
    let pools: Vec<_> = choice.tweaks.keys().cloned().collect();
    said.insert(0, names(&format!("{} pools:", pools.len()), &pools));
    let found = choice.missing.is_empty() && !choice.tweaks_miss;
    (found, if found { "FindPools" } else { "PoolsMissing" }, said.join("; "))
}

/// Sets conditions. The time is that of the last change of the status.
pub(super) fn conditions<const N: usize>(
    before: &[NodePoolCondition],
    verdicts: [(&str, Verdict); N],
) -> Vec<NodePoolCondition> {
    let mut all = before.to_vec();
    for (type_, (holds, reason, message)) in verdicts {
        let status = if holds { "True" } else { "False" };
        let place = all.iter_mut().find(|known| known.type_ == type_);
        let kept = place.as_ref().filter(|known| known.status == status);
        let condition = NodePoolCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            last_transition_time: kept
                .and_then(|known| known.last_transition_time.clone())
                .or_else(|| Some(Time(Timestamp::now()))),
            reason: Some(reason.to_owned()),
            message: Some(message),
        };
        match place {
            Some(place) => *place = condition,
            None => all.push(condition),
        }
    }
    all
}

/// Pools with what is to say of each.
fn list(what: &str, pools: &BTreeMap<String, String>) -> String {
    let mut text = what.to_owned();
    for (place, (pool, said)) in pools.iter().take(MAX_NAMED).enumerate() {
        let comma = if place > 0 { ";" } else { "" };
        // Writing into a String cannot fail.
        let _ = write!(text, "{comma} {pool} ({})", cut(said));
    }
    more(text, pools.len())
}

/// Pools by their names.
pub(super) fn names(what: &str, pools: &[String]) -> String {
    let named: Vec<&str> = pools.iter().take(MAX_NAMED).map(String::as_str).collect();
    more(format!("{what} {}", named.join(", ")), pools.len())
}

fn more(mut text: String, count: usize) -> String {
    if count > MAX_NAMED {
        let _ = write!(text, " and {} more", count - MAX_NAMED);
    }
    text
}

fn cut(said: &str) -> String {
    match said.char_indices().nth(MAX_SAID) {
        Some((end, _)) => format!("{}…", said.get(..end).unwrap_or(said)),
        None => said.to_owned(),
    }
}
