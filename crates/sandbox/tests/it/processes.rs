//! Whose processes a container sees: its own, its pod's, another container's, the host's.

use std::fs;

use toono_sandbox::{ContainerId, ContainerSpec, ExecSpec, Processes};

use crate::pod::{PATIENCE, Pod};

/// A container that says how many processes it sees that bear a mark.
fn looks_for(pod: &Pod, mark: &str) -> ContainerSpec {
    let script = format!(
        "n=0; for p in /proc/[0-9]*; do grep -q 'mark-{mark}' $p/cmdline 2>/dev/null && n=1; done; \
         echo $n $$"
    );
    pod.container("look", &script.replace("mark-", "mark[-]"))
}

/// A container that bears it.
fn bears(pod: &Pod, mark: &str) -> ContainerSpec {
    pod.container(
        "main",
        &format!(": mark-{mark}; trap 'exit 0' TERM; while :; do sleep 0.1; done"),
    )
}

#[tokio::test]
async fn containers_see_what_their_pod_lets_them_see() {
    for (processes, sees) in
        [(Processes::Own, "0 1"), (Processes::Pod, "1 "), (Processes::Host, "1 ")]
    {
        let pod = Pod::start_with(|spec| spec.processes = processes).await;
        let mark = format!("{processes:?}-{}", std::process::id());
        pod.keeper.create_and_start(&bears(&pod, &mark)).await.unwrap();
        let command = ExecSpec {
            container: ContainerId::new("main", 0),
            args: vec!["/bin/true".to_owned()],
            tty: false,
            stdin: false,
            ends_with_client: false,
        };
        let ended = pod.keeper.exec(&command).await.unwrap().exit.wait().await.unwrap();
        assert_eq!(ended.code, 0, "commands run there, too: {processes:?}");
        let (_, log) = pod.run(&looks_for(&pod, &mark)).await;
        assert!(log.starts_with(sees), "{processes:?}: {log}");
        assert_eq!(log.trim() == "0 1", processes == Processes::Own, "{processes:?}: {log}");
        pod.keeper.shutdown().await.unwrap();
        toono_sandbox::prune_cgroups(&pod.spec.cgroup_parent).unwrap();
        assert_eq!(pod.traces(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_shared_namespace_outlives_each_of_its_containers() {
    let pod = Pod::start_with(|spec| spec.processes = Processes::Pod).await;
    // What a container leaves behind ends with it, although its namespace goes on.
    let (status, _) = pod.run(&pod.container("first", "sleep 1000 & exit 3")).await;
    assert_eq!(status.code, 3);
    let (_, log) =
        pod.run(&pod.container("second", "cat /proc/1/comm; ps | grep -c '[s]leep 1000'")).await;
    assert_eq!(log, "pause\n0\n");
    pod.keeper.shutdown().await.unwrap();
    toono_sandbox::prune_cgroups(&pod.spec.cgroup_parent).unwrap();
    assert_eq!(pod.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn a_sandbox_ends_with_the_namespace_that_its_containers_share() {
    let pod = Pod::start_with(|spec| spec.processes = Processes::Pod).await;
    let version = pod.keeper.state().await.unwrap().version;
    pod.keeper.create_and_start(&bears(&pod, "end")).await.unwrap();
    let keeper = pod.keeper.pid();
    let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
    let is_first =
        |pid: &&str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() == "pause\n";
    let first: i32 = children.split_whitespace().find(is_first).unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::SIGKILL).unwrap();
    let gone = async {
        let mut version = version;
        while let Ok(snapshot) = pod.keeper.wait_change(version).await {
            version = snapshot.version;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the keeper ends, so that another is made");
    toono_sandbox::prune_cgroups(&pod.spec.cgroup_parent).unwrap();
    assert_eq!(pod.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn a_container_may_be_put_beside_another() {
    let pod = Pod::start().await;
    let main = bears(&pod, "beside");
    pod.keeper.create_and_start(&main).await.unwrap();
    let mut look = looks_for(&pod, "beside");
    look.beside = Some(main.id());
    let (_, log) = pod.run(&look).await;
    assert!(log.starts_with("1 "), "{log}");
    pod.keeper.signal(&main.id(), libc::SIGKILL).await.unwrap();
    pod.wait_exit(&main.id()).await;
    look.attempt = 1;
    let error = pod.keeper.create_and_start(&look).await.unwrap_err();
    assert_eq!(error.to_string(), "container main-0 is not running");
}

#[tokio::test]
async fn a_pod_may_stay_in_the_hosts_ipc_namespace() {
    let host = fs::read_link("/proc/self/ns/ipc").unwrap();
    for host_ipc in [false, true] {
        let pod = Pod::start_with(|spec| spec.host_ipc = host_ipc).await;
        let (_, log) = pod.run(&pod.container("main", "readlink /proc/self/ns/ipc")).await;
        assert_eq!(log.trim() == host.to_str().unwrap(), host_ipc, "{log}");
        pod.keeper.shutdown().await.unwrap();
        toono_sandbox::prune_cgroups(&pod.spec.cgroup_parent).unwrap();
        assert_eq!(pod.traces(), Vec::<String>::new());
    }
}
