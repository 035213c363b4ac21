//! nginx as people run it: pages and settings from ConfigMaps, without root, behind probes, beside an application.

use std::{io::Read as _, process::Stdio};

use serde_json::{Value, json};

use crate::{
    applications::{NGINX_BINDS, nginx, python_container},
    case::{Case, Fact, config_map, merge},
    stage::Stage,
};

const PAGES: &str = "/usr/share/nginx/html";
/// What nginx writes to besides its logs.
const WRITTEN: [&str; 2] = ["/run", "/var/lib/nginx"];

pub(crate) fn cases(_: &Stage) -> Vec<Case> {
    [pages(), settings(), rights(), endings(), company()].into_iter().flatten().collect()
}

/// What nginx answers through the API server's proxy.
fn get(stage: &Stage, namespace: &str, path: &str) -> Result<String, String> {
    let url = format!("/api/v1/namespaces/{namespace}/pods/p:80/proxy{path}");
    stage.try_kubectl(namespace, &["get", "--raw", &url])
}

/// Waits until it answers this.
fn await_page(stage: &Stage, namespace: &str, path: &str, text: &str) {
    stage.until(&format!("{path} is {text:?}"), || {
        get(stage, namespace, path).ok().filter(|page| page == text).map(drop)
    });
}

/// Changes a key of a ConfigMap.
fn change(stage: &Stage, namespace: &str, name: &str, data: &Value) {
    let patch = json!({ "data": data }).to_string();
    stage.kubectl(namespace, &["patch", "configmap", name, "-p", &patch]);
}

fn mounted(name: &str, at: &str) -> (Value, Value) {
    let mount = json!({"volumeMounts": [{"name": name, "mountPath": at}]});
    (mount, json!({"volumes": [{"name": name, "configMap": {"name": name}}]}))
}

fn ready_by(path: &str) -> Value {
    json!({"readinessProbe": {"httpGet": {"path": path, "port": 80}, "periodSeconds": 1}})
}

fn with(mut base: Value, more: Value) -> Value {
    merge(&mut base, more);
    base
}

fn is(at: &'static str, text: &str) -> Fact {
    Fact::Is(at, text.to_owned())
}

fn log_has(text: &str) -> Fact {
    Fact::LogHas("c", text.to_owned())
}

fn pages() -> Vec<Case> {
    let page = |data: Value| config_map("page", data);
    let (mount, volume) = mounted("page", PAGES);
    let serving = |path: &str| nginx(with(mount.clone(), ready_by(path)), volume.clone());
    let both_ways = json!({"volumeMounts": [{"name": "page", "mountPath": PAGES},
        {"name": "page", "mountPath": "/usr/share/nginx/html-then", "subPath": "index.html"}]});
    vec![
        Case::new(
            "nginx-serves-a-config-map",
            vec![page(json!({"index.html": "from the edge\n"})), serving("/")],
            vec![
                Fact::Holds("Ready"),
                Fact::Does(|stage, namespace| {
                    assert_eq!(get(stage, namespace, "/").unwrap(), "from the edge\n");
                    let missing = get(stage, namespace, "/missing").unwrap_err();
                    assert!(missing.contains("404") || missing.contains("NotFound"), "{missing}");
                }),
                log_has("kube-probe/"),
                log_has("\"GET /missing HTTP/1.1\" 404"),
            ],
        ),
        Case::new(
            "nginx-is-ready-once-the-page-is-there",
            vec![page(json!({"other.html": "x"})), serving("/ready")],
            vec![
                Fact::Runs,
                Fact::Event("Unhealthy", "HTTP probe failed with statuscode: 404".to_owned()),
                is("/status/containerStatuses/0/ready", "false"),
                Fact::Does(|stage, namespace| {
                    change(stage, namespace, "page", &json!({"ready": "yes"}))
                }),
                Fact::Holds("Ready"),
                Fact::Does(|stage, namespace| {
                    change(stage, namespace, "page", &json!({ "ready": null }))
                }),
                is("/status/containerStatuses/0/ready", "false"),
                is("/status/containerStatuses/0/restartCount", "0"),
            ],
        ),
        Case::new(
            "nginx-page-changes-while-it-runs",
            vec![page(json!({"index.html": "one\n"})), nginx(both_ways, volume.clone())],
            vec![
                Fact::Runs,
                Fact::Does(|stage, namespace| {
                    await_page(stage, namespace, "/", "one\n");
                    change(stage, namespace, "page", &json!({"index.html": "two\n"}));
                    await_page(stage, namespace, "/", "two\n");
                }),
                // As documented: what is mounted by subPath stays as it was.
                Fact::Kubectl(
                    &["exec", "p", "--", "cat", "/usr/share/nginx/html-then"],
                    "one\n".to_owned(),
                ),
            ],
        ),
    ]
}

