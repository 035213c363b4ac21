//! Workloads of pools, from what a set says to what is written.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use proptest::prelude::*;
use serde_json::{Value, json};
use toono_openyurt::yurt_app_set::{YurtAppSetSpec, YurtAppSetStatus};

use super::{
    app::{App, Kind},
    choice::{Choice, Pools},
    live::{Live, Progress},
    plan::{self, Plan},
    render::{Rendered, render},
    status::Facts,
};

fn spec(tweaks: Value) -> Value {
    json!({
        "nodepoolSelector": {"matchLabels": {"area": "east"}},
        "workload": {
            "workloadTemplate": {"deploymentTemplate": {
                "metadata": {"labels": {"app": "web"}, "annotations": {"note": "n"}},
                "spec": {
                    "replicas": 2,
                    "selector": {"matchLabels": {"app": "web"}},
                    "template": {
                        "metadata": {"labels": {"app": "web"}},
                        "spec": {"containers": [{"name": "c", "image": "one"}]},
                    },
                },
            }},
            "workloadTweaks": tweaks,
        },
    })
}

fn app(spec: Value) -> App {
    App::new(&serde_json::from_value::<YurtAppSetSpec>(spec).unwrap()).unwrap()
}

fn pools(pools: &[(&str, &str)]) -> Pools {
    let labels = |area: &str| BTreeMap::from([("area".to_owned(), area.to_owned())]);
    pools.iter().map(|(pool, area)| ((*pool).to_owned(), labels(area))).collect()
}

/// The workload as the API would keep it.
fn kept(rendered: &Rendered, revision: &str) -> Value {
    let mut workload = json!({
        "metadata": {"name": "w", "uid": "u", "resourceVersion": "1", "generation": 1,
            "labels": rendered.labels_of(revision), "annotations": rendered.annotations},
        "spec": rendered.spec_of(revision),
    });
    (rendered.kind.row().unwrap().default)(&mut workload);
    workload
}

fn live(workload: Value) -> Live {
    let deployment: Deployment = serde_json::from_value(workload).unwrap();
    Live::Deployment(deployment.into())
}

fn rendered(tweaks: Value) -> Rendered {
    let app = app(spec(tweaks));
    let all: Vec<usize> = (0..app.tweaks.len()).collect();
    render(&app, "set", "a", &all).unwrap()
}

#[test]
fn a_workload_is_that_of_its_set_and_pool() {
    let made = rendered(json!([]));
    assert_eq!(made.labels["apps.openyurt.io/pool-name"], "a");
    assert_eq!(made.labels["apps.openyurt.io/ref-yurtappset"], "set");
    assert_eq!(made.labels["app"], "web");
    assert_eq!(made.annotations["apps.openyurt.io/ref-nodepool"], "a");
    let labels = json!({"app": "web", "apps.openyurt.io/pool-name": "a"});
    assert_eq!(made.spec["selector"]["matchLabels"], labels);
    assert_eq!(made.spec["template"]["metadata"]["labels"], labels);
    let selector = &made.spec["template"]["spec"]["nodeSelector"];
    assert_eq!(*selector, json!({"apps.openyurt.io/nodepool": "a"}));
    assert!(made.notes.is_empty(), "{:?}", made.notes);
}

#[test]
fn without_a_selector_it_selects_the_sets_pods_in_the_pool() {
    let mut spec = spec(json!([]));
    let template = &mut spec["workload"]["workloadTemplate"]["deploymentTemplate"]["spec"];
    template.as_object_mut().unwrap().remove("selector");
    let made = render(&app(spec), "set", "a", &[]).unwrap();
    let own = json!({"apps.openyurt.io/pool-name": "a", "apps.openyurt.io/ref-yurtappset": "set"});
    assert_eq!(made.spec["selector"]["matchLabels"], own);
    assert_eq!(made.spec["template"]["metadata"]["labels"]["app"], "web");
}

