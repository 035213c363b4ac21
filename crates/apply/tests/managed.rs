//! Server-side apply as Kubernetes' documentation tells it: tables of writes and what they leave.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed step fails the test"
)]

use serde_json::{Value, json};
use toono_api::{BuiltIn, Place, kinds};
use toono_apply::managed::{
    self, Applied, ApplyError, FieldSet, Managers, Operation, Write, keep_times, reset_fields,
};

/// An object of one kind and everything that was written to it.
struct Object {
    place: Place<'static>,
    api_version: String,
    reset: FieldSet,
    subresource: &'static str,
    live: Value,
    minute: u32,
}

impl Object {
    fn of(resource: &'static BuiltIn) -> Self {
        Self {
            place: resource.place(),
            api_version: resource.api_version(),
            reset: reset_fields(resource.strategy.has_status, "").clone(),
            subresource: "",
            live: Value::Null,
            minute: 0,
        }
    }

    fn config_map() -> Self {
        Self::of(&kinds::core::CONFIG_MAP)
    }

    fn deployment() -> Self {
        Self::of(&kinds::workload::DEPLOYMENT)
    }

    fn now(&mut self) -> String {
        self.minute += 1;
        format!("2024-01-01T00:{:02}:00Z", self.minute)
    }

    fn object(&self, rest: Value) -> Value {
        let mut object = json!({"apiVersion": self.api_version, "metadata": {"name": "x"}});
        for (field, value) in rest.as_object().unwrap() {
            if field == "metadata" {
                object["metadata"]
                    .as_object_mut()
                    .unwrap()
                    .extend(value.as_object().unwrap().clone());
            } else {
                object[field] = value.clone();
            }
        }
        object
    }

    fn try_apply(
        &mut self,
        manager: &str,
        rest: Value,
        force: bool,
    ) -> Result<Applied, ApplyError> {
        let now = self.now();
        let applied = self.object(rest);
        let write = Write {
            place: self.place,
            api_version: &self.api_version,
            other_versions: &[],
            manager,
            subresource: self.subresource,
            reset: &self.reset,
            now: &now,
        };
        let outcome = managed::apply(&write, &self.live, &applied, force)?;
        assert_eq!(outcome.changed, outcome.object != self.live);
        self.live = outcome.object.clone();
        Ok(outcome)
    }

    fn apply(&mut self, manager: &str, rest: Value) -> bool {
        self.try_apply(manager, rest, false).unwrap().changed
    }

    fn force(&mut self, manager: &str, rest: Value) {
        self.try_apply(manager, rest, true).unwrap();
    }

    fn conflicts(&mut self, manager: &str, rest: Value) -> (String, Value) {
        match self.try_apply(manager, rest, false) {
            Err(ApplyError::Conflicts(conflicts)) => {
                (conflicts.to_string(), conflicts.causes().into())
            }
            other => panic!("no conflict: {other:?}"),
        }
    }

    fn update(&mut self, manager: &str, change: impl FnOnce(&mut Value)) {
        let now = self.now();
        let mut object = self.live.clone();
        if object.is_null() {
            object = self.object(json!({}));
        }
        change(&mut object);
        let write = Write {
            place: self.place,
            api_version: &self.api_version,
            other_versions: &[],
            manager,
            subresource: self.subresource,
            reset: &self.reset,
            now: &now,
        };
        managed::update(&write, &self.live, &mut object);
        keep_times(&self.live, &mut object);
        self.live = object;
    }

    fn managers(&self) -> Managers {
        Managers::decode(self.live["metadata"].get("managedFields")).unwrap()
    }

    /// `manager/operation[/subresource]` and the fields.
    fn owned(&self) -> Value {
        let entry = |(id, owned): (&managed::ManagerId, &managed::Owned)| {
            let operation = if id.operation == Operation::Apply { "apply" } else { "update" };
            let mut key = format!("{}/{operation}", id.name);
            if !id.subresource.is_empty() {
                key.push_str(&format!("/{}", id.subresource));
            }
            (key, owned.fields.encode())
        };
        self.managers().iter().map(entry).collect::<serde_json::Map<_, _>>().into()
    }

