//! Pods.

use std::time::{Duration, Instant};

use super::{super::*, rules, updates};
use serde_json::json;

/// Each list here is compared with another one. Item by item, these would take minutes.
#[test]
fn long_lists_are_compared_in_one_pass() {
    const MANY: usize = 50_000;
    let list = |item: &dyn Fn(usize) -> Value| (0..MANY).map(item).collect::<Value>();
    let spec = json!({"containers": [{"name": "c", "image": "i"}],
        "tolerations": list(&|at| json!({"key": format!("k{at}"), "operator": "Exists"})),
        "initContainers": list(&|at| json!({"name": format!("n{at}"), "image": "i"})),
        "readinessGates": list(&|at| json!({"conditionType": format!("c{at}")}))});
    let pod = json!({"metadata": {"name": "p"}, "spec": spec, "status": {
        "conditions": list(&|at| json!({"type": format!("c{at}"), "status": "True"})),
        "initContainerStatuses": list(&|at| json!({"name": format!("n{at}"), "ready": true}))}});
    let mut looked_into = pod.clone();
    looked_into["spec"]["ephemeralContainers"] =
        list(&|at| json!({"name": format!("e{at}"), "image": "i"}));
    let begun = Instant::now();
    assert_eq!((pod::POD.validate_update)(&pod, &pod), []);
    assert_eq!(pod_parts::ephemeral_containers_rules(&looked_into, &looked_into), []);
    (pod::POD.row)(&pod, Default::default());
    // A hundred times what it takes in a build without optimizations.
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn pods() {
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"name": "c", "image": "i:1", "env": [{"name": "A", "value": "b"}],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}], "ports": [{"containerPort": 80}],
            "livenessProbe": {"httpGet": {"port": 80}}}]}});
    rules(
        &pod::POD,
        &pod,
        &[
            ("/spec/containers", json!([]), "spec.containers: Required value"),
            ("/spec/containers/0/image", json!(""), "spec.containers[0].image: Required value"),
            (
                "/spec/containers/0/volumeMounts/0/name",
                json!("w"),
                "spec.containers[0].volumeMounts[0].name: Not found: \"w\"",
            ),
            (
                "/spec/containers/0/volumeMounts/0/subPath",
                json!("a/../b"),
                "spec.containers[0].volumeMounts[0].subPath: Invalid value: \"a/../b\": must not contain '..'",
            ),
            (
                "/spec/containers/0/volumeMounts/0/mountPropagation",
                json!("Bidirectional"),
                "spec.containers[0].volumeMounts[0].mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
            ),
            (
                "/spec/containers/0/env/0",
                json!({"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.nonsense"}}}),
                "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"status.nonsense\": error converting fieldPath: field label not supported: status.nonsense",
            ),
            (
                "/spec/volumes/0",
                json!({"name": "v", "hostPath": {"path": "/a/../b"}}),
                "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
            ),
            (
                "/spec/securityContext",
                json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}}),
                "spec.securityContext.seccompProfile.localhostProfile: Invalid value: \"../x\": must not contain '..'",
            ),
            (
                "/spec/securityContext",
                json!({"seccompProfile": {"type": "RuntimeDefault", "localhostProfile": "x"}}),
                "spec.securityContext.seccompProfile.localhostProfile: Invalid value: \"x\": can only be set when seccomp type is Localhost",
            ),
            (
                "/spec/securityContext",
                json!({"sysctls": [{"name": "a..b", "value": "1"}]}),
                "spec.securityContext.sysctls[0].name: Invalid value: \"a..b\": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
            ),
            (
                "/spec/containers/0/env/0/name",
                json!("A=B"),
                "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='",
            ),
            (
                "/spec/containers/0/env/0/valueFrom",
                json!({"fieldRef": {"fieldPath": "metadata.name"}}),
                "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
            ),
            (
                "/spec/containers/0/livenessProbe",
                json!({}),
                "spec.containers[0].livenessProbe: Required value: must specify a handler type",
            ),
            (
                "/spec/containers/0/livenessProbe/successThreshold",
                json!(2),
                "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            ),
            (
                "/spec/containers/0/resources",
                json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ),
            (
                "/spec/containers/-",
                json!({"name": "c", "image": "i"}),
                "spec.containers[1].name: Duplicate value: \"c\"",
            ),
            (
                "/spec/volumes/-",
                json!({"name": "v"}),
                "spec.volumes[1].name: Duplicate value: \"v\"",
            ),
            (
                "/spec/volumes/-",
                json!({"name": "w", "secret": {}}),
                "spec.volumes[1].secret.secretName: Required value",
            ),
            (
                "/spec/restartPolicy",
                json!("Maybe"),
                "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"Never\", \"OnFailure\"",
            ),
            (
                "/spec/dnsPolicy",
                json!("None"),
                "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
            ),
            (
                "/spec/tolerations",
                json!([{"value": "x"}]),
                "spec.tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            ),
            (
                "/spec/topologySpreadConstraints",
                json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "x"}]),
                "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"x\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
            ),
            (
                "/spec/affinity",
                json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}),
                "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty",
            ),
            (
                "/spec/activeDeadlineSeconds",
                json!(0),
                "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
            ),
            (
                "/spec/hostname",
                json!("A"),
                "spec.hostname: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ),
        ],
    );
    let why = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    updates(
        &pod::POD,
        &pod,
        &[
            ("/spec/containers/0/image", json!("j:2"), ""),
            ("/spec/activeDeadlineSeconds", json!(5), ""),
            ("/spec/hostname", json!("h"), why),
            ("/spec/containers/0/env", json!([]), why),
        ],
    );
}
