//! Two servers on one etcd.

use std::time::Duration;

use toono_linear::etcd_server::EtcdServer;

use crate::{cloud::Cloud, wait::until};

#[test]
fn two_servers_on_one_etcd_are_one_cluster() {
    let etcd = EtcdServer::start();
    let store = format!("etcd={}", etcd.url());
    let mut one = Cloud::start_with(&["--store", &store], None);
    let two = Cloud::start_with(&["--store", &store], Some(&one));

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
    let cloud = Cloud::start_with(&["--store", &format!("etcd={}", etcd.url())], None);
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
