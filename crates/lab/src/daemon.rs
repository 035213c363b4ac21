//! Processes started in the background, found again and stopped. It owns their pid files and logs. It must
//! not know what they do.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, setsid};
use serde::{Deserialize, Serialize};
use toono_net::NetNs;

/// How long a killed process may take to vanish: only the kernel's own work is left to do.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// What the name of a pid file ends in.
const PID_SUFFIX: &str = ".pid";

/// A process in the background, known by its name in a directory: `NAME.pid` and `NAME.log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    dir: PathBuf,
    name: String,
}

/// What to start.
#[derive(Debug, Clone)]
pub struct Spawn {
    /// The program's path.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// What is set in its environment besides ours.
    pub env: Vec<(String, String)>,
    /// The network namespace that it runs in; ours when `None`.
    pub netns: Option<NetNs>,
}

/// What failed about a process in the background.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// A file of the daemon.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The program could not be started.
    #[error("cannot start {name}: {}", program.display())]
    Start {
        /// The daemon.
        name: String,
        /// Its program.
        program: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The process could not be signalled or waited for.
    #[error("cannot stop {name}, process {pid}")]
    Stop {
        /// The daemon.
        name: String,
        /// Its process.
        pid: i32,
        /// The cause.
        source: io::Error,
    },
}

/// One process among all that ever have its pid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    pid: i32,
    /// When it started, in clock ticks since boot.
    start: u64,
    /// The boot's own id, since ticks begin anew with each.
    boot: String,
}

impl Daemon {
    /// The daemon `name` in `dir`.
    pub fn new(dir: impl Into<PathBuf>, name: impl Into<String>) -> Self {
        Self { dir: dir.into(), name: name.into() }
    }

    /// All of a directory that were started and not stopped since; none where there is no directory.
    pub fn all(dir: &Path) -> Vec<Self> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| {
            entry.file_name().to_str()?.strip_suffix(PID_SUFFIX).map(str::to_owned)
        });
        names.map(|name| Self::new(dir, name)).collect()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its output goes.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }

    fn pid_path(&self) -> PathBuf {
        self.dir.join(format!("{}{PID_SUFFIX}", self.name))
    }

    /// Its pid, if it runs.
    pub fn running(&self) -> Result<Option<i32>, DaemonError> {
        let identity = self.identity()?;
        Ok(identity.filter(Identity::is_alive).map(|identity| identity.pid))
    }

    /// Starts it, unless it runs. It is its own session, keeps going when the caller ends, and appends its
    /// output to the log. Its pid, and whether it was started now.
    pub fn start(&self, spawn: &Spawn) -> Result<(i32, bool), DaemonError> {
        fs::create_dir_all(&self.dir).map_err(self.file("make", &self.dir))?;
        let path = self.pid_path();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(self.file("open", &path))?;
        // Two callers at once would both find nothing and start two.
        file.lock().map_err(self.file("lock", &path))?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(self.file("read", &path))?;
        if let Some(identity) = Identity::parse(&text).filter(Identity::is_alive) {
            return Ok((identity.pid, false));
        }
        let pid = self.spawn(spawn)?;
        let identity = Identity::of(pid).map_err(|source| self.start_error(spawn, source))?;
        let bytes = serde_json::to_vec(&identity)
            .map_err(|error| self.file("write", &path)(error.into()))?;
        let written =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(&bytes));
        written.map_err(self.file("write", &path))?;
        Ok((pid, true))
    }

    fn spawn(&self, spawn: &Spawn) -> Result<i32, DaemonError> {
        let log = self.log_path();
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(self.file("open", &log))?;
        let errors = output.try_clone().map_err(self.file("open", &log))?;
        let mut command = Command::new(&spawn.program);
        command.args(&spawn.args).envs(spawn.env.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        // SAFETY: between fork and exec only the setsid system call is made; nothing allocates or locks.
        #[expect(unsafe_code, reason = "a daemon must leave the caller's session before it runs")]
        unsafe {
            command.pre_exec(|| setsid().map(|_| ()).map_err(io::Error::from));
        }
        if let Some(netns) = &spawn.netns {
            enter_before_exec(&mut command, netns.clone());
        }
        let child = command.spawn().map_err(|source| self.start_error(spawn, source))?;
        i32::try_from(child.id()).map_err(|error| self.start_error(spawn, io::Error::other(error)))
    }

    /// Stops it: asks, waits for `grace`, kills. Whether it ran. A process that only has its pid is left alone.
    /// Blocks.
    pub fn stop(&self, grace: Duration) -> Result<bool, DaemonError> {
        let path = self.pid_path();
        let Some(identity) = self.identity()? else {
            return self.forget(&path).map(|()| false);
        };
        let failed =
            |source| DaemonError::Stop { name: self.name.clone(), pid: identity.pid, source };
        let ran = match open_pidfd(identity.pid) {
            // The descriptor names one process for good, so the check below cannot be overtaken.
            Ok(process) if identity.is_alive() => {
                signal(&process, Signal::SIGTERM).map_err(failed)?;
                if !wait_for(&process, grace).map_err(failed)? {
                    signal(&process, Signal::SIGKILL).map_err(failed)?;
                    if !wait_for(&process, KILL_PATIENCE).map_err(failed)? {
                        return Err(failed(io::ErrorKind::TimedOut.into()));
                    }
                }
                true
            }
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => false,
            Err(error) => return Err(failed(error)),
        };
        // Our own child stays a zombie until it is waited for; anybody else's is not ours to wait for.
        let _ = waitpid(Pid::from_raw(identity.pid), Some(WaitPidFlag::WNOHANG));
        self.forget(&path).map(|()| ran)
    }

    fn identity(&self) -> Result<Option<Identity>, DaemonError> {
        let path = self.pid_path();
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Identity::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.file("read", &path)(error)),
        }
    }

    fn forget(&self, path: &Path) -> Result<(), DaemonError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.file("remove", path)(error))
            }
            _ => Ok(()),
        }
    }

    fn file(&self, action: &'static str, path: &Path) -> impl Fn(io::Error) -> DaemonError + use<> {
        let path = path.to_owned();
        move |source| DaemonError::File { action, path: path.clone(), source }
    }

    fn start_error(&self, spawn: &Spawn, source: io::Error) -> DaemonError {
        DaemonError::Start { name: self.name.clone(), program: spawn.program.clone(), source }
    }
}

