//! Who may do what: `toono_access`, fed from the store and asked about requests. Nothing here reads a
//! request's body; what depends on the object is looked at in admission.

mod asked;
mod defaults;
mod feed;

use std::sync::{
    PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

use toono_access::{Access, Attributes, Decision, Owner, Request, forbidden};
use toono_api::ApiError;

use crate::server::ApiServer;

pub(crate) use asked::{Asked, any_selector};

/// Paths that tell whether the server works. Anyone may ask, also when no role says so.
const PUBLIC_PATHS: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

/// What decisions depend on, as it is now. It is locked for the time of one decision or one change, and
/// never while anything is awaited.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    access: RwLock<Access>,
    /// Whether it is known which node runs what. Until then a node is told to come back.
    knows_nodes: AtomicBool,
}

impl Gate {
    /// Looks at what there is.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Access) -> T) -> T {
        look(&self.access.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Access)) {
        change(&mut self.access.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn set_knows_nodes(&self, knows: bool) {
        self.knows_nodes.store(knows, Ordering::Release);
    }

    /// May it happen?
    pub(crate) fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        if is_public(attributes) {
            return Decision::Allow { reason: "".into(), owner: None };
        }
        self.with(|access| access.decide(attributes))
    }

    /// Lets a request pass that is allowed for every owner.
    ///
    /// # Errors
    /// The refusal, as it is answered.
    pub(crate) fn require(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        match self.pass(attributes)? {
            None => Ok(()),
            Some(_) => Err(forbidden(attributes, "")),
        }
    }

    /// Lets a request pass: for the objects of all, or for those of the owner that is answered.
    ///
    /// # Errors
    /// The refusal, as it is answered.
    pub(crate) fn pass(&self, attributes: &Attributes<'_>) -> Result<Option<Owner>, ApiError> {
        match self.decide(attributes) {
            Decision::Allow { owner, .. } => Ok(owner),
            Decision::Deny { .. } | Decision::NoOpinion { .. }
                if attributes.user.node_name().is_some()
                    && !self.knows_nodes.load(Ordering::Acquire) =>
            {
                Err(ApiError::Unavailable("the server does not know yet what nodes run".to_owned()))
            }
            refused => Err(forbidden(attributes, refused.reason())),
        }
    }
}

/// Writes the default roles where they are missing, reads all, and follows their changes.
///
/// # Errors
/// When the store cannot be written or read.
pub(crate) async fn start(server: &ApiServer) -> Result<(), ApiError> {
    defaults::ensure(server).await?;
    feed::start(server)
}

fn is_public(attributes: &Attributes<'_>) -> bool {
    let Request::NonResource { path } = attributes.request else { return false };
    matches!(attributes.verb, "get" | "head")
        && PUBLIC_PATHS.iter().any(|open| {
            path.strip_prefix(open).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
}

#[cfg(test)]
mod tests {
    use toono_access::bootstrap;
    use toono_api::{
        UserInfo,
        user::{GROUP_BOOTSTRAPPERS, GROUP_MASTERS, GROUP_NODES},
    };

    use super::*;

    fn gate() -> Gate {
        let gate = Gate::default();
        gate.change(|access| bootstrap::objects().iter().for_each(|one| access.rules.apply(one)));
        gate.set_knows_nodes(true);
        gate
    }

    #[test]
    fn each_group_reaches_its_own_paths_only() {
        let gate = gate();
        let admin = UserInfo::new("kubernetes-admin", [GROUP_MASTERS]);
        let node = UserInfo::new("system:node:a", [GROUP_NODES]);
        let joiner = UserInfo::new("system:bootstrap:abcdef", [GROUP_BOOTSTRAPPERS]);
        let anonymous = UserInfo::anonymous();
        for (user, verb, path, allowed) in [
            (&admin, "get", "/apis", true),
            (&admin, "get", "/metrics", true),
            (&admin, "post", "/fleet/v1/join", true),
            (&node, "get", "/fleet/v1/bundle", true),
            (&node, "post", "/fleet/v1/report", true),
            (&node, "post", "/fleet/v1/join", false),
            (&node, "get", "/fleet", false),
            (&node, "get", "/metrics", false),
            (&node, "get", "/apis", true),
            (&joiner, "post", "/fleet/v1/join", true),
            (&joiner, "get", "/fleet/v1/join", false),
            (&joiner, "get", "/fleet/v1/bundle", false),
            (&anonymous, "get", "/readyz", true),
            (&anonymous, "head", "/readyz", true),
            (&anonymous, "get", "/readyz/ping", true),
            (&anonymous, "get", "/readyzz", false),
            (&anonymous, "get", "/metrics", false),
            (&anonymous, "get", "/api", false),
            (&anonymous, "get", "/apis", false),
            (&anonymous, "get", "/openapi/v3", false),
            (&anonymous, "post", "/version", false),
            (&anonymous, "post", "/fleet/v1/join", false),
        ] {
            let attributes = Attributes { user, verb, request: Request::NonResource { path } };
            let decided = gate.decide(&attributes).is_allowed();
            assert_eq!(decided, allowed, "{} {verb} {path}", user.name);
        }
    }

    #[test]
    fn a_node_is_asked_to_come_back_before_it_is_known_what_it_runs() {
        let gate = gate();
        let node = UserInfo::new("system:node:a", [GROUP_NODES]);
        let jane = UserInfo::new("jane", [""; 0]);
        let code = |user: &UserInfo| {
            let asked =
                Asked::of(&http::Method::GET, "/api/v1/namespaces/a/secrets/b", None, false);
            gate.require(&asked.attributes(user)).unwrap_err().code()
        };
        assert_eq!((code(&node), code(&jane)), (403, 403));
        gate.set_knows_nodes(false);
        assert_eq!((code(&node), code(&jane)), (503, 403));
    }
}
