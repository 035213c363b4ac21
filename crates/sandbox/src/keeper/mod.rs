//! The keeper process: from the command line to a sandbox that is ready.
//!
//! Single-threaded and without a runtime, because it forks and changes namespaces, and because
//! there is one per pod: its memory counts. It must not start threads, and it does not know why a
//! container should run.

mod create;
mod exec;
mod fork;
mod log;
mod namespaces;
mod oci;
mod rootfs;
mod serve;
mod state;
mod users;

use std::{
    ffi::OsString,
    fs,
    io::{self, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    process::ExitCode,
};

use nix::{
    sys::{
        prctl,
        signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        socket,
    },
    unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid},
};

use crate::{
    layout,
    protocol::{self, Readiness},
    spec::SandboxSpec,
};

/// The kernel kills a keeper last: with it would go all containers of its pod.
const OOM_SCORE_ADJ: &str = "-998";

/// What the hidden command runs: `args` is what follows the command's name, a sandbox's
/// specification as JSON. Writes one line to standard output when the sandbox is ready or cannot
/// be, detaches, and serves until it is told to end.
///
/// Must be called while the process has one thread.
#[must_use]
pub fn keeper_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    // A session of its own, so that no signal meant for the agent's group or terminal arrives.
    // Then a fork: the agent reaps the first process, init the second, whoever dies first.
    if let Err(errno) = setsid() {
        return fail(&format!("setsid: {}", errno.desc()));
    }
    match fork::fork() {
        Ok(Some(_)) => return ExitCode::SUCCESS,
        Ok(None) => {}
        Err(error) => return fail(&format!("fork: {error}")),
    }
    let spec = match parse(args) {
        Ok(spec) => spec,
        Err(reason) => return fail(&reason),
    };
    match prepare(&spec) {
        Ok((listener, signals)) => {
            answer(&Readiness::Ready);
            if let Err(error) = silence_stdout() {
                eprintln!("standard output: {error}");
            }
            serve::serve(spec, listener, signals)
        }
        Err((what, error)) => fail(&format!("{what}: {error}")),
    }
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<SandboxSpec, String> {
    let mut args = args.into_iter();
    let (Some(text), None) = (args.next(), args.next()) else {
        return Err("expected one argument, a sandbox's specification".to_owned());
    };
    let spec: SandboxSpec =
        serde_json::from_slice(text.as_encoded_bytes()).map_err(|error| error.to_string())?;
    if !spec.dir.is_absolute() {
        return Err(format!("{} is not absolute", spec.dir.display()));
    }
    Ok(spec)
}

type Step = (&'static str, io::Error);

fn prepare(spec: &SandboxSpec) -> Result<(OwnedFd, SignalFd), Step> {
    let at = |what: &'static str| move |error: io::Error| (what, error);
    fs::create_dir_all(&spec.dir).map_err(at("the sandbox's directory"))?;
    redirect(&spec.dir).map_err(at("the keeper's log"))?;
    let signals = signals().map_err(at("signals"))?;
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    let _ = prctl::set_name(c"toono-keeper");
    namespaces::enter(spec)?;
    rootfs::mount_shared_memory(&spec.dir).map_err(at("shared memory"))?;
    let listener = listen(&spec.dir).map_err(at("the keeper's socket"))?;
    Ok((listener, signals))
}

fn redirect(dir: &Path) -> io::Result<()> {
    let null = fs::File::open("/dev/null")?;
    dup2_stdin(&null)?;
    let log = fs::File::options().create(true).append(true).open(dir.join(layout::KEEPER_LOG))?;
    dup2_stderr(&log)?;
    std::env::set_current_dir("/")
}

fn silence_stdout() -> io::Result<()> {
    let null = fs::File::options().write(true).open("/dev/null")?;
    dup2_stdout(&null)?;
    Ok(())
}

/// Children's ends and requests to end arrive as readable events; the rest is ignored.
#[expect(unsafe_code, reason = "setting signal dispositions")]
fn signals() -> io::Result<SignalFd> {
    for ignored in [Signal::SIGHUP, Signal::SIGPIPE, Signal::SIGINT] {
        // SAFETY: `SigIgn` runs no handler.
        unsafe { signal(ignored, SigHandler::SigIgn) }?;
    }
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.add(Signal::SIGTERM);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
    Ok(SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

fn listen(dir: &Path) -> io::Result<OwnedFd> {
    layout::ignore_missing(fs::remove_file(dir.join(protocol::SOCKET_NAME)))?;
    let (_open_dir, address) = protocol::address(dir)?;
    let listener = protocol::new_socket()?;
    socket::bind(listener.as_raw_fd(), &address)?;
    socket::listen(&listener.as_fd(), socket::Backlog::new(protocol::BACKLOG)?)?;
    Ok(listener)
}

fn fail(reason: &str) -> ExitCode {
    answer(&Readiness::Failed { reason: reason.to_owned() });
    ExitCode::FAILURE
}

fn answer(readiness: &Readiness) {
    // Whoever started this may be gone; then nobody is told.
    let _ = serde_json::to_writer(io::stdout(), readiness);
    let _ = io::stdout().flush();
}
