//! Two servers on one etcd.

use std::time::Duration;

use toono_linear::etcd_server::EtcdServer;

use crate::{
    cloud::{Cloud, assert_refused},
    wait::until,
};

/// What the operator gives to each server.
const TOKEN: &str = "a secret that nobody guesses";

#[test]
fn two_servers_on_one_etcd_are_one_cluster() {
    let etcd = EtcdServer::start();
    let store = format!("etcd={}", etcd.url());
    let arguments = ["--store", &store, "--token", TOKEN];
    let mut one = Cloud::start_with(&arguments);
    let two = Cloud::start_with(&arguments);
    for file in ["pki/ca.crt", "pki/ca.key", "pki/sa.key", "cluster-secret", "node-token"] {
        assert_eq!(one.read(file), two.read(file), "{file}");
    }
    // Credentials of one are good at the other: certificates, and tokens of service accounts.
    let server = format!("--server=https://127.0.0.1:{}", two.port);
    one.kubectl(&["get", "namespaces", &server]);
    one.kubectl(&["create", "serviceaccount", "robot"]);
    let token = one.kubectl(&["create", "token", "robot"]);
    let review = serde_json::json!({"apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview", "spec": {"token": token.trim()}});
    let path = two.dir.path().join("review.json");
    std::fs::write(&path, review.to_string()).unwrap();
    let who = two.kubectl(&[
        "create",
        "-f",
        path.to_str().unwrap(),
        "-o",
        "jsonpath={.status.user.username}",
    ]);
    assert_eq!(who, "system:serviceaccount:default:robot");

    // What one has answered, the other one shows at once: no retries here.
    for n in 0..10 {
        one.kubectl(&["create", "configmap", &format!("from-one-{n}"), "--from-literal=a=1"]);
        let read = two.kubectl(&["get", "configmap", &format!("from-one-{n}"), "-o", "yaml"]);
        assert!(read.contains("a: \"1\""), "{read}");
    }
    let version = |cloud: &Cloud| {
        let path = ["-o", "jsonpath={.metadata.resourceVersion}"];
        cloud.kubectl(&[&["get", "configmap", "from-one-0"], &path[..]].concat())
    };
    assert_eq!(version(&one), version(&two));
    two.kubectl(&["patch", "configmap", "from-one-0", "-p", r#"{"data":{"a":"2"}}"#]);
    assert_eq!(version(&one), version(&two));
    one.kubectl(&["delete", "configmap", "from-one-9"]);
    let gone = two.kubectl_command(&["get", "configmap", "from-one-9"]).output().unwrap();
    assert!(String::from_utf8_lossy(&gone.stderr).contains("NotFound"));

    // One dies, and comes back, and has what was written meanwhile; it keeps nothing itself.
    one.kill();
    two.kubectl(&["create", "configmap", "while-one-was-away"]);
    one.spawn();
    one.await_ready();
    one.kubectl(&["get", "configmap", "while-one-was-away", "from-one-0"]);
    assert!(!one.dir.path().join("store").exists());
}

#[test]
fn a_server_without_its_etcd_says_so_and_goes_on_when_it_is_back() {
    let mut etcd = EtcdServer::start();
    let cloud = Cloud::start_with(&["--store", &format!("etcd={}", etcd.url())]);
    cloud.create_configmap("before");
    etcd.kill();
    // Memory will do for those who say so.
    let old = "/api/v1/namespaces/default/configmaps?resourceVersion=0";
    assert!(cloud.kubectl(&["get", "--raw", old]).contains("before"));
    let write = cloud.kubectl_command(&["create", "configmap", "during"]).output().unwrap();
    let words = String::from_utf8_lossy(&write.stderr).into_owned();
    assert!(!write.status.success() && words.contains("etcd"), "{words}");
    etcd.restart();
    until("a write", Duration::from_secs(20), || {
        let write = cloud.kubectl_command(&["create", "configmap", "after"]).output().unwrap();
        write.status.success().then_some(())
    });
    cloud.kubectl(&["get", "configmap", "before", "after"]);
}

#[test]
fn a_server_that_does_not_know_the_token_gets_no_credentials() {
    let etcd = EtcdServer::start();
    let store = format!("etcd={}", etcd.url());
    let one = Cloud::start_with(&["--store", &store, "--token", TOKEN]);
    let file = one.dir.path().join("wrong");
    std::fs::write(&file, "a secret that somebody guesses\n").unwrap();
    let wrong = ["--store", &store, "--token-file", file.to_str().unwrap()];
    for (arguments, code, says) in [
        (&wrong[..], "token-wrong", "the passphrase is not the one"),
        (&["--store", &store][..], "token-needed", "share their credentials"),
    ] {
        let other = Cloud::prepare(arguments);
        assert_refused(&other.command().output().unwrap(), code, says);
        assert!(!other.dir.path().join("pki").exists());
    }
    // One of another cluster, with a CA of its own, does not change sides.
    let own = Cloud::start();
    let other = Cloud::prepare(&["--store", &store, "--token", TOKEN]);
    let pki = other.dir.path().join("pki");
    std::fs::create_dir(&pki).unwrap();
    std::fs::write(pki.join("ca.crt"), own.read("pki/ca.crt")).unwrap();
    assert_refused(
        &other.command().output().unwrap(),
        "other-cluster",
        "is not that of the cluster",
    );
    // Nothing that could be read went into the store.
    assert!(etcd.has_written("\"sealed\":") && !etcd.has_written("PRIVATE KEY"));
}

#[test]
fn controllers_run_in_one_server_and_the_next_one_takes_over() {
    let etcd = EtcdServer::start();
    let store = format!("etcd={}", etcd.url());
    let arguments = ["--store", &store, "--token", TOKEN];
    let mut one = Cloud::start_with(&arguments);
    let holder = |cloud: &Cloud| {
        let path = "jsonpath={.spec.holderIdentity}";
        let lease = ["-n", "kube-system", "get", "lease", "kube-controller-manager", "-o", path];
        String::from_utf8(cloud.kubectl_command(&lease).output().unwrap().stdout).unwrap()
    };
    let first = until("a leader", Duration::from_secs(20), || {
        Some(holder(&one)).filter(|holder| !holder.is_empty())
    });
    let two = Cloud::start_with(&arguments);
    two.kubectl(&["create", "deployment", "web", "--image=web:1"]);
    until("its replica set", Duration::from_secs(20), || {
        two.kubectl(&["get", "replicasets", "-o", "name"]).contains("web").then_some(())
    });
    assert!(two.log().lines().all(|line| !line.contains("leading")), "two do the same work");
    // Given back, the lease need not expire first: that would take 15 s.
    one.end();
    let asked = std::time::Instant::now();
    until("another leader", Duration::from_secs(20), || {
        Some(holder(&two)).filter(|holder| !holder.is_empty() && *holder != first)
    });
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    two.kubectl(&["scale", "deployment", "web", "--replicas=2"]);
    until("two pods", Duration::from_secs(20), || {
        (two.kubectl(&["get", "pods", "-o", "name"]).lines().count() == 2).then_some(())
    });
}
