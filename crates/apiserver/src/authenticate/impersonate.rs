//! Acting as another: the headers that ask for it, and whether the one who asks may.
//! <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation>

use std::{borrow::Cow, collections::BTreeMap};

use http::HeaderMap;
use toono_access::{Attributes, Request, ResourceRequest};
use toono_api::{
    ApiError, UserInfo,
    user::{ANONYMOUS, GROUP_AUTHENTICATED, GROUP_UNAUTHENTICATED},
};

use crate::access::Gate;

const PREFIX: &str = "impersonate-";
const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";
/// The API group of what only impersonation knows as resources.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Who a request acts as; `None` when it is the one who asks. Removes the headers, so that nobody later
/// takes them for something that was not looked at.
///
/// # Errors
/// [`ApiError::Forbidden`] for who may not act as that user, in that group, or with that extra.
pub(crate) fn impersonate(
    gate: &Gate,
    user: &UserInfo,
    headers: &mut HeaderMap,
) -> Result<Option<UserInfo>, ApiError> {
    if !headers.keys().any(|name| name.as_str().starts_with(PREFIX)) {
        return Ok(None);
    }
    let wanted = Wanted::of(headers)?;
    let names: Vec<_> =
        headers.keys().filter(|name| name.as_str().starts_with(PREFIX)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    let Some(wanted) = wanted else { return Ok(None) };
    wanted.permit(gate, user)?;
    Ok(Some(wanted.into_user()))
}

/// The other that the headers describe.
struct Wanted {
    name: String,
    uid: Option<String>,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    fn of(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let texts = |name: &str| -> Result<Vec<String>, ApiError> {
            headers
                .get_all(name)
                .iter()
                .map(text)
                .filter(|text| text != &Ok(String::new()))
                .collect()
        };
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers {
            // Header names are in lower case already, as Kubernetes makes the keys.
            if let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) {
                extra.entry(unescaped(key).into_owned()).or_default().push(text(value)?);
            }
        }
        let (groups, uid) = (texts(GROUP)?, texts(UID)?.into_iter().next());
        let Some(name) = texts(USER)?.into_iter().next() else {
            if groups.is_empty() && uid.is_none() && extra.is_empty() {
                return Ok(None);
            }
            return Err(ApiError::BadRequest(
                "requested groups, a uid or extras without impersonating a user".to_owned(),
            ));
        };
        Ok(Some(Self { name, uid, groups, extra }))
    }

    fn permit(&self, gate: &Gate, user: &UserInfo) -> Result<(), ApiError> {
        let may = |request| {
            gate.require(&Attributes {
                user,
                verb: "impersonate",
                request: Request::Resource(request),
            })
        };
        let core =
            |resource, name| ResourceRequest { resource, name, ..ResourceRequest::default() };
        match UserInfo::service_account_of(&self.name) {
            Some((namespace, name)) => {
                may(ResourceRequest { namespace, ..core("serviceaccounts", name) })?;
            }
            None => may(core("users", &self.name))?,
        }
        for group in &self.groups {
            may(core("groups", group))?;
        }
        let ours = |resource, subresource, name| ResourceRequest {
            api_group: AUTHENTICATION,
            subresource,
            ..core(resource, name)
        };
        for (key, values) in &self.extra {
            for value in values {
                may(ours("userextras", key, value))?;
            }
        }
        self.uid.iter().try_for_each(|uid| may(ours("uids", "", uid)))
    }

    /// The groups that nobody chooses are added, as authentication would.
    fn into_user(self) -> UserInfo {
        let Self { name, uid, mut groups, extra } = self;
        let account = UserInfo::service_account_of(&name).filter(|_| groups.is_empty());
        if let Some((namespace, name)) = account {
            groups.extend(UserInfo::service_account(namespace, name).groups.iter().cloned());
        }
        let has = |groups: &[String], group: &str| groups.iter().any(|own| own == group);
        let everyone = if name == ANONYMOUS { GROUP_UNAUTHENTICATED } else { GROUP_AUTHENTICATED };
        if !has(&groups, GROUP_AUTHENTICATED) && !has(&groups, GROUP_UNAUTHENTICATED) {
            groups.push(everyone.to_owned());
        }
        UserInfo {
            name: name.into(),
            uid: uid.unwrap_or_default().into(),
            groups: groups.into(),
            extra: extra.into(),
        }
    }
}

fn text(value: &http::HeaderValue) -> Result<String, ApiError> {
    std::str::from_utf8(value.as_bytes())
        .map(str::to_owned)
        .map_err(|_| ApiError::BadRequest("an impersonation header is no UTF-8".to_owned()))
}

