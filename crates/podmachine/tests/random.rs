//! Random lives: a node that answers late, wrongly, twice or never, loses sandboxes and agents, and a
//! machine that must keep its promises through all of it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::json;
use toono_podmachine::{
    Action, ContainerFound, Exit, Moment, Observation, PodMachine, ProbeOutcome, Recovered,
    SandboxFound, StartFailure, StopSignal,
};

/// One thing that the world does to the pod. Numbers choose among what there is.
#[derive(Debug, Clone)]
enum Deed {
    Answer { which: usize, well: bool },
    Pass { seconds: u64 },
    Crash { which: usize, code: i32 },
    LoseSandbox,
    RestartAgent { status_kept: bool },
    PowerCut { status_kept: bool },
    ChangeImage,
    Delete { grace: i64 },
    Remove,
    Nonsense { attempt: u32 },
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        20 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(which, well)| Deed::Answer { which, well }),
        6 => (0u64..400).prop_map(|seconds| Deed::Pass { seconds }),
        6 => (any::<usize>(), prop_oneof![Just(0), Just(1), Just(137)])
            .prop_map(|(which, code)| Deed::Crash { which, code }),
        1 => Just(Deed::LoseSandbox),
        2 => any::<bool>().prop_map(|status_kept| Deed::RestartAgent { status_kept }),
        1 => any::<bool>().prop_map(|status_kept| Deed::PowerCut { status_kept }),
        1 => Just(Deed::ChangeImage),
        1 => (0i64..60).prop_map(|grace| Deed::Delete { grace }),
        1 => Just(Deed::Remove),
        3 => (0u32..4).prop_map(|attempt| Deed::Nonsense { attempt }),
    ]
}

/// What really is on the node.
struct World {
    machine: PodMachine,
    pod: Pod,
    now: Duration,
    /// Asked and not yet answered.
    asked: Vec<Action>,
    sandbox: bool,
    /// Containers with a process, and their attempts.
    live: BTreeMap<String, u32>,
    /// Ended runs that the keeper still knows.
    dead: BTreeMap<String, (u32, i32)>,
    /// The highest attempt that ever ran, from the log files.
    highest: BTreeMap<String, u32>,
    counts: BTreeMap<String, i32>,
    conditions: BTreeMap<String, (String, String)>,
    gone: bool,
    removed: bool,
}

fn at(elapsed: Duration) -> Moment {
    Moment { wall: Timestamp::from_second(1_800_000_000).unwrap() + elapsed, elapsed }
}

fn exit(code: i32, now: Duration) -> Exit {
    let finished_at = at(now).wall;
    Exit { code, signal: None, oom: false, started_at: None, finished_at, message: None }
}

