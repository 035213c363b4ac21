//! What a request asks for: a path and a query of Kubernetes' API, read.

use http::{Method, Request};
use toono_access::{Attributes, Request as What, ResourceRequest};
use toono_api::{FieldSelector, UserInfo};
use toono_http::Body;

use crate::kubelet::query::Query;

/// A request, as access control and the answer need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// The API verb, or the method in lower case for what is no resource.
    pub(super) verb: &'static str,
    pub(super) path: String,
    pub(super) resource: Option<Resource>,
    pub(super) query: Query,
}

/// What a path of a resource names; empty texts for what it does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) plural: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) subresource: String,
}

impl Asked {
    pub(super) fn read(request: &Request<Body>) -> Self {
        let path = request.uri().path().to_owned();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let resource = Resource::read(&path);
        let verb = match &resource {
            Some(resource) => verb(request.method(), resource, query.flag(&["watch"])),
            None => method(request.method()),
        };
        Self { verb, path, resource, query }
    }

    /// As access control sees it.
    pub(super) fn attributes<'a>(
        &'a self,
        user: &'a UserInfo,
        fields: Option<&'a FieldSelector>,
    ) -> Attributes<'a> {
        let request = match &self.resource {
            None => What::NonResource { path: &self.path },
            Some(it) => {
                let request = ResourceRequest {
                    api_group: &it.group,
                    resource: &it.plural,
                    subresource: &it.subresource,
                    namespace: &it.namespace,
                    name: &it.name,
                    selector: None,
                };
                What::Resource(fields.map_or(request, |fields| request.selecting(fields)))
            }
        };
        Attributes { user, verb: self.verb, request }
    }
}

impl Resource {
    /// None for a path that is no resource's: discovery, health, the version.
    fn read(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            // A Namespace lies in the namespace that it is.
            ["namespaces", name] => (*name, rest),
            ["namespaces", name, "status" | "finalize"] => (*name, rest),
            ["namespaces", namespace, rest @ ..] => (*namespace, rest),
            _ => ("", rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (plural, "", String::new()),
            [plural, name] => (plural, *name, String::new()),
            [plural, name, below @ ..] => (plural, *name, below.join("/")),
            [] => return None,
        };
        let own = |text: &str| text.to_owned();
        let (group, version, plural) = (own(group), own(version), own(plural));
        Some(Self {
            group,
            version,
            plural,
            namespace: own(namespace),
            name: own(name),
            subresource,
        })
    }
}

fn verb(method: &Method, resource: &Resource, watch: bool) -> &'static str {
    match *method {
        Method::GET | Method::HEAD if watch => "watch",
        Method::GET | Method::HEAD if resource.name.is_empty() => "list",
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if resource.name.is_empty() => "deletecollection",
        Method::DELETE => "delete",
        _ => "",
    }
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, uri: &str) -> Asked {
        Asked::read(&Request::builder().method(method).uri(uri).body(toono_http::empty()).unwrap())
    }

    #[test]
    fn paths_are_read_as_the_api_server_reads_them() {
        for (method, uri, verb, expected) in [
            ("GET", "/api/v1/pods", "list", "|v1|pods|||"),
            ("GET", "/api/v1/namespaces/d/pods?watch=true", "watch", "|v1|pods|d||"),
            ("GET", "/api/v1/namespaces/d/pods/p", "get", "|v1|pods|d|p|"),
            ("GET", "/api/v1/namespaces/d/pods/p/log", "get", "|v1|pods|d|p|log"),
            ("GET", "/api/v1/namespaces/d", "get", "|v1|namespaces|d|d|"),
            ("GET", "/api/v1/namespaces", "list", "|v1|namespaces|||"),
            ("DELETE", "/api/v1/nodes/n", "delete", "|v1|nodes||n|"),
            (
                "POST",
                "/apis/authentication.k8s.io/v1/tokenreviews",
                "create",
                "authentication.k8s.io|v1|tokenreviews|||",
            ),
        ] {
            let Asked { verb: read, resource, .. } = asked(method, uri);
            let it = resource.unwrap();
            let text = [it.group, it.version, it.plural, it.namespace, it.name, it.subresource];
            assert_eq!((read, text.join("|").as_str()), (verb, expected), "{method} {uri}");
        }
        for uri in ["/", "/api", "/api/v1", "/apis/apps/v1", "/version", "/healthz"] {
            let asked = asked("GET", uri);
            assert_eq!((asked.verb, asked.resource), ("get", None), "{uri}");
        }
    }
}
