//! Volumes: of the pod's own, of its host, of the API; parts of them, and changes while it runs.

use serde_json::{Value, json};

use crate::{
    case::{Case, Fact, config_map, container, lasting, pod, secret},
    stage::Stage,
};

pub(crate) fn cases(stage: &Stage) -> Vec<Case> {
    [of_pod(), of_host(stage), of_api(), parts()].into_iter().flatten().collect()
}

fn at(path: &str) -> Value {
    json!({"volumeMounts": [{"name": "v", "mountPath": path}]})
}

fn volume(source: Value) -> Value {
    let mut volume = source;
    volume["name"] = "v".into();
    json!({"volumes": [volume]})
}

fn of_pod() -> Vec<Case> {
    vec![
        Case::prints(
            "empty-dir-is-shared",
            pod(
                "until [ -e /v/x ]; do sleep 0.1; done; cat /v/x",
                at("/v"),
                json!({
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [container("d", "echo from d > /v/x.new; mv /v/x.new /v/x", at("/v"))]}),
            ),
            "from d\n",
        ),
        Case::prints(
            "empty-dir-in-memory-has-a-size",
            pod(
                "grep ' /v ' /proc/mounts | cut -d' ' -f3; dd if=/dev/zero of=/v/x bs=1M count=3 2>&1 | grep -o 'No space left on device'",
                at("/v"),
                volume(json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})),
            ),
            "tmpfs\nNo space left on device\n",
        ),
        Case::prints(
            "empty-dir-outlives-a-container",
            pod(
                "echo x >> /v/n; n=$(wc -l < /v/n); test $n -ge 2 && echo run $n",
                at("/v"),
                json!({
                "restartPolicy": "OnFailure", "volumes": [{"name": "v", "emptyDir": {}}]}),
            ),
            "run 2\n",
        ),
        Case::prints(
            "empty-dir-keeps-its-mode",
            pod(
                "stat -c %a /v; [ -e /v/x ] && exit 0; touch /v/x; chmod 700 /v; exit 1",
                at("/v"),
                json!({"restartPolicy": "OnFailure", "volumes": [{"name": "v", "emptyDir": {}}]}),
            ),
            "700\n",
        ),
        Case::new(
            "empty-dir-of-huge-pages",
            vec![pod("true", at("/v"), volume(json!({"emptyDir": {"medium": "HugePages-2Mi"}})))],
            vec![Fact::Waits("CreateContainerConfigError", "spec.volumes[v].emptyDir.medium")],
        ),
        Case::refused(
            "mount-of-no-volume",
            pod("true", at("/v"), json!({})),
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
        ),
    ]
}

fn of_host(stage: &Stage) -> Vec<Case> {
    let base = stage.edge.data().join("host").display().to_string();
    let host = |path: &str, kind: &str| {
        volume(json!({"hostPath": {"path": format!("{base}/{path}"), "type": kind}}))
    };
    let device = |kind: &str| volume(json!({"hostPath": {"path": "/dev/null", "type": kind}}));
    let fails = |name, spec: Value, what: &str| {
        Case::new(
            name,
            vec![pod("true", at("/v"), spec)],
            vec![Fact::Event(
                "FailedMount",
                format!(
                    "MountVolume.SetUp failed for volume \"v\" : hostPath type check failed: {what}"
                ),
            )],
        )
    };
    vec![
        Case::prints(
            "host-path-made",
            pod("echo a > /v/x; cat /v/x", at("/v"), host("made", "DirectoryOrCreate")),
            "a\n",
        ),
        Case::prints(
            "host-path-untyped",
            pod("echo b > /v/x; cat /v/x", at("/v"), host("plain", "")),
            "b\n",
        ),
        Case::prints(
            "host-path-file-made",
            pod("echo c > /v; cat /v", at("/v"), {
                std::fs::create_dir_all(&base).unwrap();
                host("file", "FileOrCreate")
            }),
            "c\n",
        ),
        Case::prints(
            "host-path-device",
            pod("echo gone > /v; cat /v", at("/v"), device("CharDevice")),
            "",
        ),
        fails(
            "host-path-no-directory",
            host("none", "Directory"),
            &format!("{base}/none is not a directory"),
        ),
        fails(
            "host-path-no-file",
            host("none-file", "File"),
            &format!("{base}/none-file is not a file"),
        ),
        fails("host-path-no-socket", device("Socket"), "/dev/null is not a socket file"),
        fails(
            "host-path-no-block-device",
            device("BlockDevice"),
            "/dev/null is not a block device",
        ),
        Case::refused(
            "host-path-upwards",
            pod("true", at("/v"), volume(json!({"hostPath": {"path": "/a/../b"}}))),
            "must not contain '..'",
        ),
    ]
}

