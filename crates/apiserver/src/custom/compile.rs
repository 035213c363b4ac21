//! From a CustomResourceDefinition to the kinds that the server serves.

use std::{cmp::Reverse, sync::Arc};

use serde_json::Value;
use toono_api::{
    Resource,
    meta::{items_at, text_at},
    names,
    place::SchemaPlace,
    print,
    resource::{ALL_VERBS, Column as Heading, Strategy, Subresource, Text},
};
use toono_schema::{Column, PublishedKind, Schema, Subresources};

use super::{
    behaviour::{CustomKind, no_status, sent_status},
    view::{View, flag},
};

/// What a definition is compiled to.
#[derive(Debug)]
pub(super) struct Compiled {
    /// Its served versions, the preferred one first.
    pub(super) served: Vec<Arc<Resource>>,
    /// The kind as which its objects can be found and removed, also when nothing is served.
    pub(super) stored: Arc<Resource>,
    /// Why versions are not served although they should be.
    pub(super) problems: Vec<String>,
}

/// What may be done while the definition goes away.
const LAST_VERBS: &[&str] =
    &["delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const STATUS_VERBS: &[&str] = &["get", "patch", "update"];

impl Compiled {
    /// The same kinds, of which no new object may be made: their definition goes away.
    pub(super) fn last(&self) -> Self {
        let last = |kind: &Arc<Resource>| {
            Arc::new(Resource { verbs: LAST_VERBS, ..Resource::clone(kind) })
        };
        Self {
            served: self.served.iter().map(last).collect(),
            stored: Arc::clone(&self.stored),
            problems: self.problems.clone(),
        }
    }
}

/// Compiles a definition whose names are accepted.
pub(super) fn compile(definition: View<'_>) -> Compiled {
    let mut problems = Vec::new();
    let mut served = Vec::new();
    let mut versions: Vec<&Value> = definition.versions().collect();
    versions.sort_by_key(|version| Reverse(priority(name_of(version))));
    for version in versions.into_iter().filter(|version| flag(version, "served")) {
        match schema(version) {
            Ok(schema) => served.push(Arc::new(resource(definition, version, Some(schema)))),
            Err(problem) => problems.push(problem),
        }
    }
    let stored = served.iter().find(|kind| kind.version == definition.storage_version()).cloned();
    let stored = stored.unwrap_or_else(|| {
        let storage = definition.versions().find(|version| flag(version, "storage"));
        Arc::new(resource(definition, storage.unwrap_or(&Value::Null), None))
    });
    Compiled { served, stored, problems }
}

fn name_of(version: &Value) -> &str {
    text_at(version, &["name"]).unwrap_or_default()
}

fn raw_schema(version: &Value) -> &Value {
    let raw = version.get("schema").and_then(|schema| schema.get("openAPIV3Schema"));
    raw.unwrap_or(&Value::Null)
}

fn schema(version: &Value) -> Result<Schema, String> {
    let path = format!("spec.versions[{}].schema.openAPIV3Schema", name_of(version));
    Schema::compile(raw_schema(version), &path).map_err(|errors| {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        texts.join(", ")
    })
}

fn resource(definition: View<'_>, version: &Value, schema: Option<Schema>) -> Resource {
    let names = definition.accepted();
    let text = |field: &str| Text::from(names.text(field).to_owned());
    let texts = |field: &str| names.texts(field).map(|name| Text::from(name.to_owned())).collect();
    let group = Text::from(definition.group().to_owned());
    let raw = version.get("subresources").unwrap_or(&Value::Null);
    let parts = Subresources::parse(raw).unwrap_or_default();
    let columns = columns(version);
    let mut headings = vec![print::NAME];
    headings.extend(columns.iter().map(heading));
    let has_status = parts.status;
    let strategy = Strategy {
        has_status,
        counts_generation: true,
        graceful: false,
        returns_deleted: false,
        name_rule: names::dns_subdomain,
        initial_status: if has_status { no_status } else { sent_status },
    };
    Resource {
        stored_group: group.clone(),
        group,
        version: Text::from(name_of(version).to_owned()),
        kind: text("kind"),
        list_kind: text("listKind"),
        stored_plural: text("plural"),
        plural: text("plural"),
        singular: text("singular"),
        short_names: texts("shortNames"),
        categories: texts("categories"),
        namespaced: definition.is_namespaced(),
        verbs: ALL_VERBS,
        subresources: subresources(definition, version, &parts),
        strategy,
        columns: headings,
        field_selectors: selectable_fields(version),
        behaviour: Arc::new(behaviour(definition, version, schema, columns, parts)),
    }
}

fn subresources(definition: View<'_>, version: &Value, parts: &Subresources) -> Vec<Subresource> {
    let status = parts.status.then(|| Subresource {
        name: "status",
        group: definition.group().to_owned().into(),
        version: name_of(version).to_owned().into(),
        kind: definition.accepted().text("kind").to_owned().into(),
        verbs: STATUS_VERBS,
    });
    let scale = parts.scale.is_some().then(|| Subresource {
        name: "scale",
        group: "autoscaling".into(),
        version: "v1".into(),
        kind: "Scale".into(),
        verbs: STATUS_VERBS,
    });
    status.into_iter().chain(scale).collect()
}

fn behaviour(
    definition: View<'_>,
    version: &Value,
    schema: Option<Schema>,
    columns: Vec<Column>,
    parts: Subresources,
) -> CustomKind {
    let api_version = |version: &str| format!("{}/{version}", definition.group());
    let names = definition.accepted();
    // Stored objects may be of another version, lack a default, or have a field that the schema had
    // once.
    let converts = definition.generation() != Some(1)
        || definition.versions().count() > 1
        || schema.as_ref().is_some_and(Schema::has_defaults);
    CustomKind {
        api_version: api_version(name_of(version)),
        stored_api_version: api_version(definition.storage_version()),
        schema,
        place: SchemaPlace::of_open_api(raw_schema(version)),
        published: PublishedKind {
            group: definition.group().to_owned(),
            version: name_of(version).to_owned(),
            kind: names.text("kind").to_owned(),
            list_kind: names.text("listKind").to_owned(),
        },
        columns,
        scale: parts.scale,
        warning: flag(version, "deprecated").then(|| warning(definition, version)),
        converts,
    }
}

fn selectable_fields(version: &Value) -> Vec<Text> {
    items_at(version, &["selectableFields"])
        .filter_map(|field| text_at(field, &["jsonPath"]))
        .map(|path| Text::from(path.trim_start_matches('.').to_owned()))
        .collect()
}

/// The columns that the definition asks for; the age where it asks for none.
fn columns(version: &Value) -> Vec<Column> {
    let parse = |raw: &Value| {
        let mut column = Column::parse(raw.as_object()?).ok()?;
        if column.description.is_empty() {
            let path = text_at(raw, &["jsonPath"]).unwrap_or_default();
            column.description =
                format!("Custom resource definition column (in JSONPath format): {path}");
        }
        Some(column)
    };
    let asked: Vec<Column> =
        items_at(version, &["additionalPrinterColumns"]).filter_map(parse).collect();
    if !asked.is_empty() {
        return asked;
    }
    let age = serde_json::json!({"name": "Age", "type": "date",
        "jsonPath": ".metadata.creationTimestamp", "description": CREATION});
    parse(&age).into_iter().collect()
}

/// What Kubernetes says of `metadata.creationTimestamp`.
const CREATION: &str = "CreationTimestamp is a timestamp representing the server time when this object was \
                        created.";

fn heading(column: &Column) -> Heading {
    Heading {
        name: column.name.clone().into(),
        kind: column.kind.name(),
        format: column.format.clone().into(),
        priority: column.priority,
        description: column.description.clone().into(),
    }
}

/// What clients of a deprecated version are told.
fn warning(definition: View<'_>, version: &Value) -> String {
    if let Some(own) = text_at(version, &["deprecationWarning"]) {
        return own.to_owned();
    }
    let (group, kind) = (definition.group(), definition.names().text("kind"));
    let name = name_of(version);
    let newer = definition
        .versions()
        .filter(|other| flag(other, "served") && !flag(other, "deprecated"))
        .map(name_of)
        .filter(|other| priority(other) > priority(name))
        .max_by_key(|other| priority(other));
    let mut text = format!("{group}/{name} {kind} is deprecated");
    if let Some(newer) = newer {
        text.push_str(&format!("; use {group}/{newer} {kind}"));
    }
    text
}

/// How versions are ranked: stable ones before beta and alpha, then the higher number, then others by
/// name.
pub(super) fn priority(version: &str) -> (u8, u64, u64, Reverse<&str>) {
    let parsed = || {
        let rest = version.strip_prefix('v')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (major, rest) = rest.split_at(end);
        let major = major.parse().ok()?;
        if rest.is_empty() {
            return Some((3, major, 0));
        }
        let (rank, minor) = match rest.strip_prefix("beta") {
            Some(minor) => (2, minor),
            None => (1, rest.strip_prefix("alpha")?),
        };
        Some((rank, major, minor.parse().ok()?))
    };
    match parsed() {
        Some((rank, major, minor)) => (rank, major, minor, Reverse("")),
        None => (0, 0, 0, Reverse(version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ranked_as_kubernetes_ranks_them() {
        let ranked = [
            "v10",
            "v2",
            "v1",
            "v11beta2",
            "v10beta3",
            "v3beta1",
            "v12alpha1",
            "v11alpha2",
            "foo1",
            "foo10",
        ];
        let mut sorted = ranked;
        sorted.reverse();
        sorted.sort_by_key(|version| Reverse(priority(version)));
        assert_eq!(sorted, ranked);
    }
}
