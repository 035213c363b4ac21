//! Roles, bindings and what they let people do, as kubectl shows it.

use http::Method;
use serde_json::{Value, json};

use crate::{cluster::Cluster, http::Http};

const KUBECTL: &str = "kubectl";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// A cluster with the namespace `shop`, where `jane` is an admin and the group `clerks` views.
async fn shop() -> Cluster {
    let cluster = Cluster::start().await;
    cluster.kubectl(KUBECTL, &["create", "namespace", "shop"]).await;
    for (name, role, subject) in
        [("jane", "admin", "--user=jane"), ("clerks", "view", "--group=clerks")]
    {
        let role = format!("--clusterrole={role}");
        cluster
            .kubectl(KUBECTL, &["create", "rolebinding", name, &role, subject, "-n", "shop"])
            .await;
    }
    for who in [&["--as=jane"][..], &["--as=joe", "--as-group=clerks"]] {
        let ask = [&["auth", "can-i", "list", "pods", "-n", "shop"], who].concat();
        cluster.until(KUBECTL, &ask, "yes").await;
    }
    cluster
}

#[tokio::test]
async fn the_default_roles_are_there_from_the_first_start() {
    let cluster = Cluster::start().await;
    let roles = cluster.kubectl(KUBECTL, &["get", "clusterroles", "-o", "name"]).await;
    for name in ["cluster-admin", "admin", "edit", "view", "system:node", "system:discovery"] {
        let line = format!("clusterrole.rbac.authorization.k8s.io/{name}");
        assert!(roles.lines().any(|role| role == line), "{name} in\n{roles}");
    }
    let view = cluster.kubectl(KUBECTL, &["get", "clusterrole", "view", "-o", "json"]).await;
    let view: Value = serde_json::from_str(&view).unwrap();
    assert!(view["rules"].as_array().unwrap().len() > 5, "{view}");
    assert_eq!(view["metadata"]["labels"]["kubernetes.io/bootstrapping"], "rbac-defaults");
    assert!(
        view["metadata"]["uid"].is_string() && view["metadata"]["creationTimestamp"].is_string()
    );
    cluster.stop().await;
}