impl Identity {
    fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    fn of(pid: i32) -> io::Result<Self> {
        let (_, start) = process_stat(pid)?;
        Ok(Self { pid, start, boot: boot_id()? })
    }

    /// Whether this very process runs. A zombie does not.
    fn is_alive(&self) -> bool {
        let same_boot = boot_id().is_ok_and(|boot| boot == self.boot);
        let runs = process_stat(self.pid)
            .is_ok_and(|(state, start)| start == self.start && !matches!(state, 'Z' | 'X'));
        same_boot && runs
    }
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned())
}

/// State and start time of a process: the third and the 22nd field of `/proc/PID/stat`. The second is its
/// name in parentheses, which may hold anything, spaces and parentheses included.
fn process_stat(pid: i32) -> io::Result<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = text.rsplit_once(") ").map(|(_, fields)| fields);
    let mut fields = fields.unwrap_or_default().split_ascii_whitespace();
    let state = fields.next().and_then(|field| field.chars().next());
    let start = fields.nth(18).and_then(|field| field.parse().ok());
    state.zip(start).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Makes the command enter `netns` between fork and exec, when it has one thread, so that no other thread is
/// concerned.
pub(crate) fn enter_before_exec(command: &mut Command, netns: NetNs) {
    // SAFETY: between fork and exec only the setns system call is made, on a descriptor that the closure
    // keeps open; nothing allocates or locks.
    #[expect(unsafe_code, reason = "a namespace can only be entered by the process itself")]
    unsafe {
        command.pre_exec(move || {
            setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
        });
    }
}

fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the system call takes two integers; the descriptor that it returns is ours alone.
    #[expect(unsafe_code, reason = "neither std nor nix has pidfd_open")]
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(i32::try_from(fd).map_err(io::Error::other)?))
    }
}

/// Sends the signal; a process that is gone already is as good.
fn signal(process: &OwnedFd, signal: Signal) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open, and a null information block is allowed (pidfd_send_signal(2)).
    #[expect(unsafe_code, reason = "neither std nor nix has pidfd_send_signal")]
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal as libc::c_int,
            no_info,
            0,
        )
    };
    match io::Error::last_os_error() {
        error if sent < 0 && error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        _ => Ok(()),
    }
}

/// Waits until the process ends; whether it did.
fn wait_for(process: &OwnedFd, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) if left.is_zero() || timeout != PollTimeout::MAX => return Ok(false),
            Ok(0) | Err(nix::Error::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_itself_and_no_other() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let own = Identity::of(pid).unwrap();
        assert!(own.is_alive());
        assert!(!Identity { start: own.start + 1, ..own.clone() }.is_alive());
        assert!(!Identity { boot: String::new(), ..own }.is_alive());
        assert!(Identity::of(i32::MAX).is_err());
    }
}
