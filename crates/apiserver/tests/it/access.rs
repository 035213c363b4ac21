//! Who gets in, and how far.

use serde_json::json;

use crate::cluster::Cluster;

const KUBECTL: &str = "kubectl";

#[tokio::test]
async fn strangers_nodes_and_joiners_are_kept_in_their_places() {
    let cluster = Cluster::start().await;
    cluster.write_kubeconfig("nobody", None, None);
    let node = cluster.ca().issue_client("system:node:a", &["system:nodes"]).unwrap();
    cluster.write_kubeconfig("node", Some(&node), None);
    for (config, user) in [("nobody.kubeconfig", "system:anonymous"), ("node.kubeconfig", "system:node:a")] {
        let output = cluster.run(KUBECTL, config, &["get", "--raw", "/api/v1/nodes"]).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains(&format!("nodes is forbidden: User \"{user}\" cannot list resource \"nodes\" in API group \"\" at the cluster scope")),
            "{said}"
        );
        let output = cluster.run(KUBECTL, config, &["get", "--raw", "/livez"]).await;
        assert_eq!(output.stdout, b"ok");
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
    assert!(ask("joiner.kubeconfig").await.contains("User \"system:bootstrap:abcdef\" cannot list"));
    assert!(ask("liar.kubeconfig").await.contains("Unauthorized"));
    let path = cluster.file("secret.json", &secret("2001-01-01T00:00:00Z"));
    cluster.kubectl(KUBECTL, &["apply", "-f", &path]).await;
    assert!(ask("joiner.kubeconfig").await.contains("Unauthorized"));
    cluster.stop().await;
}
