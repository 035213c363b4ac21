//! Bad input: programs that cannot be run, fields that this node does not act on, objects that are refused.

use serde_json::{Value, json};

use crate::{
    case::{Case, Fact, config_map, pod},
    stage::Stage,
};

pub(crate) fn cases(_: &Stage) -> Vec<Case> {
    let command = |command: &[&str]| json!({ "command": command });
    let start_error = |text: &str| {
        vec![
            Fact::Phase("Failed"),
            Fact::Is(
                "/status/containerStatuses/0/state/terminated/reason",
                "StartError".to_owned(),
            ),
            Fact::Is("/status/containerStatuses/0/state/terminated/exitCode", "128".to_owned()),
            Fact::Event("Failed", text.to_owned()),
        ]
    };
    let unsupported = |name, container: Value, spec: Value, field: &str| {
        Case::new(
            name,
            vec![pod("true", container, spec)],
            vec![
                Fact::Event("UnsupportedField", field.to_owned()),
                Fact::Waits("CreateContainerConfigError", "is not supported by this node"),
            ],
        )
    };
    vec![
        Case::new(
            "program-that-is-not-there",
            vec![pod("", command(&["no-such-program"]), json!({}))],
            start_error("exec: \"no-such-program\": executable file not found in $PATH"),
        ),
        Case::new(
            "program-that-is-a-directory",
            vec![pod("", command(&["/etc"]), json!({}))],
            start_error("exec: \"/etc\": is a directory"),
        ),
        Case::new(
            "program-that-may-not-run",
            vec![pod("", command(&["/etc/passwd"]), json!({}))],
            start_error("exec: \"/etc/passwd\": permission denied"),
        ),
        Case::new(
            "program-that-is-no-program",
            vec![
                config_map("m", json!({"x": "no program"})),
                pod(
                    "",
                    json!({"command": ["/m/x"],
            "volumeMounts": [{"name": "m", "mountPath": "/m"}]}),
                    json!({"volumes": [{"name": "m", "configMap": {"name": "m", "defaultMode": 493}}]}),
                ),
            ],
            start_error("exec: \"/m/x\": exec format error"),
        ),
        Case::prints(
            "working-directory-made",
            pod("pwd", json!({"workingDir": "/srv/deep/down"}), json!({})),
            "/srv/deep/down\n",
        ),
        unsupported(
            "volume-of-a-cloud",
            json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
            json!({"volumes": [{"name": "v", "nfs": {"server": "x.test", "path": "/"}}]}),
            "spec.volumes[v].nfs",
        ),
        unsupported(
            "volume-of-a-driver",
            json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
            json!({"volumes": [{"name": "v", "csi": {"driver": "d.test"}}]}),
            "spec.volumes[v].csi",
        ),
        Case::new(
            "apparmor-is-told",
            vec![pod(
                "true",
                json!({"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}),
                json!({}),
            )],
            vec![Fact::Event(
                "UnsupportedField",
                "spec.containers[c].securityContext.appArmorProfile".to_owned(),
            )],
        ),
        Case::refused(
            "no-such-field",
            pod("true", json!({"comand": ["x"]}), json!({})),
            "unknown field",
        ),
        Case::refused(
            "no-image",
            pod("true", json!({"image": ""}), json!({})),
            "spec.containers[0].image: Required value",
        ),
        Case::refused(
            "restart-policy-unknown",
            pod("true", json!({}), json!({"restartPolicy": "Sometimes"})),
            "spec.restartPolicy: Unsupported value: \"Sometimes\"",
        ),
        Case::refused(
            "two-containers-of-one-name",
            pod(
                "true",
                json!({}),
                json!({"containers": [
            {"name": "c", "image": "x"}]}),
            ),
            "spec.containers[1].name: Duplicate value: \"c\"",
        ),
        Case::refused(
            "port-out-of-range",
            pod("true", json!({"ports": [{"containerPort": 70000}]}), json!({})),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000",
        ),
        Case::refused(
            "unknown-quantity",
            pod("true", json!({"resources": {"limits": {"memory": "much"}}}), json!({})),
            "quantities must match",
        ),
    ]
}
