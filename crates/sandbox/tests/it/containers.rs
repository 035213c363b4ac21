//! What a container gets, and what is told of its end.

use std::{fs, path::PathBuf};

use toono_sandbox::{ContainerStatus, KeeperError, Mount};

use crate::pod::Pod;

#[tokio::test]
async fn exit_codes_and_signals_are_told() {
    let pod = Pod::start().await;
    for (script, code, signal) in
        [("exit 0", 0, None), ("exit 7", 7, None), ("kill -TERM $$; sleep 9", 143, Some(15))]
    {
        let mut spec = pod.container("main", script);
        // The first process of a PID namespace ignores signals without a handler, so a child.
        if signal.is_some() {
            spec.args = ["/bin/sh", "-c", "trap 'exit 143' TERM; kill -TERM $$; sleep 9"]
                .map(str::to_owned)
                .to_vec();
        }
        let (status, _) = pod.run(&spec).await;
        assert_eq!(status.code, code, "{script}");
        pod.keeper.remove(&spec.id()).await.unwrap();
    }
    let spec = pod.container("sleeper", "sleep 100");
    pod.keeper.create_and_start(&spec).await.unwrap();
    pod.keeper.signal(&spec.id(), libc::SIGKILL).await.unwrap();
    let status = pod.wait_exit(&spec.id()).await;
    assert_eq!((status.code, status.signal, status.oom_killed), (137, Some(9), false));
    // A signal to one that has ended is no error.
    pod.keeper.signal(&spec.id(), libc::SIGTERM).await.unwrap();
}

#[tokio::test]
async fn image_arguments_environment_directory_and_user_arrive() {
    let pod = Pod::start().await;
    let mut spec = pod.container(
        "main",
        "cat /etc/version; echo; echo $GREETING; pwd; id -u; id -g; id -G; hostname; echo $HOME",
    );
    spec.env = vec![("GREETING".to_owned(), "sain baina uu".to_owned())];
    spec.cwd = "/srv/app".to_owned();
    spec.user = "app".to_owned();
    let (status, log) = pod.run(&spec).await;
    assert_eq!(status.code, 0, "{log}");
    assert_eq!(log, "top\nsain baina uu\n/srv/app\n1000\n1001\n1001 33\nweb-0\n/\n");
}

#[tokio::test]
async fn both_streams_are_logged() {
    let pod = Pod::start().await;
    let spec = pod.container("main", "echo out; echo err >&2; echo -n rest");
    pod.run(&spec).await;
    let mut lines: Vec<String> = pod
        .log_raw("main")
        .lines()
        .map(|line| line.split_once(' ').unwrap().1.to_owned())
        .collect();
    lines.sort();
    assert_eq!(lines, ["stderr F err", "stdout F out", "stdout F rest"]);
}

#[tokio::test]
async fn a_program_that_cannot_run_is_a_clear_error() {
    let pod = Pod::start().await;
    let cases = [
        ("/bin/nope", "exec: \"/bin/nope\": no such file or directory"),
        ("nope", "exec: \"nope\": executable file not found in $PATH"),
        ("/etc/not-executable", "exec: \"/etc/not-executable\": permission denied"),
        ("/etc", "exec: \"/etc\": is a directory"),
    ];
    for (program, expected) in cases {
        let mut spec = pod.container("main", "");
        spec.args = vec![program.to_owned()];
        let error = pod.keeper.create_and_start(&spec).await.unwrap_err();
        assert!(matches!(error, KeeperError::Refused { .. }));
        assert_eq!(error.to_string(), expected);
    }
    let mut spec = pod.container("main", "exit 0");
    spec.user = "ghost".to_owned();
    let error = pod.keeper.create_and_start(&spec).await.unwrap_err();
    assert_eq!(error.to_string(), "user ghost: no such user in /etc/passwd");
    // Nothing half-made is in the way of the next attempt.
    assert!(pod.keeper.state().await.unwrap().containers.is_empty());
    let (status, _) = pod.run(&pod.container("main", "exit 3")).await;
    assert_eq!(status.code, 3);
}

#[tokio::test]
async fn limits_are_set_and_memory_that_runs_out_is_told() {
    let pod = Pod::start().await;
    let mut spec = pod.container("main", "sleep 100");
    spec.resources.memory_bytes = Some(32 << 20);
    spec.resources.cpu_shares = Some(512);
    spec.resources.cpu_quota_us = Some(50_000);
    spec.resources.pids = Some(64);
    spec.resources.oom_score_adj = Some(900);
    let state = pod.keeper.create_and_start(&spec).await.unwrap();
    let file = |controller, name| pod.cgroup_file(controller, &spec.id(), name).trim().to_owned();
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        assert_eq!(file("", "memory.max"), (32 << 20).to_string());
        assert_eq!(file("", "cpu.max"), "50000 100000");
        assert_eq!(file("", "pids.max"), "64");
    } else {
        assert_eq!(file("memory", "memory.limit_in_bytes"), (32 << 20).to_string());
        assert_eq!(file("cpu", "cpu.shares"), "512");
        assert_eq!(file("cpu", "cpu.cfs_quota_us"), "50000");
        assert_eq!(file("cpu", "cpu.cfs_period_us"), "100000");
        assert_eq!(file("pids", "pids.max"), "64");
    }
    let ContainerStatus::Running { pid } = state.status else { panic!("{state:?}") };
    let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(score.trim(), "900");

    let mut greedy = pod.container("greedy", "x=a; while true; do x=$x$x; done");
    greedy.resources.memory_bytes = Some(16 << 20);
    let (status, _) = pod.run(&greedy).await;
    assert!(status.oom_killed, "{status:?}");
    assert_eq!(status.code, 137);
}

