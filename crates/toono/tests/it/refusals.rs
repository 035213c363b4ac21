//! What must not work, and what is said then.

use std::{
    fs,
    net::UdpSocket,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    cloud::{Cloud, assert_refused},
    edge::{TOONO, Turn},
    leftovers::Machine,
};

const WRONG_TOKEN: &str = "aaaaaa.bbbbbbbbbbbbbbbb";
const WRONG_PIN: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn a_node_with_wrong_credentials_is_refused_and_leaves_nothing() {
    let _turn = Turn::alone();
    let cloud = Cloud::start();
    let before = Machine::now();
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("node");
    let (token, pin) = (cloud.read("node-token"), cloud.read("ca-cert-hash"));

    assert_refused(&cloud.node(&data, WRONG_TOKEN, &pin), "token-refused", "token");
    assert!(!data.exists(), "{data:?} was left");
    assert_refused(&cloud.node(&data, &token, WRONG_PIN), "ca-mismatch", "CA");
    assert!(!data.exists(), "{data:?} was left");
    assert_eq!(before.added_in(&Machine::now(), "none"), [""; 0]);
    assert!(!cloud.kubectl(&["get", "nodes", "-o", "name"]).contains("stray"));
}

#[test]
fn a_taken_port_or_directory_is_refused() {
    let _turn = Turn::alone();
    let cloud = Cloud::start();
    let other = tempfile::tempdir().unwrap();
    let data = other.path().join("data");
    let taken_port = Command::new(TOONO)
        .args(["server", "--listen", &format!("127.0.0.1:{}", cloud.port), "--data"])
        .arg(&data)
        .output()
        .unwrap();
    assert_refused(&taken_port, "port-taken", &cloud.port.to_string());
    assert!(!data.exists(), "{data:?} was left");

    let taken_dir = Command::new(TOONO)
        .args(["server", "--listen", "127.0.0.1:0", "--data"])
        .arg(cloud.dir.path())
        .output()
        .unwrap();
    assert_refused(&taken_dir, "data-taken", "another process");
    cloud.kubectl(&["get", "namespaces"]);
}

#[test]
fn a_machine_that_cannot_run_pods_is_told_why() {
    let _turn = Turn::alone();
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("node");
    let arguments = ["node", "--name", "stray", "--server", "https://127.0.0.1:1", "--data"];

    let mut unprivileged = Command::new(TOONO);
    unprivileged.args(arguments).arg(&data).uid(65534).gid(65534);
    assert_refused(&unprivileged.output().unwrap(), "not-root", "root");

    let filesystems = scratch.path().join("filesystems");
    let known = fs::read_to_string("/proc/filesystems").unwrap();
    let without: Vec<_> = known.lines().filter(|line| !line.contains("overlay")).collect();
    fs::write(&filesystems, without.join("\n")).unwrap();
    let output = in_a_mount_namespace(
        &format!("mount --bind {} /proc/filesystems", filesystems.display()),
        &arguments,
        &data,
    );
    assert_refused(&output, "no-overlayfs", "overlay");
    assert!(!data.exists(), "{data:?} was left");

    let no_token = Command::new(TOONO).args(arguments).arg(&data).output().unwrap();
    assert_refused(&no_token, "no-token", "token");
    assert!(!data.exists(), "{data:?} was left");
}

fn in_a_mount_namespace(prepare: &str, arguments: &[&str], data: &Path) -> std::process::Output {
    Command::new("unshare")
        .args(["--mount", "sh", "-ec", &format!("{prepare}; exec \"$@\""), "sh", TOONO])
        .args(arguments)
        .arg(data)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn garbage_on_the_datagram_port_gets_no_reply() {
    let _turn = Turn::alone();
    let cloud = Cloud::start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", cloud.port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for length in (0..=256).chain([512, 1024, 1400]).cycle().take(2_000) {
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed as u8
            })
            .collect();
        socket.send(&bytes).unwrap();
    }
    let answer = socket.recv(&mut [0; 2048]);
    assert!(answer.is_err(), "the server answered garbage with {answer:?} bytes");
    cloud.kubectl(&["get", "--raw", "/readyz"]);
}