    fn time_of(&self, manager: &str) -> String {
        let managers = self.managers();
        let (_, owned) = managers.iter().find(|(id, _)| id.name == manager).unwrap();
        owned.time.clone().unwrap()
    }
}

#[test]
fn applying_owns_what_is_applied_and_no_more() {
    let mut object = Object::config_map();
    object.apply("me", json!({"metadata": {"labels": {"test": "1"}}, "data": {"key": "some"}}));
    assert_eq!(
        object.owned(),
        json!({"me/apply": {"f:metadata": {"f:labels": {"f:test": {}}}, "f:data": {"f:key": {}}}})
    );
    assert_eq!(
        object.live["metadata"]["managedFields"][0],
        json!({"manager": "me", "operation": "Apply", "apiVersion": "v1",
            "time": "2024-01-01T00:01:00Z", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": {"f:test": {}}}, "f:data": {"f:key": {}}}})
    );
}

#[test]
fn another_value_conflicts_and_force_takes_over() {
    let mut object = Object::config_map();
    object.apply("me", json!({"data": {"key": "some", "other": "1"}}));
    let (message, causes) = object.conflicts("you", json!({"data": {"key": "new"}}));
    assert_eq!(message, r#"Apply failed with 1 conflict: conflict with "me": .data.key"#);
    assert_eq!(
        causes,
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"me\"",
            "field": ".data.key"}])
    );
    object.force("you", json!({"data": {"key": "new"}}));
    assert_eq!(object.live["data"], json!({"key": "new", "other": "1"}));
    assert_eq!(
        object.owned(),
        json!({"me/apply": {"f:data": {"f:other": {}}}, "you/apply": {"f:data": {"f:key": {}}}})
    );
}

#[test]
fn conflicts_name_every_manager_and_place() {
    let mut object = Object::deployment();
    object.update("kubectl-client-side-apply", |object| {
        object["spec"] = json!({"replicas": 1, "template": {"spec": {"containers": [
            {"name": "app", "image": "a:1", "ports": [{"containerPort": 80}]}]}}});
    });
    object.subresource = "scale";
    object.update("scaler", |object| object["spec"]["replicas"] = json!(2));
    object.subresource = "";
    let (message, _) = object.conflicts(
        "me",
        json!({"spec": {"replicas": 3, "template": {"spec": {
        "containers": [{"name": "app", "image": "a:2"}]}}}}),
    );
    assert_eq!(
        message,
        "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n\
         - .spec.template.spec.containers[name=\"app\"].image\n\
         conflicts with \"scaler\" with subresource \"scale\" using apps/v1:\n- .spec.replicas"
    );
    let (message, causes) = object.conflicts(
        "me",
        json!({"spec": {"template": {"spec": {
        "containers": [{"name": "app", "image": "a:2"}]}}}}),
    );
    assert!(message.starts_with(
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: "
    ));
    assert_eq!(causes[0]["message"], "conflict with \"kubectl-client-side-apply\" using apps/v1");
}

#[test]
fn equal_values_are_shared_and_stay_until_the_last_owner_goes() {
    let mut object = Object::config_map();
    object.apply("me", json!({"data": {"key": "v"}}));
    object.apply("you", json!({"data": {"key": "v"}}));
    assert_eq!(
        object.owned(),
        json!({"me/apply": {"f:data": {"f:key": {}}}, "you/apply": {"f:data": {"f:key": {}}}})
    );
    object.apply("me", json!({}));
    assert_eq!(object.live["data"], json!({"key": "v"}));
    object.apply("you", json!({}));
    assert_eq!(object.live.get("data"), None);
    assert_eq!(object.owned(), json!({}));
}

