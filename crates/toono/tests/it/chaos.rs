//! A node whose parts are killed at any moment: its pods come back as they were, and nothing is left over.
//!
//! When is chosen by a seed, which a failure tells: `TOONO_CHAOS_SEED` repeats it and `TOONO_CHAOS_ROUNDS` does more
//! than a few rounds (`scripts/chaos` for hours).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    edge::{Edge, condition, processes_naming},
    outage::{cgroups_naming, container_cgroups, processes_in},
    wait::until,
};

pub(crate) const NODE: &str = "pool-a-1";
/// From the death of a part until all is as it should be.
pub(crate) const MENDED: Duration = Duration::from_secs(30);
/// From the start of a node without a cloud until ten pods run (images are there).
const BACK: Duration = Duration::from_secs(10);
/// A pod runs within this, and a pod that ends at once on TERM has gone within this and its grace period.
const CREATION: Duration = Duration::from_millis(400);
const DELETION: Duration = Duration::from_millis(600);
const PODS: usize = 10;
/// Of ten pods, so many lose their keeper or their container.
const KILLS: u32 = 4;
const DEFAULT_ROUNDS: u32 = 8;

#[test]
fn a_daemon_killed_at_any_step_of_a_pods_life_leaves_nothing_over() {
    let edge = Edge::up_with_one_node(&[], &[]);
    remove_hello(&edge);
    let mut dice = Dice::new(DEFAULT_ROUNDS);
    let before = settled(&edge);
    let rounds = dice.rounds;
    for round in 0..rounds {
        // Every part of the time that a step takes has its round, and within it any moment.
        let moment = |whole: Duration, dice: &mut Dice| {
            whole.mul_f64((f64::from(round) + dice.roll()) / f64::from(rounds))
        };
        let (creation, deletion) = (moment(CREATION, &mut dice), moment(DELETION, &mut dice));
        let name = format!("life-{round}");
        let told = format!(
            "seed {}, round {round}: killed {creation:?} after the creation, {deletion:?} after the deletion",
            dice.seed
        );
        killed_while(&edge, creation, || create(&edge, &name));
        until(&format!("the pod to be ready; {told}"), MENDED, || {
            (condition(&pod(&edge, &name)?, "Ready") == "True").then_some(())
        });
        let shown = pod(&edge, &name).unwrap();
        assert_eq!(shown["status"]["containerStatuses"][0]["restartCount"], 0, "{told}");
        assert_eq!(edge.kubectl(&["exec", &name, "--", "echo", "here"]), "here\n", "{told}");
        let uid = shown["metadata"]["uid"].as_str().unwrap();
        assert_eq!(mains(uid).len(), 1, "{told}");
        killed_while(&edge, deletion, || {
            edge.kubectl(&["delete", "pod", &name, "--wait=false"]);
        });
        until(&format!("the pod to be gone; {told}"), MENDED, || {
            pod(&edge, &name).is_none().then_some(())
        });
        let mut left = Vec::new();
        let start = Instant::now();
        while start.elapsed() < MENDED {
            left = Things::of(&edge).beyond(&before);
            if left.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(left, Vec::<String>::new(), "left over; {told}");
    }
}

#[test]
fn ten_pods_come_back_whatever_is_killed() {
    let edge = Edge::up_with_one_node(&[], &[]);
    remove_hello(&edge);
    let mut dice = Dice::new(DEFAULT_ROUNDS);
    let before = settled(&edge);
    // A pod is killed once, and loses power once: what restarts more often waits longer each time.
    for number in 0..dice.rounds.div_ceil(2 * KILLS) {
        ten_pods_live_and_go(&edge, &mut dice, &format!("ten-{number}"));
        let told = format!("nothing to be left over, seed {}, ten {number}", dice.seed);
        until(&told, MENDED, || Things::of(&edge).beyond(&before).is_empty().then_some(()));
    }
}

/// Ten pods are made, parts of some are killed, then everything at once while the cloud is away, and they are removed.
fn ten_pods_live_and_go(edge: &Edge, dice: &mut Dice, prefix: &str) {
    let mut names: Vec<String> = (0..PODS).map(|number| format!("{prefix}-{number}")).collect();
    names.iter().for_each(|name| create(edge, name));
    until("ten pods", MENDED, || all_ready(edge, &names).then_some(()));
    let first = identities(edge, &names);
    let mut restarts: BTreeMap<String, u64> = names.iter().map(|name| (name.clone(), 0)).collect();

    for done in 0..KILLS as usize {
        names.swap(done, done + dice.below(PODS - done));
        let name = names[done].as_str();
        let (uid, _) = &first[name];
        if dice.roll() < 0.5 {
            kill(Pid::from_raw(mains(uid)[0]), Signal::SIGKILL).unwrap();
        } else {
            kill(Pid::from_raw(keeper(uid)), Signal::SIGKILL).unwrap();
        }
        *restarts.get_mut(name).unwrap() += 1;
        until(&format!("{name} to run again, seed {}", dice.seed), MENDED, || {
            (restarts_of(edge, name) == restarts[name] && all_ready(edge, &names)).then_some(())
        });
        assert_eq!(identities(edge, &names), first, "seed {}", dice.seed);
    }

    // The node loses power while nobody is there to help it.
    edge.toono_here(&["lab", "cut"], &["pool-a"]);
    cut_power(edge);
    edge.run_up_without_waiting();
    let back = Instant::now();
    until(&format!("ten pods without the cloud, seed {}", dice.seed), BACK, || {
        first.values().all(|(uid, _)| mains(uid).len() == 1).then_some(())
    });
    eprintln!("ten pods were back {:?} after the start of the node", back.elapsed());
    edge.toono_here(&["lab", "heal"], &["pool-a"]);
    restarts.values_mut().for_each(|count| *count += 1);
    until(&format!("true restart counts, seed {}", dice.seed), Duration::from_secs(60), || {
        (all_ready(edge, &names)
            && names.iter().all(|name| restarts_of(edge, name) == restarts[name.as_str()]))
        .then_some(())
    });
    assert_eq!(identities(edge, &names), first, "the same pods at the same addresses");
    edge.kubectl(&["delete", "pods", "-l", "app=chaos", "--wait=false"]);
}

/// Stops the daemon, does something that it has to hear of, and kills it a while after it goes on; then starts it.
fn killed_while(edge: &Edge, after: Duration, something: impl FnOnce()) {
    let daemon = Pid::from_raw(edge.process("node", NODE));
    kill(daemon, Signal::SIGSTOP).unwrap();
    something();
    kill(daemon, Signal::SIGCONT).unwrap();
    std::thread::sleep(after);
    restart_daemon(edge);
}

/// Kills it, and starts it again.
pub(crate) fn restart_daemon(edge: &Edge) {
    let daemon = Pid::from_raw(edge.process("node", NODE));
    kill(daemon, Signal::SIGKILL).unwrap();
    until("the daemon's end", Duration::from_secs(5), || kill(daemon, None).is_err().then_some(()));
    edge.run_up_without_waiting();
}

/// Kills the daemon, its keepers and all that runs in containers.
pub(crate) fn cut_power(edge: &Edge) {
    let own = cgroup_root(edge);
    for pid in all_processes(edge, &own) {
        // It may have ended with another one.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    until("the power to be gone", MENDED, || all_processes(edge, &own).is_empty().then_some(()));
}

/// The application that `up` brings along.
pub(crate) fn remove_hello(edge: &Edge) {
    edge.kubectl(&["delete", "deployment", "hello", "--wait=false"]);
    until("hello to be gone", MENDED, || edge.pods().is_empty().then_some(()));
}

pub(crate) fn create(edge: &Edge, name: &str) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "chaos"}},
        "spec": {"terminationGracePeriodSeconds": 1, "nodeName": NODE, "volumes": [{"name": "memory", "emptyDir": {"medium": "Memory"}}],
            "containers": [{"name": "main", "image": "lab.toono.io/busybox:1", "ports": [{"containerPort": 80}],
                "volumeMounts": [{"name": "memory", "mountPath": "/memory"}],
                "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"]}]}});
    let path = edge.data().join("chaos.json");
    std::fs::write(&path, pod.to_string()).unwrap();
    edge.kubectl(&["create", "-f", path.to_str().unwrap()]);
}

