//! How objects of the resource table are merged: places derived from the table's strategic-merge
//! keys, and the facts in which server-side apply differs from a strategic merge.
//!
//! The facts are Kubernetes' `+listType`, `+listMapKey` and `+mapType` markers. A kind that is added
//! to the table works without a line here, as far as the two ways of merging agree.

use std::{
    collections::HashMap,
    sync::{LazyLock, PoisonError, RwLock},
};

use toono_api::{
    BuiltIn,
    merge::{Merge, MergeSchema},
};

use super::schema::{MapPlace, Place};

/// By the message of the kind. What is in it stays: there are no more than there are kinds.
static PLACES: LazyLock<RwLock<HashMap<&'static str, &'static Place>>> =
    LazyLock::new(RwLock::default);

/// How objects of a kind of the table are merged: derived when the first is written.
#[must_use]
pub fn place_of(row: &'static BuiltIn) -> &'static Place {
    let known = PLACES.read().unwrap_or_else(PoisonError::into_inner).get(row.message).copied();
    known.unwrap_or_else(|| {
        let mut places = PLACES.write().unwrap_or_else(PoisonError::into_inner);
        places.entry(row.message).or_insert_with(|| Box::leak(Box::new(derive_kind(row))))
    })
}

/// How `metadata` of any object is merged.
pub(super) fn metadata() -> Place {
    let mut place =
        Place::map([("finalizers", Place::Set), ("ownerReferences", by("uid"))], Place::Open);
    set_always(&mut place);
    refine(&mut place, METADATA);
    place
}

fn by(key: &str) -> Place {
    Place::list(&[(key, None)], Place::Open)
}

fn set_always(place: &mut Place) {
    if let Place::Map(map) = place {
        map.always = true;
    }
}

fn derive_kind(resource: &BuiltIn) -> Place {
    let mut place = derive(resource.merge);
    for facts in facts_of(resource.kind) {
        refine(&mut place, facts);
    }
    refine(&mut place, &[Fact("metadata", Kind::Always)]);
    for (field, facts) in [("metadata", METADATA), ("spec.template.metadata", METADATA)] {
        if let Some(metadata) = find(&mut place, field) {
            refine(metadata, facts);
        }
    }
    let pod_spec = if resource.kind == "Pod" { "spec" } else { "spec.template.spec" };
    if resource.merge.field("spec").is_some()
        && let Some(spec) = find(&mut place, pod_spec)
    {
        refine(spec, POD_SPEC);
        for list in ["containers", "initContainers", "ephemeralContainers"] {
            if let Some(Place::List(list)) = find(spec, list) {
                refine(&mut list.item, CONTAINER);
            }
        }
    }
    place
}

fn derive(schema: &MergeSchema) -> Place {
    let field = |(name, merge): &(&'static str, Merge)| {
        let place = match merge {
            Merge::Object(schema) => derive(schema),
            Merge::ListByKey(key, schema) => Place::list(&[(key, None)], derive(schema)),
            Merge::Set => Place::Set,
        };
        (Box::from(*name), place)
    };
    Place::Map(MapPlace {
        fields: schema.fields.iter().map(field).collect(),
        rest: Box::new(Place::Open),
        always: false,
    })
}

/// What holds at a path of fields (`*` stands for the items of a list).
struct Fact(&'static str, Kind);

/// What may hold.
enum Kind {
    /// One thing.
    Atomic,
    /// A list of maps with these keys and their defaults; its items stay as they were.
    Keys(&'static [(&'static str, Option<&'static str>)]),
    /// A map that is there even if empty.
    Always,
    /// Anything.
    Deduced,
}

use Kind::{Always, Atomic, Deduced, Keys};

const METADATA: &[Fact] = &[Fact("ownerReferences.*", Atomic)];

const CONTAINER: &[Fact] = &[
    Fact("ports", Keys(&[("containerPort", None), ("protocol", Some("TCP"))])),
    Fact("env.*.valueFrom.configMapKeyRef", Atomic),
    Fact("env.*.valueFrom.secretKeyRef", Atomic),
    Fact("env.*.valueFrom.fieldRef", Atomic),
    Fact("env.*.valueFrom.resourceFieldRef", Atomic),
    Fact("env.*.valueFrom.fileKeyRef", Atomic),
    Fact("resources.claims", Keys(&[("name", None)])),
    Fact("resources", Always),
];

const POD_SPEC: &[Fact] = &[
    Fact("nodeSelector", Atomic),
    Fact("imagePullSecrets", Keys(&[("name", Some(""))])),
    Fact("imagePullSecrets.*", Atomic),
    Fact("topologySpreadConstraints", Keys(&[("topologyKey", None), ("whenUnsatisfiable", None)])),
    Fact("topologySpreadConstraints.*.labelSelector", Atomic),
    Fact("affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution", Atomic),
    Fact("resources.claims", Keys(&[("name", None)])),
    Fact("volumes.*.csi.nodePublishSecretRef", Atomic),
    Fact("volumes.*.cephfs.secretRef", Atomic),
    Fact("volumes.*.cinder.secretRef", Atomic),
    Fact("volumes.*.flexVolume.secretRef", Atomic),
    Fact("volumes.*.iscsi.secretRef", Atomic),
    Fact("volumes.*.rbd.secretRef", Atomic),
    Fact("volumes.*.scaleIO.secretRef", Atomic),
    Fact("volumes.*.storageos.secretRef", Atomic),
    Fact("volumes.*.ephemeral.volumeClaimTemplate.spec.selector", Atomic),
    Fact("volumes.*.ephemeral.volumeClaimTemplate.spec.dataSource", Atomic),
];

const WORKLOAD: &[Fact] = &[
    Fact("spec", Always),
    Fact("status", Always),
    Fact("spec.selector", Atomic),
    Fact("spec.template", Always),
    Fact("spec.template.metadata", Always),
    Fact("spec.template.spec", Always),
    Fact("spec.strategy", Always),
    Fact("spec.updateStrategy", Always),
];

const SPEC_AND_STATUS: &[Fact] = &[Fact("spec", Always), Fact("status", Always)];

/// The facts of a kind, those of pods and metadata aside.
fn facts_of(kind: &str) -> &'static [&'static [Fact]] {
    match kind {
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" => &[WORKLOAD],
        "Pod" => &[SPEC_AND_STATUS, &[Fact("status.hostIPs", Atomic)]],
        "Node" => &[
            SPEC_AND_STATUS,
            &[
                Fact("spec.configSource.configMap", Atomic),
                Fact("status.daemonEndpoints", Always),
                Fact("status.nodeInfo", Always),
            ],
        ],
        "Namespace" => &[SPEC_AND_STATUS],
        "Service" => &[
            SPEC_AND_STATUS,
            &[
                Fact("spec.ports", Keys(&[("port", None), ("protocol", Some("TCP"))])),
                Fact("spec.selector", Atomic),
                Fact("status.loadBalancer", Always),
            ],
        ],
        "ServiceAccount" => &[&[Fact("secrets.*", Atomic)]],
        "Event" => &[&[Fact("involvedObject", Atomic), Fact("related", Atomic)]],
        "Lease" => &[&[Fact("spec", Always)]],
        // A revision's data is an object of any kind.
        "ControllerRevision" => &[&[Fact("data", Deduced)]],
        _ => &[],
    }
}

fn refine(place: &mut Place, facts: &[Fact]) {
    for Fact(path, kind) in facts {
        let Some(place) = reach(place, path) else { continue };
        match kind {
            Atomic => *place = Place::Atomic,
            Deduced => *place = Place::Deduced,
            Always => {
                open_up(place);
                set_always(place);
            }
            Keys(keys) => {
                let item = match std::mem::replace(place, Place::Atomic) {
                    Place::List(list) => *list.item,
                    _ => Place::Open,
                };
                *place = Place::list(keys, item);
            }
        }
    }
}

/// Makes a place of which nothing is known one that can have named fields.
fn open_up(place: &mut Place) {
    if matches!(place, Place::Open) {
        *place = Place::map([], Place::Open);
    }
}

/// The place at a path, made where nothing was known.
fn reach<'p>(place: &'p mut Place, path: &str) -> Option<&'p mut Place> {
    path.split('.').try_fold(place, |place, step| {
        open_up(place);
        match place {
            Place::Map(map) => Some(map.fields.entry(step.into()).or_insert(Place::Open)),
            Place::List(list) if step == "*" => Some(&mut *list.item),
            _ => None,
        }
    })
}

