//! The four kinds of objects that grants are made of.

use k8s_openapi::{
    api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::Value;

/// The API group of roles and bindings.
pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Rules in one namespace.
    Role,
    /// Rules for any or all namespaces, cluster-wide objects and paths.
    ClusterRole,
    /// Gives a role's rules in one namespace.
    RoleBinding,
    /// Gives a cluster role's rules everywhere.
    ClusterRoleBinding,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Role, Self::ClusterRole, Self::RoleBinding, Self::ClusterRoleBinding];

    /// The kind of a resource of `rbac.authorization.k8s.io`.
    #[must_use]
    pub fn of_plural(plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.plural() == plural)
    }

    /// Its plural resource name.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Role => "roles",
            Self::ClusterRole => "clusterroles",
            Self::RoleBinding => "rolebindings",
            Self::ClusterRoleBinding => "clusterrolebindings",
        }
    }

    /// Whether its objects lie in namespaces.
    #[must_use]
    pub fn is_namespaced(self) -> bool {
        matches!(self, Self::Role | Self::RoleBinding)
    }
}

/// An object of one of the kinds.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// See [`Kind::Role`].
    Role(Role),
    /// See [`Kind::ClusterRole`].
    ClusterRole(ClusterRole),
    /// See [`Kind::RoleBinding`].
    RoleBinding(RoleBinding),
    /// See [`Kind::ClusterRoleBinding`].
    ClusterRoleBinding(ClusterRoleBinding),
}

impl From<RoleBinding> for Object {
    fn from(binding: RoleBinding) -> Self {
        Self::RoleBinding(binding)
    }
}

impl From<ClusterRoleBinding> for Object {
    fn from(binding: ClusterRoleBinding) -> Self {
        Self::ClusterRoleBinding(binding)
    }
}

impl Object {
    /// Reads an encoded object.
    ///
    /// # Errors
    /// When it is not of the kind. Whoever follows changes must then take the object for removed, since
    /// what it granted before no longer counts.
    pub fn parse(kind: Kind, json: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(match kind {
            Kind::Role => Self::Role(serde_json::from_slice(json)?),
            Kind::ClusterRole => Self::ClusterRole(serde_json::from_slice(json)?),
            Kind::RoleBinding => Self::RoleBinding(serde_json::from_slice(json)?),
            Kind::ClusterRoleBinding => Self::ClusterRoleBinding(serde_json::from_slice(json)?),
        })
    }

    /// The object as JSON, with kind and API version.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which no object does.
    pub fn to_json(&self) -> Result<Value, serde_json::Error> {
        match self {
            Self::Role(role) => serde_json::to_value(role),
            Self::ClusterRole(role) => serde_json::to_value(role),
            Self::RoleBinding(binding) => serde_json::to_value(binding),
            Self::ClusterRoleBinding(binding) => serde_json::to_value(binding),
        }
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Role(_) => Kind::Role,
            Self::ClusterRole(_) => Kind::ClusterRole,
            Self::RoleBinding(_) => Kind::RoleBinding,
            Self::ClusterRoleBinding(_) => Kind::ClusterRoleBinding,
        }
    }

    /// Its metadata.
    #[must_use]
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Role(role) => &role.metadata,
            Self::ClusterRole(role) => &role.metadata,
            Self::RoleBinding(binding) => &binding.metadata,
            Self::ClusterRoleBinding(binding) => &binding.metadata,
        }
    }

    pub(crate) fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Role(role) => &mut role.metadata,
            Self::ClusterRole(role) => &mut role.metadata,
            Self::RoleBinding(binding) => &mut binding.metadata,
            Self::ClusterRoleBinding(binding) => &mut binding.metadata,
        }
    }

    /// Its name, or nothing.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }

    /// Its namespace; empty for the kinds of the cluster.
    #[must_use]
    pub fn namespace(&self) -> &str {
        match self.kind().is_namespaced() {
            true => self.metadata().namespace.as_deref().unwrap_or_default(),
            false => "",
        }
    }
}
