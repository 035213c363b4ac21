//! The keeper's loop: calls come in, children end, streams are logged.
//!
//! One `poll` over everything. Nothing here waits for anything else, except for a dead container's
//! cgroup to empty.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    process::ExitCode,
};

use jiff::Timestamp;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill},
        socket::{SockFlag, accept4},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{
    Sandbox,
    connection::{Connection, Wait},
    create,
    fork::{self, Work},
    log::Log,
    oci::ProcessNamespace,
    rootfs,
    state::{self, Container, Held},
};
use crate::{
    cgroups, layout,
    protocol::{self, AnyEnvelope, Call, Envelope, Reply},
    spec::{
        ContainerId, ContainerSpec, ContainerState, ContainerStatus, ExecSpec, Processes,
        SandboxSpec, Snapshot,
    },
};

/// The most connections at once; more are refused. The agent has one per watch, per call and per
/// command that runs.
const MAX_CONNECTIONS: usize = 256;

/// Something that a child does for a client.
#[derive(Debug)]
struct Job {
    work: Work,
    held: Held,
    kind: JobKind,
}

#[derive(Debug)]
enum JobKind {
    Create {
        spec: Box<ContainerSpec>,
        log: Log,
        started_at: Timestamp,
    },
    /// `kills` if the command is not to go on without its client.
    Exec {
        kills: bool,
    },
}

struct Keeper {
    spec: SandboxSpec,
    sandbox: Sandbox,
    version: u64,
    containers: Vec<Container>,
    connections: Vec<Connection>,
    jobs: Vec<Job>,
    /// Children that ended before the keeper knew what they were. While a job runs, what it
    /// starts may end before the job says its pid.
    unclaimed: Vec<(Pid, WaitStatus, Timestamp)>,
    /// Commands run so far; names what belongs to one of them.
    commands: u64,
    ending: bool,
}

/// Serves until told to end; not at all when nobody knows of this keeper.
pub(super) fn serve(spec: SandboxSpec, sandbox: Sandbox, is_known: bool) -> ExitCode {
    let mut keeper = Keeper {
        spec,
        sandbox,
        version: 1,
        containers: Vec::new(),
        connections: Vec::new(),
        jobs: Vec::new(),
        unclaimed: Vec::new(),
        commands: 0,
        ending: !is_known,
    };
    while !(keeper.ending && keeper.has_ended()) {
        if let Err(error) = keeper.turn() {
            eprintln!("poll: {error}");
            keeper.end();
        }
    }
    keeper.finish()
}

impl Keeper {
    /// Waits until something happens, and handles all that has.
    fn turn(&mut self) -> io::Result<()> {
        let ready = self.wait()?;
        let is_ready = |fd: BorrowedFd<'_>| ready.contains(&fd.as_raw_fd());
        // Outcomes before ends: an outcome says whose end it is.
        if is_ready(self.sandbox.signals.as_fd()) {
            self.drain_signals();
        }
        self.reap();
        // One that was killed says nothing, and what it started may hold its socket open.
        let is_over = |job: &Job, unclaimed: &[(Pid, WaitStatus, Timestamp)]| {
            is_ready(job.work.outcome.as_fd()) || unclaimed.iter().any(|it| it.0 == job.work.pid)
        };
        while let Some(at) = self.jobs.iter().position(|job| is_over(job, &self.unclaimed)) {
            let job = self.jobs.swap_remove(at);
            self.finish_job(job);
        }
        for container in &mut self.containers {
            for fd in &ready {
                container.log_output(*fd);
            }
        }
        let waiting: Vec<i32> = self
            .connections
            .iter()
            .map(|connection| connection.fd.as_raw_fd())
            .filter(|fd| ready.contains(fd))
            .collect();
        for fd in waiting {
            self.handle(fd);
        }
        if is_ready(self.sandbox.listener.as_fd()) {
            self.accept();
        }
        if self.jobs.is_empty() {
            self.unclaimed = Vec::new();
        }
        Ok(())
    }

