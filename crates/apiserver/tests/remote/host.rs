//! The node's side: a link that speaks HTTP/2 to a host that runs real processes.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::pty::openpty;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use toono_apiserver::remote::{LinkError, NodeLink};
use toono_http::{Body, BoxError};
use toono_wire::remote::{self, Frame, FrameReader};

/// The node `edge-1`. Clones are the same node.
#[derive(Clone)]
pub(crate) struct Host {
    /// The path and query of each request.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    /// The log of its only container, so far.
    pub(crate) log: Arc<watch::Sender<Vec<u8>>>,
    /// How many requests were given up by the server.
    pub(crate) given_up: Arc<watch::Sender<usize>>,
    /// How many bytes its processes have written that the server's side took.
    pub(crate) taken: Arc<watch::Sender<usize>>,
    /// Since when the node is silent, if it is.
    pub(crate) silent_for: Option<Duration>,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self {
            asked: Arc::default(),
            log: Arc::new(watch::Sender::new(Vec::new())),
            given_up: Arc::new(watch::Sender::new(0)),
            taken: Arc::new(watch::Sender::new(0)),
            silent_for: None,
        }
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
        let uri = request.uri().clone();
        self.asked.lock().unwrap().push(uri.path_and_query().unwrap().to_string());
        let query = uri.query().unwrap_or_default();
        let (frames, body) = mpsc::channel::<Result<Bytes, BoxError>>(1);
        let verb = uri.path().split('/').nth(1).unwrap().to_owned();
        match verb.as_str() {
            "containerLogs" => {
                let follow = query.contains("follow=true");
                tokio::spawn(tail(self.log.subscribe(), frames, follow));
            }
            "exec" if query.contains("command=refuse") => {
                let mut response =
                    Response::new(toono_http::full("container \"app\" is not running"));
                *response.status_mut() = StatusCode::BAD_REQUEST;
                return Ok(response);
            }
            "exec" if query.contains("command=break-off") => {
                let so_far = Frame::encode(remote::STDOUT, b"so far\n");
                tokio::spawn(async move {
                    frames.send(Ok(so_far)).await.unwrap();
                    frames.send(Err("a power cut".into())).await.unwrap();
                });
            }
            "exec" | "attach" => {
                tokio::spawn(self.execute(decode(query), request.into_body(), frames));
            }
            "portForward" => {
                let port = query.strip_prefix("port=").unwrap().parse().unwrap();
                tokio::spawn(self.forward(port, request.into_body(), frames));
            }
            other => panic!("no node serves {other}"),
        }
        let chunks =
            futures::stream::unfold(body, |mut body| async { Some((body.recv().await?, body)) });
        Ok(Response::new(toono_http::stream(chunks)))
    }

    /// Runs a command until it ends or the request is given up.
    async fn execute(self, query: Vec<(String, String)>, body: Incoming, frames: Frames) {
        let has = |name: &str| query.iter().any(|(key, value)| key == name && value == "true");
        let mut command: Vec<&str> = query
            .iter()
            .filter(|(key, _)| key == "command")
            .map(|(_, value)| value.as_str())
            .collect();
        if command.is_empty() {
            command = vec!["cat"];
        }
        let mut process = Process::spawn(&command, has("tty"));
        let stdin = process.stdin.take().filter(|_| has("stdin"));
        let (out, err) = (process.stdout.take(), process.stderr.take());
        let copies = async {
            let out = self.copy(out, remote::STDOUT, &frames);
            let err = self.copy(err, remote::STDERR, &frames);
            tokio::join!(out, err);
        };
        let slave = process.terminal.take();
        let given_up = tokio::select! {
            () = copies => false,
            given_up = feed(body, stdin, slave) => given_up,
        };
        if given_up {
            process.child.kill().await.unwrap();
            self.given_up.send_modify(|count| *count += 1);
            return;
        }
        let code = process.child.wait().await.unwrap().code().unwrap_or(137);
        let _ = frames.send(Ok(Frame::encode(remote::ERROR, exit_status(code).as_bytes()))).await;
    }

    async fn copy(
        &self,
        from: Option<Box<dyn AsyncRead + Send + Unpin>>,
        channel: u8,
        to: &Frames,
    ) {
        let Some(mut from) = from else { return };
        let mut buffer = vec![0; 16 * 1024];
        // A terminal's master ends with an error.
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if to.send(Ok(Frame::encode(channel, &buffer[..length]))).await.is_err() {
                return;
            }
            self.taken.send_modify(|taken| *taken += length);
        }
    }

    /// Connects to a port of this machine.
    async fn forward(self, port: u16, body: Incoming, frames: Frames) {
        let stream = match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(stream) => stream,
            Err(error) => {
                let text = format!("dial tcp4 127.0.0.1:{port}: {error}");
                let _ = frames.send(Ok(Frame::encode(remote::ERROR, text.as_bytes()))).await;
                return;
            }
        };
        let (read, write) = stream.into_split();
        let fed = tokio::spawn(feed(body, Some(Box::new(write)), None));
        self.copy(Some(Box::new(read)), remote::STDOUT, &frames).await;
        drop(frames);
        if fed.await.unwrap() {
            self.given_up.send_modify(|count| *count += 1);
        }
    }
}

