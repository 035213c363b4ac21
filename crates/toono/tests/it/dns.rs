//! What pods find by name on a real edge, online, cut off, and after the agent was killed: by busybox's nslookup
//! inside of a container, with a resolver beyond the WAN (Debian's dnsmasq).

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    edge::{Edge, success},
    outage::find_container_process,
    wait::until,
};

const IMAGE: &str = "lab.toono.io/busybox:1";
const SOON: Duration = Duration::from_secs(30);

#[test]
fn names_are_found_online_offline_and_by_an_agent_that_was_killed() {
    let edge = Edge::prepare();
    std::fs::write(resolv_conf(&edge), format!("nameserver {}\n", cloud(&edge))).unwrap();
    success("toono up", edge.toono(&arguments(&edge)));
    let resolver = Resolver::start(&cloud(&edge));
    edge.apply(&list(services()));
    // What a container's environment says of Services is what is known when it starts.
    let dns = edge.kubectl(&[
        "get",
        "service",
        "-n",
        "kube-system",
        "kube-dns",
        "-o",
        "jsonpath={.spec.clusterIP}",
    ]);
    until("the node to know the Services", SOON, || {
        let name = "web.default.svc.cluster.local";
        let ask = ["pool-a-1", "--", "busybox", "nslookup", name, &dns];
        let data = edge.data().to_str().unwrap();
        let asked = edge.toono(&[&["lab", "shell", "--data", data], &ask[..]].concat());
        asked.status.success().then_some(())
    });
    edge.apply(&list(pods()));
    edge.kubectl(&[
        "wait",
        "pod",
        "--for=condition=Ready",
        "-l",
        "app in (web,client)",
        "--timeout=60s",
    ]);
    let client = Client::of(&edge);

    let env = edge.kubectl(&["exec", "client", "--", "env"]);
    for line in
        [format!("WEB_SERVICE_HOST={}", client.web), "KUBERNETES_SERVICE_PORT_HTTPS=443".into()]
    {
        assert!(env.lines().any(|it| it == line), "{line} in {env}");
    }
    client.finds_all();
    let shown =
        edge.kubectl(&["exec", "client", "--", "nslookup", "web.default.svc.cluster.local"]);
    assert!(shown.contains(&client.web), "{shown}");
    client.finds(&["www.shop.example"], "192.0.2.80");
    client.finds(&["out.default.svc.cluster.local"], "192.0.2.80");

    // A last change, so that all of them are known to be on the node's disk.
    let part = edge.data().join("nodes/pool-a-1/pool/part");
    let written = || std::fs::metadata(&part).and_then(|file| file.modified()).ok();
    let before = SystemTime::now();
    edge.kubectl(&[
        "create",
        "service",
        "externalname",
        "late",
        "--external-name",
        "web.default.svc.cluster.local",
    ]);
    until("the part on disk", SOON, || written().filter(|at| *at > before));
    edge.toono_here(&["lab", "cut"], &["pool-a"]);
    client.finds(&["late.default.svc.cluster.local"], &client.web);
    client.finds_all();
    client.finds(&["www.shop.example"], "192.0.2.80");

    let agent = edge.process("node", "pool-a-1");
    kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
    until("the agent's end", SOON, || kill(Pid::from_raw(agent), None).is_err().then_some(()));
    let mut again = arguments(&edge);
    again.push("--no-wait".to_owned());
    success("toono up --no-wait", edge.toono(&again));
    client.finds_all();
    edge.toono_here(&["lab", "heal"], &["pool-a"]);
    client.finds(&["www.shop.example"], "192.0.2.80");
    drop(resolver);
}

fn arguments(edge: &Edge) -> Vec<String> {
    let mut arguments = edge.up_arguments();
    arguments.extend(["--pools", "1", "--nodes-per-pool", "1", "--resolv-conf"].map(str::to_owned));
    arguments.push(resolv_conf(edge).to_str().unwrap().to_owned());
    arguments
}