#[tokio::test]
async fn mounts_are_there_and_what_is_written_stays_in_the_container() {
    let pod = Pod::start().await;
    let host_file = pod.dir.path().join("resolv.conf");
    fs::write(&host_file, "nameserver 10.0.0.10\n").unwrap();
    let mut spec = pod.container(
        "main",
        "cat /etc/resolv.conf; echo x >/etc/resolv.conf || echo refused; \
         echo new >/etc/version; ls /cache /dev/shm /dev/pts/ptmx; \
         grep -c ' /proc/kcore ' /proc/mounts; echo y >/proc/sys/vm/swappiness || echo refused",
    );
    spec.mounts = vec![
        Mount::Bind {
            source: host_file.clone(),
            target: PathBuf::from("/etc/resolv.conf"),
            read_only: true,
            all_read_only: false,
            follows_host: false,
        },
        Mount::Memory { target: PathBuf::from("/cache"), size_bytes: Some(1 << 20) },
    ];
    let (status, log) = pod.run(&spec).await;
    assert_eq!(status.code, 0, "{log}");
    assert!(log.starts_with("nameserver 10.0.0.10\n"), "{log}");
    assert_eq!(log.matches("refused").count(), 2, "{log}");
    assert!(log.contains("/dev/pts/ptmx"), "{log}");
    assert_eq!(fs::read_to_string(pod.dir.path().join("top/etc/version")).unwrap(), "top");
    let (_, again) = pod.run(&pod.container("second", "cat /etc/version")).await;
    assert_eq!(again, "top\n");
}

#[tokio::test]
async fn containers_share_the_pods_namespaces_but_not_processes() {
    let pod = Pod::start().await;
    let first = pod.container("first", "touch /dev/shm/here; exec sleep 100");
    let state = pod.keeper.create_and_start(&first).await.unwrap();
    let ContainerStatus::Running { pid } = state.status else { panic!("{state:?}") };
    let namespace = |pid: i32, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    let keeper = pod.keeper.pid().as_raw();
    let own = i32::try_from(std::process::id()).unwrap();
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(namespace(pid, kind), namespace(keeper, kind), "{kind}");
        assert_ne!(namespace(pid, kind), namespace(own, kind), "{kind}");
    }
    for kind in ["pid", "mnt", "cgroup"] {
        assert_ne!(namespace(pid, kind), namespace(keeper, kind), "{kind}");
    }
    let (_, log) = pod
        .run(&pod.container(
            "second",
            "ls /dev/shm; ls /proc | grep -c '^[0-9]'; ip -o addr show lo | grep -c 127.0.0.1",
        ))
        .await;
    // The shell, ls and grep at most.
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!((lines.first(), lines.last()), (Some(&"here"), Some(&"1")), "{log}");
    assert!(lines.get(1).unwrap().parse::<u32>().unwrap() <= 3, "{log}");
}

#[tokio::test]
async fn many_containers_start_and_end_at_once() {
    let pod = Pod::start().await;
    let specs: Vec<_> =
        (0..8).map(|n| pod.container(&format!("c{n}"), &format!("echo {n}; exit {n}"))).collect();
    let starting = specs.iter().map(|spec| {
        let (keeper, spec) = (pod.keeper.clone(), spec.clone());
        tokio::spawn(async move { keeper.create_and_start(&spec).await.map(|state| state.id) })
    });
    for started in starting.collect::<Vec<_>>() {
        started.await.unwrap().unwrap();
    }
    for (n, spec) in (0..).zip(&specs) {
        assert_eq!(pod.wait_exit(&spec.id()).await.code, n);
        assert_eq!(pod.log_text(&spec.name), format!("{n}\n"));
    }
}

#[tokio::test]
async fn a_mount_of_nothing_is_named_and_leaves_no_trace() {
    let pod = Pod::start().await;
    let mut spec = pod.container("main", "true");
    let source = pod.dir.path().join("missing");
    let target = PathBuf::from("/etc/hosts");
    spec.mounts = vec![Mount::bind(source.clone(), target)];
    let error = pod.keeper.create_and_start(&spec).await.unwrap_err().to_string();
    assert!(error.contains(source.to_str().unwrap()) && error.contains("/etc/hosts"), "{error}");
    // A log would say that there was a run.
    assert!(!pod.log_path("main").exists());
    fs::write(source, "").unwrap();
    pod.run(&spec).await;
}