fn pod(edge: &Edge, name: &str) -> Option<Value> {
    let output = edge.kubectl_command(&["get", "pod", name, "-o", "json"]).output().unwrap();
    output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
}

fn chaos_pods(edge: &Edge) -> Vec<Value> {
    let list = edge.kubectl_json(&["get", "pods", "-l", "app=chaos"]);
    list["items"].as_array().unwrap().clone()
}

pub(crate) fn all_ready(edge: &Edge, names: &[String]) -> bool {
    let pods = chaos_pods(edge);
    pods.len() == names.len() && pods.iter().all(|pod| condition(pod, "Ready") == "True")
}

pub(crate) fn restarts_of(edge: &Edge, name: &str) -> u64 {
    let pod = pod(edge, name).unwrap();
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0)
}

/// Uid and address of each pod.
pub(crate) fn identities(edge: &Edge, names: &[String]) -> BTreeMap<String, (String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pods = chaos_pods(edge);
    let found: BTreeMap<_, _> = pods
        .iter()
        .map(|pod| {
            let identity = (text(&pod["metadata"]["uid"]), text(&pod["status"]["podIP"]));
            (text(&pod["metadata"]["name"]), identity)
        })
        .collect();
    assert_eq!(found.len(), names.len());
    found
}

fn node_dir(edge: &Edge) -> String {
    edge.data().join("nodes").join(NODE).display().to_string()
}