impl World {
    fn new(policy: &str) -> Self {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {
                "restartPolicy": policy,
                "initContainers": [
                    {"name": "s", "image": "x:1", "restartPolicy": "Always", "startupProbe": {},
                     "lifecycle": {"preStop": {}}},
                    {"name": "i", "image": "x:1"}],
                "containers": [
                    {"name": "a", "image": "x:1", "livenessProbe": {}, "readinessProbe": {},
                     "lifecycle": {"postStart": {}, "preStop": {}}},
                    {"name": "b", "image": "x"}],
            },
        }))
        .unwrap();
        let now = Duration::from_secs(100);
        let machine = PodMachine::new(&pod, None, at(now)).unwrap();
        let mut world = Self {
            machine,
            pod,
            now,
            asked: vec![],
            sandbox: false,
            live: BTreeMap::new(),
            dead: BTreeMap::new(),
            highest: BTreeMap::new(),
            counts: BTreeMap::new(),
            conditions: BTreeMap::new(),
            gone: false,
            removed: false,
        };
        world.step();
        world
    }

    fn step(&mut self) {
        let step = self.machine.step(at(self.now));
        if let Some(wake) = step.wake {
            assert!(wake > self.now, "a wake-up that is already due would spin");
        }
        assert!(!self.gone || step.actions.is_empty(), "gone is final: {:?}", step.actions);
        for action in step.actions {
            self.take(action);
        }
        self.check();
    }

    fn take(&mut self, action: Action) {
        match &action {
            Action::StartContainer { container, attempt, .. } => {
                assert!(self.sandbox, "{container} started without a sandbox");
                assert!(!self.live.contains_key(container), "two live runs of {container}");
                let asked = |it: &Action| matches!(it, Action::StartContainer { container: other, .. } if other == container);
                assert!(!self.asked.iter().any(asked), "two starts of {container} at once");
                let highest = self.highest.get(container);
                assert!(
                    highest.is_none_or(|highest| attempt > highest),
                    "{container}-{attempt} again"
                );
            }
            Action::CreateSandbox => {
                assert!(!self.sandbox && !self.asked.contains(&action), "a second sandbox");
            }
            Action::TearDownSandbox => {
                assert!(self.live.is_empty(), "torn down under {:?}", self.live);
                assert!(!self.asked.contains(&action), "torn down twice");
            }
            Action::SignalContainer { container, attempt, signal } => {
                // A container may have ended a moment before; the kernel then has nobody to signal.
                let alive = self.live.get(container) == Some(attempt);
                if alive && *signal == StopSignal::Kill {
                    self.end(&container.clone(), 137);
                }
                return;
            }
            Action::RemoveContainer { container, .. } => {
                self.dead.remove(container);
                return;
            }
            Action::Probe { .. } => {
                assert!(!self.asked.contains(&action), "{action:?} although it is under way");
            }
            Action::LookUpImage { .. } | Action::PullImage { .. } | Action::RunHook { .. } => {}
        }
        self.asked.push(action);
    }

    /// A process ends; the machine hears of it.
    fn end(&mut self, container: &str, code: i32) {
        let attempt = self.live.remove(container).unwrap();
        self.dead.insert(container.to_owned(), (attempt, code));
        self.asked.push(Action::RemoveContainer { container: container.to_owned(), attempt });
    }

    fn check(&mut self) {
        let status = self.machine.status();
        let containers = status
            .container_statuses
            .iter()
            .flatten()
            .chain(status.init_container_statuses.iter().flatten());
        for container in containers {
            let count = self.counts.entry(container.name.clone()).or_default();
            assert!(container.restart_count >= *count, "{} counts backwards", container.name);
            *count = container.restart_count;
            let running = container.state.as_ref().unwrap().running.is_some();
            let heard =
                self.live.contains_key(&container.name) || self.dead.contains_key(&container.name);
            assert!(!running || heard, "{} is said to run", container.name);
        }
        for condition in status.conditions.iter().flatten() {
            let since = condition.last_transition_time.as_ref().unwrap().0.to_string();
            let said = (condition.status.clone(), since);
            let before = self.conditions.insert(condition.type_.clone(), said.clone());
            if let Some(before) = before.filter(|before| before.0 == said.0) {
                assert_eq!(before.1, said.1, "{} changed its time alone", condition.type_);
            }
        }
        if self.machine.is_gone() {
            assert!(self.live.is_empty() && !self.sandbox, "gone with something left");
            self.gone = true;
        } else {
            assert!(!self.gone, "back from the dead");
        }
    }

    fn see(&mut self, seen: Observation) {
        self.machine.observe(seen, at(self.now));
        self.step();
    }

    fn answer(&mut self, which: usize, well: bool) {
        if self.asked.is_empty() {
            return;
        }
        let action = self.asked.remove(which % self.asked.len());
        let image_id = "x@sha256:1".to_owned();
        match action {
            Action::LookUpImage { container, .. } if well => {
                self.see(Observation::ImagePresent { container, image_id });
            }
            Action::LookUpImage { container, .. } => {
                self.see(Observation::ImageAbsent { container })
            }
            Action::PullImage { container, .. } if well => {
                self.see(Observation::ImagePulled {
                    container,
                    image_id,
                    took: Duration::ZERO,
                    size: 1,
                });
            }
            Action::PullImage { container, .. } => {
                let unreachable = which.is_multiple_of(2);
                self.see(Observation::ImagePullFailed {
                    container,
                    unreachable,
                    message: "no".into(),
                });
            }
            Action::CreateSandbox if well => {
                self.sandbox = true;
                self.see(Observation::SandboxReady { ip: None });
            }
            Action::CreateSandbox => self.see(Observation::SandboxFailed { message: "no".into() }),
            Action::StartContainer { container, attempt, .. } if well && self.sandbox => {
                self.highest.insert(container.clone(), attempt);
                self.live.insert(container.clone(), attempt);
                let at = at(self.now).wall;
                self.see(Observation::Started { container, attempt, at });
            }
            Action::StartContainer { container, attempt, .. } => {
                let failure =
                    [StartFailure::Config, StartFailure::Create, StartFailure::Run][which % 3];
                if failure == StartFailure::Run {
                    self.highest.insert(container.clone(), attempt);
                }
                self.see(Observation::StartFailed {
                    container,
                    attempt,
                    failure,
                    message: "no".into(),
                });
            }
            // In this list it stands for the news of an end.
            Action::RemoveContainer { container, attempt } => {
                let code = self.dead.get(&container).map_or(137, |(_, code)| *code);
                let exit = exit(code, self.now);
                self.see(Observation::Exited { container, attempt, exit });
            }
            Action::TearDownSandbox => {
                self.sandbox = false;
                self.dead.clear();
                self.see(Observation::SandboxGone);
            }
            Action::RunHook { container, attempt, hook } => {
                let error = (!well).then(|| "no".to_owned());
                self.see(Observation::HookDone { container, attempt, hook, error });
            }
            Action::Probe { container, attempt, kind } => {
                let failure = || ProbeOutcome::Failure("no".to_owned());
                let outcome = if well { ProbeOutcome::Success } else { failure() };
                self.see(Observation::Probed { container, attempt, kind, outcome });
            }
            Action::SignalContainer { .. } => unreachable!("answered when taken"),
        }
    }

    fn lose_sandbox(&mut self) {
        if self.sandbox {
            self.sandbox = false;
            self.live.clear();
            self.dead.clear();
            self.asked.retain(|it| {
                !matches!(it, Action::StartContainer { .. } | Action::RemoveContainer { .. })
            });
            self.see(Observation::SandboxLost);
        }
    }

    fn restart(&mut self, status_kept: bool, power_cut: bool) {
        if self.gone {
            return;
        }
        let status = status_kept.then(|| self.machine.status());
        if power_cut {
            self.sandbox = false;
            self.live.clear();
            self.dead.clear();
            // A boot brings the monotonic clock back to its start.
            self.now = Duration::from_secs(1);
        }
        let found = |name: &String, attempt: u32, exit: Option<Exit>| ContainerFound {
            name: name.clone(),
            attempt,
            started_at: None,
            exit,
        };
        let live = self.live.iter().map(|(name, attempt)| found(name, *attempt, None));
        let dead = self
            .dead
            .iter()
            .map(|(name, (attempt, code))| found(name, *attempt, Some(exit(*code, self.now))));
        let containers = live.chain(dead).collect();
        let sandbox = self.sandbox.then_some(SandboxFound { ip: None, containers });
        let recovered = Recovered { status, sandbox, attempts: self.highest.clone() };
        self.asked.clear();
        self.machine = PodMachine::resume(&self.pod, None, recovered, at(self.now)).unwrap();
        self.conditions.clear();
        if self.removed {
            self.machine.remove(at(self.now));
        }
        self.step();
    }

    fn change_image(&mut self) {
        let spec = self.pod.spec.as_mut().unwrap();
        let image = spec.containers[0].image.as_mut().unwrap();
        *image = if image == "x:1" { "x:2".into() } else { "x:1".into() };
        self.desire();
    }

    fn delete(&mut self, grace: i64) {
        let stamp = serde_json::from_value(json!("2027-01-15T08:00:00Z")).unwrap();
        self.pod.metadata.deletion_timestamp = Some(stamp);
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
        self.desire();
    }

    fn desire(&mut self) {
        self.machine.desire(&self.pod, at(self.now)).unwrap();
        self.step();
    }

    fn nonsense(&mut self, attempt: u32) {
        let stale = |world: &Self, name: &str| world.live.get(name) != Some(&attempt);
        if stale(self, "a") {
            let known_end = self.dead.get("a").is_some_and(|(dead, _)| *dead == attempt);
            if !known_end {
                self.see(Observation::Exited {
                    container: "a".into(),
                    attempt,
                    exit: exit(1, self.now),
                });
            }
        }
        self.see(Observation::Exited {
            container: "nobody".into(),
            attempt,
            exit: exit(1, self.now),
        });
        if !self
            .asked
            .iter()
            .any(|it| matches!(it, Action::LookUpImage { container, .. } if container == "b"))
        {
            self.see(Observation::ImageAbsent { container: "b".into() });
        }
    }

    fn apply(&mut self, deed: Deed) {
        match deed {
            Deed::Answer { which, well } => self.answer(which, well),
            Deed::Pass { seconds } => {
                self.now += Duration::from_secs(seconds);
                self.step();
            }
            Deed::Crash { which, code } => {
                let names: Vec<_> = self.live.keys().cloned().collect();
                if !names.is_empty() {
                    self.end(&names[which % names.len()], code);
                }
            }
            Deed::LoseSandbox => self.lose_sandbox(),
            Deed::RestartAgent { status_kept } => self.restart(status_kept, false),
            Deed::PowerCut { status_kept } => self.restart(status_kept, true),
            Deed::ChangeImage => self.change_image(),
            Deed::Delete { grace } => self.delete(grace),
            Deed::Remove => {
                self.removed = true;
                self.machine.remove(at(self.now));
                self.step();
            }
            Deed::Nonsense { attempt } => self.nonsense(attempt),
        }
    }

    /// From now on everything works; init containers do their work and end.
    fn heal(&mut self) {
        for _ in 0..60 {
            while !self.asked.is_empty() {
                self.answer(0, true);
            }
            if self.live.contains_key("i") {
                self.end("i", 0);
                continue;
            }
            self.now += Duration::from_secs(301);
            self.step();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_through_any_life(
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        deeds in prop::collection::vec(deed(), 0..80),
    ) {
        let mut world = World::new(policy);
        for deed in deeds {
            world.apply(deed);
        }
        world.heal();
        let status = world.machine.status();
        let phase = status.phase.clone().unwrap();
        let ending = world.removed || world.pod.metadata.deletion_timestamp.is_some();
        if ending {
            prop_assert!(world.gone, "a pod that is to end ends: {status:?}");
        } else if policy == "Always" {
            prop_assert_eq!(phase, "Running");
            prop_assert!(world.live.contains_key("a") && world.live.contains_key("b"));
        } else {
            let settled = ["Running", "Succeeded", "Failed"].contains(&phase.as_str());
            prop_assert!(settled, "{status:?}");
        }
    }
}
