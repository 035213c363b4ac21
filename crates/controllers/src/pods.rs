//! Facts about pods that several controllers ask for.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::{
    kinds::{pod::Pod, status::PodCondition},
    object::{Claimable, Metadata},
};

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.report().phase.as_deref().unwrap_or("Pending")
}

/// It ended for good.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// It runs or will run: neither finished nor being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !pod.metadata.is_leaving()
}

pub(crate) fn node_name(pod: &Pod) -> Option<&str> {
    pod.node_name()
}

pub(crate) fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.report().conditions.iter().find(|condition| *condition.type_ == *type_)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| &*ready.status == "True")
}

/// Since when it is ready.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    if is_ready(pod) { pod.ready_changed() } else { None }
}

/// It has been ready for the given time.
pub(crate) fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    if !is_ready(pod) {
        return false;
    }
    min_ready_seconds == 0
        || ready_since(pod).is_some_and(|since| {
            now.duration_since(since) >= SignedDuration::from_secs(min_ready_seconds.into())
        })
}

/// The reference to the controller that owns an object.
pub(crate) fn controller_of<M: Claimable>(metadata: &M) -> Option<&OwnerReference> {
    metadata.owners().iter().find(|owner| owner.controller == Some(true))
}

/// When an object was made.
pub(crate) fn created<M: Claimable>(metadata: &M) -> Option<Timestamp> {
    metadata.created()
}

/// An object's uid; empty only before it was created.
pub(crate) fn uid<M: Metadata>(metadata: &M) -> &str {
    metadata.uid()
}
