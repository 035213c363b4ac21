//! A node whose data directory is on a small disk that gets full: by a pod, by an image, by others. The node says so,
//! loses nothing, restarts nothing, and goes on by itself once there is room.

use std::{
    fs::{self, File, Permissions},
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use toono_lab::image::{self, ImageSpec};

use crate::{
    chaos::{
        NODE, all_ready, create, cut_power, identities, mains, remove_hello, restart_daemon,
        restarts_of,
    },
    edge::{Edge, TOONO, condition, success},
    wait::until,
};

/// The whole disk.
const DISK_BYTES: u64 = 64 << 20;
const SOON: Duration = Duration::from_secs(60);
/// What the lab's nodes have: this machine's disk is no matter of theirs.
const NO_THRESHOLDS: &str = "memory.available<100Mi";

/// An edge of one node, whose data directory is a file system of its own.
struct SmallEdge {
    edge: Edge,
    disk: Disk,
}

/// Of this machine: a file with a file system in it, which is mounted.
struct Disk {
    mounted: PathBuf,
    _dir: tempfile::TempDir,
}

impl SmallEdge {
    /// The node runs with these thresholds of `--eviction-hard`, and more options.
    fn up(eviction_hard: &str, options: &str) -> Self {
        let mut edge = Edge::prepare();
        let program = edge.data().join("node-program");
        // The lab gives each node thresholds of its own.
        let script = format!(
            "#!/bin/sh\nfor word; do shift; case $word in memory.available*) word='{eviction_hard}';; esac; \
             set -- \"$@\" \"$word\"; done\nexec {TOONO} \"$@\" {options}\n"
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        edge.plan_one_node(&["--node-program", program.to_str().unwrap()], &[]);
        let disk = Disk::mount(edge.data().join("nodes").join(NODE));
        let small = Self { edge, disk };
        small.edge.run_up();
        remove_hello(&small.edge);
        small
    }

    fn daemon(&self) -> i32 {
        self.edge.process("node", NODE)
    }

    fn pod(&self, name: &str) -> Value {
        self.edge.kubectl_json(&["get", "pod", name])
    }

    /// A pod with one container that runs this, in an image of the lab's registry.
    fn run(&self, name: &str, image: &str, script: &str) {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"terminationGracePeriodSeconds": 1, "nodeName": NODE, "containers": [{"name": "main",
                "image": format!("lab.toono.io/{image}:1"), "command": ["sh", "-c", script]}]}});
        self.edge.apply(&pod);
    }

    fn await_ready(&self, name: &str) {
        until(&format!("{name} to be ready"), SOON, || {
            (condition(&self.pod(name), "Ready") == "True").then_some(())
        });
    }

    /// Waits for an event of this reason with this in its message, about anything.
    fn await_event(&self, reason: &str, says: &str) {
        until(&format!("the event {reason}: {says}"), SOON, || {
            let events = self.edge.kubectl_json(&["get", "events"]);
            let mut events = events["items"].as_array().unwrap().iter();
            let text = |event: &Value| event["message"].as_str().unwrap_or_default().to_owned();
            events.any(|it| it["reason"] == reason && text(it).contains(says)).then_some(())
        });
    }

    fn pressure(&self) -> String {
        let node = self.edge.kubectl_json(&["get", "node", NODE]);
        condition(&node, "DiskPressure").to_owned()
    }
}

impl Drop for SmallEdge {
    /// What runs on the disk ends before that goes.
    fn drop(&mut self) {
        let data = self.edge.data().to_str().unwrap().to_owned();
        let output = self.edge.toono(&["down", "--data", &data]);
        if !output.status.success() {
            eprintln!("toono down: {}", String::from_utf8_lossy(&output.stderr));
        }
        self.disk.unmount();
    }
}

impl Disk {
    fn mount(at: PathBuf) -> Self {
        let dir = tempfile::Builder::new().prefix("toono-disk-").tempdir().unwrap();
        let file = dir.path().join("disk");
        File::create(&file).unwrap().set_len(DISK_BYTES).unwrap();
        fs::create_dir_all(&at).unwrap();
        // Nothing is kept for root, so that full means full.
        let mut make = Command::new("mkfs.ext4");
        let made = make.args(["-q", "-F", "-m", "0"]).arg(&file).output().expect("e2fsprogs");
        success("mkfs.ext4", made);
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(&file).arg(&at).output();
        success("mount -o loop", mounted.unwrap());
        Self { mounted: at, _dir: dir }
    }

