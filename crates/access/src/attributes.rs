//! What a decision looks at: who, which verb, and what it is about. Nothing here decides.

use toono_api::{FieldSelector, UserInfo};

/// A request as access control sees it.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: &'a UserInfo,
    /// The API verb (`get`, `list`, `deletecollection`, `bind`, …), or for a path that is no resource the
    /// HTTP method in lower case.
    pub verb: &'a str,
    /// What it is about.
    pub request: Request<'a>,
}

/// What a request is about.
#[derive(Debug, Clone, Copy)]
pub enum Request<'a> {
    /// An object, a collection, or something below an object.
    Resource(ResourceRequest<'a>),
    /// Any other path, without its query.
    NonResource {
        /// The path, such as `/healthz`.
        path: &'a str,
    },
}

/// A request for a resource. Empty texts stand for what the path does not name.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResourceRequest<'a> {
    /// API group, empty for the core group.
    pub api_group: &'a str,
    /// Plural name of the resource.
    pub resource: &'a str,
    /// What is below the object, such as `status`.
    pub subresource: &'a str,
    /// Namespace; empty for cluster scope and for all namespaces.
    pub namespace: &'a str,
    /// Name of the object; empty for a collection and for `create`.
    pub name: &'a str,
    /// The field selector of a list or watch.
    pub selector: Option<&'a FieldSelector>,
}

impl<'a> ResourceRequest<'a> {
    /// The same request restricted by a field selector. One that asks for a single name is a request for
    /// that name, as in Kubernetes, so that rules with `resourceNames` apply to a list or watch.
    #[must_use]
    pub fn selecting(self, selector: &'a FieldSelector) -> Self {
        let name = match self.name {
            "" => selector.exact("metadata.name").unwrap_or_default(),
            name => name,
        };
        Self { name, selector: Some(selector), ..self }
    }

    /// The namespace whose role bindings count. A Namespace object lies in the namespace that it is, so
    /// that whoever administers a namespace may see it.
    #[must_use]
    pub fn scope(&self) -> &'a str {
        let is_namespace = self.resource == "namespaces" && self.api_group.is_empty();
        if is_namespace && self.namespace.is_empty() { self.name } else { self.namespace }
    }
}

impl<'a> Attributes<'a> {
    /// The namespace whose role bindings count; none for a path.
    pub(crate) fn scope(&self) -> &'a str {
        match &self.request {
            Request::Resource(resource) => resource.scope(),
            Request::NonResource { .. } => "",
        }
    }
}