#[test]
fn tweaks_apply_in_order_images_before_patches() {
    let made = rendered(json!([
        {"tweaks": {"replicas": 3, "patches": [
            {"operation": "replace", "path": "/spec/template/spec/containers/0/image", "value": "patched"},
            {"operation": "add", "path": "/spec/template/spec/containers/0/resources/limits",
                "value": {"cpu": "0.5"}},
            {"operation": "add", "path": "/metadata/annotations/pool", "value": "in {{nodepool-name}}"}]}},
        {"tweaks": {"replicas": 5, "containerImages": [
            {"name": "c", "targetImage": "two"}, {"name": "x", "targetImage": "y"}]}},
    ]));
    assert_eq!(made.spec["replicas"], 5);
    let container = &made.spec["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "patched");
    assert_eq!(container["resources"]["limits"]["cpu"], "0.5");
    assert_eq!(made.annotations["pool"], "in a");
    let notes = [
        "replicas: tweak 2 (5) goes before tweak 1 (3)",
        "tweak 2 names a container x, which the template does not have",
    ];
    assert_eq!(made.notes, notes);
}

#[test]
fn what_cannot_be_made_says_which_tweak_is_wrong() {
    let patch = |operation: &str, path: &str| {
        let tweaks = json!([{"tweaks": {}}, {"tweaks": {"patches": [
            {"operation": operation, "path": path, "value": "v"}]}}]);
        let app = app(spec(tweaks));
        render(&app, "set", "a", &[1]).unwrap_err().to_string()
    };
    let gone = patch("remove", "/spec/template/spec/volumes");
    assert!(
        gone.starts_with("patch 1 of tweak 2 (remove /spec/template/spec/volumes): "),
        "{gone}"
    );
    let name = patch("replace", "/metadata/name");
    assert!(name.contains("patches may change /spec, /metadata/labels"), "{name}");
    let status = patch("add", "/specs");
    assert!(status.contains("patches may change"), "{status}");
    let shape = patch("replace", "/spec/replicas");
    assert!(shape.contains("is no Deployment") && shape.contains("replicas"), "{shape}");
}

#[test]
fn patches_cannot_take_a_workload_from_its_pool() {
    let made = rendered(json!([{"tweaks": {"patches": [
        {"operation": "replace", "path": "/spec/template/spec/nodeSelector", "value": {"disk": "ssd"}},
        {"operation": "replace", "path": "/metadata/labels", "value": {}},
        {"operation": "remove", "path": "/spec/selector/matchLabels/apps.openyurt.io~1pool-name"}]}}]));
    let selector = &made.spec["template"]["spec"]["nodeSelector"];
    assert_eq!(*selector, json!({"apps.openyurt.io/nodepool": "a", "disk": "ssd"}));
    assert_eq!(made.labels["apps.openyurt.io/ref-yurtappset"], "set");
    assert_eq!(made.spec["selector"]["matchLabels"]["apps.openyurt.io/pool-name"], "a");
}

#[test]
fn unknown_fields_and_foreign_pools_are_noted() {
    let mut spec = spec(json!([]));
    let pod =
        &mut spec["workload"]["workloadTemplate"]["deploymentTemplate"]["spec"]["template"]["spec"];
    pod["contaners"] = json!([]);
    pod["nodeSelector"] = json!({"apps.openyurt.io/nodepool": "b"});
    let made = render(&app(spec), "set", "a", &[]).unwrap();
    assert_eq!(made.notes.len(), 2, "{:?}", made.notes);
    assert!(made.notes[0].contains("names pool b"), "{:?}", made.notes);
    assert!(made.notes[1].contains("contaners is no field of a Deployment"), "{:?}", made.notes);
}

#[test]
fn choices_say_what_is_named_in_vain() {
    let mut spec = spec(json!([
        {"pools": ["a", "nowhere"], "tweaks": {}},
        {"nodepoolSelector": {"matchExpressions": [{"key": "area", "operator": "Exists"}]}, "tweaks": {}},
        {"pools": ["c"], "tweaks": {}},
    ]));
    spec["pools"] = json!(["lost"]);
    let pools = pools(&[("a", "east"), ("b", "east"), ("c", "west")]);
    let choice = Choice::new(&app(spec), &pools);
    let chosen = BTreeMap::from([("a".to_owned(), vec![0, 1]), ("b".to_owned(), vec![1])]);
    assert_eq!(choice.tweaks, chosen);
    assert_eq!(choice.missing, ["lost"]);
    assert!(choice.tweaks_miss);
    let idle = [
        "tweak 1 names pool nowhere, which is not there",
        "tweak 3 names pool c, which is not of this set",
    ];
    assert_eq!(choice.idle, idle);
    let status = Facts::default().status(&choice, &YurtAppSetStatus::default());
    let found = &status.conditions[0];
    assert_eq!((found.status.as_str(), found.reason.as_deref()), ("False", Some("PoolsMissing")));
    assert!(found.message.as_ref().unwrap().contains("not there: lost"), "{found:?}");
}

#[test]
fn a_workload_as_it_should_be_is_left_alone_and_others_put_back() {
    let wanted = rendered(json!([]));
    let good = kept(&wanted, "r1");
    let difference =
        |workload: &Value| live(workload.clone()).difference(&wanted, None, "r2").unwrap();
    assert_eq!(difference(&good), None, "also when the set has a newer revision");
    let mut edited = good.clone();
    edited["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "A", "value": "b"}]);
    let patch = difference(&edited).unwrap();
    let container = &patch["spec"]["template"]["spec"]["containers"][0];
    assert!(container.get("env").is_none() && container["image"] == "one", "{patch}");
    assert_eq!(
        patch["metadata"]["labels"],
        json!({"apps.openyurt.io/controller-revision-hash": "r2"})
    );
    let mut scaled = good.clone();
    scaled["spec"]["replicas"] = json!(7);
    let patch = difference(&scaled).unwrap();
    assert_eq!(patch["spec"], json!({"replicas": 2}), "no pod is replaced for a number");
    let mut restarted = good.clone();
    restarted["spec"]["template"]["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"});
    assert_eq!(difference(&restarted), None);
    let mut labelled = good;
    labelled["metadata"]["labels"]["theirs"] = json!("x");
    assert_eq!(difference(&labelled), None, "others may add labels");
    labelled["metadata"]["labels"]["app"] = json!("x");
    let patch = difference(&labelled).unwrap();
    assert_eq!(patch["metadata"]["labels"]["app"], "web");
    assert!(patch.get("spec").is_none(), "{patch}");
}

#[test]
fn what_was_asked_for_before_and_is_no_more_goes() {
    let before = rendered(json!([{"tweaks": {"patches": [
        {"operation": "add", "path": "/metadata/labels/tier", "value": "gold"}]}}]));
    let wanted = rendered(json!([]));
    let patch = live(kept(&before, "r1")).difference(&wanted, Some(&before), "r2").unwrap();
    assert_eq!(patch.unwrap()["metadata"]["labels"]["tier"], Value::Null);
}

#[test]
fn replicas_that_the_set_does_not_say_are_left_to_others() {
    let mut spec = spec(json!([]));
    let template = &mut spec["workload"]["workloadTemplate"]["deploymentTemplate"]["spec"];
    template.as_object_mut().unwrap().remove("replicas");
    let wanted = render(&app(spec), "set", "a", &[]).unwrap();
    let mut workload = kept(&wanted, "r1");
    workload["spec"]["replicas"] = json!(9);
    assert_eq!(live(workload).difference(&wanted, None, "r1").unwrap(), None);
}

#[test]
fn of_two_workloads_the_older_stays_and_strangers_go() {
    let wanted = rendered(json!([]));
    let one = |name: &str, pool: &str, created: &str| {
        let mut workload = kept(&wanted, "r1");
        workload["metadata"]["name"] = json!(name);
        workload["metadata"]["uid"] = json!(name);
        workload["metadata"]["creationTimestamp"] = json!(created);
        workload["spec"]["selector"]["matchLabels"]["apps.openyurt.io/pool-name"] = json!(pool);
        workload
    };
    let mut leaving = one("leaving", "d", "2026-01-01T00:00:00Z");
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
    let set: StatefulSet = serde_json::from_value(one("set", "b", "2026-01-01T00:00:00Z")).unwrap();
    let workloads = vec![
        live(one("younger", "a", "2026-01-02T00:00:00Z")),
        live(one("older", "a", "2026-01-01T00:00:00Z")),
        live(one("elsewhere", "z", "2026-01-01T00:00:00Z")),
        live(leaving),
        Live::StatefulSet(set.into()),
    ];
    let plan = Plan::new(["a", "b", "c", "d"], Kind::Deployment, workloads);
    let name = |live: &Live| live.metadata().name.clone().unwrap();
    assert_eq!(name(&plan.keep["a"]), "older");
    let deleted: BTreeSet<_> = plan.delete.iter().map(name).collect();
    assert_eq!(deleted, ["elsewhere", "set", "younger"].map(str::to_owned).into());
    assert_eq!(plan.leaving, BTreeSet::from(["d".to_owned()]));
}

#[test]
fn names_are_those_of_set_and_pool_and_fit() {
    let name = plan::name("web", "u", "a", 0);
    assert!(name.starts_with("web-a-") && name.len() == 11, "{name}");
    assert_eq!(name, plan::name("web", "u", "a", 0));
    assert_ne!(name, plan::name("web", "u", "a", 1));
    assert_ne!(name, plan::name("web", "v", "a", 0));
    let long = plan::name(&"s".repeat(40), "u", &"p".repeat(63), 0);
    assert_eq!(long.len(), 52);
}

#[test]
fn conditions_name_pools_and_keep_their_times() {
    let pools = pools(&[("a", "east"), ("b", "east")]);
    let choice = Choice::new(&app(spec(json!([]))), &pools);
    let facts = |ready| Facts {
        progress: BTreeMap::from([
            (
                "a".to_owned(),
                Progress { observed: true, wanted: 2, ready: 2, updated: 2, stuck: None },
            ),
            (
                "b".to_owned(),
                Progress { observed: true, wanted: 2, ready, updated: 2, stuck: None },
            ),
        ]),
        current: vec!["a".to_owned(), "b".to_owned()],
        not_updated: BTreeMap::from([("b".to_owned(), "no".to_owned())]),
        ..Facts::default()
    };
    let first = facts(1).status(&choice, &YurtAppSetStatus::default());
    assert_eq!((first.total_workloads, first.ready_workloads, first.updated_workloads), (2, 1, 2));
    let said = |status: &YurtAppSetStatus, type_: &str| {
        let found = status.conditions.iter().find(|condition| condition.type_ == type_).unwrap();
        (found.status.clone(), found.message.clone().unwrap())
    };
    assert_eq!(said(&first, "AppReady"), ("False".into(), "not ready: b (1 of 2 ready)".into()));
    assert_eq!(said(&first, "AppUpdated"), ("False".into(), "not updated: b (no)".into()));
    assert_eq!(said(&first, "PoolFound"), ("True".into(), "2 pools: a, b".into()));
    let again = facts(1).status(&choice, &first);
    assert_eq!(again, first, "nothing changed, so nothing is to be written");
    assert_eq!(said(&facts(2).status(&choice, &first), "AppReady").0, "True");
}

proptest! {
    /// Whatever tweaks say: what was written is found to be as it should, under any revision.
    #[test]
    fn a_write_settles(
        replicas in prop::option::of(0..9_i32),
        image in prop::option::of("[a-z]{1,8}"),
        cpu in prop::option::of(1..4000_u32),
        pool in "[a-z][a-z0-9-]{0,20}[a-z0-9]",
    ) {
        let mut tweaks = json!({});
        if let Some(replicas) = replicas {
            tweaks["replicas"] = json!(replicas);
        }
        if let Some(image) = image {
            tweaks["containerImages"] = json!([{"name": "c", "targetImage": image}]);
        }
        if let Some(cpu) = cpu {
            tweaks["patches"] = json!([{"operation": "add",
                "path": "/spec/template/spec/containers/0/resources/requests",
                "value": {"cpu": format!("{cpu}m"), "example.com/{{nodepool-name}}": "1"}}]);
        }
        let app = app(spec(json!([{"tweaks": tweaks}])));
        let bare = render(&app, "set", &pool, &[]).unwrap();
        let wanted = render(&app, "set", &pool, &[0]).unwrap();
        let mut workload = kept(&bare, "r1");
        if let Some(patch) = live(workload.clone()).difference(&wanted, Some(&bare), "r2").unwrap() {
            toono_apply::apply(toono_apply::PatchKind::Merge, &mut workload, patch, None).unwrap();
        }
        prop_assert_eq!(live(workload).difference(&wanted, None, "r3").unwrap(), None);
    }
}