type Frames = mpsc::Sender<Result<Bytes, BoxError>>;
type Stdin = Box<dyn AsyncWrite + Send + Unpin>;

/// Gives what comes from the client to a process. True when the request was given up, else never
/// before the regular end of the body.
async fn feed(mut body: Incoming, mut stdin: Option<Stdin>, terminal: Option<File>) -> bool {
    let mut reader = FrameReader::default();
    while let Some(part) = body.frame().await {
        let Ok(part) = part else { return true };
        reader.push(&part.into_data().unwrap());
        while let Some(frame) = reader.next_frame().unwrap() {
            match frame.channel {
                remote::STDIN => {
                    if let Some(stdin) = &mut stdin {
                        // A process may end without having read all.
                        let _ = stdin.write_all(&frame.payload).await;
                    }
                }
                remote::CLOSE => stdin = None,
                remote::RESIZE => resize(terminal.as_ref().unwrap(), &frame.payload).await,
                other => panic!("no client sends on channel {other}"),
            }
        }
    }
    std::future::pending().await
}

async fn resize(terminal: &File, payload: &[u8]) {
    let size: serde_json::Value = serde_json::from_slice(payload).unwrap();
    let (rows, columns) = (size["Height"].to_string(), size["Width"].to_string());
    let mut stty = Command::new("stty");
    stty.args(["rows", &rows, "cols", &columns]).stdin(terminal.try_clone().unwrap());
    assert!(stty.status().await.unwrap().success());
}

struct Process {
    child: Child,
    stdin: Option<Stdin>,
    stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// For terminal sizes.
    terminal: Option<File>,
}

impl Process {
    fn spawn(command: &[&str], tty: bool) -> Self {
        if tty {
            return Self::spawn_in_terminal(command);
        }
        let mut process = Command::new(command[0]);
        process.args(&command[1..]).kill_on_drop(true);
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process.spawn().unwrap();
        Self {
            stdin: child.stdin.take().map(|pipe| Box::new(pipe) as Stdin),
            stdout: child.stdout.take().map(|pipe| Box::new(pipe) as _),
            stderr: child.stderr.take().map(|pipe| Box::new(pipe) as _),
            child,
            terminal: None,
        }
    }

    fn spawn_in_terminal(command: &[&str]) -> Self {
        let pair = openpty(None, None).unwrap();
        let slave = || OwnedFd::from(File::from(pair.slave.try_clone().unwrap()));
        let mut process = Command::new("setsid");
        process.args(["--ctty", "--wait"]).args(command).kill_on_drop(true);
        process.stdin(slave()).stdout(slave()).stderr(slave());
        let child = process.spawn().unwrap();
        let master = File::from(pair.master);
        Self {
            child,
            stdin: Some(Box::new(tokio::fs::File::from_std(master.try_clone().unwrap()))),
            // Sizes are set through the master, so that the slave closes with the process.
            terminal: Some(master.try_clone().unwrap()),
            stdout: Some(Box::new(tokio::fs::File::from_std(master))),
            stderr: None,
        }
    }
}

fn exit_status(code: i32) -> String {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"}).to_string();
    }
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
    .to_string()
}

/// Sends a log as it grows. It is empty at its end, where a follower waits.
async fn tail(mut log: watch::Receiver<Vec<u8>>, to: Frames, follow: bool) {
    let mut sent = 0;
    loop {
        let more = log.borrow_and_update()[sent..].to_vec();
        sent += more.len();
        if !more.is_empty() && to.send(Ok(more.into())).await.is_err() {
            return;
        }
        if !follow || log.changed().await.is_err() {
            return;
        }
    }
}

fn decode(query: &str) -> Vec<(String, String)> {
    let unescape = |text: &str| {
        let mut parts = text.split('%');
        let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
        for part in parts {
            bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
            bytes.extend_from_slice(&part.as_bytes()[2..]);
        }
        String::from_utf8(bytes).unwrap()
    };
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(name, value)| (unescape(name), unescape(value)))
        .collect()
}

impl NodeLink for Host {
    fn send(
        &self,
        node: &str,
        request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, LinkError>> {
        let (host, node) = (self.clone(), node.to_owned());
        Box::pin(async move {
            assert_eq!(node, "edge-1");
            if let Some(silent_for) = host.silent_for {
                return Err(LinkError::Silent { node, silent_for });
            }
            let (near, far) = tokio::io::duplex(16 * 1024);
            let service = service_fn(move |request| host.clone().answer(request));
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(far), service),
            );
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near))
                    .await
                    .unwrap();
            tokio::spawn(connection);
            match sender.send_request(request).await {
                Ok(response) => Ok(response.map(|body| body.map_err(Into::into).boxed_unsync())),
                Err(error) => Err(LinkError::Broken { node, source: error.into() }),
            }
        })
    }
}
