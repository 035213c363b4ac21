//! What a request asks: its path and method as verb, resource, namespace, name and subresource.

use http::Method;
use std::sync::Arc;

use toono_api::{ApiError, Resource, resource::Subresource};

use crate::registry::Registry;

/// Where a path leads.
#[derive(Debug, Clone)]
pub(crate) enum Route<'p> {
    /// A resource, an object, or something below an object.
    Resource(ResourcePath<'p>),
    /// Anything else: discovery, health, other handlers.
    Path(&'p str),
}

/// A path of the resource API.
#[derive(Debug, Clone)]
pub(crate) struct ResourcePath<'p> {
    /// Which kind.
    pub(crate) resource: Arc<Resource>,
    /// Empty for cluster scope and for all namespaces.
    pub(crate) namespace: &'p str,
    /// Empty for the collection.
    pub(crate) name: &'p str,
    /// Below the object.
    pub(crate) subresource: Option<Subresource>,
}

impl<'p> Route<'p> {
    /// Reads a path.
    ///
    /// # Errors
    /// When the path is in the space of resources and names none that is known.
    pub(crate) fn parse(registry: &Registry, path: &'p str) -> Result<Self, ApiError> {
        let mut segments = path.split('/').skip(1).filter(|segment| !segment.is_empty());
        let (group, version) = match segments.next() {
            Some("api") => ("", segments.next()),
            Some("apis") => (segments.next().unwrap_or_default(), segments.next()),
            _ => return Ok(Self::Path(path)),
        };
        let rest: Vec<&str> = segments.collect();
        let (Some(version), false) = (version, rest.is_empty()) else {
            return Ok(Self::Path(path));
        };
        let (namespace, plural, name, subresource) = match rest.as_slice() {
            ["namespaces"] => ("", "namespaces", "", ""),
            ["namespaces", name] => ("", "namespaces", *name, ""),
            ["namespaces", name, sub @ ("status" | "finalize")] => ("", "namespaces", *name, *sub),
            ["namespaces", namespace, plural] => (*namespace, *plural, "", ""),
            ["namespaces", namespace, plural, name] => (*namespace, *plural, *name, ""),
            ["namespaces", namespace, plural, name, sub, ..] => (*namespace, *plural, *name, *sub),
            [plural] => ("", *plural, "", ""),
            [plural, name] => ("", *plural, *name, ""),
            [plural, name, sub, ..] => ("", *plural, *name, *sub),
            [] => return Ok(Self::Path(path)),
        };
        let resource = registry.find(group, version, plural).ok_or(ApiError::UnknownPath)?;
        let scope_fits = if resource.namespaced {
            !namespace.is_empty() || name.is_empty()
        } else {
            namespace.is_empty()
        };
        let subresource = match subresource {
            "" => None,
            given => Some(resource.subresource(given).cloned().ok_or(ApiError::UnknownPath)?),
        };
        if !scope_fits {
            return Err(ApiError::UnknownPath);
        }
        let resource = Arc::clone(resource);
        Ok(Self::Resource(ResourcePath { resource, namespace, name, subresource }))
    }
}

impl ResourcePath<'_> {
    /// Name of the subresource; empty for the object itself.
    pub(crate) fn subresource_name(&self) -> &'static str {
        self.subresource.as_ref().map_or("", |subresource| subresource.name)
    }

    /// The API verb of a method on this path.
    ///
    /// # Errors
    /// When the path does not take the method.
    pub(crate) fn verb(&self, method: &Method, watches: bool) -> Result<&'static str, ApiError> {
        let collection = self.name.is_empty();
        let verb = match (method, collection) {
            (&Method::GET | &Method::HEAD, true) if watches => "watch",
            (&Method::GET | &Method::HEAD, true) => "list",
            (&Method::GET | &Method::HEAD, false) => "get",
            (&Method::POST, true) => "create",
            (&Method::POST, false) if self.subresource.is_some() => "create",
            (&Method::PUT, false) => "update",
            (&Method::PATCH, false) => "patch",
            (&Method::DELETE, true) => "deletecollection",
            (&Method::DELETE, false) => "delete",
            _ => return Err(ApiError::MethodNotAllowed),
        };
        let allowed = match &self.subresource {
            Some(subresource) => subresource.verbs,
            None => self.resource.verbs,
        };
        // Objects of a namespaced kind are created in a namespace.
        let placed = verb != "create" || !self.resource.namespaced || !self.namespace.is_empty();
        if allowed.contains(&verb) && placed { Ok(verb) } else { Err(ApiError::MethodNotAllowed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> Option<(String, &str, &str, Option<&'static str>)> {
        match Route::parse(&Registry::with([]), path).ok()? {
            Route::Resource(at) => Some((
                at.resource.kind.to_string(),
                at.namespace,
                at.name,
                at.subresource.map(|subresource| subresource.name),
            )),
            Route::Path(_) => Some((String::new(), "", "", None)),
        }
    }

    #[test]
    fn paths_lead_where_kubernetes_puts_them() {
        for (path, expected) in [
            ("/api/v1/pods", Some(("Pod", "", "", None))),
            ("/api/v1/namespaces/a/pods/b", Some(("Pod", "a", "b", None))),
            ("/api/v1/namespaces/a/pods/b/log", Some(("Pod", "a", "b", Some("log")))),
            ("/api/v1/namespaces/a", Some(("Namespace", "", "a", None))),
            ("/api/v1/namespaces/a/status", Some(("Namespace", "", "a", Some("status")))),
            ("/api/v1/nodes/n/status", Some(("Node", "", "n", Some("status")))),
            (
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                Some(("Deployment", "a", "d", Some("scale"))),
            ),
            ("/apis/apps/v1", Some(("", "", "", None))),
            ("/version", Some(("", "", "", None))),
            ("/api/v1/pods/b", None),
            ("/api/v1/namespaces/a/nodes", None),
            ("/api/v1/things", None),
            ("/apis/apps/v2/deployments", None),
        ] {
            let expected = expected.map(|(kind, at, name, sub)| (kind.to_owned(), at, name, sub));
            assert_eq!(parsed(path), expected, "{path}");
        }
    }
}
