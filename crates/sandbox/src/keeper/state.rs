//! One container as its keeper holds it: what is known, its log, its standard streams.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::{
        socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4},
        wait::WaitStatus,
    },
    unistd::{Pid, pipe2, read},
};

use super::{
    attach::Viewers,
    create::Ends,
    log::{Lines, Log},
    rootfs,
};
use crate::{
    cgroups, layout, protocol,
    spec::{ContainerId, ContainerState, ContainerStatus, ExitStatus, SandboxSpec},
};

/// Bytes read from a stream at once.
const READ_BYTES: usize = 8 * 1024;
/// Reads from one stream before others get their turn.
const READS_PER_TURN: usize = 8;

/// A container that was started.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) state: ContainerState,
    pub(super) outputs: Vec<Output>,
    /// The write end of its standard input, which is open as long as the container runs, or until
    /// the one client that may write to it has left.
    pub(super) stdin: Option<OwnedFd>,
    /// The first client that writes to it is the last one.
    pub(super) stdin_once: bool,
    pub(super) is_terminal: bool,
    log: Log,
}

/// A stream that the container writes.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) fd: OwnedFd,
    pub(super) name: &'static str,
    pub(super) viewers: Viewers,
    lines: Lines,
}

/// The keeper's ends of a process's standard streams, until it is known whether it started.
#[derive(Debug)]
pub(super) enum Held {
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    Console { listener: OwnedFd, path: PathBuf },
}

/// Makes both ends of a process's standard streams. A terminal's master comes through a socket in
/// `folder` with this name.
pub(super) fn streams(
    folder: &Path,
    name: &str,
    tty: bool,
    with_stdin: bool,
) -> io::Result<(Held, Ends)> {
    if tty {
        let name = format!("{name}.sock");
        let path = folder.join(&name);
        let listener = listen(folder, &name)?;
        return Ok((
            Held::Console { listener, path: path.clone() },
            Ends::Terminal { console: path },
        ));
    }
    let (stdin_reader, stdin) = if with_stdin {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        (Some(reader), Some(writer))
    } else {
        (None, None)
    };
    let (stdout, stdout_writer) = pipe2(OFlag::O_CLOEXEC)?;
    let (stderr, stderr_writer) = pipe2(OFlag::O_CLOEXEC)?;
    Ok((
        Held::Pipes { stdin, stdout, stderr },
        Ends::Pipes { stdin: stdin_reader, stdout: stdout_writer, stderr: stderr_writer },
    ))
}

impl Held {
    /// The keeper's ends, for a process that runs: the terminal's master, or output, error, input.
    pub(super) fn into_fds(self) -> io::Result<Vec<OwnedFd>> {
        match self {
            Held::Pipes { stdin, stdout, stderr } => {
                Ok([Some(stdout), Some(stderr), stdin].into_iter().flatten().collect())
            }
            Held::Console { listener, path } => {
                let master = receive_master(&listener);
                layout::ignore_missing(fs::remove_file(path))?;
                Ok(vec![master?])
            }
        }
    }
}

