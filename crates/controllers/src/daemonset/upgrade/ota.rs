//! `OTA`: each old daemon is offered its upgrade, and is replaced once somebody has approved it: on its node, or at
//! the cloud. An approval is of one revision, and ends with the pod that it was given for, so nothing is upgraded
//! without one, nor twice by one.

use std::{collections::HashMap, sync::Arc};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use toono_wire::upgrade;

use super::{Daemons, Work, offer};
use crate::{
    daemonset::{COMPONENT, HASH_LABEL, leaving, nodes::Eligibility, update::is_current},
    error::SyncError,
    history,
    informer::Index,
    kinds::pod::Pod,
    object::Metadata,
    pods::{condition, is_finished, node_name, uid},
    recorder::Severity,
};

/// Pods that are written at the same time: enough to cover a commit's latency.
const MAX_IN_FLIGHT: usize = 64;

/// What is known of one daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct View {
    /// It is leaving, or has ended: it is others' matter.
    over: bool,
    /// It is of the newest revision.
    current: bool,
    /// It shows what is offered to it now: for a current one, nothing.
    told: bool,
    /// Somebody approved the newest revision for it.
    approved: bool,
    /// Its node was asked to pull the newest revision's images, and has not got them yet.
    pulling: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Nothing,
    Offer,
    Withdraw,
    Replace,
}

/// An approval counts from when the revision is offered: what was said of it before, or of another one, is void.
fn decide(view: View) -> Act {
    match view {
        View { over: true, .. } => Act::Nothing,
        View { current: true, told: false, .. } => Act::Withdraw,
        View { current: false, told: false, .. } => Act::Offer,
        View { current: false, approved: true, pulling: false, .. } => Act::Replace,
        View { .. } => Act::Nothing,
    }
}

fn view(pod: &Pod, revision: &str, offer: &str) -> View {
    let current = is_current(pod, revision);
    let told = if current { offer::is_withdrawn(pod) } else { offer::is_made(pod, offer) };
    let answer = condition(pod, upgrade::APPROVED_HERE).filter(|it| &*it.status == "True");
    let here = answer.and_then(|it| it.message.as_deref()) == Some(revision);
    let there = pod.metadata.annotation(upgrade::APPROVED) == Some(revision);
    let image = condition(pod, upgrade::IMAGE_READY).filter(|it| {
        it.message.as_deref().is_some_and(|message| upgrade::is_of_revision(message, revision))
    });
    let asked = pod.metadata.annotation(upgrade::PULL) == Some(revision);
    let ready = image.is_some_and(|it| &*it.status == "True");
    View {
        over: leaving(pod) || is_finished(pod),
        current,
        told,
        approved: here || there,
        pulling: !ready && (asked || image.is_some()),
    }
}

/// Writes offers, and replaces what was approved.
pub(super) async fn step(work: &Work<'_>, daemons: &Daemons) -> Result<(), SyncError> {
    let Some(spec) = &work.set.spec else { return Ok(()) };
    let offer = offer::of_template(&spec.template, work.hash);
    let text = offer.to_text();
    let (mut doomed, mut offered, mut withdrawn) = (Vec::new(), Vec::new(), Vec::new());
    let on_nodes = daemons.nodes.values().filter(|(can, _)| *can != Eligibility::No);
    for pod in on_nodes.flat_map(|(_, pods)| pods) {
        match decide(view(pod, work.hash, &text)) {
            Act::Nothing => {}
            Act::Offer => offered.push(Arc::clone(pod)),
            Act::Withdraw => withdrawn.push(Arc::clone(pod)),
            Act::Replace => doomed.push(Arc::clone(pod)),
        }
    }
    tell(work, offered.len(), &doomed);
    // What somebody waits for goes first.
    work.control().delete(&doomed).await?;
    let context = work.context;
    let offer = &offer;
    let offers = offered.into_iter().map(|pod| offer::make(context, pod, offer, false));
    let outcomes: Vec<_> = stream::iter(offers).buffer_unordered(MAX_IN_FLIGHT).collect().await;
    outcomes.into_iter().collect::<Result<(), _>>()?;
    let ends = withdrawn.into_iter().map(|pod| offer::withdraw(context, pod));
    let outcomes: Vec<_> = stream::iter(ends).buffer_unordered(MAX_IN_FLIGHT).collect().await;
    outcomes.into_iter().collect()
}

fn tell(work: &Work<'_>, offered: usize, doomed: &[Arc<Pod>]) {
    let tell = |reason, message| {
        let (recorder, severity) = (&work.context.recorder, Severity::Normal);
        recorder.record(COMPONENT, work.set, severity, reason, message);
    };
    if offered > 0 {
        let message =
            format!("Offered revision {} to {offered} pods, which wait for an approval", work.hash);
        tell("UpgradeOffered", message);
    }
    for pod in doomed {
        let node = node_name(pod).unwrap_or("no node");
        let name = &pod.metadata.key().name;
        tell(
            "UpgradeApproved",
            format!("Revision {} is approved for pod {name} on {node}", work.hash),
        );
    }
}