/// The first process of each container of a pod.
pub(crate) fn mains(uid: &str) -> Vec<i32> {
    let cgroups = container_cgroups(uid);
    cgroups.iter().filter_map(|folder| processes_in(folder).first().copied()).collect()
}

fn keeper(uid: &str) -> i32 {
    let folders = cgroups_naming(uid);
    let own = folders.iter().find(|folder| folder.ends_with("keeper")).unwrap();
    processes_in(own)[0]
}

/// The daemon, the keepers, and what runs in containers.
fn all_processes(edge: &Edge, cgroup_root: &str) -> Vec<i32> {
    let daemon = processes_naming(&node_dir(edge)).into_iter().map(|(pid, _)| pid);
    let cgroups = cgroups_naming(cgroup_root);
    daemon.chain(cgroups.iter().flat_map(|folder| processes_in(folder))).collect()
}

/// What there is once nothing changes any more.
fn settled(edge: &Edge) -> Things {
    let mut last = Things::of(edge);
    until("the node to be at rest", MENDED, || {
        std::thread::sleep(Duration::from_millis(500));
        let now = Things::of(edge);
        let same = now == last;
        last = now;
        same.then_some(())
    });
    last
}

/// All that a node makes on its machine for pods, each thing as a line of text.
#[derive(Debug, PartialEq, Eq)]
struct Things(BTreeSet<String>);

impl Things {
    fn of(edge: &Edge) -> Self {
        let mut lines = BTreeSet::new();
        let dir = node_dir(edge);
        for (_, line) in processes_naming(&dir) {
            lines.insert(format!("process {line}"));
        }
        for line in std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
            let point = line.split(' ').nth(4).unwrap();
            if point.starts_with(&dir) {
                lines.insert(format!("mount {point}"));
            }
        }
        let own = cgroup_root(edge);
        let lab = own.split('/').nth(1).unwrap();
        for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // Others have edges on this machine, too.
            if name.contains(lab) {
                lines.insert(format!("netns {name}"));
            }
        }
        for (what, arguments) in
            [("link", ["-o", "link"]), ("neighbour", ["-o", "neigh"]), ("route", ["-o", "route"])]
        {
            let shown = edge.toono_here(
                &["lab", "shell"],
                &[&[NODE, "--", "ip"], arguments.as_slice()].concat(),
            );
            // A neighbour's state and a link's number change by themselves.
            let named = shown.lines().filter_map(|line| match what {
                "link" => line.split_whitespace().nth(1),
                "neighbour" => None,
                _ => Some(line),
            });
            lines.extend(named.map(|name| format!("{what} {name}")));
        }
        let pods = Path::new(&dir).join("pods");
        for entry in std::fs::read_dir(pods).into_iter().flatten().flatten() {
            lines.insert(format!("directory {}", entry.file_name().to_string_lossy()));
        }
        let addresses = std::fs::read(Path::new(&dir).join("addresses")).unwrap_or_default();
        lines.insert(format!(
            "addresses {}",
            String::from_utf8_lossy(&addresses).matches(':').count()
        ));
        for folder in cgroups_naming(&own) {
            lines.insert(format!("cgroup {}", folder.display()));
            for pid in processes_in(&folder) {
                lines.insert(format!("process {pid} in {}", folder.display()));
            }
        }
        Self(lines)
    }

    fn beyond(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}

/// The cgroup that those of the node's pods are below.
fn cgroup_root(edge: &Edge) -> String {
    let (_, line) = until("the node's daemon", MENDED, || {
        edge.processes().into_iter().find(|(_, line)| line.contains("--cgroup-root"))
    });
    let (_, after) = line.split_once("--cgroup-root ").unwrap();
    after.split(' ').next().unwrap().to_owned()
}

/// What decides when: SplitMix64, so that a seed is one number.
pub(crate) struct Dice {
    pub(crate) seed: u64,
    state: u64,
    pub(crate) rounds: u32,
}

impl Dice {
    /// The seed and the rounds that the environment says, or else those.
    pub(crate) fn new(rounds: u32) -> Self {
        let number = |name: &str| {
            let text = std::env::var_os(name)?.into_string().unwrap();
            Some(text.parse::<u64>().unwrap())
        };
        let seed = number("TOONO_CHAOS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
        let rounds = number("TOONO_CHAOS_ROUNDS").map_or(rounds, |rounds| rounds as u32);
        Self { seed, state: seed, rounds }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to 1.
    pub(crate) fn roll(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
