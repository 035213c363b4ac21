//! Volumes, claims, classes, drivers.

use super::{super::*, cells, rules, updates};
use serde_json::json;

#[test]
fn volumes_and_claims() {
    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}});
    rules(
        &volume::PERSISTENT_VOLUME,
        &volume,
        &[
            ("/spec/accessModes", json!([]), "spec.accessModes: Required value"),
            ("/spec/capacity", json!({}), "spec.capacity: Required value"),
            ("/spec/hostPath", json!(null), "spec: Required value: must specify a volume type"),
            (
                "/spec/nfs",
                json!({"server": "s", "path": "/"}),
                "spec.nfs: Forbidden: may not specify more than 1 volume type",
            ),
            (
                "/spec/persistentVolumeReclaimPolicy",
                json!("Other"),
                "spec.persistentVolumeReclaimPolicy: Unsupported value: \"Other\": supported values: \"Delete\", \"Recycle\", \"Retain\"",
            ),
        ],
    );
    updates(
        &volume::PERSISTENT_VOLUME,
        &volume,
        &[
            (
                "/spec/hostPath/path",
                json!("/y"),
                "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation",
            ),
            (
                "/spec/volumeMode",
                json!("Block"),
                "spec.volumeMode: Invalid value: \"Block\": field is immutable",
            ),
            ("/spec/claimRef", json!({"name": "c"}), ""),
        ],
    );
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    rules(
        &volume::PERSISTENT_VOLUME_CLAIM,
        &claim,
        &[
            (
                "/spec/accessModes",
                json!(["Other"]),
                "spec.accessModes: Unsupported value: \"Other\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
            ),
            ("/spec/resources", json!({}), "spec.resources.requests[storage]: Required value"),
            (
                "/spec/resources/requests/storage",
                json!("0"),
                "spec.resources.requests[storage]: Invalid value: \"0\": must be greater than zero",
            ),
        ],
    );
    updates(
        &volume::PERSISTENT_VOLUME_CLAIM,
        &claim,
        &[
            (
                "/spec/accessModes",
                json!(["ReadWriteMany"]),
                "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
            ),
            ("/spec/volumeName", json!("v"), ""),
        ],
    );
    let bound = json!({"metadata": {"name": "c", "deletionTimestamp": "2030-01-01T00:00:00Z"},
        "spec": {"volumeName": "v", "storageClassName": "fast", "volumeMode": "Filesystem"},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"]}});
    assert_eq!(
        cells(&volume::PERSISTENT_VOLUME_CLAIM, &bound),
        [
            json!("c"),
            json!("Terminating"),
            json!("v"),
            json!("1Gi"),
            json!("RWO,RWX"),
            json!("fast"),
            json!("<unset>"),
            json!("<unknown>"),
            json!("Filesystem")
        ]
    );
}

#[test]
fn classes() {
    let class = json!({"metadata": {"name": "c", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "example.com/x", "parameters": {"a": "b"}});
    rules(
        &storage::STORAGE_CLASS,
        &class,
        &[
            ("/provisioner", json!(""), "provisioner: Required value"),
            (
                "/reclaimPolicy",
                json!("Other"),
                "reclaimPolicy: Unsupported value: \"Other\": supported values: \"Delete\", \"Retain\"",
            ),
        ],
    );
    updates(
        &storage::STORAGE_CLASS,
        &class,
        &[
            (
                "/parameters/a",
                json!("c"),
                "parameters: Forbidden: updates to parameters are forbidden.",
            ),
            (
                "/provisioner",
                json!("example.com/y"),
                "provisioner: Forbidden: updates to provisioner are forbidden.",
            ),
            ("/allowVolumeExpansion", json!(true), ""),
        ],
    );
    assert_eq!(
        cells(&storage::STORAGE_CLASS, &class),
        [
            json!("c (default)"),
            json!("example.com/x"),
            json!("Delete"),
            json!("Immediate"),
            json!(false),
            json!("<unknown>")
        ]
    );
    rules(
        &storage::VOLUME_ATTRIBUTES_CLASS,
        &json!({"metadata": {"name": "c"}, "driverName": "d.example", "parameters": {"a": "b"}}),
        &[(
            "/parameters",
            json!({}),
            "parameters: Required value: must contain at least one key/value pair",
        )],
    );
}

#[test]
fn drivers_and_attachments() {
    let driver = json!({"metadata": {"name": "d.example"}, "spec": {}});
    rules(
        &storage::CSI_DRIVER,
        &driver,
        &[
            (
                "/spec/fsGroupPolicy",
                json!("Other"),
                "spec.fsGroupPolicy: Unsupported value: \"Other\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
            ),
            (
                "/spec/tokenRequests",
                json!([{"audience": "a", "expirationSeconds": 1}]),
                "spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
            ),
        ],
    );
    updates(
        &storage::CSI_DRIVER,
        &driver,
        &[(
            "/spec/attachRequired",
            json!(false),
            "spec.attachRequired: Invalid value: false: field is immutable",
        )],
    );
    assert_eq!(
        cells(&storage::CSI_DRIVER, &super::filled(&storage::CSI_DRIVER, &driver)),
        [
            json!("d.example"),
            json!(true),
            json!(false),
            json!(false),
            json!("<unset>"),
            json!(false),
            json!("Persistent"),
            json!("<unknown>")
        ]
    );
    rules(
        &storage::CSI_NODE,
        &json!({"metadata": {"name": "n"}, "spec": {"drivers": [{"name": "d.example", "nodeID": "1"}]}}),
        &[
            ("/spec/drivers/0/nodeID", json!(""), "spec.drivers[0].nodeID: Required value"),
            (
                "/spec/drivers/-",
                json!({"name": "d.example", "nodeID": "2"}),
                "spec.drivers[1].name: Duplicate value: \"d.example\"",
            ),
        ],
    );
    let attachment = json!({"metadata": {"name": "a"}, "spec": {"attacher": "d.example", "nodeName": "n",
        "source": {"persistentVolumeName": "v"}}});
    rules(
        &storage::VOLUME_ATTACHMENT,
        &attachment,
        &[
            (
                "/spec/source",
                json!({}),
                "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
            ),
            ("/spec/nodeName", json!(""), "spec.nodeName: Required value"),
        ],
    );
    rules(
        &storage::CSI_STORAGE_CAPACITY,
        &json!({"metadata": {"name": "c"}, "storageClassName": "s", "capacity": "1Gi"}),
        &[("/storageClassName", json!(""), "storageClassName: Required value")],
    );
}
