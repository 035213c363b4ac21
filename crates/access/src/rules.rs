//! Roles and bindings, indexed by whom they are for.
//!
//! A decision looks only at the bindings of the user and of its groups, in the cluster and in one
//! namespace; there is no scan, however many bindings others have. A service account is a user name, so
//! the index knows users and groups only.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use k8s_openapi::api::{
    authorization::v1::{NonResourceRule, ResourceRule, SubjectRulesReviewStatus},
    rbac::v1::{PolicyRule, RoleRef, Subject},
};
use toono_api::UserInfo;

use crate::{
    attributes::Attributes,
    decision::Decision,
    grants::Grant,
    object::{GROUP, Kind, Object},
    quote::Quoted,
    rule::{self, list},
    table::Table,
};

/// Which bindings a subject has: its name, the namespace (empty for the cluster's) → names of bindings.
type Index = Table<BTreeSet<Box<str>>>;

/// What RBAC objects grant.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    roles: Table<Arc<[PolicyRule]>>,
    cluster_roles: HashMap<Box<str>, Arc<[PolicyRule]>>,
    /// By namespace (empty for the cluster's) and name.
    bindings: Table<Binding>,
    users: Index,
    groups: Index,
}

#[derive(Debug, Clone)]
struct Binding {
    /// Empty for the cluster's.
    namespace: Box<str>,
    name: Box<str>,
    role: RoleRef,
    subjects: Vec<Subject>,
}

/// Why a binding leads to no rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The role does not exist.
    #[error("{singular}.{GROUP} {} not found", Quoted(.name))]
    NotFound {
        /// `role` or `clusterrole`.
        singular: &'static str,
        /// The role's name.
        name: String,
    },
    /// Roles are not of this kind.
    #[error("unsupported role reference kind: {}", Quoted(.0))]
    UnsupportedKind(String),
}

enum Principal {
    User(String),
    Group(String),
}

/// Whom a subject means; nobody when its kind is unknown, or for a service account without namespace.
fn principal(subject: &Subject, binding_namespace: &str) -> Option<Principal> {
    match subject.kind.as_str() {
        "User" => Some(Principal::User(subject.name.clone())),
        "Group" => Some(Principal::Group(subject.name.clone())),
        "ServiceAccount" => {
            let namespace = subject_namespace(subject, binding_namespace);
            (!namespace.is_empty()).then(|| {
                Principal::User(format!("system:serviceaccount:{namespace}:{}", subject.name))
            })
        }
        _ => None,
    }
}

fn subject_namespace<'s>(subject: &'s Subject, binding_namespace: &'s str) -> &'s str {
    subject.namespace.as_deref().filter(|own| !own.is_empty()).unwrap_or(binding_namespace)
}

impl Rules {
    /// Takes in an object, new or changed. One of a namespaced kind that names no namespace grants nothing.
    pub fn apply(&mut self, object: &Object) {
        let (kind, namespace, name) = (object.kind(), object.namespace(), object.name());
        if kind.is_namespaced() == namespace.is_empty() {
            return;
        }
        match object {
            Object::Role(role) => {
                let rules = role.rules.as_deref().unwrap_or_default().into();
                self.roles.insert(namespace, name, rules);
            }
            Object::ClusterRole(role) => {
                let rules = role.rules.as_deref().unwrap_or_default().into();
                self.cluster_roles.insert(name.into(), rules);
            }
            Object::RoleBinding(binding) => {
                self.bind(namespace, name, &binding.role_ref, binding.subjects.as_deref());
            }
            Object::ClusterRoleBinding(binding) => {
                self.bind(namespace, name, &binding.role_ref, binding.subjects.as_deref());
            }
        }
    }

    /// Forgets an object. The namespace of the cluster's kinds is empty.
    pub fn remove(&mut self, kind: Kind, namespace: &str, name: &str) {
        if kind.is_namespaced() == namespace.is_empty() {
            return;
        }
        match kind {
            Kind::Role => drop(self.roles.remove(namespace, name)),
            Kind::ClusterRole => drop(self.cluster_roles.remove(name)),
            Kind::RoleBinding | Kind::ClusterRoleBinding => self.unbind(namespace, name),
        }
    }

