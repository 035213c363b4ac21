//! The agent's end of a keeper: start one, find one again, ask it for things.
//!
//! Each call is a connection of its own, so a call that is dropped half-way disturbs no other, and
//! an idle [`Keeper`] holds no descriptor. Nothing of a container is kept here: the keeper knows.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        signal::{SIGKILL, kill, killpg},
        socket::{self, sockopt},
    },
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest, unix::AsyncFd},
    time::{sleep, timeout},
};

use crate::{
    cgroups,
    protocol::{self, Call, Envelope, Readiness, Received, Reply},
    spec::{
        ContainerId, ContainerSpec, ContainerState, ExecSpec, ExitStatus, SandboxSpec, Snapshot,
    },
};

/// A keeper that is not ready by then is killed. It takes some 10 ms on an idle machine; a box that
/// boots forty pods at once on one slow core needs seconds.
pub const SPAWN_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that creating a container may take. Unpacked layers are there, so it is mounts and
/// forks; a deadline only guards against a mount that hangs.
pub const CREATE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long everything else may take, such as reading the state. Killing and cleaning up is in it.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// What a list of processes shows as the keeper's program, whose path is of no help to anybody.
const KEEPER_NAME: &str = "toono";
/// What a keeper's refusal of a call says that has a field which it does not know.
const UNKNOWN_FIELD: &str = "unknown field `ends_with_client`";
/// The pause before a connection is tried again while the keeper's backlog is full.
const BACKLOG_PAUSE: Duration = Duration::from_millis(5);

