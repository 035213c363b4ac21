//! How keepers begin and end, and what they leave behind: nothing.

use nix::sys::signal::{SIGKILL, kill};
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
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let result = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(result.is_ok(), "left: {:?}", pod.traces());
}
