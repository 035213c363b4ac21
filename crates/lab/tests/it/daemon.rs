//! Processes in the background: started once, found again, stopped, never mistaken for another.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use toono_lab::{Daemon, DaemonError, Spawn};
use toono_net::netns;

const GRACE: Duration = Duration::from_secs(5);

fn sh(script: &str) -> Spawn {
    Spawn {
        program: "/bin/sh".into(),
        args: vec!["-c".to_owned(), script.to_owned()],
        env: vec![("GREETING".to_owned(), "hello".to_owned())],
        netns: None,
    }
}

/// Waits until the file holds the text, which its writer is about to write.
fn await_text(path: &Path, text: &str) {
    let written = |_| {
        std::fs::read_to_string(path).is_ok_and(|found| found.contains(text)) || {
            std::thread::sleep(Duration::from_millis(10));
            false
        }
    };
    assert!((0..500).any(written), "{text:?} in {}", path.display());
}

#[test]
fn a_daemon_runs_once_and_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::new(dir.path(), "sleeper");
    assert_eq!(daemon.running().unwrap(), None);
    assert!(!daemon.stop(GRACE).unwrap());
    let (pid, started) = daemon.start(&sh("echo $GREETING; exec sleep 1000")).unwrap();
    assert!(started);
    assert_eq!(Daemon::all(dir.path()), std::slice::from_ref(&daemon));
    assert_eq!(daemon.start(&sh("exit 1")).unwrap(), (pid, false));
    assert_eq!(Daemon::new(dir.path(), "sleeper").running().unwrap(), Some(pid));
    await_text(&daemon.log_path(), "hello");
    let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid))).unwrap();
    assert_eq!(session.as_raw(), pid, "in a session of its own");
    assert!(daemon.stop(GRACE).unwrap());
    assert_eq!(daemon.running().unwrap(), None);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(!daemon.stop(GRACE).unwrap());
}

#[test]
fn a_daemon_that_does_not_listen_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::new(dir.path(), "stubborn");
    daemon.start(&sh("trap '' TERM; echo ready; exec sleep 1000")).unwrap();
    await_text(&daemon.log_path(), "ready");
    assert!(daemon.stop(Duration::from_millis(100)).unwrap());
    assert_eq!(daemon.running().unwrap(), None);
}

#[test]
fn a_daemon_that_ended_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::new(dir.path(), "short");
    let (first, _) = daemon.start(&sh("echo done")).unwrap();
    await_text(&daemon.log_path(), "done");
    assert!((0..500).any(|_| daemon.running().unwrap().is_none() || {
        std::thread::sleep(Duration::from_millis(10));
        false
    }));
    let (second, started) = daemon.start(&sh("exec sleep 1000")).unwrap();
    assert!(started && second != first);
    assert!(daemon.stop(GRACE).unwrap());
}

#[test]
fn a_recycled_pid_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut bystander =
        Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let file = format!(r#"{{"pid":{},"start":1,"boot":"{}"}}"#, bystander.id(), boot.trim_end());
    std::fs::write(dir.path().join("old.pid"), file).unwrap();
    let daemon = Daemon::new(dir.path(), "old");
    assert_eq!(daemon.running().unwrap(), None);
    assert!(!daemon.stop(GRACE).unwrap());
    assert_eq!(bystander.try_wait().unwrap(), None, "it still runs");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn a_daemon_in_a_namespace() {
    let dir = tempfile::tempdir().unwrap();
    let name = format!("tlab-{}", std::process::id());
    let netns = netns::create(&name).unwrap();
    let daemon = Daemon::new(dir.path(), "inside");
    let (pid, _) =
        daemon.start(&Spawn { netns: Some(netns.clone()), ..sh("exec sleep 1000") }).unwrap();
    let inside = netns::of_pid(pid).unwrap().identity().unwrap();
    assert!(daemon.stop(GRACE).unwrap());
    netns::delete(&name).unwrap();
    assert_eq!(inside, netns.identity().unwrap());
}

#[test]
fn a_program_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let spawn = Spawn { program: "/no/such".into(), ..sh("") };
    let error = Daemon::new(dir.path(), "none").start(&spawn).unwrap_err();
    assert!(matches!(error, DaemonError::Start { .. }), "{error}");
}