/// Keys are percent-encoded where header names cannot hold them. A key that is not stays as it is.
fn unescaped(key: &str) -> Cow<'_, str> {
    if !key.contains('%') {
        return Cow::Borrowed(key);
    }
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let Some((digits, after)) = rest.split_at_checked(2) else { return Cow::Borrowed(key) };
        let value = std::str::from_utf8(digits).ok().filter(|d| !d.starts_with('+'));
        let Some(value) = value.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
            return Cow::Borrowed(key);
        };
        bytes.push(value);
        rest = after;
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(key), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use toono_api::user::GROUP_MASTERS;

    use super::*;

    fn acted(pairs: &[(&'static str, &'static str)]) -> Result<Option<UserInfo>, ApiError> {
        let mut headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let admin = UserInfo::new("admin", [GROUP_MASTERS]);
        let user = impersonate(&Gate::default(), &admin, &mut headers)?;
        assert!(headers.is_empty());
        Ok(user)
    }

    #[test]
    fn headers_make_the_user_that_kubernetes_makes_of_them() {
        assert_eq!(acted(&[]), Ok(None));
        let user = acted(&[
            (USER, "jane"),
            (GROUP, "a"),
            (GROUP, "b"),
            (UID, "7"),
            ("impersonate-extra-acme.com%2fproject", "x"),
            ("impersonate-extra-scopes", "view"),
            ("impersonate-extra-scopes", "edit"),
            ("impersonate-extra-bad%zz", "y"),
        ]);
        let user = user.unwrap().unwrap();
        assert_eq!((&*user.name, &*user.uid), ("jane", "7"));
        assert_eq!(*user.groups, ["a", "b", GROUP_AUTHENTICATED]);
        assert_eq!(user.extra["acme.com/project"], ["x"]);
        assert_eq!(user.extra["scopes"], ["view", "edit"]);
        assert_eq!(user.extra["bad%zz"], ["y"]);
        let account = acted(&[(USER, "system:serviceaccount:shop:bot")]).unwrap().unwrap();
        assert_eq!(account, UserInfo::service_account("shop", "bot"));
        assert_eq!(acted(&[(USER, ANONYMOUS)]).unwrap().unwrap(), UserInfo::anonymous());
        assert!(matches!(acted(&[(GROUP, "a")]), Err(ApiError::BadRequest(_))));
    }

    #[test]
    fn each_part_needs_its_own_permission() {
        let gate = Gate::default();
        let rule = serde_json::json!({"metadata": {"name": "r"}, "rules": [
            {"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"],
                "resourceNames": ["jane"]},
            {"apiGroups": [AUTHENTICATION], "resources": ["userextras/scopes"],
                "verbs": ["impersonate"]}]});
        let binding = serde_json::json!({"metadata": {"name": "b"},
            "roleRef": {"apiGroup": "", "kind": "ClusterRole", "name": "r"},
            "subjects": [{"kind": "User", "name": "joe"}]});
        gate.change(|access| {
            for (kind, object) in [
                (toono_access::Kind::ClusterRole, rule),
                (toono_access::Kind::ClusterRoleBinding, binding),
            ] {
                let text = object.to_string();
                access.rules.apply(&toono_access::Object::parse(kind, text.as_bytes()).unwrap());
            }
        });
        let joe = UserInfo::new("joe", [""; 0]);
        for (pairs, refusal) in [
            (vec![(USER, "jane")], None),
            (vec![(USER, "jane"), ("impersonate-extra-scopes", "all")], None),
            (
                vec![(USER, "jack")],
                Some(
                    "users \"jack\" is forbidden: User \"joe\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope",
                ),
            ),
            (
                vec![(USER, "jane"), (GROUP, "system:masters")],
                Some(
                    "groups \"system:masters\" is forbidden: User \"joe\" cannot impersonate resource \"groups\" in API group \"\" at the cluster scope",
                ),
            ),
            (
                vec![(USER, "jane"), (UID, "1")],
                Some(
                    "uids.authentication.k8s.io \"1\" is forbidden: User \"joe\" cannot impersonate resource \"uids\" in API group \"authentication.k8s.io\" at the cluster scope",
                ),
            ),
            (
                vec![(USER, "jane"), ("impersonate-extra-team", "x")],
                Some(
                    "userextras.authentication.k8s.io \"x\" is forbidden: User \"joe\" cannot impersonate resource \"userextras/team\" in API group \"authentication.k8s.io\" at the cluster scope",
                ),
            ),
            (
                vec![(USER, "system:serviceaccount:shop:bot")],
                Some(
                    "serviceaccounts \"bot\" is forbidden: User \"joe\" cannot impersonate resource \"serviceaccounts\" in API group \"\" in the namespace \"shop\"",
                ),
            ),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in &pairs {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let said = impersonate(&gate, &joe, &mut headers).err().map(|error| error.to_string());
            assert_eq!(said.as_deref(), refusal, "{pairs:?}");
        }
    }
}
