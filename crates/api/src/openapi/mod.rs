//! OpenAPI documents of the served kinds, made from the table of types and from the resources: version
//! 3 of each group version, version 2 of everything, as JSON and as the protobuf that older clients ask
//! for.
//!
//! Pure functions: who asks, and what is kept between requests, is the server's matter.

mod custom;
mod describe;
mod gnostic;
mod names;
mod operation;
mod paths;
mod schema;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::{Resource, types};

pub use gnostic::to_protobuf;
pub use names::component;

/// The version of Kubernetes whose API this is.
const KUBERNETES_VERSION: &str = "v1.35.0";

/// Which OpenAPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// 2.0, "Swagger".
    V2,
    /// 3.0.
    V3,
}

impl Dialect {
    /// A reference to a component.
    fn reference(self, component: &str) -> Value {
        let place = match self {
            Self::V2 => "definitions",
            Self::V3 => "components/schemas",
        };
        json!({"$ref": format!("#/{place}/{component}")})
    }
}

/// Version 3: the document of one version of a group, whose resources these are.
/// `served` are all versions of all groups, which `DeleteOptions` belongs to.
#[must_use]
pub fn version_3(
    group: &str,
    version: &str,
    resources: &[Arc<Resource>],
    served: &[(&str, &str)],
) -> Value {
    let (mut paths, mut schemas) = (Map::new(), schema::Schemas::new(Dialect::V3, served));
    paths::of_version(Dialect::V3, group, version, &mut paths);
    schemas.add_message("meta.APIResourceList");
    for resource in resources {
        paths::of_resource(Dialect::V3, resource, &mut paths);
        schemas.add_resource(resource);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": KUBERNETES_VERSION},
        "paths": paths,
        "components": {"schemas": schemas.finish()},
    })
}

/// Version 2: one document of all resources.
#[must_use]
pub fn version_2(resources: &[Arc<Resource>], served: &[(&str, &str)]) -> Value {
    let (mut paths, mut schemas) = (Map::new(), schema::Schemas::new(Dialect::V2, served));
    for (group, version) in served {
        paths::of_version(Dialect::V2, group, version, &mut paths);
    }
    schemas.add_message("meta.APIResourceList");
    for resource in resources {
        paths::of_resource(Dialect::V2, resource, &mut paths);
        schemas.add_resource(resource);
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": KUBERNETES_VERSION},
        "paths": paths,
        "definitions": schemas.finish(),
    })
}

/// The message of a subresource's kind, if clients send or get one.
fn message_of(group: &str, version: &str, kind: &str) -> Option<&'static types::Message> {
    if group.is_empty() {
        return types::of_kind(version, kind);
    }
    types::of_kind(&format!("{group}/{version}"), kind)
}
