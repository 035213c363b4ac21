//! `exec` and `attach`: the streams of a command in a container, or of the container itself, carried as
//! frames.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use http::Response;
use hyper::body::Incoming;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest, unix::AsyncFd},
    net::unix::pipe,
};
use toono_http::Body;
use toono_sandbox::{ContainerId, ExecIo, ExecSpec, Streams, Terminal};
use toono_wire::remote;

use super::{
    Refusal, Target,
    frames::{CHUNK, FrameSender, FrameSource, exit_status, failure},
    query::Query,
};

/// After a command's end, what it has written is still delivered; a process that it left behind
/// and that holds the pipes open is waited for no longer than this.
const DRAIN: Duration = Duration::from_secs(2);

/// `POST /exec/NS/POD/CONTAINER?command=…&stdin&stdout&stderr&tty`.
pub(super) async fn exec(
    target: &Target,
    query: &Query,
    body: Incoming,
) -> Result<Response<Body>, Refusal> {
    let (container, keeper) = running(target)?;
    let args = query.all("command");
    if args.is_empty() {
        return Err(Refusal::bad_request("you must specify at least 1 command for the container"));
    }
    let tty = query.flag(&["tty"]);
    let stdin = query.flag(&["stdin", "input"]);
    let spec = ExecSpec { container, args, tty, stdin, ends_with_client: false };
    let io = keeper.exec(&spec).await.map_err(|error| {
        Refusal::internal(format!("error executing command in container: {error}"))
    })?;
    let (sender, response) = FrameSender::response();
    tokio::spawn(async move {
        let ExecIo { streams, exit } = io;
        let exit = async {
            exit.wait().await.map(|status| status.code).map_err(|error| error.to_string())
        };
        carry(streams, sender, FrameSource::new(body), exit).await;
    });
    Ok(response)
}

/// `POST /attach/NS/POD/CONTAINER?stdin&stdout&stderr&tty`. The end of the container is told as a
/// success: its exit code is in the pod's status.
pub(super) async fn attach(
    target: &Target,
    query: &Query,
    body: Incoming,
) -> Result<Response<Body>, Refusal> {
    let (container, keeper) = running(target)?;
    let io = keeper.attach(&container, query.flag(&["stdin", "input"])).await;
    let ExecIo { streams, exit } =
        io.map_err(|error| Refusal::internal(format!("error attaching to container: {error}")))?;
    let (sender, response) = FrameSender::response();
    tokio::spawn(async move {
        let exit = async { exit.wait().await.map(|_| 0).map_err(|error| error.to_string()) };
        carry(streams, sender, FrameSource::new(body), exit).await;
    });
    Ok(response)
}

fn running(target: &Target) -> Result<(ContainerId, toono_sandbox::Keeper), Refusal> {
    let Target { view, container, pod, .. } = target;
    let attempt = view.containers.get(container).filter(|it| it.running).and_then(|it| it.newest);
    match (attempt, view.keeper.clone()) {
        (Some(attempt), Some(keeper)) => Ok((ContainerId::new(container, attempt), keeper)),
        _ => {
            Err(Refusal::bad_request(format!("container {container} of pod {pod} is not running")))
        }
    }
}

/// Carries all streams until the process has ended or the client has gone.
async fn carry(
    streams: Streams,
    sender: FrameSender,
    mut source: FrameSource,
    exit: impl Future<Output = Result<i32, String>>,
) {
    let (mut input, outputs) = match split(streams) {
        Ok(split) => split,
        Err(error) => return sender.finish(failure(&error.to_string())).await,
    };
    let feeding = async {
        while let Some(frame) = source.next().await {
            input.take(frame.channel, &frame.payload).await;
        }
        // The client's end of input is the process's, but the process may well go on.
        input.close();
        std::future::pending::<()>().await;
    };
    let mut output = std::pin::pin!(copy_out(outputs, &sender));
    let mut drained = false;
    let ended = async {
        let mut exit = std::pin::pin!(exit);
        let code = loop {
            tokio::select! {
                code = &mut exit => break code,
                () = &mut output, if !drained => drained = true,
            }
        };
        if !drained {
            let _ = tokio::time::timeout(DRAIN, output).await;
        }
        code
    };
    let code = tokio::select! {
        code = ended => code,
        () = feeding => return,
        () = sender.closed() => return,
    };
    let status = code.map_or_else(|error| failure(&error), exit_status);
    sender.finish(status).await;
}