#[test]
fn giving_a_field_to_a_controller_keeps_its_value() {
    let mut object = Object::deployment();
    object.apply("me", json!({"spec": {"replicas": 3, "paused": true}}));
    object.apply("scaler", json!({"spec": {"replicas": 3}}));
    object.apply("me", json!({"spec": {"paused": true}}));
    assert_eq!(object.live["spec"], json!({"replicas": 3, "paused": true}));
    object.apply("scaler", json!({"spec": {"replicas": 5}}));
    assert_eq!(object.live["spec"]["replicas"], 5);
    object.apply("scaler", json!({}));
    assert_eq!(object.live["spec"], json!({"paused": true}));
}

#[test]
fn plain_writers_take_what_they_change_and_lose_what_goes() {
    let mut object = Object::config_map();
    object.apply("me", json!({"data": {"a": "1", "b": "1"}}));
    object.update("editor", |object| {
        object["data"] = json!({"a": "2", "c": "1"});
    });
    assert_eq!(
        object.owned(),
        json!({"editor/update": {"f:data": {"f:a": {}, "f:c": {}}}}),
        "b is gone, a is the editor's"
    );
    object.update("editor", |object| object["data"] = json!({"a": "2"}));
    assert_eq!(object.owned(), json!({"editor/update": {"f:data": {"f:a": {}}}}));
    let (message, _) = object.conflicts("me", json!({"data": {"a": "1"}}));
    assert!(message.contains("\"editor\" using v1: .data.a"), "{message}");
}

#[test]
fn what_was_never_tracked_is_not_owned() {
    let mut object = Object::deployment();
    object.update("creator", |object| {
        object["metadata"]["uid"] = json!("u");
        object["metadata"]["labels"] = json!({"app": "x"});
        object["spec"] = json!({"replicas": 1, "strategy": {"rollingUpdate": {"maxSurge": 1}},
            "template": {"spec": {"containers": [{"name": "a", "image": "i"}]}}});
        object["status"] = json!({"replicas": 1});
    });
    assert_eq!(
        object.owned(),
        json!({"creator/update": {
        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
        "f:spec": {
            "f:replicas": {},
            "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
            "f:template": {"f:spec": {"f:containers": {
                ".": {}, "k:{\"name\":\"a\"}": {".": {}, "f:name": {}, "f:image": {}}}}},
        }}})
    );
    object.reset = reset_fields(true, "status").clone();
    object.subresource = "status";
    object.update("controller", |object| {
        object["spec"]["replicas"] = json!(9);
        object["status"] = json!({"replicas": 2, "conditions": [{"type": "Available"}]});
    });
    assert_eq!(
        object.owned()["controller/update/status"],
        json!({"f:status": {"f:replicas": {}, "f:conditions": {
            ".": {}, "k:{\"type\":\"Available\"}": {".": {}, "f:type": {}}}}})
    );
}

#[test]
fn items_of_lists_have_owners_by_their_keys() {
    let mut object = Object::of(&kinds::core::SERVICE);
    object.apply(
        "me",
        json!({"spec": {"ports": [
        {"port": 53, "protocol": "TCP", "name": "tcp"},
        {"port": 53, "protocol": "UDP", "name": "udp"}]}}),
    );
    object.apply("you", json!({"spec": {"ports": [{"port": 80, "name": "web"}]}}));
    assert_eq!(object.live["spec"]["ports"].as_array().unwrap().len(), 3);
    assert_eq!(
        object.owned()["you/apply"],
        json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {
            ".": {}, "f:port": {}, "f:name": {}}}}})
    );
    object.apply(
        "me",
        json!({"spec": {"ports": [
        {"port": 53, "protocol": "UDP", "name": "udp"}]}}),
    );
    assert_eq!(
        object.live["spec"]["ports"],
        json!([{"port": 53, "protocol": "UDP", "name": "udp"}, {"port": 80, "name": "web"}])
    );
}

