//! Every schema closes over its references, in both versions, and says what clients merge by.

use std::collections::BTreeSet;

use super::*;
use crate::kinds::RESOURCES;

fn resources() -> Vec<Arc<Resource>> {
    RESOURCES.iter().map(|row| Arc::new(Resource::from(*row))).collect()
}

fn served(resources: &[Arc<Resource>]) -> Vec<(&str, &str)> {
    let versions: BTreeSet<_> =
        resources.iter().map(|resource| (&*resource.group, &*resource.version)).collect();
    versions.into_iter().collect()
}

/// Every document of version 3, and how its components are referred to.
fn all_of_version_3() -> Vec<Value> {
    let resources = resources();
    let served = served(&resources);
    served
        .iter()
        .map(|(group, version)| {
            let own: Vec<_> = resources
                .iter()
                .filter(|resource| (&*resource.group, &*resource.version) == (*group, *version))
                .cloned()
                .collect();
            version_3(group, version, &own, &served)
        })
        .collect()
}

fn references(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(target) if name == "$ref" => drop(into.insert(target.clone())),
                    value => references(value, into),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, into)),
        _ => {}
    }
}

fn assert_closed(document: &Value, place: &str) {
    let mut wanted = BTreeSet::new();
    references(document, &mut wanted);
    assert!(!wanted.is_empty());
    let components = document.pointer(place).and_then(Value::as_object).unwrap();
    for reference in wanted {
        let name = reference.strip_prefix(&format!("#{place}/")).unwrap();
        assert!(components.contains_key(name), "{reference} is nowhere");
    }
}

#[test]
fn every_reference_leads_to_a_component() {
    for document in all_of_version_3() {
        assert_closed(&document, "/components/schemas");
    }
    let resources = resources();
    assert_closed(&version_2(&resources, &served(&resources)), "/definitions");
}

#[test]
fn every_message_of_the_table_has_a_schema_that_closes() {
    let mut schemas = schema::Schemas::new(Dialect::V3, &[("", "v1")]);
    types::messages().for_each(|message| schemas.add_message(message.name()));
    let components = schemas.finish();
    assert_closed(&json!({"components": {"schemas": components}}), "/components/schemas");
}

#[test]
fn each_kind_is_found_by_its_name_and_its_operations() {
    let documents = all_of_version_3();
    for resource in resources() {
        let kind =
            json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
        let name = component(&resource);
        let document = documents
            .iter()
            .find(|document| document["components"]["schemas"].get(&name).is_some())
            .unwrap_or_else(|| panic!("no {name}"));
        let schema = &document["components"]["schemas"][&name];
        assert_eq!(schema["x-kubernetes-group-version-kind"], json!([kind]));
        let patches = document["paths"]
            .as_object()
            .unwrap()
            .values()
            .filter(|path| path["patch"]["x-kubernetes-group-version-kind"] == kind);
        assert_eq!(patches.count() > 0, resource.verbs.contains(&"patch"), "{name}");
    }
}

#[test]
fn operations_are_named_once() {
    for document in all_of_version_3() {
        let mut once = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                if let Some(id) = operation["operationId"].as_str() {
                    assert!(once.insert(id.to_owned()), "{method} {path} is {id} again");
                }
            }
        }
    }
}

#[test]
fn merge_keys_lists_and_defaults_are_told() {
    let mut schemas = schema::Schemas::new(Dialect::V3, &[("", "v1")]);
    schemas.add_message("core.Pod");
    let components = Value::Object(schemas.finish());
    let of = |name: &str| &components[format!("io.k8s.api.core.v1.{name}")]["properties"];
    assert_eq!(
        of("PodSpec")["volumes"],
        json!({
            "type": "array",
            "description": "What its containers can mount.",
            "items": {"allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.Volume"}], "default": {}},
            "x-kubernetes-list-map-keys": ["name"],
            "x-kubernetes-list-type": "map",
            "x-kubernetes-patch-merge-key": "name",
            "x-kubernetes-patch-strategy": "merge,retainKeys",
        })
    );
    assert_eq!(
        of("Pod")["spec"],
        json!({
            "allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}],
            "default": {},
            "description": "What is wanted.",
        })
    );
    assert_eq!(of("ContainerPort")["protocol"]["default"], "TCP");
    assert_eq!(of("ContainerPort")["containerPort"]["default"], 0);
    assert_eq!(of("PodSpec")["nodeSelector"]["x-kubernetes-map-type"], "atomic");
    assert_eq!(
        of("Volume")["emptyDir"]["allOf"][0]["$ref"].as_str().unwrap().rsplit('.').next(),
        Some("EmptyDirVolumeSource")
    );
    let pod = &components["io.k8s.api.core.v1.PodSpec"];
    assert_eq!(pod["required"], json!(["containers"]));
}
