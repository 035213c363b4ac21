//! The cluster secret gets new epochs: by command, by age, on one server and on two.

use std::time::Duration;

use toono_linear::etcd_server::EtcdServer;

use crate::{
    cloud::Cloud,
    edge::{TOONO, success},
    wait::until,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// `toono server rotate-secret …`, and the epoch that it printed.
fn rotate(cloud: &Cloud, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(TOONO);
    command.args(["server", "rotate-secret", "--data"]).arg(cloud.dir.path()).args(arguments);
    success("rotate-secret", command.env_remove("KUBECONFIG").output().unwrap())
}

/// The epochs in a server's file, newest first.
fn epochs(cloud: &Cloud) -> Vec<String> {
    let text = cloud.read("cluster-secret");
    text.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn a_rotated_secret_stays_over_restarts_and_an_unused_old_one_ends() {
    let mut cloud = Cloud::start();
    assert_eq!(epochs(&cloud), ["1"]);
    assert_eq!(rotate(&cloud, &[]), "epoch 2\n");
    assert_eq!(epochs(&cloud), ["2", "1"]);
    cloud.kill();
    cloud.spawn();
    cloud.await_ready();
    assert_eq!(rotate(&cloud, &[]), "epoch 3\n");
    // No node needs the older ones.
    until("the older epochs to end", PATIENCE, || (epochs(&cloud) == ["3"]).then_some(()));
    rotate(&cloud, &[]);
    rotate(&cloud, &["--revoke"]);
    assert_eq!(epochs(&cloud), ["5"]);
}

#[test]
fn a_secret_grows_old_by_itself() {
    let cloud = Cloud::start_with(&["--secret-max-age", "2s"]);
    until("a third epoch", PATIENCE, || (epochs(&cloud)[0] == "3").then_some(()));
}

#[test]
fn servers_of_one_store_have_one_secret() {
    let etcd = EtcdServer::start();
    let store = format!("etcd={}", etcd.url());
    let arguments = ["--store", &store, "--token", "a secret that nobody guesses"];
    let one = Cloud::start_with(&arguments);
    let mut two = Cloud::start_with(&arguments);
    rotate(&one, &[]);
    until("the other to know it", PATIENCE, || {
        (epochs(&two) == ["2", "1"] && two.read("cluster-secret") == one.read("cluster-secret"))
            .then_some(())
    });
    assert_eq!(rotate(&two, &[]), "epoch 2\n", "one that waits is new enough");
    // One that was away meanwhile is no server of another cluster.
    two.kill();
    rotate(&one, &["--revoke"]);
    two.spawn();
    two.await_ready();
    assert_eq!((epochs(&two), epochs(&one)), (vec!["3".to_owned()], vec!["3".to_owned()]));
    assert!(!etcd.has_written(one.read("cluster-secret").split(' ').nth(2).unwrap()));
}
