//! When rules cover others: Kubernetes' examples, and what must hold for any rules.

use k8s_openapi::api::rbac::v1::PolicyRule;
use proptest::prelude::*;
use serde_json::{Value, json};
use toono_access::{MAX_COMBINATIONS, covers, uncovered};

use crate::{asks, binding, cluster_role, rules_of, user, visits};

fn rules(json: Value) -> Vec<PolicyRule> {
    serde_json::from_value(json).unwrap()
}

#[test]
fn covering_by_example() {
    let on = |groups: &[&str], resources: &[&str], verbs: &[&str]| json!({"apiGroups": groups, "resources": resources, "verbs": verbs});
    let names = |names: &[&str]| json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceNames": names});
    let urls = |urls: &[&str]| json!({"nonResourceURLs": urls, "verbs": ["get"]});
    for (owner, servant, covered) in [
        (
            json!([on(&["v1"], &["builds"], &["get"])]),
            json!([on(&["v1"], &["builds"], &["get"])]),
            true,
        ),
        (json!([on(&["*"], &["*"], &["*"])]), json!([on(&["v1"], &["a", "b/c"], &["*"])]), true),
        (
            json!([on(&["v1"], &["a", "b"], &["get"])]),
            json!([on(&["v1"], &["*"], &["get"])]),
            false,
        ),
        // By several rules together.
        (
            json!([
                on(&["v1"], &["a"], &["get"]),
                on(&["v1"], &["a"], &["list"]),
                on(&["v1"], &["b"], &["get", "list"])
            ]),
            json!([on(&["v1"], &["a", "b"], &["get", "list"])]),
            true,
        ),
        (
            json!([on(&["v1"], &["*/scale"], &["get"])]),
            json!([on(&["v1"], &["a/scale"], &["get"])]),
            true,
        ),
        (
            json!([on(&["v1"], &["a/scale"], &["get"])]),
            json!([on(&["v1"], &["*/scale"], &["get"])]),
            false,
        ),
        (
            json!([on(&["v1"], &["a"], &["get"])]),
            json!([on(&["v1"], &["a/scale"], &["get"])]),
            false,
        ),
        (
            json!([on(&["v1"], &["a/*"], &["get"])]),
            json!([on(&["v1"], &["a/scale"], &["get"])]),
            false,
        ),
        (json!([names(&["x"])]), json!([names(&["x"])]), true),
        (json!([names(&["x"])]), json!([names(&["x", "y"])]), false),
        (json!([names(&["x"]), names(&["y"])]), json!([names(&["x", "y"])]), true),
        (json!([names(&["x"])]), json!([on(&[""], &["pods"], &["get"])]), false),
        (json!([on(&[""], &["pods"], &["get"])]), json!([names(&["x"])]), true),
        (json!([urls(&["/apis", "/apis/*"])]), json!([urls(&["/apis/v1", "/apis/*"])]), true),
        (json!([urls(&["/apis/*"])]), json!([urls(&["/apis"])]), false),
        (json!([urls(&["/apis/v1"])]), json!([urls(&["/apis/*"])]), false),
        (json!([urls(&["*"])]), json!([urls(&["*"])]), true),
        (json!([]), json!([]), true),
        (json!([]), json!([urls(&["/x"])]), false),
        // Grants nothing, so needs nothing.
        (json!([]), json!([on(&["v1"], &["a"], &[])]), true),
    ] {
        assert_eq!(
            covers(&rules(owner.clone()), &rules(servant.clone())),
            covered,
            "{owner} {servant}"
        );
    }
}

#[test]
fn rules_that_cannot_be_compared_are_not_covered() {
    let many: Vec<String> = (0..200).map(|number| format!("x{number}")).collect();
    let wide = rules(
        json!([{"apiGroups": many, "resources": many, "verbs": many, "resourceNames": many}]),
    );
    let error = uncovered(&wide, &wide).unwrap_err();
    assert_eq!(error.found, 200_usize.pow(4));
    assert!(error.to_string().contains(&MAX_COMBINATIONS.to_string()));
    assert!(!covers(&wide, &wide));
}

