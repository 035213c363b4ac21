//! A measurement that is asked to end takes its server with it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const SOON: Duration = Duration::from_secs(20);
/// In place of the server: it says who it is, and is never ready.
const SERVER: &str =
    "#!/bin/sh\necho $$ > \"$3/pid.new\"; mv \"$3/pid.new\" \"$3/pid\"; exec sleep 600\n";

#[test]
fn a_signal_ends_the_server_too() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("server");
    fs::write(&program, SERVER).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    for command in ["api", "fleet", "storm", "http-lease", "hostile"] {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let data = dir.path().join(format!("{command}-{signal}"));
            let mut sim = Command::new(env!("CARGO_BIN_EXE_toono-sim"))
                .arg(command)
                .args([Path::new("--toono"), &program, Path::new("--data"), &data])
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let server = until("the server to start", || {
                fs::read_to_string(data.join("pid")).ok()?.trim().parse::<i32>().ok()
            });
            kill(Pid::from_raw(i32::try_from(sim.id()).unwrap()), signal).unwrap();
            assert!(!sim.wait().unwrap().success(), "{command} {signal}");
            until("the server's end", || (!runs(server)).then_some(()));
        }
    }
}

/// A process that nobody has waited for yet has ended all the same.
fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn until<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = fact() {
            return found;
        }
        assert!(began.elapsed() < SOON, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