fn settings() -> Vec<Case> {
    let site = |site: &str| config_map("site", json!({ "site.conf": site }));
    let answer =
        |text: &str| format!("server {{ listen 80; location / {{ return 200 '{text}\\n'; }} }}");
    let (mount, volume) = mounted("site", "/etc/nginx/conf.d");
    let pod = || nginx(mount.clone(), volume.clone());
    vec![
        Case::new(
            "nginx-settings-are-loaded-again",
            vec![site(&answer("old")), pod()],
            vec![
                Fact::Runs,
                Fact::Does(|stage, namespace| {
                    await_page(stage, namespace, "/", "old\n");
                    let new = "server { listen 80; location / { return 200 'new\\n'; } }";
                    change(stage, namespace, "site", &json!({ "site.conf": new }));
                    let look = ["exec", "p", "--", "cat", "/etc/nginx/conf.d/site.conf"];
                    stage.until("the changed file", || {
                        stage.kubectl(namespace, &look).contains("new").then_some(())
                    });
                    assert_eq!(get(stage, namespace, "/").unwrap(), "old\n", "not by itself");
                    stage.kubectl(namespace, &["exec", "p", "--", "nginx", "-s", "reload"]);
                    await_page(stage, namespace, "/", "new\n");
                }),
                is("/status/containerStatuses/0/restartCount", "0"),
            ],
        ),
        Case::new(
            "nginx-settings-that-are-wrong",
            vec![site("nonsense on;"), pod()],
            vec![
                Fact::Phase("Failed"),
                is("/status/containerStatuses/0/state/terminated/exitCode", "1"),
                log_has("unknown directive \"nonsense\" in /etc/nginx/conf.d/site.conf:1"),
            ],
        ),
    ]
}

