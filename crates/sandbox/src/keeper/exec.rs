//! The last steps before a container's program: what libcontainer calls inside of the container.
//!
//! Runs in the container, as the container's user. It may only look at the container.

use std::{
    collections::HashMap,
    ffi::CString,
    fs::File,
    io::Write,
    os::fd::{AsFd, BorrowedFd, FromRawFd, RawFd},
    path::Path,
};

use caps::{CapSet, Capability, errors::CapsError};
use libcontainer::{
    oci_spec::runtime::{LinuxSeccomp, Spec},
    workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError},
};
use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask},
    },
    unistd::{AccessFlags, access, execve},
};
use serde_json::Value;

use super::{filter, oci::LENT};

/// Starts a container's program and says in one line why it cannot be started.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// The write end of a pipe that `execve` closes. Whoever holds the read end sees either the
    /// reason of a failure or the end of the stream.
    pub(super) failure: RawFd,
    /// Die with the keeper. For first processes: what they leave behind without a keeper would
    /// have no log and no reaper.
    pub(super) dies_with_keeper: bool,
    /// What it is put under.
    pub(super) restrictions: Restrictions,
}

impl Executor for Program {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let (args, env) = command(spec).ok_or_else(|| refuse("exec: there is no command"))?;
        find(args, env).map(|_| ()).map_err(|reason| refuse(&reason))
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The environment goes straight into `execve`; this process' own is of no use.
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let reason = match self.replace_process(spec) {
            Ok(never) => match never {},
            Err(reason) => reason,
        };
        self.report(&reason);
        Err(ExecutorError::Other(reason))
    }
}

impl Program {
    fn replace_process(&self, spec: &Spec) -> Result<std::convert::Infallible, String> {
        let (args, env) = command(spec).ok_or("exec: there is no command")?;
        let path = find(args, env)?;
        let c = |text: &String| CString::new(text.as_bytes()).map_err(|_| zero_byte(text));
        let arguments = args.iter().map(c).collect::<Result<Vec<_>, _>>()?;
        let mut environment = env.iter().map(c).collect::<Result<Vec<_>, _>>()?;
        if !env.iter().any(|entry| entry.starts_with("HOME=")) {
            environment.push(home(spec));
        }
        self.default_signals().map_err(|errno| format!("signals: {}", errno.desc()))?;
        let program = CString::new(path.as_str()).map_err(|_| zero_byte(&path))?;
        self.restrictions.put_on()?;
        let Err(errno) = execve(&program, &arguments, &environment);
        Err(describe(&path, errno))
    }

    /// Undoes what the keeper set for itself: a program expects the defaults.
    #[expect(unsafe_code, reason = "setting signal dispositions")]
    fn default_signals(&self) -> nix::Result<()> {
        for changed in [Signal::SIGHUP, Signal::SIGPIPE, Signal::SIGINT] {
            // SAFETY: `SigDfl` runs no handler.
            unsafe { signal(changed, SigHandler::SigDfl) }?;
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        if self.dies_with_keeper {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
        }
        Ok(())
    }

    #[expect(unsafe_code, reason = "the descriptor is inherited by number")]
    fn report(&self, reason: &str) {
        // SAFETY: the descriptor is open in every process that is cloned for this container, and
        // this process ends right after.
        let failure = unsafe { BorrowedFd::borrow_raw(self.failure) };
        if let Ok(fd) = failure.as_fd().try_clone_to_owned() {
            let _ = File::from(fd).write_all(reason.as_bytes());
        }
    }
}

/// The last that is put on a process before its program.
#[derive(Debug, Clone, Default)]
pub(super) struct Restrictions {
    /// The seccomp program; empty where nothing is forbidden.
    filter: Vec<libc::sock_filter>,
    /// What installing it takes, and the process is not to have.
    lent: Vec<Capability>,
}

impl Restrictions {
    /// Those of a container, from its configuration. (libcontainer shows it whole only to the first
    /// process.)
    pub(super) fn read(configuration: &Value) -> Result<Self, String> {
        let profile = configuration.pointer("/linux/seccomp").filter(|it| !it.is_null());
        let Some(profile) = profile else { return Ok(Self::default()) };
        let profile: LinuxSeccomp = serde_json::from_value(profile.clone())
            .map_err(|error| format!("seccomp profile: {error}"))?;
        let filter = filter::compile(&profile).map_err(|why| format!("seccomp profile: {why}"))?;
        let annotations = configuration.get("annotations");
        let lent = annotations.and_then(|it| it.get(LENT)).and_then(Value::as_str);
        let lent = lent.into_iter().flat_map(|names| names.split(',')).filter(|it| !it.is_empty());
        let lent = lent.map(str::parse).collect::<Result<_, _>>().map_err(capability_error)?;
        Ok(Self { filter, lent })
    }

