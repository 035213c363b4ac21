//! Generated roles and bindings, and requests of every sort by everybody: the server's answers on its port
//! against an oracle that goes over all bindings for each request and keeps no index.

use http::Method;
use serde_json::{Value, json};

use crate::{cluster::Cluster, http::Http};

const RBAC: &str = "rbac.authorization.k8s.io";
const SEED: u64 = 20_261_127;
const CASES: usize = 1200;
const USERS: [&str; 4] = ["ann", "bob", "cy", "system:serviceaccount:a:bot"];
const GROUPS: [&str; 2] = ["red", "blue"];
const NAMESPACES: [&str; 3] = ["a", "b", "c"];
const NAMES: [&str; 2] = ["x", "y"];
/// Group, plural, whether it lies in namespaces, its path's beginning.
const RESOURCES: [(&str, &str, bool, &str); 5] = [
    ("", "configmaps", true, "/api/v1"),
    ("", "secrets", true, "/api/v1"),
    ("", "nodes", false, "/api/v1"),
    ("apps", "deployments", true, "/apis/apps/v1"),
    ("apps", "deployments/scale", true, "/apis/apps/v1"),
];

struct Grants {
    random: fastrand::Rng,
    /// (namespace or nothing, name, rules)
    roles: Vec<(&'static str, String, Vec<Value>)>,
    /// (namespace or nothing, namespace of the role or nothing, name of the role, subjects)
    bindings: Vec<(&'static str, &'static str, String, Vec<Value>)>,
}

impl Grants {
    fn some<T: Copy>(&mut self, of: &[T]) -> Vec<T> {
        (0..self.random.usize(1..3)).map(|_| of[self.random.usize(..of.len())]).collect()
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random.usize(..of.len())]
    }

    fn rule(&mut self) -> Value {
        let verbs = self.some(&[
            "get",
            "list",
            "watch",
            "create",
            "delete",
            "patch",
            "update",
            "deletecollection",
            "*",
        ]);
        let groups = self.some(&["", "apps", "*"]);
        let resources = self.some(&[
            "configmaps",
            "secrets",
            "nodes",
            "deployments",
            "deployments/scale",
            "*/scale",
            "*",
        ]);
        let mut rule = json!({"verbs": verbs, "apiGroups": groups, "resources": resources});
        if self.random.u8(..4) == 0 {
            rule["resourceNames"] = json!(self.some(&NAMES));
        }
        rule
    }

    fn subject(&mut self) -> Value {
        match self.random.u8(..3) {
            0 => json!({"kind": "User", "apiGroup": RBAC, "name": self.one(&USERS)}),
            1 => json!({"kind": "Group", "apiGroup": RBAC, "name": self.one(&GROUPS)}),
            _ => {
                json!({"kind": "ServiceAccount", "name": "bot", "namespace": self.one(&NAMESPACES)})
            }
        }
    }

    fn generate() -> Self {
        let random = fastrand::Rng::with_seed(SEED);
        let mut all = Self { random, roles: Vec::new(), bindings: Vec::new() };
        for namespace in ["", "a", "b", "c"] {
            for number in 0..4 {
                let rules = (0..all.random.usize(2..4)).map(|_| all.rule()).collect();
                all.roles.push((namespace, format!("r{number}"), rules));
            }
            for _ in 0..if namespace.is_empty() { 3 } else { 6 } {
                let role = format!("r{}", all.random.u8(..5));
                let from = if all.random.bool() { namespace } else { "" };
                let subjects = (0..all.random.usize(1..3)).map(|_| all.subject()).collect();
                all.bindings.push((namespace, from, role, subjects));
            }
        }
        all
    }

    /// Whether the oracle allows it.
    fn allow(&self, user: &str, groups: &[&str], case: &Case) -> bool {
        let has = |rule: &Value, field: &str, wanted: &[&str]| {
            rule[field]
                .as_array()
                .is_some_and(|list| list.iter().any(|item| wanted.iter().any(|one| item == one)))
        };
        self.bindings.iter().any(|(namespace, from, role, subjects)| {
            (namespace.is_empty() || *namespace == case.namespace)
                && subjects.iter().any(|subject| {
                    let name = subject["name"].as_str().unwrap();
                    match subject["kind"].as_str().unwrap() {
                        "User" => name == user,
                        "Group" => groups.contains(&name),
                        _ => {
                            let namespace = subject["namespace"].as_str().unwrap();
                            user == format!("system:serviceaccount:{namespace}:{name}")
                        }
                    }
                })
                && self.roles.iter().filter(|(at, name, _)| at == from && name == role).any(
                    |(.., rules)| {
                        rules.iter().any(|rule| {
                            let below = case
                                .resource
                                .split_once('/')
                                .map(|(_, below)| format!("*/{below}"));
                            let resources = ["*", case.resource, below.as_deref().unwrap_or("*")];
                            has(rule, "verbs", &["*", case.verb])
                                && has(rule, "apiGroups", &["*", case.group])
                                && has(rule, "resources", &resources)
                                && (rule["resourceNames"].is_null()
                                    || has(rule, "resourceNames", &[case.name]))
                        })
                    },
                )
        })
    }
}

#[derive(Debug)]
struct Case {
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    namespace: &'static str,
    name: &'static str,
    method: Method,
    path: String,
}

