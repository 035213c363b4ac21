//! Namespaces that the cluster cannot be without are not deleted.

use toono_api::{ApiError, kinds};

use super::{Operation, Review};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) fn validate(review: &Review<'_>) -> Result<(), ApiError> {
    let deletes = review.operation == Operation::Delete;
    if deletes && review.resource.is(&kinds::core::NAMESPACE) && IMMORTAL.contains(&review.name) {
        return Err(review.forbidden("this namespace may not be deleted"));
    }
    Ok(())
}
