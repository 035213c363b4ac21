//! How keepers begin and end, and what they leave behind: nothing.

use std::time::Duration;

use nix::{
    sys::signal::{SIGKILL, kill},
    unistd::Pid,
};
use toono_sandbox::{ContainerStatus, Keeper, KeeperError};

use crate::pod::{PATIENCE, Pod};

#[tokio::test]
async fn shutdown_leaves_nothing() {
    let pod = Pod::start().await;
    pod.keeper.create_and_start(&pod.container("first", "sleep 100")).await.unwrap();
    pod.keeper.create_and_start(&pod.container("second", "sleep 100 & sleep 100")).await.unwrap();
    pod.run(&pod.container("third", "exit 1")).await;
    assert!(!pod.traces().is_empty(), "the check finds what it is to find");
    pod.keeper.shutdown().await.unwrap();
    toono_sandbox::prune_cgroups(&pod.spec.cgroup_parent).unwrap();
    wait_gone(&pod).await;
    assert!(Keeper::adopt(&pod.spec.dir).await.unwrap().is_none());
    // Once more is no error.
    pod.keeper.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_new_client_finds_everything_as_it_was() {
    let pod = Pod::start().await;
    let main = pod.container("main", "sleep 100");
    let brief = pod.container("brief", "exit 4");
    let before = pod.keeper.create_and_start(&main).await.unwrap();
    pod.run(&brief).await;
    let adopted = Keeper::adopt(&pod.spec.dir).await.unwrap().unwrap();
    assert_eq!(adopted.pid(), pod.keeper.pid());
    // It is no child of ours, in no group of ours: what ends us does not end it.
    let keeper = stat(pod.keeper.pid().as_raw());
    let own = stat(i32::try_from(std::process::id()).unwrap());
    assert_ne!(keeper.parent, own.pid);
    assert_ne!(keeper.session, own.session);
    let snapshot = adopted.state().await.unwrap();
    assert_eq!(snapshot.containers.first(), Some(&before));
    assert!(matches!(
        snapshot.containers.get(1).unwrap().status,
        ContainerStatus::Exited { status, .. } if status.code == 4
    ));
}

#[tokio::test]
async fn a_killed_keeper_takes_its_containers_along() {
    let pod = Pod::start().await;
    let state = pod.keeper.create_and_start(&pod.container("main", "sleep 100")).await.unwrap();
    let ContainerStatus::Running { pid } = state.status else { panic!("{state:?}") };
    kill(pod.keeper.pid(), SIGKILL).unwrap();
    let error = tokio::time::timeout(PATIENCE, pod.keeper.wait_change(u64::MAX)).await.unwrap();
    assert!(matches!(error, Err(KeeperError::Gone { .. })) || error.is_ok());
    toono_sandbox::reclaim(&pod.spec).await.unwrap();
    toono_sandbox::prune_cgroups(&pod.spec.cgroup_parent).unwrap();
    wait_gone(&pod).await;
    // It may be a zombie until the machine's init reaps it.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    // The same directory can be used again.
    let again = Keeper::spawn(&pod.spec).await.unwrap();
    again.create_and_start(&pod.container("main", "sleep 100")).await.unwrap();
    again.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_keeper_that_cannot_start_says_why() {
    let pod = Pod::start().await;
    // A second one for the same directory would pull the first one's containers from under it.
    let error = Keeper::spawn(&pod.spec).await.unwrap_err();
    assert!(error.to_string().contains("keeps it already"), "{error}");
    pod.keeper.state().await.unwrap();
    let mut spec = pod.spec.clone();
    spec.dir = pod.dir.path().join("file");
    std::fs::write(&spec.dir, "").unwrap();
    spec.cgroup_parent.push_str("-other");
    let error = Keeper::spawn(&spec).await.unwrap_err();
    assert!(matches!(error, KeeperError::Spawn { .. }), "{error:?}");
    spec.program.path = "/nonexistent".into();
    spec.dir = pod.dir.path().join("fine");
    let error = Keeper::spawn(&spec).await.unwrap_err();
    assert!(error.to_string().contains("/nonexistent"), "{error}");
}

#[tokio::test]
async fn a_keeper_whose_caller_ends_too_early_ends_too() {
    let pod = Pod::start().await;
    pod.keeper.shutdown().await.unwrap();
    // Dropping the call is what the death of the caller is to the keeper: its pipe is closed.
    for delay_ms in 0..30 {
        // One that was told that it is known, but whose caller never heard of it, is found here.
        toono_sandbox::reclaim(&pod.spec).await.unwrap();
        let spawning = Keeper::spawn(&pod.spec);
        let spawned = tokio::time::timeout(Duration::from_millis(delay_ms), spawning).await;
        if let Ok(keeper) = spawned {
            keeper.unwrap().shutdown().await.unwrap();
        }
    }
    toono_sandbox::reclaim(&pod.spec).await.unwrap();
    // The last of them may still be on its way out; the next waits for it.
    Keeper::spawn(&pod.spec).await.unwrap().shutdown().await.unwrap();
    toono_sandbox::prune_cgroups(&pod.spec.cgroup_parent).unwrap();
    wait_gone(&pod).await;
}

#[tokio::test]
async fn a_keeper_killed_amid_creating_leaves_nothing() {
    let pod = Pod::start().await;
    let spec = pod.container("main", "sleep 100");
    let mut keeper = pod.keeper.clone();
    for delay_ms in 0..25 {
        let creating = keeper.create_and_start(&spec);
        let _ = tokio::time::timeout(Duration::from_millis(delay_ms), creating).await;
        kill(keeper.pid(), SIGKILL).unwrap();
        toono_sandbox::reclaim(&pod.spec).await.unwrap();
        toono_sandbox::prune_cgroups(&pod.spec.cgroup_parent).unwrap();
        wait_gone(&pod).await;
        keeper = Keeper::spawn(&pod.spec).await.unwrap();
    }
    keeper.create_and_start(&spec).await.unwrap();
    keeper.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_child_killed_amid_creating_is_a_failure_that_can_be_repeated() {
    let pod = Pod::start().await;
    let spec = pod.container("main", "sleep 100");
    let keeper = pod.keeper.pid();
    let mut failures = 0;
    for delay_ms in 0..25 {
        let creating = pod.keeper.create_and_start(&spec);
        let killing = async {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            for child in children(keeper) {
                let _ = kill(child, SIGKILL);
            }
        };
        let both = async { tokio::join!(creating, killing).0 };
        let result = tokio::time::timeout(PATIENCE, both).await.expect("it is told");
        failures += u32::from(result.is_err());
        if result.is_ok() {
            pod.keeper.signal(&spec.id(), nix::libc::SIGKILL).await.unwrap();
        }
        let ending = async {
            while pod.keeper.remove(&spec.id()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ending).await.expect("it can be removed");
        let ending = async {
            while !children(keeper).is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ending).await.expect("no process is left");
    }
    assert!(failures > 0, "no delay hit the creation");
    pod.keeper.create_and_start(&spec).await.unwrap();
    pod.keeper.shutdown().await.unwrap();
}

fn children(process: Pid) -> Vec<Pid> {
    let path = format!("/proc/{process}/task/{process}/children");
    let text = std::fs::read_to_string(path).unwrap();
    text.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}

struct Stat {
    pid: i32,
    parent: i32,
    session: i32,
}

/// proc_pid_stat(5); the name is in parentheses and may hold anything.
fn stat(pid: i32) -> Stat {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let rest = text.rsplit_once(") ").unwrap().1;
    let field = |at: usize| rest.split(' ').nth(at).unwrap().parse().unwrap();
    Stat { pid, parent: field(1), session: field(3) }
}

/// Processes that were killed need a moment to vanish, and there is no event for it.
async fn wait_gone(pod: &Pod) {
    let waiting = async {
        loop {
            if pod.traces().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let result = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(result.is_ok(), "left: {:?}", pod.traces());
}

#[tokio::test]
async fn two_hundred_containers_start_eight_at_a_time() {
    let pods = (0..8).map(|number| async move {
        let shares = number % 2 == 1;
        let pod = Pod::start_with(|spec| {
            if shares {
                spec.processes = toono_sandbox::Processes::Pod;
            }
        })
        .await;
        for attempt in 0..25 {
            let mut spec = pod.container("main", "exit 3");
            spec.attempt = attempt;
            spec.tty = attempt % 3 == 0;
            spec.security.privileged = attempt % 4 == 0;
            spec.resources.memory_bytes = Some(64 << 20);
            let started = pod.keeper.create_and_start(&spec).await;
            started.unwrap_or_else(|error| panic!("container {attempt} of pod {number}: {error}"));
            assert_eq!(pod.wait_exit(&spec.id()).await.code, 3);
            pod.keeper.remove(&spec.id()).await.unwrap();
        }
    });
    futures::future::join_all(pods).await;
}