/// The place at a path, if the table says something of it.
fn find<'p>(place: &'p mut Place, path: &str) -> Option<&'p mut Place> {
    path.split('.').try_fold(place, |place, step| match place {
        Place::Map(map) => map.fields.get_mut(step),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use toono_api::kinds;

    use super::*;

    fn at(resource: &'static BuiltIn, path: &str) -> Place {
        let mut place = place_of(resource).clone();
        reach(&mut place, path).unwrap().clone()
    }

    #[test]
    fn the_facts_of_server_side_apply_hold() {
        let deployment = &kinds::workload::DEPLOYMENT;
        for (resource, list, item, identity) in [
            (
                deployment,
                "spec.template.spec.containers.*.ports",
                json!({"containerPort": 80}),
                r#"k:{"containerPort":80,"protocol":"TCP"}"#,
            ),
            (
                &kinds::pod::POD,
                "spec.initContainers.*.env",
                json!({"name": "A", "value": "1"}),
                r#"k:{"name":"A"}"#,
            ),
            (
                &kinds::core::SERVICE,
                "spec.ports",
                json!({"port": 53, "protocol": "UDP"}),
                r#"k:{"port":53,"protocol":"UDP"}"#,
            ),
            (
                &kinds::pod::POD,
                "spec.topologySpreadConstraints",
                json!({"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}),
                r#"k:{"topologyKey":"zone","whenUnsatisfiable":"DoNotSchedule"}"#,
            ),
            (
                &kinds::core::NODE,
                "status.conditions",
                json!({"type": "Ready"}),
                r#"k:{"type":"Ready"}"#,
            ),
        ] {
            assert_eq!(at(resource, list).identity(&item).unwrap().encode(), identity, "{list}");
        }
        for (resource, path) in [
            (deployment, "spec.selector"),
            (deployment, "spec.template.spec.nodeSelector"),
            (deployment, "spec.template.spec.containers.*.env.*.valueFrom.secretKeyRef"),
            (&kinds::core::SERVICE, "spec.selector"),
            (&kinds::core::CONFIG_MAP, "metadata.ownerReferences.*"),
            (&kinds::core::EVENT, "involvedObject"),
        ] {
            assert_eq!(at(resource, path), Place::Atomic, "{path}");
        }
        assert_eq!(at(deployment, "metadata.finalizers"), Place::Set);
        assert_eq!(at(deployment, "spec.template.metadata.finalizers"), Place::Set);
        assert!(at(deployment, "spec.template").is_always_there());
        assert!(!at(deployment, "spec.strategy.rollingUpdate").is_always_there());
    }

    #[test]
    fn every_kind_of_the_table_has_a_place() {
        for row in kinds::RESOURCES {
            let place = place_of(row);
            assert!(place.child("metadata").0.is_always_there(), "{}", row.kind);
            assert_eq!(place.child("metadata").0.child("finalizers").0, &Place::Set);
        }
    }
}
