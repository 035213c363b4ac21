//! Nobody grants what they do not hold, unless a rule says that they may (`escalate`, `bind`).

use k8s_openapi::{
    api::rbac::v1::{ClusterRole, PolicyRule, RoleRef},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use toono_api::{ApiError, GroupResource, UserInfo, user::GROUP_MASTERS};

use crate::{
    Access,
    attributes::{Attributes, Request, ResourceRequest},
    bootstrap::full_authority,
    covers::{covers, listing, uncovered},
    object::{GROUP, Kind, Object},
    quote::{Quoted, QuotedList},
    rules::{ResolveError, joined},
};

impl Access {
    /// Whether a user that may write this object may also grant what it grants. `old` is the object that is
    /// replaced; `namespace` is the request's.
    ///
    /// # Errors
    /// The refusal in Kubernetes' words, or that the role to be bound does not exist.
    pub fn check_grant(
        &self,
        user: &UserInfo,
        namespace: &str,
        old: Option<&Object>,
        new: &Object,
    ) -> Result<(), ApiError> {
        let untouched = old.is_some_and(|old| grants_the_same(old, new));
        if untouched || user.is_in(GROUP_MASTERS) {
            return Ok(());
        }
        let kind = new.kind();
        let namespace = if kind.is_namespaced() { namespace } else { "" };
        let refuse = |why| ApiError::Forbidden {
            resource: resource(kind.plural()),
            name: new.name().to_owned(),
            why,
        };
        let rules = match new {
            Object::Role(_) | Object::ClusterRole(_) => {
                let name = if old.is_some() { new.name() } else { "" };
                if self.may(user, "escalate", kind, namespace, name) {
                    return Ok(());
                }
                own_rules(new)
            }
            Object::RoleBinding(binding) => {
                match self.bound_rules(user, namespace, &binding.role_ref)? {
                    None => return Ok(()),
                    Some(rules) => rules,
                }
            }
            Object::ClusterRoleBinding(binding) => {
                match self.bound_rules(user, namespace, &binding.role_ref)? {
                    None => return Ok(()),
                    Some(rules) => rules,
                }
            }
        };
        let (held, errors) = self.rules.held(user, namespace);
        confirm(user, &held, &errors, rules).map_err(refuse)?;
        let aggregates = is_aggregated(new) || old.is_some_and(is_aggregated);
        if aggregates && !covers(&held, &full_authority()) {
            let why = "must have cluster-admin privileges to use the aggregationRule";
            return Err(refuse(why.to_owned()));
        }
        Ok(())
    }

    /// The rules that the binding would give; `None` when the user may bind the role without holding them.
    fn bound_rules(
        &self,
        user: &UserInfo,
        namespace: &str,
        role: &RoleRef,
    ) -> Result<Option<&[PolicyRule]>, ApiError> {
        let kind = match role.kind.as_str() {
            "Role" => Some(Kind::Role),
            "ClusterRole" => Some(Kind::ClusterRole),
            _ => None,
        };
        if kind.is_some_and(|kind| self.may(user, "bind", kind, namespace, &role.name)) {
            return Ok(None);
        }
        self.rules.resolve(role, namespace).map(Some).map_err(|error| match error {
            ResolveError::NotFound { singular, name } => {
                ApiError::NotFound { resource: resource(singular), name }
            }
            unsupported @ ResolveError::UnsupportedKind(_) => {
                ApiError::BadRequest(unsupported.to_string())
            }
        })
    }

    /// A role that is bound in a namespace is looked for in that namespace, also when it is the cluster's.
    fn may(&self, user: &UserInfo, verb: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        let request = ResourceRequest {
            api_group: GROUP,
            resource: kind.plural(),
            namespace,
            name,
            ..ResourceRequest::default()
        };
        let attributes = Attributes { user, verb, request: Request::Resource(request) };
        self.require(&attributes).is_ok()
    }
}

fn confirm(
    user: &UserInfo,
    held: &[PolicyRule],
    errors: &[ResolveError],
    rules: &[PolicyRule],
) -> Result<(), String> {
    let missing = uncovered(held, rules).map_err(|error| error.to_string())?;
    if missing.is_empty() {
        return Ok(());
    }
    let (name, groups) = (Quoted(&user.name), QuotedList(&user.groups));
    let ending = joined(errors).map_or_else(String::new, |e| format!("; resolution errors: [{e}]"));
    Err(format!(
        "user {name} (groups={groups}) is attempting to grant RBAC permissions not currently held:\n\
         {}{ending}",
        listing(&missing)
    ))
}

fn resource(name: &str) -> GroupResource {
    GroupResource { group: GROUP.to_owned(), resource: name.to_owned() }
}

fn own_rules(object: &Object) -> &[PolicyRule] {
    match object {
        Object::Role(role) => role.rules.as_deref(),
        Object::ClusterRole(role) => role.rules.as_deref(),
        Object::RoleBinding(_) | Object::ClusterRoleBinding(_) => None,
    }
    .unwrap_or_default()
}

fn is_aggregated(object: &Object) -> bool {
    matches!(object, Object::ClusterRole(ClusterRole { aggregation_rule: Some(_), .. }))
}

/// Whether only what garbage collection needs has changed: it deletes on behalf of nobody's rights.
fn grants_the_same(old: &Object, new: &Object) -> bool {
    let bare = |object: &Object| {
        let mut object = object.clone();
        let metadata: &mut ObjectMeta = object.metadata_mut();
        metadata.owner_references = None;
        metadata.finalizers = None;
        metadata.managed_fields = None;
        object
    };
    bare(old) == bare(new)
}
