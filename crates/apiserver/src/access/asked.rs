//! What a request asks, as access control sees it: told by method and path alone, whether or not the server
//! has such a kind, so that who may not ask learns nothing of what there is.
//!
//! The reading is that of Kubernetes' request info.

use std::borrow::Cow;

use http::Method;
use toono_access::{Attributes, Request, ResourceRequest};
use toono_api::{FieldSelector, UserInfo};

/// A request before it is known whose it is.
#[derive(Debug, Clone)]
pub(crate) struct Asked<'p> {
    verb: Cow<'static, str>,
    path: &'p str,
    resource: Option<ResourceRequest<'p>>,
    selector: Option<FieldSelector>,
}

impl<'p> Asked<'p> {
    /// Reads method, path, field selector and whether a collection is watched.
    pub(crate) fn of(
        method: &Method,
        path: &'p str,
        field_selector: Option<&str>,
        watches: bool,
    ) -> Self {
        let Some(resource) = resource_of(path) else {
            let verb = method.as_str().to_ascii_lowercase().into();
            return Self { verb, path, resource: None, selector: None };
        };
        let collection = resource.name.is_empty();
        let verb: Cow<'static, str> = match *method {
            Method::GET | Method::HEAD if collection && watches => "watch".into(),
            Method::GET | Method::HEAD if collection => "list".into(),
            Method::GET | Method::HEAD => "get".into(),
            Method::POST => "create".into(),
            Method::PUT => "update".into(),
            Method::PATCH => "patch".into(),
            Method::DELETE if collection => "deletecollection".into(),
            Method::DELETE => "delete".into(),
            _ => method.as_str().to_ascii_lowercase().into(),
        };
        let selects = matches!(&*verb, "list" | "watch" | "deletecollection");
        let selector = field_selector.filter(|_| selects).and_then(any_selector);
        Self { verb, path, resource: Some(resource), selector }
    }

    /// The verb: the API's, or for paths that are no resource the method in lower case.
    pub(crate) fn verb(&self) -> &str {
        &self.verb
    }

    /// The same, asked by a user.
    pub(crate) fn attributes<'a>(&'a self, user: &'a UserInfo) -> Attributes<'a> {
        let request = match (self.resource, &self.selector) {
            (None, _) => Request::NonResource { path: self.path },
            (Some(resource), None) => Request::Resource(resource),
            (Some(resource), Some(selector)) => Request::Resource(resource.selecting(selector)),
        };
        Attributes { user, verb: &self.verb, request }
    }
}

/// The resource that a path names; `None` for other paths.
fn resource_of(path: &str) -> Option<ResourceRequest<'_>> {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let api_group = match segments.next()? {
        "api" => "",
        "apis" => segments.next()?,
        _ => return None,
    };
    let _version = segments.next()?;
    let mut resource = segments.next()?;
    let mut namespace = "";
    let mut name = segments.next();
    let mut subresource = segments.next();
    if resource == "namespaces"
        && let Some(named) = name
    {
        namespace = named;
        if let Some(below) = subresource.filter(|below| !matches!(*below, "status" | "finalize")) {
            (resource, name, subresource) = (below, segments.next(), segments.next());
        }
    }
    Some(ResourceRequest {
        api_group,
        resource,
        subresource: subresource.unwrap_or_default(),
        namespace,
        name: name.unwrap_or_default(),
        selector: None,
    })
}

/// Reads a field selector of whatever fields. Whether the kind has them is told when the list is made.
pub(crate) fn any_selector(text: &str) -> Option<FieldSelector> {
    let fields: Vec<&str> =
        text.split(',').filter_map(|term| term.split(['=', '!']).next()).collect();
    FieldSelector::parse(text, &fields).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(method: &str, path: &str, fields: Option<&str>, watches: bool) -> String {
        let user = UserInfo::anonymous();
        let asked = Asked::of(&method.parse().unwrap(), path, fields, watches);
        let attributes = asked.attributes(&user);
        match attributes.request {
            Request::NonResource { path } => format!("{} {path}", attributes.verb),
            Request::Resource(at) => format!(
                "{} {}.{}/{} {}/{}",
                attributes.verb, at.resource, at.api_group, at.subresource, at.namespace, at.name
            ),
        }
    }

    #[test]
    fn methods_and_paths_are_read_as_kubernetes_reads_them() {
        for (method, path, expected) in [
            ("GET", "/api/v1/pods", "list pods./ /"),
            ("HEAD", "/api/v1/namespaces/a/pods", "list pods./ a/"),
            ("GET", "/api/v1/namespaces/a/pods/b", "get pods./ a/b"),
            ("POST", "/api/v1/namespaces/a/pods/b/exec", "create pods./exec a/b"),
            ("GET", "/api/v1/namespaces/a/pods/b/proxy/x/y", "get pods./proxy a/b"),
            ("GET", "/api/v1/namespaces", "list namespaces./ /"),
            ("DELETE", "/api/v1/namespaces/a", "delete namespaces./ a/a"),
            ("PUT", "/api/v1/namespaces/a/finalize", "update namespaces./finalize a/a"),
            ("PATCH", "/apis/x.io/v1/things/a/status", "patch things.x.io/status /a"),
            ("DELETE", "/apis/x.io/v1/namespaces/a/things", "deletecollection things.x.io/ a/"),
            ("GET", "/api/v1", "get /api/v1"),
            ("GET", "/apis/apps/v1", "get /apis/apps/v1"),
            ("GET", "/apis/apps/v1/", "get /apis/apps/v1/"),
            ("GET", "/", "get /"),
            ("POST", "/fleet/v1/join", "post /fleet/v1/join"),
        ] {
            assert_eq!(told(method, path, None, false), expected, "{method} {path}");
        }
        assert_eq!(told("GET", "/api/v1/pods", None, true), "watch pods./ /");
        let named = Some("metadata.name=x,spec.any!=1");
        assert_eq!(told("GET", "/api/v1/namespaces/a/pods", named, true), "watch pods./ a/x");
        assert_eq!(told("POST", "/api/v1/namespaces/a/pods", named, true), "create pods./ a/");
        assert_eq!(told("GET", "/api/v1/pods", Some("nonsense"), false), "list pods./ /");
    }
}
