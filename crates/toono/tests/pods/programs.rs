//! Programs in python as people write them: behind Services, at the API, with signals, exit codes and limits.

use serde_json::{Value, json};

use crate::{
    applications::python,
    case::{Case, Fact, merge},
    stage::Stage,
    web::ANSWERS,
};

/// Asks `URL` until somebody answers, and says what the answer is.
const ASKS: &str = r#"
import os, time, urllib.request, urllib.error
for attempt in range(300):
    try:
        print(urllib.request.urlopen(os.environ["URL"], timeout=5).read().decode(), end="")
        break
    except urllib.error.URLError as error:
        print(error.reason)
        if os.environ.get("ONCE"):
            break
        time.sleep(0.2)
"#;
/// Lists the pods of its namespace by its account's token, or another one.
const LISTS: &str = r#"
import json, os, ssl, time, urllib.request, urllib.error
home = "/var/run/secrets/kubernetes.io/serviceaccount/"
namespace = open(home + "namespace").read()
token = os.environ.get("TOKEN") or open(home + "token").read()
trust = ssl.create_default_context(cafile=home + "ca.crt")
url = f"https://kubernetes.default.svc/api/v1/namespaces/{namespace}/pods"
request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
for attempt in range(100):
    try:
        pods = json.load(urllib.request.urlopen(request, context=trust, timeout=10))
        print([pod["metadata"]["name"] for pod in pods["items"]])
        break
    except urllib.error.HTTPError as error:
        status = json.load(error)
        print(error.code, status["reason"], status["message"])
        break
    except urllib.error.URLError as error:
        time.sleep(0.2)
"#;

pub(crate) fn cases(_: &Stage) -> Vec<Case> {
    [network(), api(), endings(), signals(), limits()].into_iter().flatten().collect()
}

fn is(at: &'static str, text: &str) -> Fact {
    Fact::Is(at, text.to_owned())
}

fn log_has(text: &str) -> Fact {
    Fact::LogHas("c", text.to_owned())
}

fn env(pairs: &[(&str, &str)]) -> Value {
    let list = pairs.iter().map(|(name, value)| json!({"name": name, "value": value}));
    json!({"env": list.collect::<Value>()})
}

fn service(name: &str, selector: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": selector, "ports": [{"port": 80, "targetPort": "http"}]}})
}

fn network() -> Vec<Case> {
    let application = || {
        let ports = json!({"ports": [{"name": "http", "containerPort": 8000}]});
        let mut pod = python(ANSWERS, ports, json!({}));
        merge(&mut pod, json!({"metadata": {"name": "web", "labels": {"app": "web"}}}));
        pod
    };
    let asks = |url: &str| python(ASKS, env(&[("URL", url)]), json!({}));
    let asks_once = |url: &str| python(ASKS, env(&[("URL", url), ("ONCE", "1")]), json!({}));
    vec![
        Case::new(
            "python-asks-python-by-a-service",
            vec![
                application(),
                service("web", json!({"app": "web"})),
                asks("http://web/from/a/neighbour"),
            ],
            vec![
                Fact::Phase("Succeeded"),
                log_has("python was asked for /from/a/neighbour"),
                Fact::Kubectl(
                    &["logs", "web"],
                    "\"GET /from/a/neighbour HTTP/1.1\" 200".to_owned(),
                ),
            ],
        ),
        Case::new(
            "python-asks-a-service-without-pods",
            vec![service("nobody", json!({"app": "none"})), asks("http://nobody/")],
            vec![log_has("Connection refused")],
        ),
        Case::new(
            "python-asks-for-a-name-that-is-not-there",
            vec![asks_once("http://absent.default.svc.cluster.local./")],
            vec![Fact::Phase("Succeeded"), log_has("Name or service not known")],
        ),
    ]
}

fn api() -> Vec<Case> {
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "default"}]});
    let lists = |pairs: &[(&str, &str)]| python(LISTS, env(pairs), json!({}));
    let says = |text: &str| vec![Fact::Phase("Succeeded"), log_has(text)];
    vec![
        Case::new(
            "python-lists-pods-by-its-token",
            vec![role, binding, lists(&[])],
            says("['p']\n"),
        ),
        Case::new(
            "python-lists-pods-without-a-role",
            vec![lists(&[])],
            says(
                "403 Forbidden pods is forbidden: User \
                 \"system:serviceaccount:case-python-lists-pods-without-a-role:default\" cannot list resource \"pods\"",
            ),
        ),
        Case::new(
            "python-lists-pods-by-a-token-of-nobody",
            vec![lists(&[("TOKEN", "a.b.c")])],
            says("401 Unauthorized"),
        ),
    ]
}

