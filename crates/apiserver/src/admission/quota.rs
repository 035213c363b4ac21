//! ResourceQuotas: what an object uses is charged in the transaction that writes it, so that no two
//! writes can use the same rest, whichever servers they go through.
//!
//! <https://kubernetes.io/docs/concepts/policy/resource-quotas/>

use serde_json::Value;
use toono_api::{ApiError, kinds};
use toono_mvcc::{Expect, Op, Prefix};
use toono_quota::{Kind, Quota};

use super::{Charge, Operation, Review, is_resized_pod};
use crate::{encode, server::expired};

pub(super) fn charge(
    review: &Review<'_>,
    object: &Value,
    charge: &mut Charge,
) -> Result<(), ApiError> {
    let counts = review.resource.namespaced
        && review.operation != Operation::Delete
        && (review.subresource.is_empty() || is_resized_pod(review))
        && !review.resource.is(&kinds::limits::RESOURCE_QUOTA);
    if !counts {
        return Ok(());
    }
    let server = review.server;
    let resource = server.built_in(&kinds::limits::RESOURCE_QUOTA);
    let prefix =
        Prefix::namespace(&resource.stored_group, &resource.stored_plural, review.namespace);
    let page = server.inner.store.list(&prefix, server.revision(), None, usize::MAX);
    let kind = Kind { group: &review.resource.group, plural: &review.resource.plural };
    let now = crate::ApiServer::now();
    for entry in page.map_err(expired)?.entries {
        let mut stored = encode::decode(&resource, &entry)?;
        let quota = Quota::read(&stored);
        let charged = quota.charge(kind, review.old, object, now);
        let used = charged.map_err(|denied| review.forbidden(&denied.to_string()))?;
        // What it does not count, it need not even guard: its own change is another's business.
        let Some(used) = used else { continue };
        if let Some(status) = stored.get_mut("status").and_then(Value::as_object_mut) {
            status.insert("used".to_owned(), used.to_value());
        }
        let value = encode::draft(&resource, &stored);
        let expect = Expect::At(entry.modified);
        charge.ops.push((expect, Op::Put { key: entry.key, value, owner: entry.owner }));
    }
    Ok(())
}