#[test]
fn an_orphaned_item_goes_with_its_defaults() {
    let mut object = Object::deployment();
    let containers = |names: &[&str]| {
        let list: Value = names.iter().map(|name| json!({"name": name, "image": "i"})).collect();
        json!({"spec": {"template": {"spec": {"containers": list}}}})
    };
    object.apply("me", containers(&["a", "b"]));
    // Defaults are written by the server and owned by nobody.
    for container in object.live["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap() {
        container["terminationMessagePath"] = json!("/dev/termination-log");
    }
    object.apply("me", containers(&["a"]));
    assert_eq!(
        object.live["spec"]["template"]["spec"]["containers"],
        json!([{"name": "a", "image": "i", "terminationMessagePath": "/dev/termination-log"}])
    );
}

#[test]
fn an_item_of_another_owner_survives_with_that_owners_fields() {
    let mut object = Object::deployment();
    let container = |rest: Value| {
        let mut container = json!({"name": "a"});
        container.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!({"spec": {"template": {"spec": {"containers": [container]}}}})
    };
    object.apply("me", container(json!({"image": "i", "tty": true})));
    object.apply("you", container(json!({"image": "i"})));
    object.apply("me", json!({}));
    assert_eq!(
        object.live["spec"]["template"]["spec"]["containers"],
        json!([{"name": "a", "image": "i"}])
    );
}

#[test]
fn atomic_lists_and_maps_have_one_owner() {
    let mut object = Object::deployment();
    let pod = |rest: Value| json!({"spec": {"template": {"spec": rest}}});
    object.apply("me", pod(json!({"nodeSelector": {"a": "1"}, "tolerations": [{"key": "x"}]})));
    let (message, _) = object.conflicts("you", pod(json!({"nodeSelector": {"b": "1"}})));
    assert!(message.ends_with(": .spec.template.spec.nodeSelector"), "{message}");
    object.force("you", pod(json!({"nodeSelector": {"b": "1"}})));
    assert_eq!(object.live["spec"]["template"]["spec"]["nodeSelector"], json!({"b": "1"}));
}

#[test]
fn sets_are_shared_value_by_value() {
    let mut object = Object::config_map();
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    object.apply("me", finalizers(json!(["a/x", "b/x"])));
    object.apply("you", finalizers(json!(["b/x", "c/x"])));
    object.apply("me", finalizers(json!(["a/x"])));
    assert_eq!(object.live["metadata"]["finalizers"], json!(["a/x", "b/x", "c/x"]));
    object.apply("you", finalizers(json!(["c/x"])));
    assert_eq!(object.live["metadata"]["finalizers"], json!(["a/x", "c/x"]));
    assert_eq!(
        object.owned()["you/apply"],
        json!({"f:metadata": {"f:finalizers": {"v:\"c/x\"": {}}}})
    );
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let mut object = Object::deployment();
    let config = json!({"metadata": {"labels": {}}, "spec": {"replicas": 1, "template": {"spec": {
        "containers": [{"name": "a", "image": "i", "resources": {}}], "nodeSelector": {}}}}});
    assert!(object.apply("me", config.clone()));
    let time = object.time_of("me");
    assert!(!object.apply("me", config.clone()));
    assert!(object.apply("you", config.clone()), "a new owner is a change");
    assert!(!object.apply("you", config));
    assert_eq!(object.time_of("me"), time);
    object.update("me", |_| {});
    assert_eq!(object.owned().as_object().unwrap().len(), 2);
}

#[test]
fn the_last_label_that_is_no_longer_applied_leaves_the_applied_empty_map() {
    let mut object = Object::config_map();
    object.apply("me", json!({"metadata": {"labels": {"a": "1"}}}));
    object.apply("me", json!({"metadata": {"labels": {}}}));
    assert_eq!(object.live["metadata"]["labels"], json!({}));
    assert!(!object.apply("me", json!({"metadata": {"labels": {}}})));
}

#[test]
fn an_object_without_owners_is_somebodys_before_it_is_applied() {
    let mut object = Object::config_map();
    object.live = json!({"apiVersion": "v1", "metadata": {"name": "x"}, "data": {"a": "1"}});
    object.update("editor", |object| object["data"]["b"] = json!("1"));
    assert_eq!(object.owned(), json!({}), "untracked until it is applied");
    let (message, _) = object.conflicts("me", json!({"data": {"a": "2"}}));
    assert_eq!(
        message,
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a"
    );
    object.apply("me", json!({"data": {"a": "1"}}));
    assert_eq!(
        object.owned(),
        json!({"before-first-apply/update": {"f:data": {".": {}, "f:a": {}, "f:b": {}}},
            "me/apply": {"f:data": {"f:a": {}}}})
    );
}

