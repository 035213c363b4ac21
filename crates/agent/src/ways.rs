//! The two ways of a session's datagrams: UDP, and one WebSocket where UDP does not get through.
//!
//! It carries bytes and says by which way they came. Which way to use when is the heartbeat's to decide.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UdpSocket,
    time::{Instant, timeout},
};
use toono_streams::{negotiate, websocket::Datagrams};
use toono_wire::{datagram::MAX_DATAGRAM, path};

use crate::{cloud::Cloud, join::chain, retry};

/// A connection that takes no datagram for so long stands still.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Room for some messages.
const READ: usize = 512;

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Udp,
    Socket,
}

/// What is open of them.
#[derive(Default)]
pub(crate) struct Ways {
    udp: Option<UdpSocket>,
    socket: Option<Socket>,
}

struct Socket {
    stream: TokioIo<Upgraded>,
    ends: Datagrams,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    #[error(transparent)]
    Link(#[from] toono_http::client::ClientError),
    #[error("the request cannot be made")]
    Request(#[from] http::Error),
    #[error("the server answered {0} instead of switching protocols")]
    Refused(StatusCode),
    #[error("the server does not speak WebSocket")]
    Accept,
    #[error("the upgrade failed")]
    Upgrade(#[from] hyper::Error),
}

impl Ways {
    pub(crate) fn has_udp(&self) -> bool {
        self.udp.is_some()
    }

    pub(crate) fn has_socket(&self) -> bool {
        self.socket.is_some()
    }

    /// Opens a UDP socket in place of the one before: the server's name may lead elsewhere now.
    pub(crate) async fn open_udp(&mut self, host: &str, port: u16) {
        let open = async {
            let target = tokio::net::lookup_host((host, port)).await?.next();
            let target = target.ok_or(io::ErrorKind::NotFound)?;
            let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).await?;
            socket.connect(target).await?;
            Ok::<_, io::Error>(socket)
        };
        let opened = open.await;
        self.udp = opened.inspect_err(|error| tracing::debug!(%error, "no way to the server")).ok();
    }

    /// Opens a WebSocket with the node's certificate.
    pub(crate) async fn open_socket(&mut self, cloud: &Cloud) -> Result<(), SocketError> {
        let mut connection = cloud.connect().await?;
        // Not for secrecy: it only tells this connection's answer from a cached one.
        let key = negotiate::client_key([(); 4].map(|()| retry::random_u32()));
        let request = Request::get(path::SOCKET)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, &key)
            .body(toono_http::empty())?;
        let response = connection.send(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(SocketError::Refused(response.status()));
        }
        let accept = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
        if accept.is_none_or(|accept| accept.as_bytes() != negotiate::accept_key(&key).as_bytes()) {
            return Err(SocketError::Accept);
        }
        let stream = TokioIo::new(hyper::upgrade::on(response).await?);
        self.socket = Some(Socket { stream, ends: Datagrams::client(retry::random_u32) });
        Ok(())
    }

    /// Closes the WebSocket; it has served.
    pub(crate) async fn close_socket(&mut self) {
        if let Some(mut socket) = self.socket.take() {
            socket.ends.close();
            // The server would find out by itself.
            let _ = socket.flush().await;
        }
    }

    /// Sends by a way that is open; what cannot be sent is lost, as datagrams may be.
    pub(crate) async fn send(&mut self, way: Way, datagram: &[u8]) {
        match (way, &mut self.udp, &mut self.socket) {
            (Way::Udp, Some(udp), _) => {
                if let Err(error) = udp.send(datagram).await {
                    tracing::debug!(%error, "heartbeat not sent");
                }
            }
            (Way::Socket, _, Some(socket)) => {
                socket.ends.send(datagram);
                if let Err(error) = socket.flush().await {
                    tracing::debug!(%error, "the session's socket broke");
                    self.socket = None;
                }
            }
            _ => {}
        }
    }

    /// The next datagram by any way, or none when it is `until`, or when the WebSocket has just ended.
    pub(crate) async fn receive(&mut self, until: Instant) -> Option<(Way, Bytes)> {
        let mut datagram = [0; MAX_DATAGRAM];
        loop {
            let Self { udp, socket } = self;
            let by_udp = async {
                match udp {
                    Some(udp) => udp.recv(&mut datagram).await,
                    None => std::future::pending().await,
                }
            };
            let by_socket = async {
                match socket {
                    Some(socket) => socket.receive().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                received = by_udp => match received {
                    Ok(length) => {
                        let bytes = datagram.get(..length).unwrap_or_default();
                        return Some((Way::Udp, Bytes::copy_from_slice(bytes)));
                    }
                    // An ICMP answer to an earlier datagram; there may be more of them at once.
                    Err(error) => tracing::debug!(%error, "the server refuses datagrams"),
                },
                received = by_socket => match received {
                    Ok(bytes) => return Some((Way::Socket, bytes)),
                    Err(error) => {
                        tracing::debug!(error = chain(&error), "the session's socket ended");
                        self.socket = None;
                        return None;
                    }
                },
                () = tokio::time::sleep_until(until) => return None,
            }
        }
    }
}

impl Socket {
    /// Safe to drop at any time: what was read stays.
    async fn receive(&mut self) -> io::Result<Bytes> {
        loop {
            // A ping may have been answered on the way here.
            self.flush().await?;
            if let Some(datagram) = self.ends.next_datagram().map_err(io::Error::other)? {
                return Ok(datagram);
            }
            if self.ends.is_ended() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if self.ends.output().is_empty() {
                let mut buffer = BytesMut::with_capacity(READ);
                if self.stream.read_buf(&mut buffer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.ends.push(&buffer).map_err(io::Error::other)?;
            }
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.ends.output().is_empty() {
            return Ok(());
        }
        let written = timeout(WRITE_TIMEOUT, async {
            // What was written is gone from the buffer, should this be dropped in between.
            while !self.ends.output().is_empty() {
                self.stream.write_buf(self.ends.output()).await?;
            }
            self.stream.flush().await
        });
        written.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}
