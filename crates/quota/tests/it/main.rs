//! What objects use, and what quotas allow, by example and by property.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use toono_quota::{Amounts, Kind, Quota, counted_kind, usage};

const PODS: Kind = Kind { group: "", plural: "pods" };

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn used(plural: &str, object: &Value) -> String {
    usage(Kind { group: "", plural }, object, now()).to_string()
}

fn container(name: &str, cpu: &str, memory_limit: &str) -> Value {
    json!({"name": name, "resources": {"requests": {"cpu": cpu}, "limits": {"memory": memory_limit}}})
}

#[test]
fn a_pod_uses_what_its_worst_moment_needs() {
    let pod = json!({"spec": {
        "containers": [container("a", "100m", "1Gi"), container("b", "1", "1Gi")],
        "initContainers": [
            container("first", "2", "1Gi"),
            {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
            container("last", "200m", "10Gi"),
        ],
        "overhead": {"cpu": "10m", "memory": "1Mi"},
    }});
    // Running: 100m + 1 + 500m; the first init container alone needs more.
    assert_eq!(
        used("pods", &pod),
        "count/pods=1,cpu=2010m,limits.memory=10241Mi,memory=1Mi,pods=1,requests.cpu=2010m,\
         requests.memory=1Mi"
    );
    let device = json!({"spec": {"containers": [{"resources": {"requests": {
        "example.com/gpu": "2", "hugepages-2Mi": "4Mi"}, "limits": {"example.com/gpu": "2"}}}]}});
    assert_eq!(
        used("pods", &device),
        "count/pods=1,hugepages-2Mi=4Mi,pods=1,requests.example.com/gpu=2,requests.hugepages-2Mi=4Mi"
    );
}

#[test]
fn a_pod_that_is_over_is_only_counted_as_an_object() {
    for status in [
        json!({"status": {"phase": "Succeeded"}}),
        json!({"status": {"phase": "Failed"}}),
        json!({"metadata": {"deletionTimestamp": "2025-12-31T23:59:00Z", "deletionGracePeriodSeconds": 30}}),
    ] {
        assert_eq!(used("pods", &status), "count/pods=1", "{status}");
    }
    let leaving = json!({"metadata": {
        "deletionTimestamp": "2025-12-31T23:59:50Z", "deletionGracePeriodSeconds": 30}});
    assert_eq!(used("pods", &leaving), "count/pods=1,pods=1");
}

#[test]
fn services_claims_and_others() {
    let service = |spec: Value| used("services", &json!({"spec": spec}));
    let ports = json!([{"port": 1}, {"port": 2, "nodePort": 30000}]);
    let counts = |node: usize, balancers: usize| {
        format!(
            "count/services=1,services=1,services.loadbalancers={balancers},services.nodeports={node}"
        )
    };
    assert_eq!(service(json!({"type": "ClusterIP", "ports": ports})), counts(0, 0));
    assert_eq!(service(json!({"type": "NodePort", "ports": ports})), counts(2, 0));
    assert_eq!(service(json!({"type": "LoadBalancer", "ports": ports})), counts(2, 1));
    let without =
        json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports});
    assert_eq!(service(without), counts(1, 1));
    let claim = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}});
    assert_eq!(
        used("persistentvolumeclaims", &claim),
        "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
         gold.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,\
         requests.storage=1Gi"
    );
    assert_eq!(used("secrets", &json!({})), "count/secrets=1,secrets=1");
    let custom = Kind { group: "apps", plural: "replicasets" };
    assert_eq!(usage(custom, &json!({}), now()).to_string(), "count/replicasets.apps=1");
}

#[test]
fn each_resource_is_counted_by_one_kind() {
    for (resource, kind) in [
        ("count/deployments.apps", Some(("apps", "deployments"))),
        ("count/widgets.example.com", Some(("example.com", "widgets"))),
        ("count/configmaps", Some(("", "configmaps"))),
        ("services.nodeports", Some(("", "services"))),
        ("gold.storageclass.storage.k8s.io/requests.storage", Some(("", "persistentvolumeclaims"))),
        ("requests.storage", Some(("", "persistentvolumeclaims"))),
        ("limits.cpu", Some(("", "pods"))),
        ("requests.example.com/gpu", Some(("", "pods"))),
        ("pods", Some(("", "pods"))),
        ("widgets", None),
    ] {
        assert_eq!(counted_kind(resource), kind, "{resource}");
    }
}

fn quota(spec: Value, used: Value) -> Quota {
    let hard = spec["hard"].clone();
    Quota::read(
        &json!({"metadata": {"name": "q"}, "spec": spec, "status": {"hard": hard, "used": used}}),
    )
}