#[tokio::test]
async fn people_do_what_their_roles_say_and_no_more() {
    let cluster = shop().await;
    let jane = ["--as=jane", "-n", "shop"];
    for (verb, what, answer) in [
        ("create", "deployments", "yes"),
        ("delete", "secrets", "yes"),
        ("create", "roles", "yes"),
        ("create", "resourcequotas", "no"),
        ("get", "nodes", "no"),
    ] {
        let asked = cluster
            .run(KUBECTL, "admin.kubeconfig", &[&["auth", "can-i", verb, what], &jane[..]].concat())
            .await;
        let said = String::from_utf8_lossy(&asked.stdout).into_owned();
        assert_eq!(said.trim(), answer, "{verb} {what}");
    }
    let list = cluster
        .kubectl(
            KUBECTL,
            &["auth", "can-i", "--list", "--as=joe", "--as-group=clerks", "-n", "shop"],
        )
        .await;
    let row = |resource: &str| {
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(resource));
        line.expect(resource).to_owned()
    };
    assert!(row("configmaps").contains("[get list watch]"), "{list}");
    assert!(row("selfsubjectaccessreviews.authorization.k8s.io").contains("[create]"), "{list}");
    assert!(list.contains("[/healthz]") && !list.contains("secrets"), "{list}");
    let clerk = ["--as=joe", "--as-group=clerks", "-n", "shop"];
    cluster.kubectl(KUBECTL, &[&["get", "configmaps", "-o", "name"], &clerk[..]].concat()).await;
    let said = cluster.kubectl_fails(KUBECTL, &[&["get", "secrets"], &clerk[..]].concat()).await;
    assert!(said.contains("secrets is forbidden: User \"joe\" cannot list resource \"secrets\" in API group \"\" in the namespace \"shop\""), "{said}");
    let said = cluster
        .kubectl_fails(KUBECTL, &["get", "configmaps", "--as=joe", "--as-group=clerks"])
        .await;
    assert!(said.contains("in the namespace \"default\""), "{said}");
    cluster.stop().await;
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_hold() {
    let cluster = shop().await;
    let mine = ["--as=jane", "-n", "shop"];
    let run = |args: &[&'static str]| [args, &mine[..]].concat();
    let make = ["create", "role", "reader", "--verb=get", "--resource=pods"];
    cluster.kubectl(KUBECTL, &run(&make)).await;
    let make = ["create", "role", "breaker", "--verb=get,delete", "--resource=nodes"];
    let said = cluster.kubectl_fails(KUBECTL, &run(&make)).await;
    assert!(said.contains("roles.rbac.authorization.k8s.io \"breaker\" is forbidden: user \"jane\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\" \"delete\"]}"), "{said}");
    let bind = ["create", "rolebinding", "all", "--clusterrole=cluster-admin", "--user=jane"];
    let said = cluster.kubectl_fails(KUBECTL, &run(&bind)).await;
    assert!(
        said.contains("rolebindings.rbac.authorization.k8s.io \"all\" is forbidden: user \"jane\""),
        "{said}"
    );
    let bind = ["create", "rolebinding", "view", "--clusterrole=view", "--user=kim"];
    cluster.kubectl(KUBECTL, &run(&bind)).await;
    let bind = ["create", "rolebinding", "gone", "--role=gone", "--user=kim"];
    let said = cluster.kubectl_fails(KUBECTL, &run(&bind)).await;
    assert!(said.contains("\"gone\" not found"), "{said}");
    // The verb `bind` is the way to let somebody give what they do not hold.
    let rule = [
        "create",
        "clusterrole",
        "binder",
        "--verb=bind",
        "--resource=clusterroles",
        "--resource-name=cluster-admin",
    ];
    cluster.kubectl(KUBECTL, &rule).await;
    cluster
        .kubectl(
            KUBECTL,
            &["create", "clusterrolebinding", "binder", "--clusterrole=binder", "--user=jane"],
        )
        .await;
    cluster
        .until(
            KUBECTL,
            &["auth", "can-i", "bind", "clusterroles/cluster-admin", "--as=jane"],
            "yes",
        )
        .await;
    let bind = ["create", "rolebinding", "all", "--clusterrole=cluster-admin", "--user=jane"];
    cluster.kubectl(KUBECTL, &run(&bind)).await;
    cluster.stop().await;
}

#[tokio::test]
async fn whoami_tells_who_is_acted_as() {
    let cluster = Cluster::start().await;
    let own = cluster.ca().issue_client("kubernetes-admin", &["system:masters"]).unwrap();
    let mut admin = Http::connect(&cluster, Some(&own)).await;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let headers = [
        ("impersonate-user", "jane"),
        ("impersonate-group", "clerks"),
        ("impersonate-uid", "7"),
        ("impersonate-extra-acme.com%2fteam", "blue"),
    ];
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let (code, said) = admin.ask(&Method::POST, path, &headers, &body).await;
    assert_eq!(code, 201, "{said}");
    assert_eq!(
        said["status"]["userInfo"],
        json!({"username": "jane", "uid": "7", "groups": ["clerks", "system:authenticated"],
            "extra": {"acme.com/team": ["blue"]}})
    );
    let (code, said) = admin.ask(&Method::POST, path, &headers[1..], &body).await;
    assert_eq!(code, 400, "{said}");
    let whoami = ["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"];
    assert_eq!(cluster.kubectl(KUBECTL, &whoami).await, "kubernetes-admin");
    cluster.stop().await;
}

#[tokio::test]
async fn impersonation_needs_permission_for_each_part() {
    let cluster = shop().await;
    let make = [
        "create",
        "clusterrole",
        "actor",
        "--verb=impersonate",
        "--resource=users",
        "--resource-name=jane",
    ];
    cluster.kubectl(KUBECTL, &make).await;
    cluster
        .kubectl(
            KUBECTL,
            &["create", "clusterrolebinding", "actor", "--clusterrole=actor", "--user=kim"],
        )
        .await;
    cluster
        .until(KUBECTL, &["auth", "can-i", "impersonate", "users/jane", "--as=kim"], "yes")
        .await;
    let kim = cluster.ca().issue_client("kim", &[]).unwrap();
    cluster.write_kubeconfig("kim", Some(&kim), None);
    let ask = async |args: &[&str]| {
        let output = cluster.run(KUBECTL, "kim.kubeconfig", args).await;
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (works, said) = ask(&["get", "pods", "-n", "shop", "--as=jane"]).await;
    assert!(works, "{said}");
    for (args, what) in [
        (&["get", "pods", "--as=joe"][..], "users \"joe\" is forbidden"),
        (
            &["get", "pods", "--as=jane", "--as-group=system:masters"],
            "groups \"system:masters\" is forbidden",
        ),
        (
            &["get", "pods", "--as=jane", "--as-uid=1"],
            "uids.authentication.k8s.io \"1\" is forbidden",
        ),
        (
            &["get", "pods", "--as=system:serviceaccount:shop:bot"],
            "serviceaccounts \"bot\" is forbidden",
        ),
    ] {
        let (works, said) = ask(args).await;
        assert!(!works && said.contains(what), "{args:?}: {said}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_review_answers_for_others() {
    let cluster = shop().await;
    let own = cluster.ca().issue_client("kubernetes-admin", &["system:masters"]).unwrap();
    let mut admin = Http::connect(&cluster, Some(&own)).await;
    let base = "/apis/authorization.k8s.io/v1";
    let pods = json!({"namespace": "shop", "verb": "list", "resource": "pods"});
    let nodes = json!({"verb": "list", "resource": "nodes"});
    let metrics = json!({"path": "/metrics", "verb": "get"});
    for (spec, allowed) in [
        (json!({"user": "jane", "resourceAttributes": pods}), true),
        (json!({"user": "joe", "resourceAttributes": pods}), false),
        (json!({"user": "joe", "groups": ["clerks"], "resourceAttributes": pods}), true),
        (json!({"groups": ["system:masters"], "resourceAttributes": nodes}), true),
        (json!({"user": "jane", "resourceAttributes": nodes}), false),
        (json!({"user": "jane", "nonResourceAttributes": metrics}), false),
        (
            json!({"user": "m", "groups": ["system:monitoring"], "nonResourceAttributes": metrics}),
            true,
        ),
    ] {
        let review = json!({"spec": spec});
        let (code, said) = admin.post(&format!("{base}/subjectaccessreviews"), &review).await;
        assert_eq!((code, &said["status"]["allowed"]), (201, &json!(allowed)), "{said}");
        if allowed && spec["user"] == "jane" {
            let reason = "RBAC: allowed by RoleBinding \"jane/shop\" of ClusterRole \"admin\" to User \"jane\"";
            assert_eq!(said["status"]["reason"], reason);
        }
    }
    let local = format!("{base}/namespaces/shop/localsubjectaccessreviews");
    let (code, said) =
        admin.post(&local, &json!({"spec": {"user": "jane", "resourceAttributes": pods}})).await;
    assert_eq!((code, &said["status"]["allowed"]), (201, &json!(true)), "{said}");
    let elsewhere = json!({"namespace": "default", "verb": "list", "resource": "pods"});
    for (path, spec, words) in [
        (
            &local,
            json!({"user": "jane", "resourceAttributes": elsewhere}),
            "must match metadata.namespace",
        ),
        (
            &local,
            json!({"user": "jane", "nonResourceAttributes": metrics}),
            "disallowed on this kind of request",
        ),
        (
            &format!("{base}/subjectaccessreviews"),
            json!({"resourceAttributes": pods}),
            "at least one of user or group must be specified",
        ),
        (
            &format!("{base}/subjectaccessreviews"),
            json!({"user": "a"}),
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        (
            &format!("{base}/selfsubjectaccessreviews"),
            json!({"resourceAttributes": pods, "nonResourceAttributes": metrics}),
            "cannot be specified in combination with resourceAttributes",
        ),
        (&format!("{base}/selfsubjectrulesreviews"), json!({}), "no namespace on request"),
    ] {
        let (code, said) = admin.post(path, &json!({"spec": spec})).await;
        assert!(matches!(code, 400 | 422), "{code} {said}");
        assert!(said["message"].as_str().unwrap().contains(words), "{said}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn certificates_are_approved_by_whom_their_signer_trusts() {
    let cluster = Cluster::start().await;
    let own = cluster.ca().issue_client("kubernetes-admin", &["system:masters"]).unwrap();
    let mut admin = Http::connect(&cluster, Some(&own)).await;
    let request = toono_pki::NodeKey::generate("edge-1").unwrap().csr_pem;
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &request);
    let csr = |name: &str| {
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": {"request": encoded, "signerName": "acme.com/devices", "username": "liar",
                "usages": ["client auth"]}})
    };
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let as_jane = [("impersonate-user", "jane"), ("impersonate-group", "system:masters")];
    let (code, made) = admin.ask(&Method::POST, path, &as_jane, &csr("one")).await;
    assert_eq!((code, &made["spec"]["username"]), (201, &json!("jane")), "{made}");
    cluster.kubectl(KUBECTL, &["certificate", "approve", "one"]).await;
    let shown = cluster.kubectl(KUBECTL, &["get", "csr", "one", "--no-headers"]).await;
    assert!(shown.contains("jane") && shown.contains("Approved"), "{shown}");
    // Who may write the subresource still needs the signer's trust.
    let (code, _) = admin.post(path, &csr("two")).await;
    assert_eq!(code, 201);
    let rules = json!([{"apiGroups": ["certificates.k8s.io"], "verbs": ["get", "list", "update"],
        "resources": ["certificatesigningrequests", "certificatesigningrequests/approval"]}]);
    let approver = json!({"metadata": {"name": "approver"}, "rules": rules});
    admin.post(&format!("{RBAC}/clusterroles"), &approver).await;
    let bind = ["create", "clusterrolebinding", "kim", "--clusterrole=approver", "--user=kim"];
    cluster.kubectl(KUBECTL, &bind).await;
    let approve = ["certificate", "approve", "two", "--as=kim"];
    cluster
        .until(KUBECTL, &["auth", "can-i", "list", "certificatesigningrequests", "--as=kim"], "yes")
        .await;
    let said = cluster.kubectl_fails(KUBECTL, &approve).await;
    assert!(said.contains("certificatesigningrequests.certificates.k8s.io \"two\" is forbidden: user not permitted to approve requests with signerName \"acme.com/devices\""), "{said}");
    let rule = json!([{"apiGroups": ["certificates.k8s.io"], "verbs": ["approve"],
        "resources": ["signers"], "resourceNames": ["acme.com/*"]}]);
    admin
        .post(
            &format!("{RBAC}/clusterroles"),
            &json!({"metadata": {"name": "trusted"}, "rules": rule}),
        )
        .await;
    cluster
        .kubectl(
            KUBECTL,
            &["create", "clusterrolebinding", "t", "--clusterrole=trusted", "--user=kim"],
        )
        .await;
    // kubectl can-i knows only kinds that are served, and signers are none.
    let asked = json!({"spec": {"user": "kim", "resourceAttributes": {"verb": "approve",
        "group": "certificates.k8s.io", "resource": "signers", "name": "acme.com/*"}}});
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    while admin.post(path, &asked).await.1["status"]["allowed"] != true {}
    cluster.kubectl(KUBECTL, &approve).await;
    cluster.stop().await;
}

#[tokio::test]
async fn what_nodes_run_from_files_is_offered_by_who_may_write_such_sets() {
    let cluster = shop().await;
    let own = cluster.ca().issue_client("root", &["system:masters"]).unwrap();
    let mut http = Http::connect(&cluster, Some(&own)).await;
    let mirror = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-n1",
            "annotations": {"kubernetes.io/config.mirror": "0"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    let made = http.post("/api/v1/namespaces/shop/pods", &mirror).await;
    assert_eq!(made.0, 201, "{made:?}");
    let offer = "apps.openyurt.io/pod-upgrade={\"revision\":\"r\",\"manifest\":\"kind: Pod\"}";
    let annotate = ["annotate", "pod", "web-n1", "-n", "shop", "--overwrite"];
    let jane = [&annotate[..], &[offer, "--as=jane"]].concat();
    let said = cluster.kubectl_fails(KUBECTL, &jane).await;
    assert!(said.contains("\"update\" on yurtstaticsets.apps.openyurt.io"), "{said}");
    let other = [&annotate[..], &["team=shoes", "--as=jane"]].concat();
    cluster.kubectl(KUBECTL, &other).await;
    cluster.kubectl(KUBECTL, &[&annotate[..], &[offer]].concat()).await;
    // Whoever may not offer may still say yes to what is offered.
    let approve = [&annotate[..], &["apps.openyurt.io/upgrade-approved=r", "--as=jane"]].concat();
    cluster.kubectl(KUBECTL, &approve).await;
    cluster.stop().await;
}