fn endings() -> Vec<Case> {
    let ends = |name, program: &str, phase, code: &str, reason: &str, more: Vec<Fact>| {
        let at = "/status/containerStatuses/0/state/terminated/exitCode";
        let why = "/status/containerStatuses/0/state/terminated/reason";
        let mut facts = vec![Fact::Phase(phase), is(at, code), is(why, reason)];
        facts.extend(more);
        Case::new(name, vec![python(program, json!({}), json!({}))], facts)
    };
    vec![
        ends("python-ends-well", "print('done')", "Succeeded", "0", "Completed", vec![]),
        ends("python-ends-with-a-code", "raise SystemExit(42)", "Failed", "42", "Error", vec![]),
        ends(
            "python-ends-with-an-exception",
            "{}['key']",
            "Failed",
            "1",
            "Error",
            vec![log_has("KeyError: 'key'")],
        ),
        ends(
            "python-aborts",
            // The first process of a container ignores what is not handled, unless the kernel forces it.
            "import ctypes; ctypes.string_at(0)",
            "Failed",
            "139",
            "Error",
            vec![],
        ),
    ]
}

fn signals() -> Vec<Case> {
    let handles = r#"
import signal, sys, time
def end(number, frame):
    time.sleep(1)
    try: before = open("/tmp/before").read()
    except FileNotFoundError: before = "nothing"
    open("/dev/termination-log", "w").write(f"{signal.Signals(number).name} after {before}")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
while True: signal.pause()
"#;
    // The deadline ends it, and its status can still be read.
    let ending =
        |grace: u32| json!({"activeDeadlineSeconds": 5, "terminationGracePeriodSeconds": grace});
    let pre_stop = |program: &str| json!({"lifecycle": {"preStop": {"exec": {"command": ["python3", "-c", program]}}}});
    let code = "/status/containerStatuses/0/state/terminated/exitCode";
    let message = "/status/containerStatuses/0/state/terminated/message";
    vec![
        Case::new(
            "python-handles-the-end-within-its-grace",
            vec![python(handles, json!({}), ending(30))],
            vec![
                is("/status/reason", "DeadlineExceeded"),
                is(message, "SIGTERM after nothing"),
                is(code, "0"),
            ],
        ),
        Case::new(
            "python-needs-more-than-its-grace",
            vec![python(&handles.replace("sleep(1)", "sleep(600)"), json!({}), ending(2))],
            vec![is("/status/reason", "DeadlineExceeded"), is(code, "137")],
        ),
        Case::new(
            "python-without-a-handler-is-killed",
            vec![python("import time; time.sleep(1000)", json!({}), ending(1))],
            vec![is("/status/reason", "DeadlineExceeded"), is(code, "137")],
        ),
        Case::new(
            "python-prepares-for-its-end",
            vec![python(
                handles,
                pre_stop("open('/tmp/before', 'w').write('preStop')"),
                ending(30),
            )],
            vec![is(message, "SIGTERM after preStop"), is(code, "0")],
        ),
        Case::new(
            "python-cannot-prepare-for-its-end",
            vec![python(handles, pre_stop("raise SystemExit(9)"), ending(30))],
            vec![
                Fact::Event("FailedPreStopHook", "PreStopHook failed".to_owned()),
                is(message, "SIGTERM after nothing"),
                is(code, "0"),
            ],
        ),
    ]
}

fn limits() -> Vec<Case> {
    let limit = |what: &str, amount: &str| json!({"resources": {"limits": {what: amount}}});
    let takes = |mib: u32| format!("x = bytearray({mib} << 20); print(len(x) >> 20)");
    // How often the kernel held it back while it worked for two seconds.
    let works = r#"
import glob, time
end = time.time() + 2
while time.time() < end: pass
stat = (glob.glob("/sys/fs/cgroup/cpu/cpu.stat") + ["/sys/fs/cgroup/cpu.stat"])[0]
held = dict(line.split() for line in open(stat))["nr_throttled"]
print("held back" if int(held) > 0 else "never held back")
"#;
    let reason = "/status/containerStatuses/0/state/terminated/reason";
    vec![
        Case::prints(
            "python-within-its-memory",
            python(&takes(50), limit("memory", "100Mi"), json!({})),
            "50\n",
        ),
        Case::new(
            "python-beyond-its-memory",
            vec![python(&takes(200), limit("memory", "100Mi"), json!({}))],
            vec![
                Fact::Phase("Failed"),
                is(reason, "OOMKilled"),
                is("/status/containerStatuses/0/state/terminated/exitCode", "137"),
            ],
        ),
        Case::new(
            "python-beyond-its-memory-again-and-again",
            vec![python(&takes(200), limit("memory", "100Mi"), json!({"restartPolicy": "Always"}))],
            vec![
                is("/status/containerStatuses/0/lastState/terminated/reason", "OOMKilled"),
                Fact::Waits("CrashLoopBackOff", "back-off 10s"),
            ],
        ),
        Case::prints(
            "python-beyond-its-cpu",
            python(works, limit("cpu", "100m"), json!({})),
            "held back\n",
        ),
        Case::prints(
            "python-without-a-limit",
            python(works, json!({}), json!({})),
            "never held back\n",
        ),
    ]
}