fn choice(of: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::sample::select(of).prop_map(str::to_owned), 1..3)
}

fn any_rule() -> impl Strategy<Value = PolicyRule> {
    let verbs = || choice(&["get", "list", "*"]);
    let names = prop::option::weighted(0.3, choice(&["a", "b"]));
    let resource = (
        choice(&["", "apps", "*"]),
        choice(&["pods", "nodes", "pods/log", "*/log", "pods/*", "*"]),
        names,
        verbs(),
    )
        .prop_map(|(groups, resources, resource_names, verbs)| PolicyRule {
            api_groups: Some(groups),
            resources: Some(resources),
            resource_names,
            verbs,
            ..PolicyRule::default()
        });
    let url = (choice(&["/a", "/a/*", "/a/b", "/a*", "*"]), verbs()).prop_map(|(urls, verbs)| {
        PolicyRule { non_resource_urls: Some(urls), verbs, ..PolicyRule::default() }
    });
    prop_oneof![3 => resource, 1 => url]
}

fn any_rules() -> impl Strategy<Value = Vec<PolicyRule>> {
    prop::collection::vec(any_rule(), 0..4)
}

/// Every request of a small world that the rules allow, by number.
fn allowed(rules: &[PolicyRule]) -> Vec<bool> {
    let objects = [
        cluster_role("r", serde_json::to_value(rules).unwrap()),
        binding("", "b", "ClusterRole/r", &["User/u"]),
    ];
    let (index, who) = (rules_of(&objects), user("u", &[]));
    let mut answers = Vec::new();
    for verb in ["get", "list", "delete"] {
        for what in
            ["pods", "nodes", "pods/log", "nodes/log", "pods.apps", "pods.apps/log", "nodes.x"]
        {
            for name in ["a", "b", "c", ""] {
                answers.push(index.decide(&asks(&who, verb, what, "", name)).is_allowed());
            }
        }
        for path in ["/a", "/a/b", "/a/c", "/ab", "/"] {
            answers.push(index.decide(&visits(&who, verb, path)).is_allowed());
        }
    }
    answers
}

proptest! {
    #[test]
    fn who_covers_may_do_all_that_the_covered_may(owner in any_rules(), servant in any_rules()) {
        if covers(&owner, &servant) {
            for (owner, servant) in allowed(&owner).into_iter().zip(allowed(&servant)) {
                prop_assert!(owner || !servant);
            }
        }
    }

    #[test]
    fn rules_cover_themselves_and_their_parts(mut rules in any_rules(), more in any_rules()) {
        prop_assert!(covers(&rules, &rules));
        prop_assert!(covers(&rules, &[]));
        rules.extend(more.clone());
        prop_assert!(covers(&rules, &more));
    }

    #[test]
    fn what_is_missing_is_all_that_is_missing(owner in any_rules(), servant in any_rules()) {
        let missing = uncovered(&owner, &servant).unwrap();
        prop_assert_eq!(missing.is_empty(), covers(&owner, &servant));
        for rule in &missing {
            prop_assert!(!covers(&owner, std::slice::from_ref(rule)));
            prop_assert!(covers(&servant, std::slice::from_ref(rule)));
        }
        let mut enough = owner;
        enough.extend(missing);
        prop_assert!(covers(&enough, &servant));
    }

    #[test]
    fn covering_is_transitive(a in any_rules(), b in any_rules(), c in any_rules()) {
        // Random rules rarely cover one another, so the larger ones contain the smaller ones' rules.
        let b = [b, c.clone()].concat();
        let a = [a, uncovered(&[], &b).unwrap()].concat();
        prop_assert!(covers(&a, &b) && covers(&b, &c));
        prop_assert!(covers(&a, &c));
    }
}