fn resolv_conf(edge: &Edge) -> PathBuf {
    edge.data().join("resolv.conf")
}

/// The cloud's address on the imitated Internet.
fn cloud(edge: &Edge) -> String {
    edge.subnet.replace(".0/24", ".1")
}

fn list(items: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn pods() -> Value {
    let pod = |name: &str, more: Value| {
        let mut spec = json!({"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "main", "image": IMAGE, "command": ["sh", "-c", "sleep 100000"]}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec})
    };
    json!([pod("web", json!({"hostname": "web-0", "subdomain": "all"})), pod("client", json!({}))])
}

fn services() -> Value {
    let service = |name: &str, spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    json!([
        service("web", json!({"selector": {"app": "web"}, "ports": ports})),
        service("all", json!({"selector": {"app": "web"}, "ports": ports, "clusterIP": "None"})),
        service("out", json!({"type": "ExternalName", "externalName": "www.shop.example"})),
    ])
}

/// The container that asks, and what it is to find.
struct Client {
    uid: String,
    web: String,
    pod: String,
}

impl Client {
    fn of(edge: &Edge) -> Self {
        let get = |kind: &str, name: &str, path: &str| {
            edge.kubectl(&["get", kind, name, "-o", &format!("jsonpath={path}")])
        };
        Self {
            uid: get("pod", "client", "{.metadata.uid}"),
            web: get("service", "web", "{.spec.clusterIP}"),
            pod: get("pod", "web", "{.status.podIP}"),
        }
    }

    /// What busybox shows inside of the container: without the API, which may be out of reach.
    fn shows(&self, arguments: &[&str]) -> String {
        let process = find_container_process(&self.uid).expect("the client runs").to_string();
        let output = Command::new("nsenter")
            .args(["-t", &process, "-n", "-m", "-r", "/bin/busybox", "nslookup"])
            .args(arguments)
            .output()
            .unwrap();
        let shown = [output.stdout, output.stderr].concat();
        String::from_utf8(shown).unwrap()
    }

    fn finds(&self, question: &[&str], expected: &str) {
        let mut last = String::new();
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("a name to be found", SOON, || {
                last = self.shows(question);
                last.contains(expected).then_some(())
            });
        }));
        assert!(found.is_ok(), "{question:?} is {last:?}, without {expected:?}");
    }

    /// Every kind of name that the cluster itself has.
    fn finds_all(&self) {
        let (web, pod) = (format!("Address: {}", self.web), format!("Address: {}", self.pod));
        self.finds(&["web"], &web);
        self.finds(&["web.default.svc.cluster.local"], &web);
        self.finds(&["all.default.svc.cluster.local"], &pod);
        self.finds(&["web-0.all.default.svc.cluster.local"], &pod);
        let target = "80 web.default.svc.cluster.local";
        self.finds(&["-type=srv", "_http._tcp.web.default.svc.cluster.local"], target);
        let target = "8080 web-0.all.default.svc.cluster.local";
        self.finds(&["-type=srv", "_http._tcp.all.default.svc.cluster.local"], target);
        self.finds(&[&self.web], "name = web.default.svc.cluster.local");
        self.finds(&[&self.pod], "name = web-0.all.default.svc.cluster.local");
        self.finds(&["none.default.svc.cluster.local"], "NXDOMAIN");
    }
}

/// The resolver beyond the WAN; ends with the test.
struct Resolver(Child);

impl Resolver {
    fn start(address: &str) -> Self {
        let child = Command::new("dnsmasq")
            .args([
                "--keep-in-foreground",
                "--no-resolv",
                "--no-hosts",
                "--user=root",
                "--pid-file=",
            ])
            .args(["--conf-file=/dev/null", "--bind-interfaces", "--except-interface=lo"])
            .args([&format!("--listen-address={address}"), "--address=/shop.example/192.0.2.80"])
            .arg("--local-ttl=1")
            .stdin(Stdio::null())
            .spawn()
            .expect("dnsmasq is needed: make test-packages");
        Self(child)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
