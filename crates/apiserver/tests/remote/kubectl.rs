//! Runs the `kubectl` programs of this machine.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::site::Site;

/// No command of these tests takes longer, unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Which protocol a `kubectl` speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Spdy,
    WebSocket,
}

impl Protocol {
    pub(crate) const BOTH: [Self; 2] = [Self::Spdy, Self::WebSocket];

    /// What its requests' `Upgrade` header says.
    pub(crate) fn upgrade(self) -> &'static str {
        match self {
            Self::Spdy => "SPDY/3.1",
            Self::WebSocket => "websocket",
        }
    }

    /// A program that speaks this protocol by itself, or else the path's `kubectl`, told to.
    fn program(self) -> Command {
        let own = match self {
            Self::Spdy => "/usr/lib/google-cloud-sdk/bin/kubectl.1.28",
            Self::WebSocket => "/usr/lib/google-cloud-sdk/bin/kubectl.1.33",
        };
        if Path::new(own).exists() {
            return Command::new(own);
        }
        let mut command = Command::new("kubectl");
        let websocket = (self == Self::WebSocket).to_string();
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", &websocket);
        command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", &websocket);
        command
    }
}

/// A `kubectl` for a site, without its arguments; killed when dropped.
pub(crate) fn kubectl(protocol: Protocol, site: &Site) -> Command {
    let mut command = protocol.program();
    command
        .env("KUBECONFIG", "/dev/null")
        .env("HOME", site.home.path())
        .args(["--server", &site.url()])
        .kill_on_drop(true);
    command
}

/// Runs to the end with this stdin.
pub(crate) async fn run(protocol: Protocol, site: &Site, args: &[&str], stdin: &[u8]) -> Output {
    let mut command = kubectl(protocol, site);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().unwrap_or_else(|error| panic!("no kubectl to test with: {error}"));
    let mut pipe = child.stdin.take().unwrap();
    let given = stdin.to_vec();
    tokio::spawn(async move {
        // The other end may have had enough.
        let _ = pipe.write_all(&given).await;
    });
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    output.unwrap_or_else(|_| panic!("{protocol:?} {args:?} hangs")).unwrap()
}

/// Runs without stdin and returns its code, stdout and stderr.
pub(crate) async fn text(
    protocol: Protocol,
    site: &Site,
    args: &[&str],
) -> (Option<i32>, String, String) {
    let output = run(protocol, site, args, b"").await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}
