//! Who asks: the identity that authentication attaches to every request.

use std::sync::Arc;

/// Members of this group may do everything.
pub const GROUP_MASTERS: &str = "system:masters";
/// Every node's group (the `O` of its certificate).
pub const GROUP_NODES: &str = "system:nodes";
/// Holders of a bootstrap token.
pub const GROUP_BOOTSTRAPPERS: &str = "system:bootstrappers";
/// Everyone who proved who they are.
pub const GROUP_AUTHENTICATED: &str = "system:authenticated";
/// Everyone who did not.
pub const GROUP_UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user name of a request without credentials.
pub const ANONYMOUS: &str = "system:anonymous";

/// An authenticated (or anonymous) user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserInfo {
    /// The name, such as `kubernetes-admin` or `system:node:edge-1`.
    pub name: Arc<str>,
    /// An identifier that tells users of the same name over time apart; often empty.
    pub uid: Arc<str>,
    /// The groups that the user belongs to.
    pub groups: Arc<[String]>,
}

impl UserInfo {
    /// A user of this name in these groups, and in `system:authenticated`.
    pub fn new(name: &str, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        if !groups.iter().any(|group| group == GROUP_AUTHENTICATED) {
            groups.push(GROUP_AUTHENTICATED.to_owned());
        }
        Self { name: name.into(), uid: "".into(), groups: groups.into() }
    }

    /// The user of a request that carries no credential.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            name: ANONYMOUS.into(),
            uid: "".into(),
            groups: [GROUP_UNAUTHENTICATED.to_owned()].into(),
        }
    }

    /// A part of the control plane itself: in `system:masters`.
    #[must_use]
    pub fn component(name: &str) -> Self {
        Self::new(name, [GROUP_MASTERS])
    }

    /// Whether the user belongs to the group.
    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|of_user| of_user == group)
    }

    /// The node that this user is, if it is one (`system:node:NAME` in `system:nodes`).
    #[must_use]
    pub fn node_name(&self) -> Option<&str> {
        if self.is_in(GROUP_NODES) { self.name.strip_prefix("system:node:") } else { None }
    }
}
