//! What a container is given: command, variables, the downward API, names, resources, limits.

use serde_json::{Value, json};

use crate::{
    case::{Case, Fact, config_map, container, lasting, pod, secret},
    stage::Stage,
};

pub(crate) fn cases(_: &Stage) -> Vec<Case> {
    [variables(), downward(), names(), identities(), resources()].into_iter().flatten().collect()
}

fn with(name: &'static str, more: Vec<Value>, pod: Value, log: &str) -> Case {
    let objects = [more, vec![pod]].concat();
    Case::new(name, objects, vec![Fact::Phase("Succeeded"), Fact::Log("c", log.to_owned())])
}

fn variables() -> Vec<Case> {
    let map = || config_map("m", json!({"color": "blue", "size": "big"}));
    let env = |list: Value| json!({"env": list});
    let key = |name: &str, key: &str| json!({"name": "V", "valueFrom": {"configMapKeyRef": {"name": name, "key": key}}});
    vec![
        Case::prints(
            "command-and-args",
            pod(
                "",
                json!({"command": ["echo", "$(A)"], "args": ["$(B)", "$$(A)", "$(NONE)"],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "x$(A)"}]}),
                json!({}),
            ),
            "1 x1 $(A) $(NONE)\n",
        ),
        with(
            "env-from-config-map-key",
            vec![map()],
            pod("echo $V", env(json!([key("m", "color")])), json!({})),
            "blue\n",
        ),
        with(
            "env-from-secret-key",
            vec![secret("s", json!({"k": "hush"}))],
            pod(
                "echo $V",
                env(json!([{"name": "V",
                "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}])),
                json!({}),
            ),
            "hush\n",
        ),
        with(
            "env-from-all-keys-with-prefix",
            vec![map()],
            pod(
                "echo $X_color $X_size",
                json!({"envFrom": [{"prefix": "X_", "configMapRef": {"name": "m"}}]}),
                json!({}),
            ),
            "blue big\n",
        ),
        Case::new(
            "env-key-missing",
            vec![map(), pod("true", env(json!([key("m", "none")])), json!({}))],
            vec![Fact::Waits("CreateContainerConfigError", "couldn't find key none in ConfigMap")],
        ),
        Case::new(
            "env-config-map-missing",
            vec![pod("true", env(json!([key("absent", "k")])), json!({}))],
            vec![
                Fact::Waits("CreateContainerConfigError", "configmap \"absent\" not found"),
                Fact::Event("Failed", "Error: configmap \"absent\" not found".to_owned()),
            ],
        ),
        Case::new(
            "env-config-map-comes-later",
            vec![pod("echo $V", env(json!([key("later", "k")])), json!({}))],
            vec![
                Fact::Waits("CreateContainerConfigError", "configmap \"later\" not found"),
                Fact::Kubectl(
                    &["create", "configmap", "later", "--from-literal=k=here"],
                    "created".to_owned(),
                ),
                Fact::Phase("Succeeded"),
                Fact::Log("c", "here\n".to_owned()),
            ],
        ),
        Case::prints(
            "env-optional-and-missing",
            pod(
                "echo [$V]",
                json!({"env": [{"name": "V", "valueFrom": {"configMapKeyRef":
                {"name": "absent", "key": "k", "optional": true}}}],
                "envFrom": [{"secretRef": {"name": "absent", "optional": true}}]}),
                json!({}),
            ),
            "[]\n",
        ),
    ]
}

fn downward() -> Vec<Case> {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let resource = |name: &str, of: &str, divisor: &str| {
        json!({"name": name,
        "valueFrom": {"resourceFieldRef": {"resource": of, "divisor": divisor}}})
    };
    vec![
        Case::prints(
            "downward-fields",
            pod(
                "echo $NAME $TIER; test $IP = $(hostname -i) && test -n \"$NODE\" -a -n \"$HOST\" -a -n \"$UID_\" && echo ok",
                json!({"env": [field("NAME", "metadata.name"), field("TIER", "metadata.labels['tier']"),
                    field("IP", "status.podIP"), field("NODE", "spec.nodeName"),
                    field("HOST", "status.hostIP"), field("UID_", "metadata.uid")]}),
                json!({}),
            ),
            "p edge\nok\n",
        ),
        Case::prints(
            "downward-resources",
            pod(
                "echo $CPU $MEMORY $ASKED",
                json!({
                "resources": {"limits": {"cpu": "1500m", "memory": "65Mi"}, "requests": {"cpu": "250m"}},
                "env": [resource("CPU", "limits.cpu", "1"), resource("MEMORY", "limits.memory", "1Mi"),
                    resource("ASKED", "requests.cpu", "1m")]}),
                json!({}),
            ),
            "2 65 250\n",
        ),
        Case::refused(
            "downward-field-unknown",
            pod("true", json!({"env": [field("V", "status.nonsense")]}), json!({})),
            "status.nonsense",
        ),
    ]
}

fn names() -> Vec<Case> {
    vec![
        Case::prints(
            "hostname-and-subdomain",
            pod(
                "hostname; cat /etc/hostname",
                json!({}),
                json!({"hostname": "web-0", "subdomain": "sub"}),
            ),
            "web-0\nweb-0\n",
        ),
        Case::prints(
            "host-aliases",
            pod(
                "grep 192.0.2.7 /etc/hosts",
                json!({}),
                json!({"hostAliases": [{"ip": "192.0.2.7", "hostnames": ["x.test", "y.test"]}]}),
            ),
            "192.0.2.7\tx.test\ty.test\n",
        ),
        Case::prints(
            "dns-policy-none",
            pod(
                "sort /etc/resolv.conf",
                json!({}),
                json!({"dnsPolicy": "None", "dnsConfig": {
                "nameservers": ["192.0.2.9"], "searches": ["a.test", "b.test"],
                "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
            ),
            "nameserver 192.0.2.9\noptions ndots:2 edns0\nsearch a.test b.test\n",
        ),
        Case::refused(
            "dns-policy-none-without-servers",
            pod("true", json!({}), json!({"dnsPolicy": "None"})),
            "spec.dnsConfig",
        ),
        Case::prints(
            "own-hosts-file-is-left-alone",
            pod(
                "cat /etc/hosts",
                json!({"volumeMounts": [{"name": "v", "mountPath": "/etc/hosts", "subPath": "h"}]}),
                json!({"volumes": [{"name": "v", "emptyDir": {}}], "initContainers": [
                    container("i", "echo mine > /v/h", json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}))]}),
            ),
            "mine\n",
        ),
    ]
}

fn identities() -> Vec<Case> {
    let look = "cd /var/run/secrets/kubernetes.io/serviceaccount 2>/dev/null || { echo none; exit 0; }; \
                test -s token && cat namespace";
    let source = |seconds: u32| {
        json!({"serviceAccountToken": {"path": "t", "audience": "shop.test",
        "expirationSeconds": seconds}})
    };
    let volume = |seconds: u32| json!({"volumes": [{"name": "v", "projected": {"sources": [source(seconds)]}}]});
    let mount = || json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    vec![
        Case::prints(
            "token-of-the-service-account",
            pod(look, json!({}), json!({})),
            "case-token-of-the-service-account\n",
        ),
        Case::prints(
            "token-not-wanted",
            pod(look, json!({}), json!({"automountServiceAccountToken": false})),
            "none\n",
        ),
        Case::prints(
            "token-for-an-audience",
            pod(
                "cut -d. -f2 /v/t | tr _- /+ | base64 -d 2>/dev/null | grep -o shop.test",
                mount(),
                volume(3600),
            ),
            "shop.test\n",
        ),
    ]
}

fn resources() -> Vec<Case> {
    let limits = |limits: Value| json!({"resources": {"limits": limits}});
    vec![
        Case::prints(
            "limits-are-the-cgroups",
            pod(
                "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null \
                 || { cat /sys/fs/cgroup/memory.max; cut -d' ' -f1 /sys/fs/cgroup/cpu.max; }",
                limits(json!({"memory": "32Mi", "cpu": "500m"})),
                json!({}),
            ),
            "33554432\n50000\n",
        ),
        Case::new(
            "out-of-memory-is-told",
            vec![pod(
                "x=a; while :; do x=$x$x; done",
                limits(json!({"memory": "16Mi"})),
                json!({}),
            )],
            vec![
                Fact::Phase("Failed"),
                Fact::Is(
                    "/status/containerStatuses/0/state/terminated/reason",
                    "OOMKilled".to_owned(),
                ),
                Fact::Is("/status/containerStatuses/0/state/terminated/exitCode", "137".to_owned()),
            ],
        ),
        Case::new(
            "quality-of-service",
            vec![lasting(limits(json!({"memory": "32Mi", "cpu": "100m"})), json!({}))],
            vec![Fact::Runs, Fact::Is("/status/qosClass", "Guaranteed".to_owned())],
        ),
        Case::prints(
            "greedy-ones-die-first",
            pod(
                "cat /proc/self/oom_score_adj",
                json!({"resources": {"requests": {"memory": "1Mi"}}}),
                json!({}),
            ),
            "999\n",
        ),
        Case::refused(
            "limit-below-request",
            pod(
                "true",
                json!({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}),
                json!({}),
            ),
            "must be less than or equal to cpu limit",
        ),
        Case::new(
            "more-than-any-node-has",
            vec![pod("true", json!({"resources": {"requests": {"cpu": "1000"}}}), json!({}))],
            vec![Fact::Event("FailedScheduling", "Insufficient cpu".to_owned())],
        ),
    ]
}