fn rights() -> Vec<Case> {
    let mounts = WRITTEN.map(|path| json!({"name": path.rsplit('/').next(), "mountPath": path}));
    let volumes = WRITTEN.map(|path| json!({"name": path.rsplit('/').next(), "emptyDir": {}}));
    let room = || (json!({ "volumeMounts": mounts }), json!({ "volumes": volumes }));
    let context = |more: Value| {
        let base = json!({"runAsUser": 101, "runAsGroup": 101, "runAsNonRoot": true,
            "capabilities": {"drop": ["ALL"]}});
        json!({"securityContext": with(base, more)})
    };
    // As everywhere outside of containers: only who has the capability may bind low ports.
    let guarded = || {
        json!({"securityContext": {"sysctls": [
        {"name": "net.ipv4.ip_unprivileged_port_start", "value": "1024"}]}})
    };
    let restricted = || {
        context(json!({"readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
        "seccompProfile": {"type": "RuntimeDefault"}}))
    };
    let binder = |image: &str, more: Value| {
        let (mounts, volumes) = room();
        let base = with(context(more), with(mounts, ready_by("/")));
        let container = if image.is_empty() { base } else { with(base, json!({ "image": image })) };
        nginx(container, with(volumes, guarded()))
    };
    let may_bind = || json!({"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}});
    let no_new = || with(may_bind(), json!({"allowPrivilegeEscalation": false}));
    let denied = || {
        vec![Fact::Phase("Failed"), log_has("bind() to 0.0.0.0:80 failed (13: Permission denied)")]
    };
    let (mounts, volumes) = room();
    vec![
        Case::new(
            "nginx-as-nobody-on-a-read-only-root",
            vec![nginx(with(restricted(), with(mounts, ready_by("/"))), volumes)],
            vec![Fact::Holds("Ready"), log_has("kube-probe/")],
        ),
        Case::new(
            "nginx-on-a-read-only-root-without-room",
            vec![nginx(json!({"securityContext": {"readOnlyRootFilesystem": true}}), json!({}))],
            vec![Fact::Phase("Failed"), log_has("30: Read-only file system")],
        ),
        Case::new(
            "nginx-binds-by-a-capability-of-its-file",
            vec![binder(NGINX_BINDS, may_bind())],
            vec![Fact::Holds("Ready")],
        ),
        Case::new("nginx-may-not-bind", vec![binder("", may_bind())], denied()),
        Case::new(
            // The kernel refuses only what would be gained beyond what the container was given.
            "nginx-binds-without-escalation",
            vec![binder(NGINX_BINDS, no_new())],
            vec![Fact::Holds("Ready")],
        ),
        Case::new(
            "nginx-whose-files-capability-is-out-of-bounds",
            vec![binder(NGINX_BINDS, json!({}))],
            vec![
                Fact::Phase("Failed"),
                is("/status/containerStatuses/0/state/terminated/reason", "StartError"),
                Fact::Event(
                    "Failed",
                    "exec: \"/usr/sbin/nginx\": operation not permitted".to_owned(),
                ),
            ],
        ),
    ]
}

fn endings() -> Vec<Case> {
    let patient = || json!({"terminationGracePeriodSeconds": 30});
    vec![
        Case::new(
            "nginx-drains-by-the-signal-of-its-image",
            vec![nginx(ready_by("/"), patient())],
            vec![
                Fact::Holds("Ready"),
                Fact::Does(|stage, namespace| {
                    assert!(last_words(stage, namespace).contains("gracefully shutting down"));
                }),
            ],
        ),
        Case::new(
            "nginx-ends-by-the-signal-of-its-pod",
            vec![nginx(
                with(ready_by("/"), json!({"lifecycle": {"stopSignal": "SIGTERM"}})),
                with(patient(), json!({"os": {"name": "linux"}})),
            )],
            vec![
                Fact::Holds("Ready"),
                Fact::Does(|stage, namespace| {
                    let words = last_words(stage, namespace);
                    let received = words.contains("signal 15 (SIGTERM) received");
                    assert!(received && words.contains("exiting"), "{words}");
                    assert!(!words.contains("gracefully"), "{words}");
                }),
            ],
        ),
    ]
}

/// Deletes the pod; what it logs until it has ended.
fn last_words(stage: &Stage, namespace: &str) -> String {
    let follow = ["-n", namespace, "logs", "-f", "p"];
    let mut follow = stage.edge.kubectl_command(&follow);
    let mut child = follow.stdout(Stdio::piped()).spawn().unwrap();
    // Its first words are there before it is asked to end: somebody listens.
    let (mut stdout, mut words) = (child.stdout.take().unwrap(), vec![0]);
    stdout.read_exact(&mut words).unwrap();
    stage.kubectl(namespace, &["delete", "pod", "p", "--timeout=60s"]);
    stdout.read_to_end(&mut words).unwrap();
    child.wait().unwrap();
    String::from_utf8(words).unwrap()
}

fn company() -> Vec<Case> {
    let proxy = "server { listen 80; location / { proxy_pass http://127.0.0.1:8000; } }";
    let (mount, volume) = mounted("site", "/etc/nginx/conf.d");
    let site = || config_map("site", json!({ "site.conf": proxy }));
    let beside = |program: &str| {
        let app = python_container("app", program, json!({}));
        with(volume.clone(), json!({ "containers": [app] }))
    };
    let page = json!({"volumeMounts": [{"name": "v", "mountPath": PAGES}]});
    let prepared = |program: &str| {
        let out = json!({"volumeMounts": [{"name": "v", "mountPath": "/out"}]});
        let init = python_container("make", program, out);
        json!({"initContainers": [init], "volumes": [{"name": "v", "emptyDir": {}}]})
    };
    vec![
        Case::new(
            "nginx-before-python-in-one-pod",
            vec![site(), nginx(with(mount.clone(), ready_by("/")), beside(ANSWERS))],
            vec![
                Fact::Holds("Ready"),
                Fact::Does(|stage, namespace| {
                    assert_eq!(
                        get(stage, namespace, "/where").unwrap(),
                        "python was asked for /where\n"
                    );
                }),
            ],
        ),
        Case::new(
            "nginx-whose-neighbour-has-ended",
            vec![site(), nginx(mount.clone(), beside("raise SystemExit(0)"))],
            vec![
                is("/status/containerStatuses/0/ready", "false"),
                Fact::Does(|stage, namespace| {
                    let look = ["exec", "p", "-c", "c", "--", "wget", "-O-", "http://127.0.0.1/"];
                    stage.until("502 of nginx", || {
                        let said = stage.try_kubectl(namespace, &look).unwrap_err();
                        said.contains("502 Bad Gateway").then_some(())
                    });
                }),
                log_has("connect() failed (111: Connection refused)"),
            ],
        ),
        Case::new(
            "nginx-serves-what-python-wrote",
            vec![nginx(
                with(page.clone(), ready_by("/")),
                prepared("open('/out/index.html', 'w').write(f'{6 * 7}\\n')"),
            )],
            vec![
                Fact::Holds("Ready"),
                Fact::Does(|stage, namespace| {
                    assert_eq!(get(stage, namespace, "/").unwrap(), "42\n")
                }),
            ],
        ),
        Case::new(
            "nginx-waits-for-python-in-vain",
            vec![nginx(page, prepared("open('/nowhere/index.html', 'w')"))],
            vec![
                Fact::Phase("Failed"),
                is("/status/initContainerStatuses/0/state/terminated/exitCode", "1"),
                is("/status/containerStatuses/0/state/waiting/reason", "PodInitializing"),
                Fact::LogHas("make", "FileNotFoundError".to_owned()),
            ],
        ),
    ]
}

/// A web application that says what it was asked for.
pub(crate) const ANSWERS: &str = r#"
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"python was asked for {self.path}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"#;
