//! The edge that all cases share, and what is seen of its pods and events: one watch of each.

use std::{
    collections::BTreeMap,
    io::BufReader,
    process::{Child, Stdio},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Deserializer, Value};

use crate::{applications, edge::Edge, registry::Registry};

/// How long a thing may take that has no event.
const SOON: Duration = Duration::from_secs(60);

pub(crate) struct Stage {
    pub(crate) registry: Registry,
    view: Arc<Shared>,
    watches: Vec<Child>,
    // The last one to go.
    pub(crate) edge: Edge,
}

#[derive(Default)]
struct Shared {
    view: Mutex<View>,
    changed: Condvar,
}

/// The newest of each object.
#[derive(Default)]
pub(crate) struct View(BTreeMap<(String, String, String), Value>);

impl View {
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Option<&Value> {
        self.0.get(&("Pod".to_owned(), namespace.to_owned(), name.to_owned()))
    }

    pub(crate) fn events<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Value> {
        let of = move |key: &(String, String, String)| key.0 == "Event" && key.1 == namespace;
        self.0.iter().filter(move |(key, _)| of(key)).map(|(_, event)| event)
    }
}

impl Stage {
    /// One pool of one node, a registry with images and a user, and the watches.
    pub(crate) fn set() -> Self {
        let edge = Edge::prepare();
        let address = edge.subnet.replace(".0/24", ".1");
        let mut arguments = edge.up_arguments();
        arguments.extend(["--pools", "1", "--nodes-per-pool", "1"].map(str::to_owned));
        crate::edge::success("toono up", edge.toono(&arguments));
        let registry = Registry::start(&address);
        let node = edge.nodes_with_ready("True").remove(0);
        let data = edge.data().join("nodes").join(node);
        std::fs::write(data.join("registries.yaml"), registry.settings()).unwrap();
        std::fs::create_dir_all(data.join("seccomp")).unwrap();
        std::fs::write(data.join("seccomp/no-mkdir.json"), crate::security::NO_MKDIR).unwrap();
        let view = Arc::new(Shared::default());
        let watches = ["pods", "events"].map(|kind| watch(&edge, kind, view.clone())).into();
        let stage = Self { registry, view, watches, edge };
        applications::bring(&stage);
        stage
    }

    /// Makes a namespace in which pods can be made.
    pub(crate) fn namespace(&self, case: &str) -> String {
        let namespace = format!("case-{case}");
        self.edge.kubectl(&["create", "namespace", &namespace]);
        self.until("the service account", || {
            self.try_kubectl(&namespace, &["get", "serviceaccount", "default"]).ok()
        });
        namespace
    }

    pub(crate) fn drop_namespace(&self, namespace: &str) {
        let arguments = ["delete", "namespace", namespace, "--wait=false"];
        let _ = self.edge.kubectl_command(&arguments).output();
    }

    /// Writes objects into a file for kubectl.
    pub(crate) fn write(&self, name: &str, objects: &[Value]) -> String {
        let path = self.edge.data().join(format!("{name}.json"));
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
        std::fs::write(&path, list.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn kubectl(&self, namespace: &str, arguments: &[&str]) -> String {
        self.edge.kubectl(&[&["-n", namespace], arguments].concat())
    }

    /// What kubectl printed, or what it complained of.
    pub(crate) fn try_kubectl(
        &self,
        namespace: &str,
        arguments: &[&str],
    ) -> Result<String, String> {
        let arguments = [&["-n", namespace], arguments].concat();
        let output = self.edge.kubectl_command(&arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr) + &text(&output.stdout))
        }
    }

    /// Waits until the watched objects show a fact.
    pub(crate) fn await_view<T>(
        &self,
        namespace: &str,
        what: &str,
        limit: Duration,
        fact: impl Fn(&View) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + limit;
        let mut view = self.view.view.lock().unwrap();
        loop {
            if let Some(found) = fact(&view) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(view);
                panic!("{namespace}: waited {limit:?} in vain for: {what}");
            }
            view = self.view.changed.wait_timeout(view, left).unwrap().0;
        }
    }

    /// Asks again and again; for what no watch tells.
    pub(crate) fn until<T>(&self, what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = fact() {
                return found;
            }
            assert!(start.elapsed() < SOON, "waited {SOON:?} in vain for: {what}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What is known of a case that failed.
    pub(crate) fn show(&self, namespace: &str) {
        let view = self.view.view.lock().unwrap();
        let status = view.pod(namespace, "p").map(|pod| pod["status"].to_string());
        eprintln!("--- {namespace}: {}", status.unwrap_or_else(|| "no pod".to_owned()));
        for event in view.events(namespace) {
            eprintln!("    {} {}", event["reason"], event["message"]);
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for watch in &mut self.watches {
            let _ = watch.kill();
            let _ = watch.wait();
        }
    }
}

/// kubectl writes each change as a whole object.
fn watch(edge: &Edge, kind: &str, shared: Arc<Shared>) -> Child {
    let arguments = ["get", kind, "-A", "--watch", "-o", "json"];
    let mut child = edge.kubectl_command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || {
        for object in Deserializer::from_reader(output).into_iter::<Value>().map_while(Result::ok) {
            let part = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let meta = &object["metadata"];
            let key = (part(&object["kind"]), part(&meta["namespace"]), part(&meta["name"]));
            shared.view.lock().unwrap().0.insert(key, object);
            shared.changed.notify_all();
        }
    });
    child
}