/// A daemon to be made on a node, of a revision that need not be the newest.
pub(in crate::daemonset) struct Heir {
    pub(in crate::daemonset) node: String,
    pub(in crate::daemonset) hash: String,
    pub(in crate::daemonset) template: PodTemplateSpec,
}

/// A daemon that failed (evicted, say) makes room for another. That one is of the same revision, unless the new one
/// was approved: an accident is no approval.
pub(super) fn heirs(work: &Work<'_>, daemons: &Daemons) -> Vec<Heir> {
    let mut templates: HashMap<String, Option<PodTemplateSpec>> = HashMap::new();
    let mut heirs = Vec::new();
    for (node, (can, pods)) in &daemons.nodes {
        let ended = pods.iter().rfind(|pod| !leaving(pod));
        let Some(ended) = ended.filter(|_| *can == Eligibility::Yes) else { continue };
        let only_ended = pods.iter().all(|pod| leaving(pod) || is_finished(pod));
        let View { current, approved, .. } = view(ended, work.hash, "");
        let Some(hash) = ended.metadata.label(HASH_LABEL) else { continue };
        if !only_ended || current || approved {
            continue;
        }
        let template =
            templates.entry(hash.to_owned()).or_insert_with(|| template_of(work, hash)).clone();
        if let Some(template) = template {
            heirs.push(Heir { node: node.clone(), hash: hash.to_owned(), template });
        }
    }
    heirs
}

fn template_of(work: &Work<'_>, hash: &str) -> Option<PodTemplateSpec> {
    let revisions = work.context.revisions.by(Index::Owner, uid(&work.set.metadata));
    let found = revisions.iter().find(|revision| {
        let labels = revision.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(HASH_LABEL)).is_some_and(|label| label == hash)
    });
    found.and_then(|revision| history::template_of(revision))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_view() -> impl Strategy<Value = View> {
        any::<[bool; 5]>().prop_map(|[over, current, told, approved, pulling]| View {
            over,
            current,
            told,
            approved,
            pulling,
        })
    }

    proptest! {
        #[test]
        fn nothing_is_replaced_without_an_approval_nor_what_is_new_already(view in any_view()) {
            let replaced = decide(view) == Act::Replace;
            let may =
                !view.over && !view.current && view.told && view.approved && !view.pulling;
            prop_assert_eq!(replaced, may);
        }

        #[test]
        fn whoever_was_told_is_not_told_again(view in any_view()) {
            let told = View { told: true, ..view };
            prop_assert!(!matches!(decide(told), Act::Offer | Act::Withdraw));
            if !view.over {
                let untold = if view.current { Act::Withdraw } else { Act::Offer };
                prop_assert_eq!(decide(View { told: false, ..view }), untold);
            }
        }
    }

    fn pod(annotations: serde_json::Value, conditions: serde_json::Value) -> Arc<Pod> {
        let pod = serde_json::json!({"metadata": {"name": "p", "namespace": "d",
            "labels": {HASH_LABEL: "old"}, "annotations": annotations},
            "status": {"phase": "Running", "conditions": conditions}});
        crate::kinds::pod::cached(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn an_approval_is_of_one_revision() {
        use serde_json::json;
        let approved =
            |annotations, conditions| view(&pod(annotations, conditions), "new", "{}").approved;
        let here = |message: &str, status: &str| json!([{"type": upgrade::APPROVED_HERE, "status": status, "message": message}]);
        assert!(approved(json!({upgrade::APPROVED: "new"}), json!([])));
        assert!(approved(json!({}), here("new", "True")));
        for other in [here("older", "True"), here("new", "False"), here("", "True")] {
            assert!(!approved(json!({upgrade::APPROVED: "older"}), other.clone()), "{other}");
        }
    }

    #[test]
    fn an_upgrade_waits_for_the_images_that_were_asked_for() {
        use serde_json::json;
        let pulling = |asked: &str, message: &str, status: &str| {
            let conditions =
                json!([{"type": upgrade::IMAGE_READY, "status": status, "message": message}]);
            view(&pod(json!({upgrade::PULL: asked}), conditions), "new", "{}").pulling
        };
        assert!(pulling("new", "", "False") && pulling("new", "older: x", "True"));
        assert!(pulling("", "new: pulling", "False"));
        assert!(!pulling("new", "new: here", "True") && !pulling("", "older: x", "False"));
    }
}
