//! What happens to a write between its decoding and the store: what the cluster adds to it, and
//! whether the cluster takes it. It must not write by itself: what has to change together with an
//! object, such as a quota's count, is handed back as part of the object's own transaction.
//!
//! The order is Kubernetes': [`mutate`], then the kind's own rules, then [`validate`], then, each time
//! that the write is tried, [`charge`].

pub(crate) mod authority;
mod certificates;
mod lifecycle;
mod limit_ranger;
mod node_pool;
mod priority;
mod quota;
mod service_account;
mod static_upgrades;
pub(crate) mod webhooks;

use serde_json::Value;
use toono_api::{
    ApiError, Resource, UserInfo,
    kinds::service::{self, SERVICE},
};
use toono_mvcc::{Expect, Key, Op};

use crate::{server::ApiServer, services};

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

/// A write that is to be admitted.
#[derive(Clone, Copy)]
pub(crate) struct Review<'a> {
    pub(crate) server: &'a ApiServer,
    pub(crate) user: &'a UserInfo,
    pub(crate) operation: Operation,
    pub(crate) resource: &'a Resource,
    /// Empty for the object itself.
    pub(crate) subresource: &'a str,
    /// Empty for cluster scope.
    pub(crate) namespace: &'a str,
    /// Empty while the name is still to be generated.
    pub(crate) name: &'a str,
    /// The object before the write; none on creation.
    pub(crate) old: Option<&'a Value>,
    pub(crate) dry_run: bool,
}

/// What has to hold, and to change, in the transaction of the write.
#[derive(Debug, Default)]
pub(crate) struct Charge {
    pub(crate) guards: Vec<(Key, Expect)>,
    pub(crate) ops: Vec<(Expect, Op)>,
}

/// Adds to the object what the cluster adds. Answers warnings for the client.
///
/// # Errors
/// When the cluster does not take the write.
pub(crate) async fn mutate(
    review: &Review<'_>,
    object: &mut Value,
) -> Result<Vec<String>, ApiError> {
    certificates::complete(review, object);
    if let Some(old) = review.old.filter(|_| review.resource.is(&SERVICE)) {
        service::carry_over(object, old);
    }
    limit_ranger::mutate(review, object)?;
    service_account::mutate(review, object)?;
    priority::mutate(review, object)?;
    webhooks::mutate(review, object).await
}

/// Judges the object as it is about to be stored; on deletion, as it is. Answers warnings.
///
/// # Errors
/// When the cluster does not take the write.
pub(crate) async fn validate(review: &Review<'_>, object: &Value) -> Result<Vec<String>, ApiError> {
    authority::check(review, object)?;
    lifecycle::validate(review)?;
    node_pool::validate(review, object)?;
    limit_ranger::validate(review, object)?;
    priority::validate(review, object)?;
    webhooks::validate(review, object).await
}

/// What must be written together with the object, and what is written into it for that: addresses that
/// it takes. Called anew each time the write is tried.
///
/// # Errors
/// When there is no room for the object.
pub(crate) fn charge(review: &Review<'_>, object: &mut Value) -> Result<Charge, ApiError> {
    let mut charge = Charge::default();
    service_account::charge(review, &mut charge)?;
    quota::charge(review, object, &mut charge)?;
    if review.resource.is(&SERVICE) {
        services::charge(review, object, &mut charge)?;
    }
    Ok(charge)
}

/// What goes together with an object that goes.
///
/// # Errors
/// When what it had cannot be read.
pub(crate) fn release(review: &Review<'_>, object: &mut Value) -> Result<Charge, ApiError> {
    let mut charge = Charge::default();
    if review.resource.is(&SERVICE) {
        services::charge(review, object, &mut charge)?;
    }
    Ok(charge)
}

/// Whether the write changes what a pod may use.
fn is_resized_pod(review: &Review<'_>) -> bool {
    review.subresource == "resize" && review.resource.is(&toono_api::kinds::pod::POD)
}

impl Review<'_> {
    /// The refusal of the write, in the words of whoever refuses it.
    fn forbidden(&self, why: &str) -> ApiError {
        ApiError::Forbidden {
            resource: self.resource.group_resource(),
            name: self.name.to_owned(),
            why: why.to_owned(),
        }
    }
}