#[test]
fn scopes_select_pods() {
    let plain = json!({"spec": {"containers": [{}]}});
    let deadline =
        json!({"spec": {"activeDeadlineSeconds": 5, "containers": [container("a", "1", "1")]}});
    let urgent = json!({"spec": {"priorityClassName": "high", "containers": [{}]}});
    let in_namespaces = json!({"spec": {"containers": [{}], "affinity": {"podAntiAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"podAffinityTerm": {"namespaces": ["x"], "topologyKey": "t"}}]}}}});
    let class = |operator: &str, values: &[&str]| {
        json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
    };
    for (mut spec, expected) in [
        (json!({"scopes": ["Terminating"]}), [false, true, false, false]),
        (json!({"scopes": ["NotTerminating", "BestEffort"]}), [true, false, true, true]),
        (json!({"scopes": ["NotBestEffort"]}), [false, true, false, false]),
        (json!({"scopes": ["CrossNamespacePodAffinity"]}), [false, false, false, true]),
        (class("In", &["high"]), [false, false, true, false]),
        (class("NotIn", &["high"]), [true, true, false, true]),
        (class("Exists", &[]), [false, false, true, false]),
        (class("DoesNotExist", &[]), [true, true, false, true]),
    ] {
        spec["hard"] = json!({"pods": "5", "secrets": "1"});
        let quota = quota(spec.clone(), json!({}));
        let found = [&plain, &deadline, &urgent, &in_namespaces]
            .map(|pod| !quota.count(PODS, pod, now()).is_empty());
        assert_eq!(found, expected, "{spec}");
        let secrets = Kind { group: "", plural: "secrets" };
        assert!(quota.count(secrets, &json!({}), now()).is_empty(), "only pods have these scopes");
    }
}

#[test]
fn refusals_are_told_as_kubernetes_tells_them() {
    let full =
        quota(json!({"hard": {"pods": "2", "cpu": "1"}}), json!({"pods": "2", "cpu": "500m"}));
    let pod = json!({"spec": {"containers": [container("a", "600m", "1Gi")]}});
    assert_eq!(
        full.charge(PODS, None, &pod, now()).unwrap_err().to_string(),
        "exceeded quota: q, requested: cpu=600m,pods=1, used: cpu=500m,pods=2, limited: cpu=1,pods=2"
    );
    let silent = json!({"spec": {"containers": [{"name": "b"}, {"name": "a"}]}});
    assert_eq!(
        full.charge(PODS, None, &silent, now()).unwrap_err().to_string(),
        "failed quota: q: must specify cpu for: a,b"
    );
    let uncounted =
        Quota::read(&json!({"metadata": {"name": "new"}, "spec": {"hard": {"pods": "1"}}}));
    assert_eq!(
        uncounted.charge(PODS, None, &silent, now()).unwrap_err().to_string(),
        "status unknown for quota: new, resources: pods"
    );
}

#[test]
fn updates_pay_the_difference() {
    let services = Kind { group: "", plural: "services" };
    let quota = quota(
        json!({"hard": {"services": "1", "services.nodeports": "3"}}),
        json!({"services": "1", "services.nodeports": "1"}),
    );
    let service =
        |ports: usize| json!({"spec": {"type": "NodePort", "ports": vec![json!({}); ports]}});
    let charge =
        |old: usize, new: usize| quota.charge(services, Some(&service(old)), &service(new), now());
    assert_eq!(charge(1, 1), Ok(None));
    assert_eq!(charge(2, 1), Ok(None), "a recount gives back");
    let paid = charge(1, 3).unwrap().unwrap();
    assert_eq!(paid.to_string(), "services=1,services.nodeports=3");
    assert!(charge(1, 4).is_err());
    let freed = quota.release(services, &service(1), now()).unwrap();
    assert_eq!(freed.to_string(), "services=0,services.nodeports=0");
}

fn pods() -> impl Strategy<Value = Vec<Value>> {
    let container = (0u32..2000, 0u32..64).prop_map(|(cpu, memory)| {
        json!({"name": "c", "resources": {"requests": {"cpu": format!("{cpu}m")},
            "limits": {"memory": format!("{memory}Mi")}}})
    });
    let pod = (prop::collection::vec(container.clone(), 1..3), prop::collection::vec(container, 0..3))
        .prop_map(|(containers, init)| {
            json!({"spec": {"containers": containers, "initContainers": init}})
        });
    prop::collection::vec(pod, 0..20)
}

proptest! {
    /// Whatever is admitted one by one is what a recount finds, and is within the limits; what
    /// goes leaves nothing behind.
    #[test]
    fn charging_and_recounting_agree(pods in pods()) {
        let hard = json!({"pods": "8", "requests.cpu": "9", "limits.memory": "300Mi", "count/pods": "9"});
        let mut stored = json!({"metadata": {"name": "q"}, "spec": {"hard": hard},
            "status": {"hard": hard, "used": Quota::read(&json!({"spec": {"hard": hard}}))
                .recounted(&Amounts::default()).to_value()}});
        let mut admitted = Vec::new();
        for pod in &pods {
            let quota = Quota::read(&stored);
            if let Ok(Some(used)) = quota.charge(PODS, None, pod, now()) {
                for name in used.names() {
                    prop_assert!(used.of(name) <= quota.wanted().of(name));
                }
                stored["status"]["used"] = used.to_value();
                admitted.push(pod);
            }
        }
        let quota = Quota::read(&stored);
        let mut counted = Amounts::default();
        admitted.iter().for_each(|pod| counted.add_all(&quota.count(PODS, pod, now())));
        prop_assert_eq!(&quota.recounted(&counted), quota.used());
        for pod in admitted {
            if let Some(used) = Quota::read(&stored).release(PODS, pod, now()) {
                stored["status"]["used"] = used.to_value();
            }
        }
        let left = Quota::read(&stored);
        prop_assert_eq!(left.used(), &left.recounted(&Amounts::default()));
    }
}
