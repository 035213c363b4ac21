//! Generated clusters and requests, decided a second time by brute force.
//!
//! The oracle keeps no index: for each request it goes over all bindings, finds the role by going over all
//! roles, writes every rule out as a list of sentences, and looks for one that the request says.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use toono_access::{Attributes, Grant, Kind, Rules, permits};
use toono_api::UserInfo;

use crate::{asks, object, user, visits};

const USERS: [&str; 4] = ["jane", "joe", "system:serviceaccount:shop:bot", "system:anonymous"];
const GROUPS: [&str; 3] = ["clerks", "keepers", "system:authenticated"];
const NAMESPACES: [&str; 3] = ["shop", "depot", "ops"];
const ROLES: [&str; 4] = ["r1", "r2", "r3", "r4"];
const VERBS: [&str; 4] = ["get", "list", "delete", "bind"];
const API_GROUPS: [&str; 3] = ["", "apps", "batch"];
const RESOURCES: [&str; 4] = ["pods", "secrets", "pods/log", "nodes"];
const NAMES: [&str; 3] = ["a", "b", ""];
const URLS: [&str; 4] = ["/healthz", "/healthz/x", "/apis/apps", "/"];

type Objects = BTreeMap<(usize, String, String), Value>;

struct Generator(fastrand::Rng);

impl Generator {
    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.0.usize(..of.len())]
    }

    fn some(&mut self, of: &[&str]) -> Vec<String> {
        (0..self.0.usize(1..4)).map(|_| self.one(of).to_owned()).collect()
    }

    fn rule(&mut self) -> Value {
        let verbs = self.some(&["get", "list", "delete", "bind", "*"]);
        if self.0.u8(..4) == 0 {
            return json!({"verbs": verbs, "nonResourceURLs":
                self.some(&["/healthz", "/healthz/*", "/apis*", "*", "/"])});
        }
        let mut rule = json!({"verbs": verbs, "apiGroups": self.some(&["", "apps", "batch", "*"]),
            "resources": self.some(&["pods", "secrets", "*/log", "pods/log", "pods/*", "nodes", "*"])});
        if self.0.u8(..3) == 0 {
            rule["resourceNames"] = json!(self.some(&["a", "b"]));
        }
        rule
    }

    fn subject(&mut self) -> Value {
        match self.0.u8(..4) {
            0 => json!({"kind": "User", "name": self.one(&USERS)}),
            1 => json!({"kind": "Group", "name": self.one(&GROUPS)}),
            2 => json!({"kind": "ServiceAccount", "name": "bot"}),
            _ => {
                json!({"kind": "ServiceAccount", "name": "bot", "namespace": self.one(&NAMESPACES)})
            }
        }
    }

    /// An object at its place. There are few places, so that objects replace one another.
    fn object(&mut self) -> ((usize, String, String), Value) {
        let kind = self.0.usize(..4);
        let namespaced = Kind::ALL[kind].is_namespaced();
        let namespace = if namespaced { self.one(&NAMESPACES) } else { "" };
        let name = self.one(&ROLES);
        let mut object = json!({"metadata": {"name": name}});
        if namespaced {
            object["metadata"]["namespace"] = json!(namespace);
        }
        if kind < 2 {
            object["rules"] = (0..self.0.usize(1..4)).map(|_| self.rule()).collect();
        } else {
            let role_kind = self.one(&["Role", "ClusterRole", "ClusterRole"]);
            object["roleRef"] =
                json!({"apiGroup": crate::RBAC, "kind": role_kind, "name": self.one(&ROLES)});
            object["subjects"] = (0..self.0.usize(1..5)).map(|_| self.subject()).collect();
        }
        ((kind, namespace.to_owned(), name.to_owned()), object)
    }
}

