//! The paths of a resource and of its subresources, and what may be done on each.

use serde_json::{Map, Value};

use super::{
    Dialect, message_of, names,
    operation::{Answer, Body, Operation, Parameter, parameter},
};
use crate::{Resource, resource::Subresource};

const PRETTY: Parameter = ("pretty", "string");
const LIST: &[Parameter] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITE: &[Parameter] =
    &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const PATCH: &[Parameter] = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
    ("force", "boolean"),
];
const DELETE: &[Parameter] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const DELETE_COLLECTION: &[Parameter] = &[
    ("continue", "string"),
    ("dryRun", "string"),
    ("fieldSelector", "string"),
    ("gracePeriodSeconds", "integer"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("timeoutSeconds", "integer"),
];

/// Custom kinds have no merge keys, so they take no strategic merge patch.
const CUSTOM_PATCHES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
];
const PATCHES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// The list of a version's resources.
pub(super) fn of_version(
    dialect: Dialect,
    group: &str,
    version: &str,
    paths: &mut Map<String, Value>,
) {
    let (camel, tag) = words(group, version);
    let operation = Operation {
        method: "get",
        action: "",
        id: format!("get{camel}APIResources"),
        tag,
        kind: None,
        parameters: Vec::new(),
        body: Body::Nothing,
        answer: Answer::Object(names::of_meta("APIResourceList")),
        codes: &["200"],
    };
    let path = format!("{}/", root(group, version));
    paths.insert(path, [("get".to_owned(), operation.write(dialect))].into_iter().collect());
}

/// Every path of a resource.
pub(super) fn of_resource(dialect: Dialect, resource: &Resource, paths: &mut Map<String, Value>) {
    let paths = &mut Paths { dialect, resource, paths };
    let root = root(&resource.group, &resource.version);
    let mut places: Vec<&str> = Vec::new();
    let mut collection = format!("{root}/{}", resource.plural);
    if resource.namespaced {
        paths.put(&collection, &[], vec![paths.list("ForAllNamespaces")]);
        places.push("namespace");
        collection = format!("{root}/namespaces/{{namespace}}/{}", resource.plural);
    }
    paths.put(&collection, &places, paths.on_collection());
    let object = format!("{collection}/{{name}}");
    places.push("name");
    paths.put(&object, &places, paths.on_object());
    for subresource in &resource.subresources {
        let path = format!("{object}/{}", subresource.name);
        paths.put(&path, &places, paths.on_subresource(subresource));
    }
}

/// `/apis/GROUP/VERSION`.
fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// A group and version as operations (`AppsV1`) and as tags (`apps_v1`) have them.
fn words(group: &str, version: &str) -> (String, String) {
    let group = if group.is_empty() { "core" } else { group };
    let group = group.strip_suffix(".k8s.io").unwrap_or(group);
    let mut camel: String = group.split(['.', '-']).map(capital).collect();
    let tag = format!("{}_{version}", lower(&camel));
    camel.push_str(&capital(version));
    (camel, tag)
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}

fn lower(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().into_iter().flat_map(char::to_lowercase).chain(letters).collect()
}

struct Paths<'p> {
    dialect: Dialect,
    resource: &'p Resource,
    paths: &'p mut Map<String, Value>,
}

