//! `exec`, `attach` and `cp`.

use std::process::Stdio;

use nix::pty::{Winsize, openpty};
use tokio::io::AsyncReadExt;

use crate::host::Host;
use crate::kubectl::{PATIENCE, Protocol, kubectl, run, text};
use crate::site::Site;

/// Bytes that compress badly and repeat late.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test]
async fn output_errors_and_exit_code_come_back() {
    for protocol in Protocol::BOTH {
        let host = Host::new();
        let site = Site::start(host.clone()).await;
        let script = "echo out; echo err >&2; exit 3";
        let (code, out, err) =
            text(protocol, &site, &["exec", "web", "--", "sh", "-c", script]).await;
        assert_eq!((code, out.as_str()), (Some(3), "out\n"), "{protocol:?}: {err}");
        assert!(err.contains("err\n") && err.contains("exit code 3"), "{protocol:?}: {err}");
        assert_eq!(*site.upgrades.lock().unwrap(), [protocol.upgrade()]);
        let asked = host.asked();
        assert!(
            asked[0].starts_with("/exec/default/web/app?command=sh&command=-c&command=echo%20"),
            "{asked:?}"
        );
    }
}

#[tokio::test]
async fn megabytes_go_in_and_come_back_and_stdin_ends() {
    let sent = noise(6 * 1024 * 1024);
    for protocol in Protocol::BOTH {
        let site = Site::start(Host::new()).await;
        let output =
            run(protocol, &site, &["exec", "-i", "web", "-c", "side", "--", "cat"], &sent).await;
        assert!(
            output.status.success(),
            "{protocol:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.stdout == sent, "{protocol:?}: {} bytes came back", output.stdout.len());
    }
}

#[tokio::test]
async fn a_command_may_end_before_it_read_its_stdin() {
    let sent = noise(4 * 1024 * 1024);
    for protocol in Protocol::BOTH {
        let site = Site::start(Host::new()).await;
        let output =
            run(protocol, &site, &["exec", "-i", "web", "--", "sh", "-c", "exit 5"], &sent).await;
        assert_eq!(output.status.code(), Some(5), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_terminal_has_the_clients_size() {
    for protocol in Protocol::BOTH {
        let site = Site::start(Host::new()).await;
        let size = Winsize { ws_row: 33, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).unwrap();
        let slave = || Stdio::from(pair.slave.try_clone().unwrap());
        let script = "until [ \"$(stty size)\" = '33 101' ]; do :; done; tty; exit 7";
        let mut command = kubectl(protocol, &site);
        command.args(["exec", "-it", "web", "--", "sh", "-c", script]);
        command.stdin(slave()).stdout(slave()).stderr(slave());
        let mut child = command.spawn().unwrap();
        drop(command);
        drop(pair.slave);
        let mut master = tokio::fs::File::from_std(pair.master.into());
        let status = tokio::time::timeout(PATIENCE, child.wait()).await.expect("it hangs").unwrap();
        assert_eq!(status.code(), Some(7), "{protocol:?}");
        let mut screen = vec![0; 4096];
        let length = master.read(&mut screen).await.unwrap();
        let screen = String::from_utf8_lossy(&screen[..length]);
        assert!(screen.contains("/dev/pts/"), "{protocol:?}: {screen}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_command() {
    for protocol in Protocol::BOTH {
        let host = Host::new();
        let site = Site::start(host.clone()).await;
        let mut command = kubectl(protocol, &site);
        command.args(["exec", "web", "--", "sh", "-c", "echo up; exec sleep 1000"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut first = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"up\n");
        child.kill().await.unwrap();
        let mut given_up = host.given_up.subscribe();
        let waited = tokio::time::timeout(PATIENCE, given_up.wait_for(|count| *count == 1)).await;
        assert!(waited.is_ok(), "{protocol:?}: the node was not told");
    }
}

#[tokio::test]
async fn a_node_that_breaks_off_is_an_error_that_names_it() {
    for protocol in Protocol::BOTH {
        let site = Site::start(Host::new()).await;
        let args = ["exec", "web", "--", "break-off"];
        let (code, out, err) = text(protocol, &site, &args).await;
        assert_eq!((code, out.as_str()), (Some(1), "so far\n"), "{protocol:?}: {err}");
        let message = "the connection to node edge-1 broke while the command ran";
        assert!(err.contains(message), "{protocol:?}: {err}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_command() {
    const OUTPUT: usize = 64 * 1024 * 1024;
    for protocol in Protocol::BOTH {
        let host = Host::new();
        let site = Site::start(host.clone()).await;
        let mut command = kubectl(protocol, &site);
        command.args(["exec", "web", "--", "head", "-c", &OUTPUT.to_string(), "/dev/zero"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut taken = host.taken.subscribe();
        taken.wait_for(|taken| *taken > 0).await.unwrap();
        // It stands still when nothing was taken for a while.
        while tokio::time::timeout(std::time::Duration::from_millis(700), taken.changed())
            .await
            .is_ok()
        {}
        let stalled = *taken.borrow();
        assert!(stalled < OUTPUT / 2, "{protocol:?}: {stalled} bytes were taken for nobody");

        let mut pipe = child.stdout.take().unwrap();
        let drained = async {
            let mut whole = Vec::new();
            pipe.read_to_end(&mut whole).await.unwrap();
            whole.len()
        };
        let drained = tokio::time::timeout(PATIENCE, drained).await.expect("it hangs");
        assert_eq!(drained, OUTPUT, "{protocol:?}");
        assert!(child.wait().await.unwrap().success());
    }
}

#[tokio::test]
async fn attach_reads_and_writes() {
    for protocol in Protocol::BOTH {
        let host = Host::new();
        let site = Site::start(host.clone()).await;
        let output = run(protocol, &site, &["attach", "-i", "web", "-c", "app"], b"hello\n").await;
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{protocol:?}: {err}");
        assert!(output.stdout.ends_with(b"hello\n"), "{protocol:?}");
        assert!(
            host.asked()[0].starts_with("/attach/default/web/app?stdin=true"),
            "{:?}",
            host.asked()
        );
    }
}

#[tokio::test]
async fn files_are_copied_both_ways() {
    let data = noise(3 * 1024 * 1024 + 17);
    for protocol in Protocol::BOTH {
        let site = Site::start(Host::new()).await;
        let here = tempfile::tempdir().unwrap();
        let path = |name: &str| here.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("sent"), &data).unwrap();
        std::fs::create_dir(path("there")).unwrap();
        let (sent, there, back) = (path("sent"), path("there/copy"), path("back"));
        for (from, to) in [(sent, format!("web:{there}")), (format!("web:{there}"), back.clone())] {
            let (code, _, err) = text(protocol, &site, &["cp", "-c", "app", &from, &to]).await;
            assert_eq!(code, Some(0), "{protocol:?} {from} {to}: {err}");
        }
        assert!(std::fs::read(&back).unwrap() == data, "{protocol:?}");
    }
}
