//! Who may do what: one pure function of a request's attributes.

use toono_api::{
    ApiError, GroupResource, UserInfo,
    user::{GROUP_BOOTSTRAPPERS, GROUP_MASTERS, GROUP_NODES},
};

/// What a decision looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a> {
    /// Who asks.
    pub(crate) user: &'a UserInfo,
    /// The API verb, or the method in lower case for other paths.
    pub(crate) verb: &'a str,
    /// The path.
    pub(crate) path: &'a str,
    /// The resource, when the path names one.
    pub(crate) target: Option<TargetAttributes<'a>>,
}

/// The resource that is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TargetAttributes<'a> {
    pub(crate) group: &'a str,
    pub(crate) plural: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

/// May it happen?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Allow,
    Deny,
}

/// Paths that tell whether the server works; anyone may ask.
const PUBLIC_PATHS: &[&str] = &["/healthz", "/livez", "/readyz", "/version"];
/// Where nodes talk to the fleet.
const FLEET: &str = "/fleet/";
/// Where a machine becomes a node.
const JOIN: &str = toono_wire::path::JOIN;

/// Decides.
pub(crate) fn access(attributes: &Attributes<'_>) -> Decision {
    let Attributes { user, verb, path, target } = attributes;
    let public = target.is_none()
        && matches!(*verb, "get" | "head")
        && PUBLIC_PATHS.iter().any(|open| {
            path.strip_prefix(open).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
    let joins = *path == JOIN && *verb == "post";
    let allowed = public
        || user.is_in(GROUP_MASTERS)
        || (user.is_in(GROUP_NODES) && path.starts_with(FLEET) && *path != JOIN)
        || (user.is_in(GROUP_BOOTSTRAPPERS) && joins);
    if allowed { Decision::Allow } else { Decision::Deny }
}

/// The refusal, in Kubernetes' words.
pub(crate) fn forbidden(attributes: &Attributes<'_>) -> ApiError {
    let Attributes { user, verb, path, target } = attributes;
    let Some(target) = target else {
        return ApiError::ForbiddenPath(format!(
            "User {:?} cannot {verb} path {path:?}",
            user.name
        ));
    };
    let resource = match target.subresource {
        "" => target.plural.to_owned(),
        subresource => format!("{}/{subresource}", target.plural),
    };
    let scope = match target.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    ApiError::Forbidden {
        resource: GroupResource {
            group: target.group.to_owned(),
            resource: target.plural.to_owned(),
        },
        name: target.name.to_owned(),
        why: format!(
            "User {:?} cannot {verb} resource {resource:?} in API group {:?} {scope}",
            user.name, target.group
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(user: &UserInfo, verb: &str, path: &str) -> Decision {
        access(&Attributes { user, verb, path, target: None })
    }

    #[test]
    fn each_group_reaches_its_own_paths_only() {
        let admin = UserInfo::new("kubernetes-admin", [GROUP_MASTERS]);
        let node = UserInfo::new("system:node:a", [GROUP_NODES]);
        let joiner = UserInfo::new("system:bootstrap:abcdef", [GROUP_BOOTSTRAPPERS]);
        let anonymous = UserInfo::anonymous();
        for (user, verb, path, allowed) in [
            (&admin, "get", "/apis", true),
            (&admin, "post", "/fleet/v1/join", true),
            (&node, "get", "/fleet/v1/bundle", true),
            (&node, "post", "/fleet/v1/join", false),
            (&node, "get", "/fleet", false),
            (&node, "get", "/apis", false),
            (&joiner, "post", "/fleet/v1/join", true),
            (&joiner, "get", "/fleet/v1/join", false),
            (&joiner, "get", "/fleet/v1/bundle", false),
            (&anonymous, "get", "/readyz", true),
            (&anonymous, "get", "/readyz/ping", true),
            (&anonymous, "get", "/readyzz", false),
            (&anonymous, "get", "/api", false),
            (&anonymous, "post", "/version", false),
            (&anonymous, "post", "/fleet/v1/join", false),
        ] {
            let expected = if allowed { Decision::Allow } else { Decision::Deny };
            assert_eq!(decide(user, verb, path), expected, "{} {verb} {path}", user.name);
        }
    }

    #[test]
    fn refusals_read_as_kubernetes_writes_them() {
        let user = UserInfo::new("jane", [""; 0]);
        let target = TargetAttributes {
            group: "",
            plural: "pods",
            subresource: "",
            namespace: "shop",
            name: "",
        };
        let attributes = Attributes { user: &user, verb: "list", path: "/", target: Some(target) };
        assert_eq!(
            forbidden(&attributes).to_string(),
            "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"shop\""
        );
        let attributes = Attributes { target: None, path: "/x", verb: "get", ..attributes };
        assert_eq!(
            forbidden(&attributes).to_string(),
            "forbidden: User \"jane\" cannot get path \"/x\""
        );
    }
}
