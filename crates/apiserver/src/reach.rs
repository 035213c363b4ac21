//! A request that is allowed for one owner's objects only. What is another's is not there for it.

use toono_api::{ApiError, kinds};
use toono_mvcc::Owner;

use crate::{request::ResourcePath, server::ApiServer};

/// Restricts a request of this process to the objects of one owner, whatever its user may. Nothing from a
/// socket can carry it.
#[derive(Debug, Clone)]
pub(crate) struct Restricted(pub(crate) Owner);

/// Whether a request stays with the owner. Lists, watches and deletions of collections pass: they read
/// the owner's part of the index and nothing else.
///
/// # Errors
/// [`ApiError::NotFound`] for what is another's, or is to be created at another's place.
pub(crate) fn check(
    server: &ApiServer,
    owner: &Owner,
    target: &ResourcePath<'_>,
    verb: &str,
) -> Result<(), ApiError> {
    let of_target = || target.resource.group_resource();
    let (resource, namespace, name) = match (verb, target.name) {
        ("list" | "watch" | "deletecollection", _) => return Ok(()),
        // A new object belongs to whom its namespace belongs.
        ("create", "") if target.resource.namespaced => {
            (server.built_in(&kinds::core::NAMESPACE), "", target.namespace)
        }
        ("create", "") => {
            let why = format!("{owner} owns nothing at the cluster scope");
            return Err(ApiError::Forbidden { resource: of_target(), name: String::new(), why });
        }
        (_, name) => (target.resource.clone(), target.namespace, name),
    };
    if server.existing(&resource, namespace, name)?.owner == *owner {
        return Ok(());
    }
    Err(ApiError::NotFound { resource: resource.group_resource(), name: name.to_owned() })
}
