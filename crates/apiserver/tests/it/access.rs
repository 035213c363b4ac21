//! Who gets in, and how far.

use serde_json::json;

use crate::cluster::Cluster;

const KUBECTL: &str = "kubectl";

#[tokio::test]
async fn nodes_reach_their_own_paths_only() {
    let cluster = Cluster::start().await;
    let node = cluster.ca().issue_client("system:node:a", &["system:nodes"]).unwrap();
    cluster.write_kubeconfig("node", Some(&node), None);
    let output = cluster.run(KUBECTL, "node.kubeconfig", &["get", "--raw", "/api/v1/nodes"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("nodes is forbidden: User \"system:node:a\" cannot list resource \"nodes\" in API group \"\" at the cluster scope"), "{said}");
    let output = cluster.run(KUBECTL, "node.kubeconfig", &["get", "--raw", "/livez"]).await;
    assert_eq!(output.stdout, b"ok");
    cluster.stop().await;
}

#[tokio::test]
async fn only_administrators_act_as_others() {
    let cluster = Cluster::start().await;
    let node = cluster.ca().issue_client("system:node:a", &["system:nodes"]).unwrap();
    cluster.write_kubeconfig("node", Some(&node), None);
    let ask = ["get", "--raw", "/api/v1/pods"];
    let said = cluster.kubectl_fails(KUBECTL, &[&["--as=jane"], &ask[..]].concat()).await;
    assert!(said.contains("User \"jane\" cannot list resource \"pods\""), "{said}");
    let as_admin = [&["--as=jane", "--as-group=system:masters"], &ask[..]].concat();
    assert!(cluster.kubectl(KUBECTL, &as_admin).await.contains("PodList"));
    let said = cluster.run(KUBECTL, "node.kubeconfig", &as_admin).await.stderr;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(
        said.contains("User \"system:node:a\" cannot impersonate resource \"users\""),
        "{said}"
    );
    cluster.stop().await;
}

/// kubectl asks for a password when it has no credential, so this speaks HTTP itself.
#[tokio::test]
async fn strangers_learn_health_and_version_only() {
    let cluster = Cluster::start().await;
    for (path, code) in [
        ("/livez", 200),
        ("/version", 200),
        ("/api", 403),
        ("/api/v1/nodes", 403),
        ("/api/v1/nothing", 403),
        ("/fleet/v1/bundle", 403),
        ("/openapi/v3", 403),
    ] {
        assert_eq!(cluster.anonymous_status(path).await, code, "{path}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_bootstrap_token_is_good_until_it_expires() {
    let cluster = Cluster::start().await;
    cluster.write_kubeconfig("joiner", None, Some("abcdef.0123456789abcdef"));
    cluster.write_kubeconfig("liar", None, Some("abcdef.0123456789abcdeX"));
    let secret = |expiration: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
            "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef",
                "usage-bootstrap-authentication": "true", "expiration": expiration}})
        .to_string()
    };
    let ask = async |config: &str| {
        let output = cluster.run(KUBECTL, config, &["get", "--raw", "/api/v1/nodes"]).await;
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let path = cluster.file("secret.json", &secret("2999-01-01T00:00:00Z"));
    assert!(ask("joiner.kubeconfig").await.contains("Unauthorized"));
    cluster.kubectl(KUBECTL, &["apply", "-f", &path]).await;
    assert!(
        ask("joiner.kubeconfig").await.contains("User \"system:bootstrap:abcdef\" cannot list")
    );
    assert!(ask("liar.kubeconfig").await.contains("Unauthorized"));
    let path = cluster.file("secret.json", &secret("2001-01-01T00:00:00Z"));
    cluster.kubectl(KUBECTL, &["apply", "-f", &path]).await;
    assert!(ask("joiner.kubeconfig").await.contains("Unauthorized"));
    cluster.stop().await;
}
