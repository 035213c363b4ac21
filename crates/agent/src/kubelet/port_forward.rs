//! `portForward`: one connection into the pod's network namespace, carried as frames.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use http::Response;
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use toono_http::Body;
use toono_net::netns;
use toono_wire::remote;

use super::{
    Refusal,
    frames::{CHUNK, FrameSender, FrameSource, failure},
    query::Query,
};
use crate::views::PodView;

/// Both ends are on this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// `POST /portForward/NS/POD?port=N`. What the client sends comes on the channel of standard input,
/// what the pod answers on that of standard output.
pub(super) async fn answer(
    view: &PodView,
    query: &Query,
    body: Incoming,
) -> Result<Response<Body>, Refusal> {
    let port = query.number::<u16>("port").map_err(Refusal::bad_request)?;
    let port = port.ok_or_else(|| Refusal::bad_request("the query names no port"))?;
    let keeper =
        view.keeper.as_ref().ok_or_else(|| Refusal::bad_request("the pod is not running"))?;
    let pid = keeper.pid().as_raw();
    let (sender, response) = FrameSender::response();
    let source = FrameSource::new(body);
    tokio::spawn(async move {
        match connect(pid, port).await {
            Ok(stream) => carry(stream, sender, source).await,
            Err(error) => {
                let text = format!("failed to connect to localhost:{port} inside the pod: {error}");
                sender.finish(failure(&text)).await;
            }
        }
    });
    Ok(response)
}

/// Connects to the pod's own loopback, where servers listen that want no others.
async fn connect(keeper: i32, port: u16) -> io::Result<TcpStream> {
    let connect = move || -> io::Result<std::net::TcpStream> {
        let pod = netns::of_pid(keeper).map_err(io::Error::other)?;
        let dial = || {
            let dial_one = |ip: IpAddr| {
                std::net::TcpStream::connect_timeout(&SocketAddr::new(ip, port), CONNECT_TIMEOUT)
            };
            dial_one(Ipv4Addr::LOCALHOST.into())
                .or_else(|error| dial_one(Ipv6Addr::LOCALHOST.into()).map_err(|_| error))
        };
        let stream = pod.run(dial).map_err(io::Error::other)??;
        stream.set_nonblocking(true)?;
        Ok(stream)
    };
    TcpStream::from_std(tokio::task::spawn_blocking(connect).await.map_err(io::Error::other)??)
}

async fn carry(mut stream: TcpStream, sender: FrameSender, mut source: FrameSource) {
    let (mut reader, mut writer) = stream.split();
    let up = async {
        while let Some(frame) = source.next().await {
            let done = match frame.channel {
                remote::STDIN => writer.write_all(&frame.payload).await,
                remote::CLOSE => writer.shutdown().await,
                _ => Ok(()),
            };
            if done.is_err() {
                break;
            }
        }
        let _ = writer.shutdown().await;
        std::future::pending::<()>().await;
    };
    let down = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            let bytes = buffer.get(..length).unwrap_or_default();
            if !sender.send(remote::STDOUT, bytes).await {
                return;
            }
        }
        let _ = sender.send(remote::CLOSE, &[remote::STDOUT]).await;
    };
    tokio::select! {
        () = up => {}
        () = down => {}
        () = sender.closed() => {}
    }
}
