//! The answer, and the refusal in Kubernetes' words.

use std::{borrow::Cow, fmt, sync::Arc};

use toono_api::{ApiError, GroupResource};

use crate::{
    attributes::{Attributes, Request},
    quote::Quoted,
};

/// The tenant to whose objects a permission is restricted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner(Arc<str>);

impl Owner {
    /// The tenant of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// May it happen?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allow {
        /// Which grant allows it; empty for `system:masters` and for nodes.
        reason: Cow<'static, str>,
        /// Restricts it to the objects of one owner; `None` is all objects. Neither RBAC nor the node
        /// authorizer knows owners, so their permissions are unrestricted.
        owner: Option<Owner>,
    },
    /// It may not, whatever others would say.
    Deny {
        /// Why; may be empty.
        reason: Cow<'static, str>,
    },
    /// This authorizer does not allow it; another may.
    NoOpinion {
        /// Why not; may be empty.
        reason: Cow<'static, str>,
    },
}

impl Decision {
    /// Whether it may happen, perhaps for one owner's objects only.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    /// Why, whatever the decision is.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Allow { reason, .. } | Self::Deny { reason } | Self::NoOpinion { reason } => {
                reason
            }
        }
    }

    pub(crate) fn allow(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Allow { reason: reason.into(), owner: None }
    }

    pub(crate) fn no_opinion(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::NoOpinion { reason: reason.into() }
    }
}

/// The refusal of a request, in Kubernetes' words. The reason of the decision, when there is one, ends it.
#[must_use]
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> ApiError {
    let Attributes { user, verb, request } = attributes;
    let user = Quoted(&user.name);
    let ending = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let resource = match request {
        Request::NonResource { path } => {
            let path = Quoted(path);
            return ApiError::ForbiddenPath(format!(
                "User {user} cannot {verb} path {path}{ending}"
            ));
        }
        Request::Resource(resource) => resource,
    };
    let combined = match resource.subresource {
        "" => Cow::Borrowed(resource.resource),
        subresource => Cow::Owned(format!("{}/{subresource}", resource.resource)),
    };
    let scope = match resource.scope() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {}", Quoted(namespace)),
    };
    let (combined, group) = (Quoted(&combined), Quoted(resource.api_group));
    ApiError::Forbidden {
        resource: GroupResource {
            group: resource.api_group.to_owned(),
            resource: resource.resource.to_owned(),
        },
        name: resource.name.to_owned(),
        why: format!(
            "User {user} cannot {verb} resource {combined} in API group {group} {scope}{ending}"
        ),
    }
}