impl Paths<'_> {
    /// A path with its operations, if it has any.
    fn put(&mut self, path: &str, places: &[&str], operations: Vec<Option<Operation>>) {
        let mut item: Map<String, Value> = operations
            .into_iter()
            .flatten()
            .map(|operation| (operation.method.to_owned(), operation.write(self.dialect)))
            .collect();
        if item.is_empty() {
            return;
        }
        let mut parameters: Vec<Value> =
            places.iter().map(|place| parameter(self.dialect, "path", place, "string")).collect();
        parameters.push(parameter(self.dialect, "query", PRETTY.0, PRETTY.1));
        item.insert("parameters".to_owned(), parameters.into());
        self.paths.insert(path.to_owned(), Value::Object(item));
    }

    /// An operation on the kind itself; `None` if the resource has no such verb.
    fn operation(
        &self,
        (verb, method, action): (&str, &'static str, &'static str),
        parameters: &[Parameter],
        body: Body,
        codes: &'static [&'static str],
    ) -> Option<Operation> {
        if !self.resource.verbs.contains(&verb) {
            return None;
        }
        let resource = self.resource;
        let (camel, tag) = words(&resource.group, &resource.version);
        let scope = if resource.namespaced { "Namespaced" } else { "" };
        let collection = if verb == "deletecollection" { "Collection" } else { "" };
        let named = match verb {
            "get" => "read",
            "update" => "replace",
            "deletecollection" => "delete",
            other => other,
        };
        let answer = match verb {
            "list" => names::of_list(resource),
            "delete" if resource.strategy.returns_deleted => names::component(resource),
            "delete" | "deletecollection" => names::of_meta("Status"),
            _ => names::component(resource),
        };
        Some(Operation {
            method,
            action,
            id: format!("{named}{camel}{collection}{scope}{}", resource.kind),
            tag,
            kind: Some((
                resource.group.to_string(),
                resource.version.to_string(),
                resource.kind.to_string(),
            )),
            parameters: parameters.to_vec(),
            body,
            answer: Answer::Object(answer),
            codes,
        })
    }

    fn list(&self, suffix: &str) -> Option<Operation> {
        let mut operation =
            self.operation(("list", "get", "list"), LIST, Body::Nothing, &["200"])?;
        if !suffix.is_empty() {
            operation.id = operation.id.replace("Namespaced", "") + suffix;
        }
        Some(operation)
    }

    fn object(&self) -> Body {
        Body::Object(names::component(self.resource))
    }

    fn patches(&self) -> Body {
        let built_in = self.resource.behaviour.built_in().is_some();
        Body::Patch(if built_in { PATCHES } else { CUSTOM_PATCHES })
    }

    fn on_collection(&self) -> Vec<Option<Operation>> {
        let delete = ("deletecollection", "delete", "deletecollection");
        vec![
            self.list(""),
            self.operation(
                ("create", "post", "post"),
                WRITE,
                self.object(),
                &["200", "201", "202"],
            ),
            self.operation(delete, DELETE_COLLECTION, Body::Options, &["200"]),
        ]
    }

    fn on_object(&self) -> Vec<Option<Operation>> {
        vec![
            self.operation(("get", "get", "get"), &[], Body::Nothing, &["200"]),
            self.operation(("update", "put", "put"), WRITE, self.object(), &["200", "201"]),
            self.operation(("patch", "patch", "patch"), PATCH, self.patches(), &["200", "201"]),
            self.operation(("delete", "delete", "delete"), DELETE, Body::Options, &["200", "202"]),
        ]
    }

    fn on_subresource(&self, subresource: &Subresource) -> Vec<Option<Operation>> {
        subresource.verbs.iter().map(|verb| self.sub_operation(subresource, verb)).collect()
    }

    fn sub_operation(&self, subresource: &Subresource, verb: &str) -> Option<Operation> {
        let (method, action, named, parameters, codes): (_, _, _, &[Parameter], &[&str]) =
            match verb {
                "get" => ("get", "get", "read", &[], &["200"]),
                "update" => ("put", "put", "replace", WRITE, &["200", "201"]),
                "patch" => ("patch", "patch", "patch", PATCH, &["200", "201"]),
                "create" => ("post", "post", "create", WRITE, &["200", "201", "202"]),
                "delete" => ("delete", "delete", "delete", DELETE, &["200", "202"]),
                _ => return None,
            };
        let resource = self.resource;
        // A subresource speaks its own kind, or that of the resource; streams speak none.
        let own_kind = subresource.kind == resource.kind;
        let component = message_of(&subresource.group, &subresource.version, &subresource.kind)
            .map(|message| names::of_message(message.name()))
            .or_else(|| own_kind.then(|| names::component(resource)))
            .filter(|_| subresource.name != "log");
        let (action, parameters) =
            if component.is_some() { (action, parameters) } else { ("connect", &[][..]) };
        let body = match (verb, &component) {
            ("update" | "create", Some(component)) => Body::Object(component.clone()),
            ("patch", Some(_)) => self.patches(),
            _ => Body::Nothing,
        };
        let (camel, tag) = words(&resource.group, &resource.version);
        let scope = if resource.namespaced { "Namespaced" } else { "" };
        let named = if action == "connect" && subresource.name != "log" {
            format!("connect{}", capital(method))
        } else {
            named.to_owned()
        };
        Some(Operation {
            method,
            action: if subresource.name == "log" { "get" } else { action },
            id: format!("{named}{camel}{scope}{}{}", resource.kind, capital(subresource.name)),
            tag,
            kind: Some((
                subresource.group.to_string(),
                subresource.version.to_string(),
                subresource.kind.to_string(),
            )),
            parameters: parameters.to_vec(),
            body,
            answer: component.map_or(Answer::Text, Answer::Object),
            codes,
        })
    }
}