    /// Whether nothing is held, not even an entry of an index.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.roles.is_empty()
            && self.cluster_roles.is_empty()
            && self.bindings.is_empty()
            && self.users.is_empty()
            && self.groups.is_empty()
    }

    /// Asks RBAC alone.
    #[must_use]
    pub fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        let mut errors = Vec::new();
        for binding in self.applied(attributes.user, attributes.scope()) {
            match self.resolve(&binding.role, &binding.namespace) {
                Ok(rules) if rules.iter().any(|rule| rule::allows(rule, attributes)) => {
                    let source = binding.describe(attributes.user);
                    return Decision::allow(format!("RBAC: allowed by {source}"));
                }
                Ok(_) => {}
                Err(error) => errors.push(error),
            }
        }
        match joined(&errors) {
            None => Decision::no_opinion(""),
            Some(errors) => Decision::no_opinion(format!("RBAC: {errors}")),
        }
    }

    /// Every rule that the user holds in a namespace (empty: in the cluster only), and what could not be
    /// resolved.
    #[must_use]
    pub fn held(&self, user: &UserInfo, namespace: &str) -> (Vec<PolicyRule>, Vec<ResolveError>) {
        let (mut held, mut errors) = (Vec::new(), Vec::new());
        for binding in self.applied(user, namespace) {
            match self.resolve(&binding.role, &binding.namespace) {
                Ok(rules) => held.extend_from_slice(rules),
                Err(error) => errors.push(error),
            }
        }
        (held, errors)
    }

    /// The rules that a binding in a namespace (empty: of the cluster) gives by this reference.
    ///
    /// # Errors
    /// When it leads to no role.
    pub fn resolve(&self, role: &RoleRef, namespace: &str) -> Result<&[PolicyRule], ResolveError> {
        let (singular, found) = match role.kind.as_str() {
            "Role" => ("role", self.roles.get(namespace, &role.name)),
            "ClusterRole" => ("clusterrole", self.cluster_roles.get(role.name.as_str())),
            other => return Err(ResolveError::UnsupportedKind(other.to_owned())),
        };
        let missing = || ResolveError::NotFound { singular, name: role.name.clone() };
        found.map(|rules| &**rules).ok_or_else(missing)
    }

    /// All that the user may read, in the cluster and in each namespace: the cluster's grant first, then by namespace.
    /// Equal rules make an equal answer, whatever was applied in which order.
    #[must_use]
    pub fn readable(&self, user: &UserInfo) -> Vec<Grant> {
        let of_groups = user.groups.iter().flat_map(|group| self.groups.names(group));
        let mut scopes: BTreeSet<&str> = self.users.names(&user.name).chain(of_groups).collect();
        scopes.insert("");
        let grants = scopes.into_iter().map(|scope| {
            let bindings = self.applied(user, scope).into_iter();
            let own = bindings.filter(|binding| &*binding.namespace == scope);
            let found = own.filter_map(|binding| self.resolve(&binding.role, scope).ok());
            Grant::of(scope, found.flatten())
        });
        grants.filter(|grant| !grant.is_empty()).collect()
    }

    /// What a `SelfSubjectRulesReview` tells of RBAC.
    #[must_use]
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> SubjectRulesReviewStatus {
        let (held, errors) = self.held(user, namespace);
        let mut review = SubjectRulesReviewStatus {
            evaluation_error: joined(&errors),
            ..SubjectRulesReviewStatus::default()
        };
        for rule in held {
            if !list(&rule.non_resource_urls).is_empty() {
                review.non_resource_rules.push(NonResourceRule {
                    non_resource_urls: rule.non_resource_urls,
                    verbs: rule.verbs.clone(),
                });
            }
            if !list(&rule.resources).is_empty() {
                review.resource_rules.push(ResourceRule {
                    api_groups: rule.api_groups,
                    resource_names: rule.resource_names,
                    resources: rule.resources,
                    verbs: rule.verbs,
                });
            }
        }
        review
    }

    fn bind(&mut self, namespace: &str, name: &str, role: &RoleRef, subjects: Option<&[Subject]>) {
        self.unbind(namespace, name);
        let subjects = subjects.unwrap_or_default().to_vec();
        for subject in &subjects {
            let (index, who) = match principal(subject, namespace) {
                Some(Principal::User(user)) => (&mut self.users, user),
                Some(Principal::Group(group)) => (&mut self.groups, group),
                None => continue,
            };
            index.entry(&who, namespace).insert(name.into());
        }
        let (place, own) = (namespace.into(), name.into());
        let binding = Binding { namespace: place, name: own, role: role.clone(), subjects };
        self.bindings.insert(namespace, name, binding);
    }

    fn unbind(&mut self, namespace: &str, name: &str) {
        let Some(binding) = self.bindings.remove(namespace, name) else { return };
        for subject in &binding.subjects {
            let (index, who) = match principal(subject, namespace) {
                Some(Principal::User(user)) => (&mut self.users, user),
                Some(Principal::Group(group)) => (&mut self.groups, group),
                None => continue,
            };
            index.shrink(&who, namespace, |names| {
                names.remove(name);
                names.is_empty()
            });
        }
    }

    /// The bindings that apply, each once: the cluster's first, then the namespace's, by name.
    fn applied(&self, user: &UserInfo, namespace: &str) -> Vec<&Binding> {
        let mut found: Vec<&Binding> = Vec::new();
        for scope in ["", namespace] {
            let of_groups = user.groups.iter().filter_map(|group| self.groups.get(group, scope));
            for names in self.users.get(&user.name, scope).into_iter().chain(of_groups) {
                found.extend(names.iter().filter_map(|name| self.bindings.get(scope, name)));
            }
        }
        found.sort_unstable_by_key(|binding| binding.key());
        found.dedup_by_key(|binding| binding.key());
        found
    }
}

impl Binding {
    fn key(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }

    /// Which grant it is, as Kubernetes names it. The first subject that is the user is named.
    fn describe(&self, user: &UserInfo) -> String {
        let means = |subject: &&Subject| match principal(subject, &self.namespace) {
            Some(Principal::User(name)) => *name == *user.name,
            Some(Principal::Group(group)) => user.is_in(&group),
            None => false,
        };
        let subject = self.subjects.iter().find(means).map(|subject| match subject.kind.as_str() {
            "ServiceAccount" => {
                let namespace = subject_namespace(subject, &self.namespace);
                format!("ServiceAccount {}", Quoted(&format!("{}/{namespace}", subject.name)))
            }
            kind => format!("{kind} {}", Quoted(&subject.name)),
        });
        let (kind, name) = match &*self.namespace {
            "" => ("ClusterRoleBinding", self.name.to_string()),
            namespace => ("RoleBinding", format!("{}/{namespace}", self.name)),
        };
        let (name, role, subject) = (Quoted(&name), &self.role, subject.unwrap_or_default());
        format!("{kind} {name} of {} {} to {subject}", role.kind, Quoted(&role.name))
    }
}

/// Several errors as Kubernetes joins them: each once, in brackets when there is more than one.
pub(crate) fn joined(errors: &[ResolveError]) -> Option<String> {
    let mut texts: Vec<String> = Vec::new();
    for error in errors {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}