impl Container {
    pub(super) fn new(state: ContainerState, held: Held, log: Log) -> io::Result<Self> {
        let is_terminal = matches!(held, Held::Console { .. });
        let mut fds = held.into_fds()?.into_iter();
        let mut outputs = Vec::new();
        let names: &[&'static str] = if is_terminal { &["stdout"] } else { &["stdout", "stderr"] };
        for name in names {
            if let Some(fd) = fds.next() {
                fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
                let (lines, viewers) = (Lines::new(name), Viewers::default());
                outputs.push(Output { fd, name, viewers, lines });
            }
        }
        let stdin = fds.next();
        Ok(Self { state, outputs, stdin, stdin_once: false, is_terminal, log })
    }

    /// Writes to the log what can be read now from one of the streams.
    pub(super) fn log_output(&mut self, fd: i32) {
        let Some(at) = self.outputs.iter().position(|output| output.fd.as_raw_fd() == fd) else {
            return;
        };
        let Some(output) = self.outputs.get_mut(at) else { return };
        for _ in 0..READS_PER_TURN {
            match output.read_once(&mut self.log) {
                Progress::Some => {}
                Progress::NothingYet => return,
                Progress::Ended => {
                    output.lines.finish(&mut self.log);
                    self.outputs.remove(at);
                    return;
                }
            }
        }
    }

    pub(super) fn pid(&self) -> Option<Pid> {
        match self.state.status {
            ContainerStatus::Running { pid } => Some(Pid::from_raw(pid)),
            ContainerStatus::Exited { .. } => None,
        }
    }

    /// Records the end of the first process. All others of the container are dead by then, so
    /// whatever they wrote is in the pipes.
    pub(super) fn ended(&mut self, sandbox: &SandboxSpec, ended: WaitStatus, at: Timestamp) {
        for output in &mut self.outputs {
            while output.read_once(&mut self.log) == Progress::Some {}
            output.lines.finish(&mut self.log);
        }
        self.outputs = Vec::new();
        self.stdin = None;
        let cgroup = cgroup(sandbox, &self.state.id);
        let mut status = exit_status(ended);
        // Whichever of its processes the kernel chose: the others then end as they can.
        status.oom_killed = status.code != 0 && cgroups::oom_killed(&cgroup);
        self.state.status = ContainerStatus::Exited { status, finished_at: at };
        if let Err(error) = release(sandbox, &self.state.id) {
            eprintln!("{}: {error}", self.state.id);
        }
    }
}

/// What one read brought.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Some,
    NothingYet,
    Ended,
}

impl Output {
    fn read_once(&mut self, log: &mut Log) -> Progress {
        let mut buffer = [0; READ_BYTES];
        loop {
            match read(&self.fd, &mut buffer) {
                Ok(0) => return Progress::Ended,
                Ok(length) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    self.lines.feed(bytes, log);
                    self.viewers.show(bytes);
                    return Progress::Some;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Progress::NothingYet,
                // A terminal that nobody has open any more says EIO.
                Err(_) => return Progress::Ended,
            }
        }
    }
}

/// Gives back what a container that does not run has no use for: its cgroup and its mount.
pub(super) fn release(sandbox: &SandboxSpec, id: &ContainerId) -> io::Result<()> {
    cgroups::kill_and_remove(&cgroup(sandbox, id))?;
    rootfs::unmount_overlay(&layout::container(&sandbox.dir, id))
}

/// Deletes all that is left of a container but its log.
pub(super) fn delete(sandbox: &SandboxSpec, id: &ContainerId) -> io::Result<()> {
    release(sandbox, id)?;
    for dir in
        [layout::container(&sandbox.dir, id), layout::runtime_state(&sandbox.dir).join(id.as_str())]
    {
        layout::ignore_missing(fs::remove_dir_all(dir))?;
    }
    Ok(())
}

pub(super) fn exit_status(ended: WaitStatus) -> ExitStatus {
    match ended {
        WaitStatus::Exited(_, code) => ExitStatus { code, signal: None, oom_killed: false },
        WaitStatus::Signaled(_, signal, _) => {
            let signal = signal as i32;
            ExitStatus { code: 128 + signal, signal: Some(signal), oom_killed: false }
        }
        _ => ExitStatus { code: 255, signal: None, oom_killed: false },
    }
}

fn cgroup(sandbox: &SandboxSpec, id: &ContainerId) -> PathBuf {
    cgroups::pod_path(&sandbox.cgroup_parent, &sandbox.pod_uid).join(id.as_str())
}

fn listen(folder: &Path, name: &str) -> io::Result<OwnedFd> {
    let open_folder = fs::File::open(folder)?;
    // Short, whatever the folder's path: a socket's address has 107 bytes.
    let path = format!("/proc/self/fd/{}/{name}", open_folder.as_raw_fd());
    layout::ignore_missing(fs::remove_file(folder.join(name)))?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::bind(listener.as_raw_fd(), &UnixAddr::new(path.as_str())?)?;
    socket::listen(&listener, Backlog::new(1)?)?;
    Ok(listener)
}

/// The master was sent before the program was started, so it is there.
#[expect(unsafe_code, reason = "an accepted descriptor becomes an owned one")]
fn receive_master(listener: &OwnedFd) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let raw = accept4(listener.as_raw_fd(), flags)?;
    // SAFETY: the kernel has just made this descriptor for this process.
    let connection = unsafe { OwnedFd::from_raw_fd(raw) };
    protocol::receive_descriptors(connection.as_fd())?
        .into_iter()
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no terminal came"))
}