/// Why a keeper did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The program could not be started, or said why it cannot keep this sandbox.
    #[error("cannot start a keeper in {}: {reason}", dir.display())]
    Spawn {
        /// The sandbox's directory.
        dir: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// There is no process behind the socket (any more).
    #[error("the keeper of {} is gone", dir.display())]
    Gone {
        /// The sandbox's directory.
        dir: PathBuf,
    },
    /// It did not answer in time.
    #[error("the keeper of {} did not answer within {} s", dir.display(), timeout.as_secs())]
    TimedOut {
        /// The sandbox's directory.
        dir: PathBuf,
        /// How long was waited.
        timeout: Duration,
    },
    /// It refused, or failed at what was asked: one line, such as
    /// `exec: "/bin/nope": no such file or directory`.
    #[error("{reason}")]
    Refused {
        /// The keeper's own words.
        reason: String,
    },
    /// The socket failed, or carried what no keeper says.
    #[error("cannot talk to the keeper of {}", dir.display())]
    Link {
        /// The sandbox's directory.
        dir: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// A pod's keeper process.
#[derive(Debug, Clone)]
pub struct Keeper {
    dir: Arc<Path>,
    pid: Pid,
}

/// A command that runs in a container, or the container's first process.
#[derive(Debug)]
pub struct ExecIo {
    /// Its standard streams.
    pub streams: Streams,
    /// Its end.
    pub exit: ExecExit,
}

/// The other ends of a process's standard streams. They are blocking descriptors.
#[derive(Debug)]
pub enum Streams {
    /// Three pipes.
    Pipes {
        /// Write end; `None` when the process reads `/dev/null`.
        stdin: Option<OwnedFd>,
        /// Read end.
        stdout: OwnedFd,
        /// Read end.
        stderr: OwnedFd,
    },
    /// A terminal's master.
    Terminal(Terminal),
    /// A terminal that others look at as well, so its output is not read from the master.
    SharedTerminal {
        /// To write to and to resize.
        terminal: Terminal,
        /// Read end of a copy of what it shows.
        output: OwnedFd,
    },
}

/// The master of a terminal.
#[derive(Debug)]
pub struct Terminal(pub OwnedFd);

/// Waits for a command's end.
#[derive(Debug)]
pub struct ExecExit {
    dir: Arc<Path>,
    connection: AsyncFd<OwnedFd>,
}

impl Keeper {
    /// Starts a keeper and waits until it holds the sandbox's namespaces. What an earlier keeper of
    /// the same directory left behind (after `kill -9`) is killed and removed first.
    ///
    /// The keeper is a session of its own, in a cgroup of its pod, and outlives the caller once
    /// this has returned. One whose caller ends before that, or that nobody waits for any more, ends
    /// by itself.
    ///
    /// # Errors
    /// [`KeeperError::Spawn`]; nothing of the sandbox is left then.
    pub async fn spawn(spec: &SandboxSpec) -> Result<Self, KeeperError> {
        let failed = |reason: String| KeeperError::Spawn { dir: spec.dir.clone(), reason };
        if let Some(running) = Self::adopt(&spec.dir).await? {
            return Err(failed(format!("process {} keeps it already", running.pid)));
        }
        reclaim(spec).await.map_err(|error| failed(error.to_string()))?;
        std::fs::create_dir_all(&spec.dir).map_err(|error| failed(error.to_string()))?;
        match start(spec).await {
            Ok(()) => {}
            Err(reason) => {
                let _ = reclaim(spec).await;
                return Err(failed(reason));
            }
        }
        Self::adopt(&spec.dir).await?.ok_or_else(|| failed("it ended at once".to_owned()))
    }

    /// Finds the keeper of this directory again; `None` when there is no such process.
    ///
    /// # Errors
    /// [`KeeperError::Link`] when the socket is there but cannot be used.
    pub async fn adopt(dir: &Path) -> Result<Option<Self>, KeeperError> {
        match connect(dir).await {
            Ok(connection) => {
                let peer = socket::getsockopt(connection.get_ref(), sockopt::PeerCredentials)
                    .map_err(|error| link(dir, error.into()))?;
                Ok(Some(Self { dir: dir.into(), pid: Pid::from_raw(peer.pid()) }))
            }
            Err(KeeperError::Gone { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The keeper's process. Its `/proc/PID/ns/net` is the pod's network namespace.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The sandbox's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Creates a container and starts it.
    ///
    /// # Errors
    /// [`KeeperError::Refused`] with the cause in one line; nothing of the container is left then.
    pub async fn create_and_start(
        &self,
        spec: &ContainerSpec,
    ) -> Result<ContainerState, KeeperError> {
        match self.call(Call::Create(Box::new(spec.clone())), CREATE_TIMEOUT).await? {
            Reply::Created(state) => Ok(state),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Signals a container's first process. No error when it has ended already.
    ///
    /// # Errors
    /// [`KeeperError::Refused`] when there is no such container or signal.
    pub async fn signal(&self, container: &ContainerId, signal: i32) -> Result<(), KeeperError> {
        self.done(Call::Signal { container: container.clone(), signal }).await
    }

    /// All containers, now.
    ///
    /// # Errors
    /// [`KeeperError::Gone`] and the other ways of not reaching the keeper.
    pub async fn state(&self) -> Result<Snapshot, KeeperError> {
        match self.call(Call::State, CALL_TIMEOUT).await? {
            Reply::Snapshot(snapshot) => Ok(snapshot),
            other => Err(self.unexpected(&other)),
        }
    }

    /// All containers, as soon as they differ from the snapshot with this version. Waits without a
    /// deadline; may be dropped at any time without losing a change.
    ///
    /// # Errors
    /// [`KeeperError::Gone`] as soon as the keeper's process ends.
    pub async fn wait_change(&self, since: u64) -> Result<Snapshot, KeeperError> {
        let connection = self.ask(Call::Watch { since }).await?;
        match answer(&self.dir, &connection).await?.0 {
            Reply::Snapshot(snapshot) => Ok(snapshot),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Runs a command in a running container. It goes on when the returned value is dropped, unless
    /// the specification says otherwise.
    ///
    /// # Errors
    /// [`KeeperError::Refused`], for example `exec: "nope": executable file not found in $PATH`.
    pub async fn exec(&self, spec: &ExecSpec) -> Result<ExecIo, KeeperError> {
        match self.try_exec(spec).await {
            // An older keeper, which does not know that a command may be killed.
            Err(KeeperError::Refused { reason }) if reason.contains(UNKNOWN_FIELD) => {
                self.try_exec(&ExecSpec { ends_with_client: false, ..spec.clone() }).await
            }
            other => other,
        }
    }

    async fn try_exec(&self, spec: &ExecSpec) -> Result<ExecIo, KeeperError> {
        let connection = self.ask(Call::Exec(spec.clone())).await?;
        let (reply, fds) =
            within(&self.dir, CREATE_TIMEOUT, answer(&self.dir, &connection)).await?;
        match reply {
            Reply::ExecStarted => Ok(ExecIo {
                streams: self.streams(fds)?,
                exit: ExecExit { dir: self.dir.clone(), connection },
            }),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Sees what a running container writes from now on, and with `stdin` writes to its input, if it
    /// has one. Several may do so at once.
    ///
    /// # Errors
    /// [`KeeperError::Refused`] when it does not run, or the keeper is older than this call.
    pub async fn attach(
        &self,
        container: &ContainerId,
        stdin: bool,
    ) -> Result<ExecIo, KeeperError> {
        let connection = self.ask(Call::Attach { container: container.clone(), stdin }).await?;
        let (reply, fds) = within(&self.dir, CALL_TIMEOUT, answer(&self.dir, &connection)).await?;
        let streams = match reply {
            Reply::Attached { terminal: false } => self.streams(fds)?,
            Reply::Attached { terminal: true } => {
                let mut fds = fds.into_iter();
                let (Some(output), Some(master)) = (fds.next(), fds.next()) else {
                    return Err(link(&self.dir, io::ErrorKind::InvalidData.into()));
                };
                Streams::SharedTerminal { terminal: Terminal(master), output }
            }
            other => return Err(self.unexpected(&other)),
        };
        let exit = ExecExit { dir: self.dir.clone(), connection };
        Ok(ExecIo { streams, exit })
    }

    /// Forgets a container that has ended and deletes what it wrote to its root file system. Its
    /// log file stays.
    ///
    /// # Errors
    /// [`KeeperError::Refused`] while it runs.
    pub async fn remove(&self, container: &ContainerId) -> Result<(), KeeperError> {
        self.done(Call::Remove { container: container.clone() }).await
    }

    /// Kills every container, removes their cgroups and mounts and ends the keeper. The sandbox's
    /// directory and the log files stay. No error when the keeper is gone already.
    ///
    /// # Errors
    /// [`KeeperError::Refused`] when something could not be removed.
    pub async fn shutdown(&self) -> Result<(), KeeperError> {
        let connection = match self.ask(Call::Shutdown).await {
            Err(KeeperError::Gone { .. }) => return Ok(()),
            other => other?,
        };
        match within(&self.dir, CALL_TIMEOUT, answer(&self.dir, &connection)).await {
            Ok((Reply::Done, _)) | Err(KeeperError::Gone { .. }) => {}
            Ok((other, _)) => return Err(self.unexpected(&other)),
            Err(error) => return Err(error),
        }
        // The keeper answers before it ends: wait until its end of the connection is closed.
        match within(&self.dir, CALL_TIMEOUT, answer(&self.dir, &connection)).await {
            Err(KeeperError::Gone { .. }) => Ok(()),
            Ok((other, _)) => Err(self.unexpected(&other)),
            Err(error) => Err(error),
        }
    }

    async fn ask(&self, call: Call) -> Result<AsyncFd<OwnedFd>, KeeperError> {
        let connection = connect(&self.dir).await?;
        let envelope = Envelope { version: protocol::VERSION, call };
        connection
            .async_io(Interest::WRITABLE, |fd| protocol::send(fd.as_fd(), &envelope, &[]))
            .await
            .map_err(|error| broken(&self.dir, error))?;
        Ok(connection)
    }

    async fn call(&self, call: Call, deadline: Duration) -> Result<Reply, KeeperError> {
        let connection = self.ask(call).await?;
        Ok(within(&self.dir, deadline, answer(&self.dir, &connection)).await?.0)
    }

    async fn done(&self, call: Call) -> Result<(), KeeperError> {
        match self.call(call, CALL_TIMEOUT).await? {
            Reply::Done => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    fn streams(&self, fds: Vec<OwnedFd>) -> Result<Streams, KeeperError> {
        let mut fds = fds.into_iter();
        match (fds.next(), fds.next(), fds.next()) {
            (Some(master), None, None) => Ok(Streams::Terminal(Terminal(master))),
            (Some(stdout), Some(stderr), stdin) => Ok(Streams::Pipes { stdin, stdout, stderr }),
            _ => Err(link(&self.dir, io::ErrorKind::InvalidData.into())),
        }
    }

    fn unexpected(&self, reply: &Reply) -> KeeperError {
        let text = format!("unexpected answer: {reply:?}");
        link(&self.dir, io::Error::new(io::ErrorKind::InvalidData, text))
    }
}

// === impl ExecExit ===

impl ExecExit {
    /// Waits until the command has ended.
    ///
    /// # Errors
    /// [`KeeperError::Gone`] when the keeper ended first.
    pub async fn wait(self) -> Result<ExitStatus, KeeperError> {
        match answer(&self.dir, &self.connection).await?.0 {
            Reply::ExecExited(status) => Ok(status),
            other => {
                let text = format!("unexpected answer: {other:?}");
                Err(link(&self.dir, io::Error::new(io::ErrorKind::InvalidData, text)))
            }
        }
    }
}

// === impl Terminal ===

nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, libc::winsize);

impl Terminal {
    /// Tells the terminal's size, in characters; the foreground processes get `SIGWINCH`.
    ///
    /// # Errors
    /// The system's, when this is no terminal.
    #[expect(unsafe_code, reason = "an ioctl")]
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor is open while `self` lives, and the kernel only reads `size`.
        unsafe { set_window_size(self.0.as_raw_fd(), &raw const size) }?;
        Ok(())
    }
}

async fn start(spec: &SandboxSpec) -> Result<(), String> {
    let (reader, writer) = io::pipe().map_err(|error| error.to_string())?;
    let mut spec_line = serde_json::to_vec(spec).map_err(|error| error.to_string())?;
    spec_line.push(b'\n');
    let mut child = tokio::process::Command::new(&spec.program.path)
        .arg0(KEEPER_NAME)
        .args(&spec.program.args)
        .arg(&spec.title)
        .stdin(Stdio::piped())
        .stdout(writer)
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn()
        .map_err(|error| format!("{}: {error}", spec.program.path.display()))?;
    let first = child.id();
    let waiting = async {
        let mut order = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let reader = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into())?;
        let mut reader = BufReader::new(reader);
        // One that ends before it has read all says why.
        let written = order.write_all(&spec_line).await;
        let mut line = String::new();
        reader.read_line(&mut line).await?;
        // The process started here only detaches the keeper.
        child.wait().await?;
        let readiness = serde_json::from_str(&line)
            .unwrap_or_else(|_| Readiness::Failed { reason: "it ended without a word".to_owned() });
        if matches!(readiness, Readiness::Ready) {
            // Until it reads this, the keeper ends with whoever started it.
            written.and(order.write_all(&[protocol::KEEP]).await)?;
            // It closes its end when it listens.
            reader.read_to_end(&mut Vec::new()).await?;
        }
        Ok::<_, io::Error>(readiness)
    };
    match timeout(SPAWN_TIMEOUT, waiting).await {
        Ok(Ok(Readiness::Ready)) => Ok(()),
        Ok(Ok(Readiness::Failed { reason })) => Err(reason),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            // The first process has made itself a group, or has not come so far.
            if let Some(first) = first.and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw) {
                let _ = killpg(first, SIGKILL);
                let _ = kill(first, SIGKILL);
            }
            Err(format!("it was not ready within {} s", SPAWN_TIMEOUT.as_secs()))
        }
    }
}

/// Kills and removes what a keeper that is gone has left in this directory and its cgroup.
///
/// # Errors
/// The first thing that could not be removed.
pub async fn reclaim(spec: &SandboxSpec) -> io::Result<()> {
    let cgroup = cgroups::pod_path(&spec.cgroup_parent, &spec.pod_uid);
    let dir = spec.dir.clone();
    tokio::task::spawn_blocking(move || {
        cgroups::kill_and_remove(&cgroup)?;
        crate::layout::clear(&dir)
    })
    .await
    .map_err(io::Error::other)?
}

async fn connect(dir: &Path) -> Result<AsyncFd<OwnedFd>, KeeperError> {
    within(dir, CALL_TIMEOUT, async {
        loop {
            match try_connect(dir) {
                Ok(fd) => return register(fd).map_err(|error| link(dir, error)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sleep(BACKLOG_PAUSE).await;
                }
                Err(error) => return Err(broken(dir, error)),
            }
        }
    })
    .await
}

#[expect(unsafe_code, reason = "tokio cannot know that a descriptor stays open")]
fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the `AsyncFd` owns the open descriptor, and nothing here replaces or closes it.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

fn try_connect(dir: &Path) -> io::Result<OwnedFd> {
    let (_open_dir, address) = protocol::address(dir)?;
    let fd = protocol::new_socket()?;
    socket::connect(fd.as_raw_fd(), &address)?;
    Ok(fd)
}

async fn answer(
    dir: &Path,
    connection: &AsyncFd<OwnedFd>,
) -> Result<(Reply, Vec<OwnedFd>), KeeperError> {
    let Received { bytes, fds } = connection
        .async_io(Interest::READABLE, |fd| protocol::receive(fd.as_fd()))
        .await
        .map_err(|error| broken(dir, error))?
        .ok_or_else(|| KeeperError::Gone { dir: dir.to_owned() })?;
    match protocol::decode(&bytes).map_err(|error| link(dir, error))? {
        Reply::Refused { reason } => Err(KeeperError::Refused { reason }),
        reply => Ok((reply, fds)),
    }
}

async fn within<T>(
    dir: &Path,
    deadline: Duration,
    work: impl Future<Output = Result<T, KeeperError>>,
) -> Result<T, KeeperError> {
    timeout(deadline, work)
        .await
        .unwrap_or_else(|_| Err(KeeperError::TimedOut { dir: dir.to_owned(), timeout: deadline }))
}

fn link(dir: &Path, source: io::Error) -> KeeperError {
    KeeperError::Link { dir: dir.to_owned(), source }
}

/// No socket, no listener and a closed connection all say that the process is gone.
fn broken(dir: &Path, error: io::Error) -> KeeperError {
    let gone =
        [Errno::ENOENT, Errno::ENOTDIR, Errno::ECONNREFUSED, Errno::ECONNRESET, Errno::EPIPE];
    if error.raw_os_error().is_some_and(|code| gone.contains(&Errno::from_raw(code))) {
        KeeperError::Gone { dir: dir.to_owned() }
    } else {
        link(dir, error)
    }
}
