//! The keeper process: from its start to a sandbox that is ready.
//!
//! Single-threaded and without a runtime, because it forks and changes namespaces, and because
//! there is one per pod: its memory counts. It must not start threads, and it does not know why a
//! container should run.

mod attach;
mod connection;
mod create;
mod devices;
mod exec;
mod filter;
mod first;
mod fork;
mod log;
mod namespaces;
mod oci;
mod profile;
mod rootfs;
mod serve;
mod state;
mod syscalls;
mod users;

use std::{
    fs::{self, File, TryLockError},
    io::{self, BufRead, BufReader, Read, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        prctl,
        signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        socket,
    },
    unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, setsid},
};

use crate::{
    cgroups::{self, Membership},
    layout,
    protocol::{self, Readiness},
    spec::{Processes, SandboxSpec},
};

/// The kernel kills a keeper last: with it would go all containers of its pod.
const OOM_SCORE_ADJ: &str = "-998";

/// How long the keeper before this one in the same directory may take to be gone.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often that is looked at; a wait for a file lock cannot have a deadline.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// What the hidden command runs; its arguments are for people who read a list of processes.
///
/// Reads a line from standard input, a sandbox's specification as JSON. Writes a line to standard
/// output that says whether the sandbox is ready, closes it when the socket listens, and serves
/// until it is told to end. If standard input closes before [`protocol::KEEP`] comes, whoever
/// started this is gone and does not know of it: then it undoes everything and ends.
///
/// Must be called while the process has one thread.
#[must_use]
pub fn keeper_main() -> ExitCode {
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
    let (spec, mut order) = match specification() {
        Ok(read) => read,
        Err(reason) => return fail(&reason),
    };
    let sandbox = match prepare(&spec) {
        Ok(sandbox) => sandbox,
        Err((what, error)) => return fail(&format!("{what}: {error}")),
    };
    answer(&Readiness::Ready);
    let mut word = [0];
    let is_known = order.read_exact(&mut word).is_ok() && word == [protocol::KEEP];
    drop(order);
    // Nobody finds it before somebody knows of it.
    let listening = if is_known { listen(&sandbox.listener) } else { Ok(()) };
    if let Err(error) = listening.and_then(|()| silence_stdout()) {
        eprintln!("the keeper's socket: {error}");
    }
    serve::serve(spec, sandbox, is_known)
}

/// What a keeper holds from its start to its end.
#[derive(Debug)]
struct Sandbox {
    /// Taken before anything is made and released by the kernel: no two keepers of a directory, not
    /// even when an agent ends amid starting one and the next agent starts another.
    _lock: File,
    membership: Membership,
    listener: OwnedFd,
    signals: SignalFd,
    /// The first process of the namespace of processes that the pod's containers share, if they do.
    first: Option<Pid>,
}

fn specification() -> Result<(SandboxSpec, BufReader<File>), String> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(|error| error.to_string())?;
    let mut order = BufReader::new(File::from(stdin));
    let mut line = String::new();
    order.read_line(&mut line).map_err(|error| error.to_string())?;
    let spec: SandboxSpec = serde_json::from_str(&line).map_err(|error| error.to_string())?;
    if !spec.dir.is_absolute() {
        return Err(format!("{} is not absolute", spec.dir.display()));
    }
    Ok((spec, order))
}

type Step = (&'static str, io::Error);

fn prepare(spec: &SandboxSpec) -> Result<Sandbox, Step> {
    let at = |what: &'static str| move |error: io::Error| (what, error);
    let pod = cgroups::pod_path(&spec.cgroup_parent, &spec.pod_uid);
    let lock = lock(&spec.dir).map_err(at("the sandbox's directory"))?;
    let membership = Membership::enter(&pod).map_err(at("the keeper's cgroup"))?;
    match make(spec) {
        Ok((listener, signals, first)) => {
            Ok(Sandbox { _lock: lock, membership, listener, signals, first })
        }
        Err(error) => {
            let undone = membership.leave().and_then(|()| cgroups::kill_and_remove(&pod));
            if let Err(error) = undone {
                eprintln!("the keeper's cgroup: {error}");
            }
            Err(error)
        }
    }
}

/// Waits for the directory's last keeper to be gone, which may have been killed only now.
fn lock(dir: &Path) -> io::Result<File> {
    let lock = File::open(dir)?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() > deadline => {
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another keeper holds it"));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
        }
    }
}

fn make(spec: &SandboxSpec) -> Result<(OwnedFd, SignalFd, Option<Pid>), Step> {
    let at = |what: &'static str| move |error: io::Error| (what, error);
    redirect(&spec.dir).map_err(at("the keeper's log"))?;
    let signals = signals().map_err(at("signals"))?;
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    let _ = prctl::set_name(c"toono-keeper");
    namespaces::enter(spec)?;
    rootfs::mount_shared_memory(spec).map_err(at("shared memory"))?;
    let first = if spec.processes == Processes::Pod {
        Some(first::start().map_err(at("the namespace of processes"))?)
    } else {
        None
    };
    let listener = bind(&spec.dir).map_err(at("the keeper's socket"))?;
    Ok((listener, signals, first))
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

fn bind(dir: &Path) -> io::Result<OwnedFd> {
    layout::ignore_missing(fs::remove_file(dir.join(protocol::SOCKET_NAME)))?;
    let (_open_dir, address) = protocol::address(dir)?;
    let listener = protocol::new_socket()?;
    socket::bind(listener.as_raw_fd(), &address)?;
    Ok(listener)
}

fn listen(listener: &OwnedFd) -> io::Result<()> {
    socket::listen(&listener.as_fd(), socket::Backlog::new(protocol::BACKLOG)?)?;
    Ok(())
}

fn fail(reason: &str) -> ExitCode {
    answer(&Readiness::Failed { reason: reason.to_owned() });
    ExitCode::FAILURE
}

fn answer(readiness: &Readiness) {
    // Whoever started this may be gone; then nobody is told.
    let text = serde_json::to_string(readiness).unwrap_or_default();
    let _ = writeln!(io::stdout(), "{text}");
    let _ = io::stdout().flush();
}