/// Where the client's frames go.
enum Input {
    None,
    Pipe(pipe::Sender),
    Terminal { terminal: Terminal, master: Arc<AsyncFd<OwnedFd>> },
}

/// Where the client's frames come from, with their channels.
enum Output {
    Pipe(u8, pipe::Receiver),
    Terminal(Arc<AsyncFd<OwnedFd>>),
}

fn split(streams: Streams) -> io::Result<(Input, Vec<Output>)> {
    match streams {
        Streams::Pipes { stdin, stdout, stderr } => {
            let input = match stdin {
                Some(fd) => Input::Pipe(pipe::Sender::from_owned_fd(fd)?),
                None => Input::None,
            };
            let stdout = Output::Pipe(remote::STDOUT, pipe::Receiver::from_owned_fd(stdout)?);
            let stderr = Output::Pipe(remote::STDERR, pipe::Receiver::from_owned_fd(stderr)?);
            Ok((input, vec![stdout, stderr]))
        }
        Streams::SharedTerminal { terminal, output } => {
            let master = nonblocking(&terminal)?;
            let output = Output::Pipe(remote::STDOUT, pipe::Receiver::from_owned_fd(output)?);
            Ok((Input::Terminal { terminal, master }, vec![output]))
        }
        Streams::Terminal(terminal) => {
            let master = nonblocking(&terminal)?;
            let output = Output::Terminal(master.clone());
            Ok((Input::Terminal { terminal, master }, vec![output]))
        }
    }
}

fn nonblocking(terminal: &Terminal) -> io::Result<Arc<AsyncFd<OwnedFd>>> {
    let master = terminal.0.try_clone()?;
    let flags = OFlag::from_bits_truncate(fcntl(&master, FcntlArg::F_GETFL)?);
    fcntl(&master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    #[expect(
        deprecated,
        reason = "its successor is unsafe, which this layer has none of; the descriptor is owned \
                  and never replaced, which is all that it asks for"
    )]
    Ok(Arc::new(AsyncFd::new(master)?))
}

impl Input {
    /// Takes a frame; what the process no longer reads is dropped.
    async fn take(&mut self, channel: u8, payload: &[u8]) {
        let written = match (channel, &mut *self) {
            (remote::STDIN, Self::Pipe(pipe)) => pipe.write_all(payload).await,
            (remote::STDIN, Self::Terminal { master, .. }) => write_all(master, payload).await,
            (remote::RESIZE, Self::Terminal { terminal, .. }) => resize(terminal, payload),
            (remote::CLOSE, _) if payload.first() == Some(&remote::STDIN) => {
                self.close();
                Ok(())
            }
            _ => Ok(()),
        };
        if written.is_err() {
            self.close();
        }
    }

    /// Ends a pipe. A terminal has no end of input: whoever types says it with Ctrl-D.
    fn close(&mut self) {
        if matches!(self, Self::Pipe(_)) {
            *self = Self::None;
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

fn resize(terminal: &Terminal, payload: &[u8]) -> io::Result<()> {
    if let Ok(Size { width, height }) = serde_json::from_slice(payload) {
        // A size that the terminal refuses is no reason to end the session.
        let _ = terminal.resize(width, height);
    }
    Ok(())
}

async fn write_all(master: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let write = |fd: &OwnedFd| Ok(nix::unistd::write(fd.as_fd(), bytes)?);
        let written = master.async_io(Interest::WRITABLE, write).await?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Sends everything that the process writes, until all its outputs have ended.
async fn copy_out(outputs: Vec<Output>, sender: &FrameSender) {
    let copies = outputs.into_iter().map(|output| async move {
        match output {
            Output::Pipe(channel, mut pipe) => {
                let mut buffer = vec![0; CHUNK];
                while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    if !sender.send(channel, bytes).await {
                        return;
                    }
                }
            }
            Output::Terminal(master) => {
                let mut buffer = vec![0; CHUNK];
                loop {
                    let read = |fd: &OwnedFd| Ok(nix::unistd::read(fd.as_fd(), &mut buffer)?);
                    // A terminal that nobody holds open any more says EIO.
                    let Ok(length @ 1..) = master.async_io(Interest::READABLE, read).await else {
                        return;
                    };
                    let bytes = buffer.get(..length).unwrap_or_default();
                    if !sender.send(remote::STDOUT, bytes).await {
                        return;
                    }
                }
            }
        }
    });
    futures::future::join_all(copies).await;
}