    fn put_on(&self) -> Result<(), String> {
        if self.filter.is_empty() {
            return Ok(());
        }
        let mut filter = self.filter.clone();
        filter::install(&mut filter).map_err(|error| format!("seccomp profile: {error}"))?;
        // The bounding set first: leaving it takes a capability.
        for set in [CapSet::Bounding, CapSet::Effective, CapSet::Permitted] {
            for capability in &self.lent {
                caps::drop(None, set, *capability).map_err(capability_error)?;
            }
        }
        Ok(())
    }
}

fn capability_error(error: CapsError) -> String {
    format!("capabilities: {error}")
}

fn command(spec: &Spec) -> Option<(&Vec<String>, &Vec<String>)> {
    let process = spec.process().as_ref()?;
    let args = process.args().as_ref().filter(|args| !args.is_empty())?;
    Some((args, process.env().as_ref()?))
}

/// The program's path, by the rules of a shell.
fn find(args: &[String], env: &[String]) -> Result<String, String> {
    let name = args.first().map(String::as_str).unwrap_or_default();
    if name.contains('/') {
        return executable(name).map(|()| name.to_owned()).map_err(|errno| describe(name, errno));
    }
    let search = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let mut refused = None;
    for folder in search.split(':').filter(|_| !name.is_empty()) {
        let folder = if folder.is_empty() { "." } else { folder };
        let path = format!("{folder}/{name}");
        match executable(&path) {
            Ok(()) => return Ok(path),
            Err(Errno::EACCES) => refused = Some(describe(&path, Errno::EACCES)),
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| format!("exec: \"{name}\": executable file not found in $PATH")))
}

fn executable(path: &str) -> Result<(), Errno> {
    if Path::new(path).is_dir() {
        return Err(Errno::EISDIR);
    }
    access(path, AccessFlags::X_OK)
}

fn describe(path: &str, errno: Errno) -> String {
    let text = match errno {
        Errno::ENOENT => "no such file or directory".to_owned(),
        Errno::EACCES => "permission denied".to_owned(),
        Errno::ENOEXEC => "exec format error".to_owned(),
        Errno::EISDIR => "is a directory".to_owned(),
        other => other.desc().to_lowercase(),
    };
    format!("exec: \"{path}\": {text}")
}

fn zero_byte(text: &str) -> String {
    format!("exec: {text:?}: contains a zero byte")
}

fn home(spec: &Spec) -> CString {
    let uid = spec.process().as_ref().map_or(0, |process| process.user().uid()).to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let home = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2) == Some(&uid.as_str())).then(|| fields.get(5).copied()).flatten()
    });
    CString::new(format!("HOME={}", home.unwrap_or("/"))).unwrap_or_default()
}

fn refuse(reason: &str) -> ExecutorValidationError {
    ExecutorValidationError::ArgValidationError(reason.to_owned())
}

/// The two ends of a [`Program::failure`] pipe.
pub(super) struct FailurePipe {
    reader: File,
    writer: Option<std::os::fd::OwnedFd>,
}

impl FailurePipe {
    pub(super) fn new() -> std::io::Result<Self> {
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        Ok(Self { reader: File::from(reader), writer: Some(writer) })
    }

    pub(super) fn program(&self, dies_with_keeper: bool, restrictions: Restrictions) -> Program {
        use std::os::fd::AsRawFd;
        let failure = self.writer.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        Program { failure, dies_with_keeper, restrictions }
    }

    /// Waits until the program runs, or says why it does not.
    pub(super) fn wait(mut self) -> Result<(), String> {
        use std::io::Read;
        drop(self.writer.take());
        let mut reason = String::new();
        match self.reader.read_to_string(&mut reason) {
            Ok(0) => Ok(()),
            Ok(_) => Err(reason),
            Err(error) => Err(format!("exec: {error}")),
        }
    }
}

/// Takes a descriptor that libcontainer closes by number out of our hands.
#[expect(unsafe_code, reason = "a descriptor is owned by its number only")]
pub(super) fn duplicate(fd: BorrowedFd<'_>) -> nix::Result<std::os::fd::OwnedFd> {
    let number = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3))?;
    // SAFETY: the kernel has just made this number for us.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(number) })
}