/// What a request says: `verb group resource name`, or `verb path`.
enum Sentence<'a> {
    Resource([&'a str; 4]),
    Path([&'a str; 2]),
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Whether some combination of the rule's words is the sentence.
fn rule_says(rule: &Value, sentence: &Sentence<'_>) -> bool {
    let names = match words(&rule["resourceNames"]) {
        names if names.is_empty() => vec![None],
        names => names.into_iter().map(Some).collect(),
    };
    for verb in words(&rule["verbs"]) {
        let verb_fits = |said: &str| ["*", said].contains(&verb);
        match sentence {
            Sentence::Path([said, path]) => {
                for url in words(&rule["nonResourceURLs"]) {
                    let fits = match url.split_once('*') {
                        Some((start, _)) => path.strip_prefix(start).is_some(),
                        None => *path == url,
                    };
                    if verb_fits(said) && fits {
                        return true;
                    }
                }
            }
            Sentence::Resource([said, group, resource, name]) => {
                let wild = resource.split('/').nth(1).map(|below| ["*", below].join("/"));
                for rule_group in words(&rule["apiGroups"]) {
                    for rule_resource in words(&rule["resources"]) {
                        for rule_name in &names {
                            let fits = verb_fits(said)
                                && (rule_group == "*" || rule_group == *group)
                                && (rule_resource == "*"
                                    || rule_resource == *resource
                                    || Some(rule_resource) == wild.as_deref())
                                && rule_name.is_none_or(|rule_name| rule_name == *name);
                            if fits {
                                return true;
                            }
                        }
                    }
                }
            }
        }
    }
    false
}

fn is_subject(subject: &Value, binding_namespace: &str, user: &UserInfo) -> bool {
    let name = subject["name"].as_str().unwrap();
    match subject["kind"].as_str().unwrap() {
        "User" => *user.name == *name,
        "Group" => user.groups.iter().any(|group| group == name),
        _ => {
            let namespace = subject["namespace"].as_str().unwrap_or(binding_namespace);
            let parts: Vec<&str> = user.name.split(':').collect();
            !namespace.is_empty() && parts == ["system", "serviceaccount", namespace, name]
        }
    }
}

fn oracle(objects: &Objects, user: &UserInfo, namespace: &str, sentence: &Sentence<'_>) -> bool {
    objects.iter().filter(|((kind, ..), _)| *kind >= 2).any(|((_, at, _), binding)| {
        let counts = at.is_empty() || (at == namespace);
        let subjects = binding["subjects"].as_array().unwrap();
        let role = &binding["roleRef"];
        let of_cluster = role["kind"] == "ClusterRole";
        counts
            && subjects.iter().any(|subject| is_subject(subject, at, user))
            && objects.iter().any(|((kind, role_namespace, name), object)| {
                *kind == usize::from(of_cluster)
                    && (of_cluster || role_namespace == at)
                    && role["name"] == **name
                    && object["rules"].as_array().unwrap().iter().any(|r| rule_says(r, sentence))
            })
    })
}

#[test]
fn the_index_decides_as_brute_force_does() {
    let (mut cases, mut allowed_cases) = (0, 0);
    for seed in 0..60 {
        let mut generator = Generator(fastrand::Rng::with_seed(seed));
        let (mut rules, mut objects) = (Rules::default(), Objects::new());
        for round in 0..4 {
            for _ in 0..25 {
                let (place, json) = generator.object();
                if generator.0.u8(..4) == 0 {
                    rules.remove(Kind::ALL[place.0], &place.1, &place.2);
                    objects.remove(&place);
                } else {
                    rules.apply(&object(Kind::ALL[place.0], json.clone()));
                    objects.insert(place, json);
                }
            }
            for case in 0..50 {
                let who = generator.one(&USERS);
                let groups = generator.some(&GROUPS);
                let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
                let who = user(who, &groups);
                let verb = generator.one(&VERBS);
                let (decision, expected) = if generator.0.u8(..5) == 0 {
                    let path = generator.one(&URLS);
                    let said = Sentence::Path([verb, path]);
                    let attributes = visits(&who, verb, path);
                    if case % 8 == 0 {
                        travels(&rules, &attributes);
                    }
                    (rules.decide(&attributes), oracle(&objects, &who, "", &said))
                } else {
                    let (group, what) = (generator.one(&API_GROUPS), generator.one(&RESOURCES));
                    let namespace = generator.one(&["", "shop", "depot", "ops"]);
                    let name = generator.one(&NAMES);
                    let said = Sentence::Resource([verb, group, what, name]);
                    let (plural, below) = what.split_once('/').unwrap_or((what, ""));
                    let full = match (group, below) {
                        ("", _) => what.to_owned(),
                        (group, "") => format!("{plural}.{group}"),
                        (group, below) => format!("{plural}.{group}/{below}"),
                    };
                    let attributes = asks(&who, verb, &full, namespace, name);
                    if case % 8 == 0 {
                        travels(&rules, &attributes);
                    }
                    let decision = rules.decide(&attributes);
                    (decision, oracle(&objects, &who, namespace, &said))
                };
                assert_eq!(
                    decision.is_allowed(),
                    expected,
                    "seed {seed} round {round} case {case}: {} {verb}: {}",
                    who.name,
                    decision.reason()
                );
                cases += 1;
                allowed_cases += usize::from(expected);
            }
        }
        for (kind, namespace, name) in objects.into_keys() {
            rules.remove(Kind::ALL[kind], &namespace, &name);
        }
        assert!(rules.is_empty(), "seed {seed}: removal left something behind");
    }
    // The generator must make both answers common, or the comparison proves little.
    assert!(
        cases >= 10_000 && (cases / 10..cases * 9 / 10).contains(&allowed_cases),
        "{allowed_cases}"
    );
}

/// What a user may read is the same where only the grants are.
fn travels(rules: &Rules, attributes: &Attributes<'_>) {
    let text = serde_json::to_string(&rules.readable(attributes.user)).unwrap();
    let grants: Vec<Grant> = serde_json::from_str(&text).unwrap();
    let reads = matches!(attributes.verb, "get" | "list" | "watch");
    let expected = reads && rules.decide(attributes).is_allowed();
    assert_eq!(permits(&grants, attributes), expected, "{attributes:?}: {text}");
}
