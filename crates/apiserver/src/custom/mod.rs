//! Kinds that come and go at run time: the rules of CustomResourceDefinitions, what they are compiled
//! to, and who keeps the served kinds as the definitions say.
//!
//! Nothing outside knows a custom kind as such: it is a [`Resource`] with a behaviour of its own.

mod behaviour;
mod cleanup;
mod compile;
mod definition;
mod keeper;
mod names;
mod status;
mod tenure;
mod validation;
mod view;

use std::sync::Arc;

use toono_api::{BuiltIn, Resource, kinds};

pub(crate) use keeper::Removals;
pub(crate) use tenure::Tenure;

/// A built-in kind as it is served; definitions have rules that the table cannot hold.
pub(crate) fn built_in(row: &'static BuiltIn) -> Arc<Resource> {
    let mut resource = Resource::from(row);
    if std::ptr::eq(row, &kinds::extensions::CUSTOM_RESOURCE_DEFINITION) {
        resource.behaviour = Arc::new(definition::DefinitionKind(row));
    }
    Arc::new(resource)
}