    /// The descriptors that are readable or closed.
    fn wait(&self) -> io::Result<Vec<i32>> {
        let outputs = self.containers.iter().flat_map(|container| &container.outputs);
        let mut fds: Vec<PollFd<'_>> =
            [&self.sandbox.signals.as_fd(), &self.sandbox.listener.as_fd()]
                .into_iter()
                .copied()
                .chain(self.jobs.iter().map(|job| job.work.outcome.as_fd()))
                .chain(outputs.map(|output| output.fd.as_fd()))
                .chain(self.connections.iter().map(|connection| connection.fd.as_fd()))
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(fds
            .iter()
            .filter(|fd| fd.revents().is_some_and(|events| !events.is_empty()))
            .map(|fd| fd.as_fd().as_raw_fd())
            .collect())
    }

    fn drain_signals(&mut self) {
        while let Ok(Some(info)) = self.sandbox.signals.read_signal() {
            if i32::try_from(info.ssi_signo) == Ok(Signal::SIGTERM as i32) {
                self.end();
            }
        }
    }

    /// Takes note of every child that has ended.
    fn reap(&mut self) {
        loop {
            let ended = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(ended) => ended,
            };
            let Some(pid) = ended.pid() else { continue };
            if self.sandbox.first == Some(pid) {
                // With it every container has ended, and no other can be started.
                eprintln!("the first process of the pod's namespace was killed");
                self.end();
                continue;
            }
            if !self.claim(pid, ended, Timestamp::now()) {
                self.unclaimed.push((pid, ended, Timestamp::now()));
            }
        }
    }

    /// Whether the process is a container's first one, or a command's.
    fn claim(&mut self, pid: Pid, ended: WaitStatus, at: Timestamp) -> bool {
        let mut claimed = false;
        let container = self.containers.iter_mut().find(|container| container.pid() == Some(pid));
        if let Some(container) = container {
            container.ended(&self.spec, ended, at);
            self.changed();
            claimed = true;
        }
        let waits = |connection: &Connection| connection.waits_for == Wait::Exit(pid);
        while let Some(at) = self.connections.iter().position(waits) {
            let connection = self.connections.swap_remove(at);
            connection.reply(&Reply::ExecExited(state::exit_status(ended)), &[]);
            claimed = true;
        }
        claimed
    }

    /// What has become of a process that a job has just told of, if it has ended already.
    fn claim_early_end(&mut self, pid: Pid) {
        if let Some(at) = self.unclaimed.iter().position(|(ended, ..)| *ended == pid) {
            let (pid, ended, at) = self.unclaimed.swap_remove(at);
            self.claim(pid, ended, at);
        }
    }

    fn accept(&mut self) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        while let Ok(raw) = accept4(self.sandbox.listener.as_raw_fd(), flags) {
            let connection = Connection::new(raw);
            if self.connections.len() < MAX_CONNECTIONS {
                if let Err(error) = protocol::allow_large_messages(&connection.fd) {
                    eprintln!("connection: {error}");
                }
                self.connections.push(connection);
            } else {
                connection.refuse("too many connections");
            }
        }
    }

    /// A connection has a message, or was closed.
    fn handle(&mut self, fd: i32) {
        let is_it = |connection: &Connection| connection.fd.as_raw_fd() == fd;
        let Some(at) = self.connections.iter().position(is_it) else { return };
        let connection = self.connections.swap_remove(at);
        let message = match protocol::receive(connection.fd.as_fd()) {
            Ok(Some(message)) => message,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.connections.push(connection);
                return;
            }
            // Whoever waited has gone; what it asked for goes on, unless it wanted otherwise.
            Ok(None) | Err(_) => {
                if let (true, Wait::Exit(pid)) = (connection.kills, connection.waits_for) {
                    let _ = kill(pid, Signal::SIGKILL);
                }
                return;
            }
        };
        if connection.waits_for != Wait::Call {
            connection.refuse("one connection carries one call");
            return;
        }
        match parse(&message.bytes) {
            Ok(call) => self.call(connection, call),
            Err(reason) => connection.refuse(&reason),
        }
    }

    fn call(&mut self, mut connection: Connection, call: Call) {
        if self.ending && !matches!(call, Call::State | Call::Watch { .. } | Call::Shutdown) {
            connection.refuse("the sandbox is being shut down");
            return;
        }
        match call {
            Call::State => connection.reply(&Reply::Snapshot(self.snapshot()), &[]),
            Call::Watch { since } => {
                connection.waits_for = Wait::Change(since);
                self.connections.push(connection);
                self.tell_watchers();
            }
            Call::Create(spec) => self.create(connection, spec),
            Call::Exec(spec) => self.exec(connection, spec),
            Call::Attach { container, stdin } => self.attach(connection, &container, stdin),
            Call::Signal { container, signal } => {
                connection.finish(self.signal(&container, signal));
            }
            Call::Remove { container } => connection.finish(self.remove(&container)),
            Call::Shutdown => {
                connection.waits_for = Wait::Shutdown;
                self.connections.push(connection);
                self.end();
            }
        }
    }

    fn create(&mut self, connection: Connection, spec: Box<ContainerSpec>) {
        let id = spec.id();
        match self.start_creating(spec) {
            Ok(job) => self.follow(connection, job),
            Err(reason) => {
                eprintln!("{id}: {reason}");
                connection.refuse(&reason);
            }
        }
    }

    fn start_creating(&mut self, spec: Box<ContainerSpec>) -> Result<Job, String> {
        let id = spec.id();
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if spec.name.is_empty() || !spec.name.chars().all(is_name) {
            return Err(format!("`{}` is no container name", spec.name));
        }
        let is_being_made = self
            .jobs
            .iter()
            .any(|job| matches!(&job.kind, JobKind::Create { spec, .. } if spec.id() == id));
        if is_being_made || self.find(&id).is_some() {
            return Err(format!("container {id} exists"));
        }
        let bundle = layout::container(&self.spec.dir, &id);
        let prepare = || -> io::Result<_> {
            fs::create_dir_all(layout::runtime_state(&self.spec.dir))?;
            state::delete(&self.spec, &id)?;
            fs::create_dir_all(&bundle)?;
            let log = Log::open(spec.log_path.clone())?;
            let (held, ends) = state::streams(&bundle, "console", spec.tty, spec.stdin)?;
            let processes = self.processes(&spec)?;
            let work = fork::start(|| create::container(&self.spec, &spec, &processes, &ends))?;
            Ok((work, held, log))
        };
        let (work, held, log) = prepare().map_err(|error| error.to_string())?;
        let kind = JobKind::Create { spec, log, started_at: Timestamp::now() };
        Ok(Job { work, held, kind })
    }

    /// The namespace of processes that a container is put into.
    fn processes(&self, spec: &ContainerSpec) -> io::Result<ProcessNamespace> {
        let of = |pid: Pid| ProcessNamespace::Of(format!("/proc/{pid}/ns/pid").into());
        match (self.spec.processes, self.sandbox.first, &spec.beside) {
            (Processes::Host, ..) => Ok(ProcessNamespace::Host),
            (Processes::Pod, Some(first), _) => Ok(of(first)),
            (_, _, Some(id)) => {
                let pid = self.find(id).and_then(Container::pid);
                let gone = || io::Error::other(format!("container {id} is not running"));
                pid.map(of).ok_or_else(gone)
            }
            _ => Ok(ProcessNamespace::New),
        }
    }

    fn exec(&mut self, mut connection: Connection, spec: ExecSpec) {
        let running = self.find(&spec.container).is_some_and(|it| it.pid().is_some());
        if !running {
            connection.refuse(&format!("container {} is not running", spec.container));
            return;
        }
        let folder = layout::container(&self.spec.dir, &spec.container);
        connection.kills = spec.ends_with_client;
        // Several commands may be started at once; each has a socket of its own.
        self.commands += 1;
        let start = || -> io::Result<Job> {
            let name = format!("exec-{}", self.commands);
            let (held, ends) = state::streams(&folder, &name, spec.tty, spec.stdin)?;
            let work = fork::start(|| create::command(&self.spec, &spec, &ends))?;
            Ok(Job { work, held, kind: JobKind::Exec { kills: spec.ends_with_client } })
        };
        match start() {
            Ok(job) => self.follow(connection, job),
            Err(error) => connection.refuse(&error.to_string()),
        }
    }

    fn attach(&mut self, mut connection: Connection, id: &ContainerId, stdin: bool) {
        let found = self.containers.iter_mut().find(|container| container.state.id == *id);
        let Some((container, pid)) = found.and_then(|it| it.pid().map(|pid| (it, pid))) else {
            connection.refuse(&format!("container {id} is not running"));
            return;
        };
        match container.attach(stdin) {
            Ok(fds) => {
                let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
                let terminal = container.is_terminal;
                connection.reply(&Reply::Attached { terminal }, &raw);
                connection.waits_for = Wait::Exit(pid);
                self.connections.push(connection);
            }
            Err(error) => connection.refuse(&error.to_string()),
        }
    }

    fn follow(&mut self, mut connection: Connection, job: Job) {
        connection.waits_for = Wait::Work(job.work.pid);
        self.connections.push(connection);
        self.jobs.push(job);
    }

    fn finish_job(&mut self, job: Job) {
        let waits = |connection: &Connection| connection.waits_for == Wait::Work(job.work.pid);
        let connection = self.connections.iter().position(waits);
        let connection = connection.map(|at| self.connections.swap_remove(at));
        let outcome = job.work.finish();
        if outcome.is_err() {
            job.work.kill_rest();
        }
        match job.kind {
            JobKind::Create { spec, log, started_at } => {
                let result =
                    outcome.and_then(|pid| self.created(&spec, pid, job.held, log, started_at));
                if let Err(reason) = &result {
                    eprintln!("{}: {reason}", spec.id());
                    if let Err(error) = self.forget(&spec) {
                        eprintln!("{}: {error}", spec.id());
                    }
                }
                if let Some(connection) = connection {
                    match result {
                        Ok(state) => connection.reply(&Reply::Created(state), &[]),
                        Err(reason) => connection.refuse(&reason),
                    }
                }
            }
            JobKind::Exec { kills } if connection.is_none() && kills => {
                if let Ok(pid) = outcome {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
            JobKind::Exec { .. } => self.command_started(connection, outcome, job.held),
        }
    }

    /// Removes what is left of a container that was not started. Its log goes too: a log says that
    /// there was such a run.
    fn forget(&self, spec: &ContainerSpec) -> io::Result<()> {
        state::delete(&self.spec, &spec.id())?;
        layout::ignore_missing(fs::remove_file(&spec.log_path))
    }

    fn created(
        &mut self,
        spec: &ContainerSpec,
        pid: i32,
        held: Held,
        log: Log,
        started_at: Timestamp,
    ) -> Result<ContainerState, String> {
        let state = ContainerState {
            id: spec.id(),
            name: spec.name.clone(),
            attempt: spec.attempt,
            started_at,
            status: ContainerStatus::Running { pid },
        };
        let mut container = Container::new(state.clone(), held, log)
            .map_err(|error| format!("standard streams: {error}"))?;
        container.stdin_once = spec.stdin_once;
        self.containers.push(container);
        self.changed();
        self.claim_early_end(Pid::from_raw(pid));
        if self.ending {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        Ok(self.find(&state.id).map_or(state, |container| container.state.clone()))
    }

    fn command_started(
        &mut self,
        connection: Option<Connection>,
        outcome: fork::Outcome,
        held: Held,
    ) {
        // Nobody to hand the streams to: they close, and the command goes on without.
        let Some(mut connection) = connection else { return };
        let started = outcome.and_then(|pid| {
            let fds = held.into_fds().map_err(|error| error.to_string())?;
            Ok((Pid::from_raw(pid), fds))
        });
        match started {
            Ok((pid, fds)) => {
                let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
                connection.reply(&Reply::ExecStarted, &raw);
                connection.waits_for = Wait::Exit(pid);
                self.connections.push(connection);
                self.claim_early_end(pid);
            }
            Err(reason) => connection.refuse(&reason),
        }
    }

    fn signal(&self, id: &ContainerId, number: i32) -> Result<(), String> {
        let signal =
            Signal::try_from(number).map_err(|_| format!("there is no signal {number}"))?;
        let container = self.find(id).ok_or_else(|| format!("there is no container {id}"))?;
        match container.pid().map(|pid| kill(pid, signal)) {
            None | Some(Ok(()) | Err(Errno::ESRCH)) => Ok(()),
            Some(Err(errno)) => Err(format!("signal {number}: {}", errno.desc())),
        }
    }

    fn remove(&mut self, id: &ContainerId) -> Result<(), String> {
        let Some(container) = self.find(id) else { return Ok(()) };
        if container.pid().is_some() {
            return Err(format!("container {id} is running"));
        }
        state::delete(&self.spec, id).map_err(|error| format!("container {id}: {error}"))?;
        self.containers.retain(|container| container.state.id != *id);
        self.changed();
        Ok(())
    }

    /// Kills everything; the loop goes on until it is dead.
    fn end(&mut self) {
        self.ending = true;
        for pid in self.containers.iter().filter_map(Container::pid) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        for job in &self.jobs {
            let _ = kill(job.work.pid, Signal::SIGKILL);
        }
    }

    fn has_ended(&self) -> bool {
        self.jobs.is_empty() && self.containers.iter().all(|container| container.pid().is_none())
    }

    fn finish(self) -> ExitCode {
        let pod = cgroups::pod_path(&self.spec.cgroup_parent, &self.spec.pod_uid);
        let clean = || -> io::Result<()> {
            self.sandbox.membership.leave()?;
            cgroups::kill_and_remove(&pod)?;
            for container in &self.containers {
                state::delete(&self.spec, &container.state.id)?;
            }
            rootfs::unmount_shared_memory(&self.spec)?;
            layout::clear(&self.spec.dir)
        };
        let result = clean();
        let waits = |connection: &&Connection| connection.waits_for == Wait::Shutdown;
        for connection in self.connections.iter().filter(waits) {
            match &result {
                Ok(()) => connection.reply(&Reply::Done, &[]),
                Err(error) => connection.refuse(&error.to_string()),
            }
        }
        if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn changed(&mut self) {
        self.version += 1;
        self.tell_watchers();
    }

    fn tell_watchers(&mut self) {
        let is_due = |connection: &Connection| matches!(connection.waits_for, Wait::Change(since) if since != self.version);
        if self.connections.iter().any(is_due) {
            let reply = Reply::Snapshot(self.snapshot());
            self.connections.retain(|connection| {
                let due = is_due(connection);
                if due {
                    connection.reply(&reply, &[]);
                }
                !due
            });
        }
    }

    fn snapshot(&self) -> Snapshot {
        let containers = self.containers.iter().map(|container| container.state.clone());
        Snapshot { version: self.version, containers: containers.collect() }
    }

    fn find(&self, id: &ContainerId) -> Option<&Container> {
        self.containers.iter().find(|container| container.state.id == *id)
    }
}

fn parse(bytes: &[u8]) -> Result<Call, String> {
    let any: AnyEnvelope = protocol::decode(bytes).map_err(|error| error.to_string())?;
    if any.version != protocol::VERSION {
        return Err(format!(
            "this keeper speaks version {} of the protocol, not {}",
            protocol::VERSION,
            any.version
        ));
    }
    let envelope: Envelope = protocol::decode(bytes).map_err(|error| error.to_string())?;
    Ok(envelope.call)
}