fn of_api() -> Vec<Case> {
    let map = || config_map("m", json!({"a": "1", "b": "2"}));
    let prints = |name, objects: Vec<Value>, pod: Value, log: &str| {
        Case::new(
            name,
            [objects, vec![pod]].concat(),
            vec![Fact::Phase("Succeeded"), Fact::Log("c", log.to_owned())],
        )
    };
    vec![
        prints(
            "config-map-files",
            vec![map()],
            pod(
                "cd /v; for f in *; do echo $f=$(cat $f); done",
                at("/v"),
                volume(json!({"configMap": {"name": "m"}})),
            ),
            "a=1\nb=2\n",
        ),
        prints(
            "config-map-items-and-modes",
            vec![map()],
            pod(
                "cat /v/x/y; echo; stat -L -c %a /v/x/y",
                at("/v"),
                volume(
                    json!({"configMap": {"name": "m", "items": [{"key": "b", "path": "x/y", "mode": 256}]}}),
                ),
            ),
            "2\n400\n",
        ),
        Case::new(
            "config-map-volume-missing",
            vec![pod("true", at("/v"), volume(json!({"configMap": {"name": "none"}})))],
            vec![Fact::Event(
                "FailedMount",
                "MountVolume.SetUp failed for volume \"v\" : configmap \"none\" not found"
                    .to_owned(),
            )],
        ),
        Case::new(
            "config-map-volume-comes-later",
            vec![pod("cat /v/k", at("/v"), volume(json!({"configMap": {"name": "late"}})))],
            vec![
                Fact::Event("FailedMount", "configmap \"late\" not found".to_owned()),
                Fact::Kubectl(
                    &["create", "configmap", "late", "--from-literal=k=here"],
                    "created".to_owned(),
                ),
                Fact::Phase("Succeeded"),
            ],
        ),
        Case::new(
            "config-map-changes-while-it-runs",
            vec![map(), lasting(at("/v"), volume(json!({"configMap": {"name": "m"}})))],
            vec![
                Fact::Runs,
                Fact::Kubectl(
                    &["patch", "configmap", "m", "-p", "{\"data\":{\"a\":\"new\"}}"],
                    "patched".to_owned(),
                ),
                Fact::Does(|stage, namespace| {
                    stage.until("the new text", || {
                        let seen = stage.kubectl(namespace, &["exec", "p", "--", "cat", "/v/a"]);
                        (seen == "new").then_some(())
                    })
                }),
            ],
        ),
        prints(
            "config-map-optional",
            vec![],
            pod(
                "ls /v | wc -l",
                at("/v"),
                volume(json!({"configMap": {"name": "none", "optional": true}})),
            ),
            "0\n",
        ),
        prints(
            "secret-in-memory",
            vec![secret("s", json!({"k": "hush"}))],
            pod(
                "cat /v/k; echo; grep ' /v ' /proc/mounts | cut -d' ' -f3; { echo x > /v/k; } 2>/dev/null || echo read-only",
                at("/v"),
                volume(json!({"secret": {"secretName": "s"}})),
            ),
            "hush\ntmpfs\nread-only\n",
        ),
        Case::new(
            "secret-volume-missing",
            vec![pod("true", at("/v"), volume(json!({"secret": {"secretName": "none"}})))],
            vec![Fact::Event("FailedMount", "secret \"none\" not found".to_owned())],
        ),
        prints(
            "downward-api-files",
            vec![],
            pod(
                "cat /v/labels; echo; cat /v/memory",
                json!({
            "resources": {"limits": {"memory": "64Mi"}}, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
                volume(json!({"downwardAPI": {"items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "memory", "resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}}]}})),
            ),
            "app=\"p\"\ntier=\"edge\"\n64\n",
        ),
        Case::new(
            "downward-api-follows-labels",
            vec![lasting(
                at("/v"),
                volume(json!({"downwardAPI": {"items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}})),
            )],
            vec![
                Fact::Runs,
                Fact::Kubectl(&["label", "pod", "p", "new=label"], "labeled".to_owned()),
                Fact::Does(|stage, namespace| {
                    stage.until("the new label", || {
                        let seen =
                            stage.kubectl(namespace, &["exec", "p", "--", "cat", "/v/labels"]);
                        seen.contains("new=\"label\"").then_some(())
                    })
                }),
            ],
        ),
        prints(
            "projected-together",
            vec![map(), secret("s", json!({"k": "hush"}))],
            pod(
                "cat /v/conf /v/k /v/name",
                at("/v"),
                volume(json!({"projected": {"sources": [
                {"configMap": {"name": "m", "items": [{"key": "a", "path": "conf"}]}}, {"secret": {"name": "s"}},
                {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}})),
            ),
            "1hushp\n",
        ),
        Case::new(
            "persistent-volume-claim",
            vec![pod(
                "true",
                at("/v"),
                volume(json!({"persistentVolumeClaim": {"claimName": "x"}})),
            )],
            vec![Fact::Waits(
                "CreateContainerConfigError",
                "spec.volumes[v].persistentVolumeClaim",
            )],
        ),
    ]
}

fn parts() -> Vec<Case> {
    let mount = |more: Value| {
        let mut mount = json!({"name": "v", "mountPath": "/m"});
        for (key, value) in more.as_object().unwrap() {
            mount[key] = value.clone();
        }
        json!([mount, {"name": "v", "mountPath": "/all"}])
    };
    let empty = || volume(json!({"emptyDir": {}}));
    vec![
        Case::prints(
            "sub-path",
            pod(
                "echo x > /m/f; cat /all/a/b/f",
                json!({"volumeMounts": mount(json!({"subPath": "a/b"}))}),
                empty(),
            ),
            "x\n",
        ),
        Case::prints(
            "sub-path-expression",
            pod(
                "echo x > /m/f; cat /all/p/f",
                json!({
            "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "volumeMounts": mount(json!({"subPathExpr": "$(POD)"}))}),
                empty(),
            ),
            "x\n",
        ),
        Case::new(
            "sub-path-expression-without-value",
            vec![pod(
                "true",
                json!({"volumeMounts": mount(json!({"subPathExpr": "$(NONE)"}))}),
                empty(),
            )],
            vec![Fact::Waits("CreateContainerConfigError", "missing value for NONE")],
        ),
        Case::refused(
            "sub-path-upwards",
            pod("true", json!({"volumeMounts": mount(json!({"subPath": "../x"}))}), empty()),
            "must not contain '..'",
        ),
        Case::new(
            "sub-path-by-a-link-outside",
            vec![pod(
                "true",
                json!({"volumeMounts": mount(json!({"subPath": "out/etc"}))}),
                json!({"volumes": [{"name": "v", "emptyDir": {}}], "initContainers": [container("i", "ln -s / /v/out", at("/v"))]}),
            )],
            vec![Fact::Waits("CreateContainerConfigError", "leaves the volume")],
        ),
        Case::prints(
            "read-only-mount",
            pod(
                "{ echo x > /m/f; } 2>/dev/null || echo refused",
                json!({"volumeMounts": mount(json!({"readOnly": true}))}),
                empty(),
            ),
            "refused\n",
        ),
        Case::prints(
            "read-only-all-the-way",
            pod(
                "{ echo x > /m/f; } 2>/dev/null || echo refused",
                json!({
            "volumeMounts": mount(json!({"readOnly": true, "recursiveReadOnly": "Enabled"}))}),
                empty(),
            ),
            "refused\n",
        ),
        Case::new(
            "mount-propagation-to-the-host",
            vec![pod(
                "true",
                json!({"securityContext": {"privileged": true},
            "volumeMounts": mount(json!({"mountPropagation": "Bidirectional"}))}),
                empty(),
            )],
            vec![Fact::Waits(
                "CreateContainerConfigError",
                "spec.containers[c].volumeMounts[v].mountPropagation",
            )],
        ),
        Case::new(
            "mount-propagation-from-the-host",
            vec![lasting(
                json!({"volumeMounts": mount(json!({"mountPropagation": "HostToContainer"}))}),
                empty(),
            )],
            vec![Fact::Runs],
        ),
        Case::refused(
            "mount-propagation-without-privilege",
            pod(
                "true",
                json!({
            "volumeMounts": mount(json!({"mountPropagation": "Bidirectional"}))}),
                empty(),
            ),
            "Bidirectional mount propagation is available only to privileged containers",
        ),
    ]
}