impl Case {
    fn generate(grants: &mut Grants) -> Self {
        let (group, resource, namespaced, base) = grants.one(&RESOURCES);
        let below = resource.contains('/');
        let verbs: &[(&'static str, Method, bool)] = &[
            ("get", Method::GET, true),
            ("patch", Method::PATCH, true),
            ("update", Method::PUT, true),
            ("delete", Method::DELETE, true),
            ("list", Method::GET, false),
            ("create", Method::POST, false),
            ("deletecollection", Method::DELETE, false),
        ];
        let (verb, method, named) =
            verbs[grants.random.usize(..if below { 3 } else { verbs.len() })].clone();
        let name = if named { grants.one(&NAMES) } else { "" };
        // Lists also go over all namespaces.
        let everywhere = verb == "list" && grants.random.u8(..3) == 0;
        let namespace = if namespaced && !everywhere { grants.one(&NAMESPACES) } else { "" };
        let place =
            if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
        let (plural, sub) =
            resource.split_once('/').map_or((resource, ""), |(plural, sub)| (plural, sub));
        let mut path = format!("{base}{place}/{plural}");
        for part in [name, sub].into_iter().filter(|part| !part.is_empty()) {
            path.push('/');
            path.push_str(part);
        }
        path.push_str(if method == Method::GET { "" } else { "?dryRun=All" });
        Self { verb, group, resource, namespace, name, method, path }
    }
}

async fn prepare(admin: &mut Http, grants: &Grants) {
    let base = format!("/apis/{RBAC}/v1");
    let place = |namespace: &str, plural: &str| match namespace {
        "" => format!("{base}/cluster{plural}"),
        namespace => format!("{base}/namespaces/{namespace}/{plural}"),
    };
    let mut objects = Vec::new();
    for namespace in NAMESPACES {
        objects.push(("/api/v1/namespaces".to_owned(), json!({"metadata": {"name": namespace}})));
    }
    let mark = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    for (namespace, name, rules) in &grants.roles {
        objects
            .push((place(namespace, "roles"), json!({"metadata": {"name": name}, "rules": rules})));
    }
    for namespace in ["", "a"] {
        objects.push((
            place(namespace, "roles"),
            json!({"metadata": {"name": "mark"}, "rules": mark}),
        ));
    }
    let reference = |from: &str, name: &str| {
        let kind = if from.is_empty() { "ClusterRole" } else { "Role" };
        json!({"apiGroup": RBAC, "kind": kind, "name": name})
    };
    for (number, (namespace, from, role, subjects)) in grants.bindings.iter().enumerate() {
        let object = json!({"metadata": {"name": format!("b{number}")},
            "roleRef": reference(from, role), "subjects": subjects});
        objects.push((place(namespace, "rolebindings"), object));
    }
    for (namespace, who) in [("", "all"), ("a", "some")] {
        let subjects = json!([{"kind": "User", "apiGroup": RBAC, "name": format!("mark-{who}")}]);
        let object = json!({"metadata": {"name": "mark"}, "roleRef": reference(namespace, "mark"),
            "subjects": subjects});
        objects.push((place(namespace, "rolebindings"), object));
    }
    for (path, object) in objects {
        let (code, said) = admin.post(&path, &object).await;
        assert_eq!(code, 201, "{path}: {said}");
    }
    // Each kind's changes arrive in order, so the last of each kind tells that all are there.
    for who in ["mark-all", "mark-some"] {
        let asked = json!({"namespace": "a", "verb": "get", "resource": "pods"});
        while !review(admin, who, &[], asked.clone()).await {}
    }
}

async fn review(admin: &mut Http, user: &str, groups: &[&str], attributes: Value) -> bool {
    let review =
        json!({"spec": {"user": user, "groups": groups, "resourceAttributes": attributes}});
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let (code, said) = admin.post(path, &review).await;
    assert_eq!(code, 201, "{said}");
    said["status"]["allowed"] == true
}

#[tokio::test]
async fn the_port_decides_as_brute_force_does() {
    let cluster = Cluster::start().await;
    let own = cluster.ca().issue_client("kubernetes-admin", &["system:masters"]).unwrap();
    let mut admin = Http::connect(&cluster, Some(&own)).await;
    let mut grants = Grants::generate();
    prepare(&mut admin, &grants).await;
    let mut allowed = 0;
    for number in 0..CASES {
        let user = grants.one(&USERS);
        let groups = if grants.random.bool() { vec![grants.one(&GROUPS)] } else { Vec::new() };
        let case = Case::generate(&mut grants);
        let expected = grants.allow(user, &groups, &case);
        allowed += usize::from(expected);
        let mut headers = vec![("impersonate-user", user)];
        headers.extend(groups.iter().map(|group| ("impersonate-group", *group)));
        if case.method == Method::PATCH {
            headers.push(("content-type", "application/merge-patch+json"));
        }
        let body = if case.method == Method::GET { Value::Null } else { json!({}) };
        let (code, said) = admin.ask(&case.method, &case.path, &headers, &body).await;
        let about = format!("seed {SEED} case {number}: {user} {groups:?} {case:?}: {code} {said}");
        assert_eq!(code != 403, expected, "{about}");
        assert!(code < 500 && code != 401, "{about}");
        let (plural, below) = case.resource.split_once('/').unwrap_or((case.resource, ""));
        let attributes = json!({"verb": case.verb, "group": case.group, "resource": plural,
            "subresource": below, "namespace": case.namespace, "name": case.name});
        assert_eq!(review(&mut admin, user, &groups, attributes).await, expected, "{about}");
    }
    // Both answers must be common, or the comparison proves little.
    assert!((CASES / 8..CASES * 7 / 8).contains(&allowed), "{allowed} of {CASES}");
    cluster.stop().await;
}