    fn unmount(&self) {
        let output = Command::new("umount").arg("-l").arg(&self.mounted).output().unwrap();
        if !output.status.success() {
            eprintln!("umount: {}", String::from_utf8_lossy(&output.stderr));
        }
    }

    fn free(&self) -> u64 {
        let found = nix::sys::statvfs::statvfs(&self.mounted).unwrap();
        found.blocks_available() * found.fragment_size()
    }

    /// Takes all that is left but so many bytes.
    fn fill_but(&self, left: u64) {
        let mut file = File::create(self.filler()).unwrap();
        for piece in [1 << 20, 4096, 1] {
            let bytes = vec![1; piece];
            while self.free() >= left + piece as u64 || left == 0 {
                // Also what another one has freed meanwhile.
                if file.write_all(&bytes).and_then(|()| file.sync_data()).is_err() {
                    break;
                }
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.mounted.join("filler")
    }
}

/// An image that is so many bytes larger than the lab's own: zeros, which the registry has packed, or noise.
fn build_image(edge: &Edge, name: &str, bytes: u64, noise: bool) {
    // Busybox is what it is called.
    let program = edge.data().join(name).join("busybox");
    fs::create_dir(program.parent().unwrap()).unwrap();
    fs::copy(image::BUSYBOX, &program).unwrap();
    let mut file = File::options().append(true).open(&program).unwrap();
    let source = File::open(if noise { "/dev/urandom" } else { "/dev/zero" }).unwrap();
    std::io::copy(&mut source.take(bytes), &mut file).unwrap();
    drop(file);
    let (root, repository) = (edge.data().join("images"), name.to_owned());
    image::build(&ImageSpec { busybox: program, root, repository, tag: "1".to_owned() }).unwrap();
}

#[test]
fn a_pod_that_fills_the_disk_leaves_and_nothing_else_happens() {
    let hard = "nodefs.available<10%";
    let small = SmallEdge::up(hard, "--eviction-pressure-transition-period 15s");
    let edge = &small.edge;
    let quiet = ["quiet".to_owned()];
    create(edge, &quiet[0]);
    until("the quiet pod", SOON, || all_ready(edge, &quiet).then_some(()));
    let (before, daemon) = (identities(edge, &quiet), small.daemon());
    assert_eq!(small.pressure(), "False");

    small.run(
        "greedy",
        "busybox",
        "while :; do cat /dev/zero >> /full 2>/dev/null; echo full; sleep 0.1; done",
    );
    let status = until("the greedy pod to be evicted", SOON, || {
        let status = small.pod("greedy")["status"].clone();
        (status["phase"] == "Failed").then_some(status)
    });
    assert_eq!(status["reason"], "Evicted");
    let message = status["message"].as_str().unwrap();
    for part in [
        "The node was low on resource: ephemeral-storage. Threshold quantity: ",
        "Container main was using ",
        "request is 0, has larger consumption of ephemeral-storage. ",
    ] {
        assert!(message.contains(part), "no `{part}` in: {message}");
    }
    until("DiskPressure to be told", SOON, || (small.pressure() == "True").then_some(()));
    small.await_event("EvictionThresholdMet", "Attempting to reclaim ephemeral-storage");
    small.await_event("NodeHasDiskPressure", NODE);
    until("room", SOON, || (small.disk.free() > DISK_BYTES / 2).then_some(()));

    assert_eq!(small.daemon(), daemon, "the daemon lives");
    assert_eq!(identities(edge, &quiet), before);
    assert_eq!(restarts_of(edge, &quiet[0]), 0);
    // Having room again it says so, and takes pods, without anybody's help.
    until("DiskPressure to be over", SOON, || (small.pressure() == "False").then_some(()));
    small.await_event("NodeHasNoDiskPressure", NODE);
    small.run("next", "busybox", "while :; do sleep 1; done");
    small.await_ready("next");
}

#[test]
fn a_node_that_starts_on_a_full_disk_adopts_its_pods_and_goes_on() {
    let small = SmallEdge::up(NO_THRESHOLDS, "");
    let edge = &small.edge;
    let names = ["one".to_owned(), "two".to_owned(), "leaving".to_owned()];
    names.iter().for_each(|name| create(edge, name));
    until("the pods", SOON, || all_ready(edge, &names).then_some(()));
    let first = identities(edge, &names);
    let processes = || first.values().map(|(uid, _)| mains(uid)).collect::<Vec<_>>();
    let before = processes();

    small.disk.fill_but(0);
    for _ in 0..3 {
        restart_daemon(edge);
        let mut said = String::new();
        let start = Instant::now();
        while said != "here\n" {
            assert!(start.elapsed() < SOON, "the node does not answer, but: {said}");
            let output =
                edge.kubectl_command(&["exec", "one", "--", "echo", "here"]).output().unwrap();
            said = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap()).concat();
        }
    }
    assert_eq!(processes(), before, "each container goes on");
    assert_eq!(identities(edge, &names), first);
    // A pod that comes now has to wait, and is told why.
    small.run("late", "busybox", "while :; do sleep 1; done");
    until("the cause", SOON, || {
        let text = edge.kubectl(&["describe", "pod", "late"]);
        text.to_lowercase().contains("no space left on device").then_some(())
    });
    assert_ne!(condition(&small.pod("late"), "Ready"), "True");
    // One that is deleted goes all the same: often that is how room is made.
    small.disk.fill_but(0);
    edge.kubectl(&["delete", "pod", "leaving", "--timeout=60s"]);
    let rest = &names[..2];
    assert_eq!(identities(edge, rest).len(), 2);

    // The power is cut on top of it: with no room there is nothing to run on, and all comes back with the room.
    small.disk.fill_but(0);
    cut_power(edge);
    edge.run_up_without_waiting();
    until("the node to be back", SOON, || (edge.nodes_with_ready("True") == [NODE]).then_some(()));
    small.disk.make_room();
    until("the pods to be back", SOON, || {
        (all_ready(edge, rest) && rest.iter().all(|name| restarts_of(edge, name) == 1))
            .then_some(())
    });
    let kept = identities(edge, rest);
    assert!(rest.iter().all(|name| kept[name] == first[name]), "{kept:?}, was {first:?}");
    small.await_ready("late");
}

#[test]
fn an_image_that_does_not_fit_is_told_and_comes_when_there_is_room() {
    let small = SmallEdge::up(NO_THRESHOLDS, "");
    let edge = &small.edge;
    let quiet = ["quiet".to_owned()];
    create(edge, &quiet[0]);
    until("the quiet pod", SOON, || all_ready(edge, &quiet).then_some(()));
    let (before, daemon) = (identities(edge, &quiet), small.daemon());
    let running = "while :; do sleep 1; done";

    // Packed it fits many times, unpacked it never does.
    build_image(edge, "never", 2 * DISK_BYTES, false);
    let free = small.disk.free();
    small.run("never", "never", running);
    small.await_event("Failed", "no space left for images in");
    small.await_event("Failed", "free the disk: `toono node image ls` lists images");
    let waiting = |name: &str| {
        small.pod(name)["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].clone()
    };
    until("the back-off", SOON, || (waiting("never") == "ImagePullBackOff").then_some(()));
    assert!(small.disk.free() > free - (4 << 20), "little is left of what did not fit");
    edge.kubectl(&["delete", "pod", "never", "--timeout=60s"]);

    build_image(edge, "later", 8 << 20, true);
    small.disk.fill_but(12 << 20);
    small.run("later", "later", running);
    until("the back-off", SOON, || (waiting("later") == "ImagePullBackOff").then_some(()));
    assert_eq!(small.daemon(), daemon, "the daemon lives");
    small.disk.make_room();
    small.await_ready("later");
    assert_eq!((identities(edge, &quiet), restarts_of(edge, &quiet[0])), (before, 0));
}