#[test]
fn kubectl_moves_from_client_side_apply_without_conflicts() {
    const LAST: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let last = r#"{"apiVersion":"v1","metadata":{"name":"x"},"data":{"a":"1"}}"#;
    let start = || {
        let mut object = Object::config_map();
        object.update("kubectl-client-side-apply", |object| {
            object["metadata"]["annotations"] = json!({LAST: last});
            object["data"] = json!({"a": "1"});
        });
        object
    };
    let mut object = start();
    object.apply("kubectl", json!({"data": {"a": "2"}}));
    assert_eq!(object.live["data"], json!({"a": "2"}));
    assert_eq!(
        object.live["metadata"]["annotations"][LAST],
        json!("{\"apiVersion\":\"v1\",\"data\":{\"a\":\"2\"},\"metadata\":{\"name\":\"x\"}}\n")
    );
    let mut object = start();
    object.conflicts("other", json!({"data": {"a": "2"}}));
    let mut object = start();
    object.update("editor", |object| object["data"] = json!({"a": "edited", "b": "1"}));
    let (message, _) = object.conflicts("kubectl", json!({"data": {"a": "2"}}));
    assert!(message.contains("\"editor\""), "{message}");
}

#[test]
fn managed_fields_that_a_client_sends_count() {
    let mut object = Object::config_map();
    object.update("kubectl-client-side-apply", |object| object["data"] = json!({"a": "1"}));
    object.update("migration", |object| {
        let entry = &mut object["metadata"]["managedFields"][0];
        entry["manager"] = json!("kubectl");
        entry["operation"] = json!("Apply");
    });
    assert_eq!(object.owned(), json!({"kubectl/apply": {"f:data": {".": {}, "f:a": {}}}}));
    object.apply("kubectl", json!({}));
    assert_eq!(object.live.get("data"), None, "what the manager applied before is pruned");

    let mut object = Object::config_map();
    object.update("me", |object| object["data"] = json!({"a": "1"}));
    object.update("me", |object| object["metadata"]["managedFields"] = json!("nonsense"));
    assert_eq!(object.owned(), json!({"me/update": {"f:data": {".": {}, "f:a": {}}}}));
    object.update("me", |object| object["metadata"]["managedFields"] = json!([{}]));
    assert_eq!(object.live["metadata"].get("managedFields"), None);
}

#[test]
fn entries_of_a_version_that_is_gone_are_dropped() {
    let mut object = Object::config_map();
    object.apply("me", json!({"data": {"a": "1"}}));
    object.live["metadata"]["managedFields"][0]["apiVersion"] = json!("v0");
    object.apply("you", json!({"data": {"a": "2"}}));
    assert_eq!(object.owned(), json!({"you/apply": {"f:data": {"f:a": {}}}}));
}

