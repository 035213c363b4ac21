//! Who asks: the identity that authentication attaches to every request.

use std::{collections::BTreeMap, sync::Arc};

/// Members of this group may do everything.
pub const GROUP_MASTERS: &str = "system:masters";
/// Every node's group (the `O` of its certificate).
pub const GROUP_NODES: &str = "system:nodes";
/// Holders of a bootstrap token.
pub const GROUP_BOOTSTRAPPERS: &str = "system:bootstrappers";
/// All service accounts; those of one namespace are also in the group of this name, a colon and the
/// namespace.
pub const GROUP_SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
/// What names of service accounts' users begin with; namespace, colon and name follow.
const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
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
    /// What else the authenticator knows, such as the pod of a service account's token.
    pub extra: Arc<BTreeMap<String, Vec<String>>>,
}

impl UserInfo {
    /// A user of this name in these groups, and in `system:authenticated`.
    pub fn new(name: &str, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        if !groups.iter().any(|group| group == GROUP_AUTHENTICATED) {
            groups.push(GROUP_AUTHENTICATED.to_owned());
        }
        Self { name: name.into(), uid: "".into(), groups: groups.into(), extra: Arc::default() }
    }

    /// The user of a request that carries no credential.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            name: ANONYMOUS.into(),
            uid: "".into(),
            groups: [GROUP_UNAUTHENTICATED.to_owned()].into(),
            extra: Arc::default(),
        }
    }

    /// A part of the control plane itself: in `system:masters`.
    #[must_use]
    pub fn component(name: &str) -> Self {
        Self::new(name, [GROUP_MASTERS])
    }

    /// The user that a service account is.
    #[must_use]
    pub fn service_account(namespace: &str, name: &str) -> Self {
        let groups =
            [GROUP_SERVICE_ACCOUNTS.to_owned(), format!("{GROUP_SERVICE_ACCOUNTS}:{namespace}")];
        Self::new(&format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}"), groups)
    }

    /// The same user with an identifier.
    #[must_use]
    pub fn with_uid(self, uid: &str) -> Self {
        Self { uid: uid.into(), ..self }
    }

    /// The same user with what else is known of it.
    #[must_use]
    pub fn with_extra(self, extra: BTreeMap<String, Vec<String>>) -> Self {
        Self { extra: Arc::new(extra), ..self }
    }

    /// Namespace and name of the service account that a user of this name is, if it is one.
    #[must_use]
    pub fn service_account_of(name: &str) -> Option<(&str, &str)> {
        let (namespace, name) = name.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
        let well_formed = !namespace.is_empty() && !name.is_empty() && !name.contains(':');
        well_formed.then_some((namespace, name))
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
