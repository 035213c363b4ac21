//! Commands in a container, for probes and hooks: run, read, and killed when nobody waits for them.

use std::{io, time::Duration};

use tokio::{io::AsyncReadExt, net::unix::pipe, time::timeout};
use toono_podmachine::ProbeOutcome;
use toono_sandbox::{ExecIo, ExecSpec, Streams};

use super::{MAX_ANSWER_BYTES, Place, go_seconds};
use crate::join::chain;

/// After a command's end, what it has written is still read; a process that it left behind and that
/// holds the pipes open is waited for no longer than this.
const DRAIN: Duration = Duration::from_millis(500);

/// A command that has ended.
pub(super) struct Ended {
    code: i32,
    output: String,
}

/// Why a command failed, and what it wrote.
pub(super) type Failed = (String, String);

impl Ended {
    pub(super) fn succeeded(self, args: &[String]) -> Result<(), Failed> {
        if self.code == 0 {
            return Ok(());
        }
        let error = format!("command '{}' exited with {}", args.join(" "), self.code);
        Err((error, self.output))
    }
}

pub(super) async fn probe(place: &Place, args: &[String], limit: Duration) -> ProbeOutcome {
    match timeout(limit, run(place, args)).await {
        Ok(Ok(Ended { code: 0, .. })) => ProbeOutcome::Success,
        Ok(Ok(Ended { output, .. })) => ProbeOutcome::Failure(output),
        Ok(Err((error, _))) => ProbeOutcome::Error(error),
        Err(_) => {
            let (command, limit) = (args.join(" "), go_seconds(limit));
            ProbeOutcome::Failure(format!(
                "command timed out: \"{command}\" timed out after {limit}"
            ))
        }
    }
}

/// Runs a command to its end. It is killed when this is dropped before.
pub(super) async fn run(place: &Place, args: &[String]) -> Result<Ended, Failed> {
    let failed = |error: String| (error, String::new());
    let spec = ExecSpec {
        container: place.container.clone(),
        args: args.to_vec(),
        tty: false,
        stdin: false,
        ends_with_client: true,
    };
    let started = place.keeper.exec(&spec).await.map_err(|error| failed(chain(&error)))?;
    let ExecIo { streams, exit } = started;
    let Streams::Pipes { stdout, stderr, .. } = streams else {
        return Err(failed("the command has a terminal".to_owned()));
    };
    let open = |fd| pipe::Receiver::from_owned_fd(fd).map_err(|error| failed(error.to_string()));
    let (mut stdout, mut stderr) = (open(stdout)?, open(stderr)?);
    let mut output = Vec::new();
    let status = {
        let mut reading = std::pin::pin!(read_both(&mut stdout, &mut stderr, &mut output));
        let mut exit = std::pin::pin!(exit.wait());
        let mut read = false;
        let status = loop {
            tokio::select! {
                status = &mut exit => break status,
                _ = &mut reading, if !read => read = true,
            }
        };
        if !read {
            let _ = timeout(DRAIN, reading).await;
        }
        status
    };
    let status = status.map_err(|error| failed(chain(&error)))?;
    Ok(Ended { code: status.code, output: String::from_utf8_lossy(&output).into_owned() })
}

/// Reads both to their ends, and keeps the beginning of what comes.
async fn read_both(
    stdout: &mut pipe::Receiver,
    stderr: &mut pipe::Receiver,
    output: &mut Vec<u8>,
) -> io::Result<()> {
    let (mut out, mut err) = ([0; 1024], [0; 1024]);
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open {
        let bytes = tokio::select! {
            length = stdout.read(&mut out), if out_open => {
                let length = length?;
                out_open = length > 0;
                out.get(..length).unwrap_or_default()
            }
            length = stderr.read(&mut err), if err_open => {
                let length = length?;
                err_open = length > 0;
                err.get(..length).unwrap_or_default()
            }
        };
        let room = MAX_ANSWER_BYTES.saturating_sub(output.len()).min(bytes.len());
        output.extend_from_slice(bytes.get(..room).unwrap_or_default());
    }
    Ok(())
}
