//! One case: a name, objects, and the facts that must come true of them, in their order.

use std::time::Duration;

use serde_json::{Value, json};

use crate::stage::{Stage, View};

/// No fact takes longer on a machine that is not overrun.
const PATIENCE: Duration = Duration::from_secs(60);
/// The lab's image, which each node can pull.
pub(crate) const IMAGE: &str = "lab.toono.io/busybox:1";

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) objects: Vec<Value>,
    facts: Vec<Fact>,
}

/// What is awaited. The pod is the one that is called `p`.
pub(crate) enum Fact {
    /// The pod's phase.
    Phase(&'static str),
    /// The text at a place of the pod, such as `/status/reason`.
    Is(&'static str, String),
    /// The text at a place of the pod has this in it.
    Has(&'static str, String),
    /// The pod's condition is `True`.
    Holds(&'static str),
    /// The container `c` is running.
    Runs,
    /// The container `c` waits for this reason, with this in its message.
    Waits(&'static str, &'static str),
    /// An event of the pod has this reason, and this in its message.
    Event(&'static str, String),
    /// The log of a container is this.
    Log(&'static str, String),
    /// The log of a container has this in it.
    LogHas(&'static str, String),
    /// kubectl says this of the pod's namespace.
    Kubectl(&'static [&'static str], String),
    /// kubectl fails and says this.
    Fails(&'static [&'static str], String),
    /// Anything else.
    Does(fn(&Stage, &str)),
}

impl Case {
    pub(crate) fn new(name: &'static str, objects: Vec<Value>, facts: Vec<Fact>) -> Self {
        Self { name, objects, facts }
    }

    /// A pod that prints this and is done.
    pub(crate) fn prints(name: &'static str, pod: Value, log: &str) -> Self {
        Self::new(name, vec![pod], vec![Fact::Phase("Succeeded"), Fact::Log("c", log.to_owned())])
    }

    /// An object that the API server does not take.
    pub(crate) fn refused(name: &'static str, object: Value, says: &str) -> Self {
        let facts = vec![Fact::Fails(&["apply", "-f", "objects.json"], says.to_owned())];
        Self { name, objects: vec![object], facts }
    }

    pub(crate) fn run(&self, stage: &Stage) {
        let namespace = stage.namespace(self.name);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let file = stage.write(&namespace, &self.objects);
            let is_refused = matches!(self.facts.first(), Some(Fact::Fails(["apply", ..], _)));
            if !is_refused {
                stage.kubectl(&namespace, &["apply", "-f", &file]);
            }
            for fact in &self.facts {
                fact.check(stage, &namespace, &file);
            }
        }));
        if let Err(cause) = outcome {
            stage.show(&namespace);
            stage.drop_namespace(&namespace);
            std::panic::resume_unwind(cause);
        }
        stage.drop_namespace(&namespace);
    }
}

impl Fact {
    fn check(&self, stage: &Stage, namespace: &str, file: &str) {
        let pod = |what: &str, test: &dyn Fn(&Value) -> bool| {
            stage.await_view(namespace, what, PATIENCE, |view: &View| {
                view.pod(namespace, "p").filter(|pod| test(pod)).map(|_| ())
            });
        };
        let text = |pod: &Value, at: &str| match pod.pointer(at) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        match self {
            Self::Phase(phase) => {
                pod(&format!("phase {phase}"), &|it| it["status"]["phase"] == **phase);
            }
            Self::Is(at, wanted) => {
                pod(&format!("{at} = {wanted}"), &|it| text(it, at) == *wanted);
            }
            Self::Has(at, wanted) => {
                pod(&format!("{at} has {wanted}"), &|it| text(it, at).contains(wanted));
            }
            Self::Holds(kind) => {
                pod(&format!("condition {kind}"), &|it| crate::edge::condition(it, kind) == "True")
            }
            Self::Runs => pod("container c running", &|it| state(it)["running"].is_object()),
            Self::Waits(reason, says) => pod(&format!("waiting: {reason}: {says}"), &|it| {
                let waiting = &state(it)["waiting"];
                waiting["reason"] == **reason
                    && waiting["message"].as_str().unwrap_or_default().contains(says)
            }),
            Self::Event(reason, says) => {
                let what = format!("event {reason}: {says}");
                stage.await_view(namespace, &what, PATIENCE, |view| {
                    let fits = |event: &&Value| {
                        event["reason"] == **reason
                            && event["message"].as_str().unwrap_or_default().contains(says)
                    };
                    view.events(namespace).find(fits).map(|_| ())
                });
            }
            Self::Log(container, wanted) => {
                let log = stage.kubectl(namespace, &["logs", "p", "-c", container]);
                assert_eq!(log, *wanted, "the log of {container}");
            }
            Self::LogHas(container, wanted) => {
                stage.until(&format!("the log of {container} has {wanted}"), || {
                    stage
                        .try_kubectl(namespace, &["logs", "p", "-c", container])
                        .ok()
                        .filter(|log| log.contains(wanted))
                        .map(|_| ())
                });
            }
            Self::Kubectl(arguments, wanted) => {
                let said = stage.kubectl(namespace, arguments);
                assert!(said.contains(wanted), "{arguments:?}: no `{wanted}` in: {said}");
            }
            Self::Fails(arguments, wanted) => {
                let arguments: Vec<&str> = arguments
                    .iter()
                    .map(|it| if *it == "objects.json" { file } else { it })
                    .collect();
                let said = stage.try_kubectl(namespace, &arguments);
                let said = said.expect_err("it must fail");
                assert!(said.contains(wanted), "{arguments:?}: no `{wanted}` in: {said}");
            }
            Self::Does(does) => does(stage, namespace),
        }
    }
}

/// The state of the container `c`.
fn state(pod: &Value) -> &Value {
    let all = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    all.into_iter().find(|it| it["name"] == "c").map_or(&Value::Null, |it| &it["state"])
}

/// The pod `p`: a shell script in a container `c` that is not run again, with these changes to the
/// container and to the pod's spec.
pub(crate) fn pod(script: &str, container: Value, spec: Value) -> Value {
    let mut base = json!({"name": "c", "image": IMAGE, "command": ["sh", "-c", script]});
    merge(&mut base, container);
    let mut whole = json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
        "containers": [base]});
    merge(&mut whole, spec);
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "labels": {"app": "p", "tier": "edge"}}, "spec": whole})
}

/// The pod `p` that runs until it is deleted.
pub(crate) fn lasting(container: Value, spec: Value) -> Value {
    pod("trap 'exit 0' TERM; while :; do sleep 0.2; done", container, spec)
}

/// Another container for `initContainers` or beside `c`.
pub(crate) fn container(name: &str, script: &str, more: Value) -> Value {
    let mut base = json!({"name": name, "image": IMAGE, "command": ["sh", "-c", script]});
    merge(&mut base, more);
    base
}

pub(crate) fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

pub(crate) fn secret(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data})
}

/// Objects are merged, `containers` are appended to, all else is replaced.
pub(crate) fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                match (key.as_str(), into.get_mut(&key), value) {
                    ("containers", Some(Value::Array(list)), Value::Array(more)) => {
                        list.extend(more);
                    }
                    (_, Some(old), value) => merge(old, value),
                    (_, None, value) => {
                        into.insert(key, value);
                    }
                }
            }
        }
        (into, from) => *into = from,
    }
}