#[test]
fn a_configuration_of_the_wrong_shape_is_refused() {
    let pod = |rest: Value| json!({"spec": rest});
    for (rest, expected) in [
        (json!({"apiVersion": "v2"}), "Specified patch version: v2, expected: v1"),
        (json!({"metadata": {"managedFields": []}}), "must be nil"),
        (json!({"spec": []}), ".spec: expected map, got a list"),
        (pod(json!({"containers": {}})), ".spec.containers: expected list, got a map"),
        (pod(json!({"containers": [1]})), "element 0: associative list with keys"),
        (pod(json!({"containers": [{"image": "i"}]})), "omits all key fields [\"name\"]"),
        (pod(json!({"containers": [{"name": "a"}, {"name": "a"}]})), "duplicate entries"),
        (json!({"metadata": {"finalizers": [{}]}}), "without keys"),
    ] {
        let error = Object::of(&kinds::pod::POD).try_apply("me", rest, true).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn duplicates_that_are_live_are_kept_until_one_is_applied() {
    let mut object = Object::deployment();
    let env = |list: Value| json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "env": list}]}}}});
    object.update("creator", |object| {
        *object = {
            let mut created = object.clone();
            created["spec"] = env(json!([
                {"name": "X", "value": "1"}, {"name": "X", "value": "2"}, {"name": "Y"}]))["spec"]
                .clone();
            created
        };
    });
    object.apply("me", env(json!([{"name": "Z"}])));
    let live =
        |object: &Object| object.live["spec"]["template"]["spec"]["containers"][0]["env"].clone();
    assert_eq!(live(&object).as_array().unwrap().len(), 4);
    object.force("me", env(json!([{"name": "X", "value": "3"}, {"name": "Z"}])));
    assert_eq!(live(&object), json!([{"name": "X", "value": "3"}, {"name": "Y"}, {"name": "Z"}]));
}

#[test]
fn an_unknown_kind_is_merged_by_what_its_objects_look_like() {
    let mut object = Object::config_map();
    object.place = Place::UNKNOWN;
    object.apply("me", json!({"spec": {"a": {"x": 1}, "list": [1]}}));
    object.apply("you", json!({"spec": {"a": {"y": 1}}}));
    assert_eq!(object.live["spec"], json!({"a": {"x": 1, "y": 1}, "list": [1]}));
    assert_eq!(
        object.owned()["you/apply"],
        json!({"f:spec": {".": {}, "f:a": {".": {}, "f:y": {}}}})
    );
    let (message, _) = object.conflicts("you", json!({"spec": {"list": [2]}}));
    assert!(message.ends_with("conflict with \"me\": .spec.list"), "{message}");
    object.apply("me", json!({}));
    assert_eq!(object.live["spec"], json!({"a": {"y": 1}}));
}

/// As many items as a request has room for. What grows with the square of them would take minutes.
#[test]
fn large_lists_take_time_in_proportion() {
    const ITEMS: usize = 5_000;
    let started = std::time::Instant::now();
    let list =
        |from: usize| -> Value { (from..from + ITEMS).map(|at| format!("x/{at}")).collect() };
    let env = |from: usize| -> Value {
        (from..from + ITEMS).map(|at| json!({"name": format!("V{at}"), "value": "1"})).collect()
    };
    let pod = |from: usize| {
        json!({"metadata": {"finalizers": list(from)},
            "spec": {"containers": [{"name": "a", "env": env(from)}]}})
    };
    let mut object = Object::of(&kinds::pod::POD);
    object.apply("me", pod(0));
    object.apply("you", pod(ITEMS));
    object.force("me", pod(ITEMS / 2));
    object.update("editor", |object| {
        object["spec"]["containers"][0]["env"].as_array_mut().unwrap().reverse();
        object["metadata"]["finalizers"] = json!([]);
    });
    let took = started.elapsed();
    assert!(took < std::time::Duration::from_secs(20), "{took:?}");
}

/// As deep as JSON is read. What a level costs must not multiply with the levels.
#[test]
fn deep_objects_take_time_in_proportion() {
    const LEVELS: usize = 120;
    let started = std::time::Instant::now();
    let deep = |leaf: &str| {
        (0..LEVELS).fold(json!({"leaf": leaf}), |below, at| match at % 3 {
            0 => json!({"a": below, "b": {"c": at}}),
            1 => json!([below, at]),
            _ => json!({"a": {"x": below}}),
        })
    };
    for place in [Place::UNKNOWN, kinds::core::CONFIG_MAP.place()] {
        let mut object = Object::config_map();
        object.place = place;
        object.update("creator", |object| object["deep"] = deep("1"));
        object.update("editor", |object| object["deep"] = deep("2"));
        let _ = object.try_apply("me", json!({"deep": deep("3")}), true);
        let _ = object.try_apply("me", json!({}), true);
    }
    let took = started.elapsed();
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
}
