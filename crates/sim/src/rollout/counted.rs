//! A TCP stream that counts what passes through it, TLS and all, as the cloud's link would carry it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// IPv4 and TCP headers without options.
const TCP_HEADERS: u64 = 40;
/// IPv4 and UDP headers.
const UDP_HEADERS: u64 = 28;
/// What a segment carries on a link of 1,500 bytes.
const SEGMENT: u64 = 1_460;
/// Segments of each end that open and close a connection and carry nothing.
const EMPTY_SEGMENTS: u64 = 3;

/// What passed, in one direction.
#[derive(Debug, Default)]
pub(crate) struct Way {
    bytes: AtomicU64,
    /// Pieces that it passed in: a segment each at least, on a machine's own network.
    pieces: AtomicU64,
}

/// What passed on streams of one kind, or as datagrams of one kind.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) down: Way,
    pub(crate) up: Way,
    connections: AtomicU64,
}

/// Bytes on the link, headers included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OnLink {
    pub(crate) down: u64,
    pub(crate) up: u64,
    /// Connections, or datagrams down.
    pub(crate) count: u64,
}

impl Way {
    pub(crate) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.pieces.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.pieces.load(Ordering::Relaxed))
    }
}

impl Traffic {
    /// As streams: each piece is a segment or more, and the other end acknowledges each with one of its own.
    pub(crate) fn as_streams(&self) -> OnLink {
        let connections = self.connections.load(Ordering::Relaxed);
        let ((down, down_pieces), (up, up_pieces)) = (self.down.read(), self.up.read());
        let segments = |bytes: u64, pieces: u64, acknowledged: u64| {
            pieces.max(bytes.div_ceil(SEGMENT)) + acknowledged + EMPTY_SEGMENTS * connections
        };
        OnLink {
            down: down + TCP_HEADERS * segments(down, down_pieces, up_pieces),
            up: up + TCP_HEADERS * segments(up, up_pieces, down_pieces),
            count: connections,
        }
    }

    /// As datagrams.
    pub(crate) fn as_datagrams(&self) -> OnLink {
        let ((down, downs), (up, ups)) = (self.down.read(), self.up.read());
        OnLink { down: down + UDP_HEADERS * downs, up: up + UDP_HEADERS * ups, count: downs }
    }
}

impl std::ops::Sub for OnLink {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            down: self.down - before.down,
            up: self.up - before.up,
            count: self.count - before.count,
        }
    }
}

/// The stream.
pub(crate) struct Counted {
    stream: TcpStream,
    traffic: Arc<Traffic>,
}

impl Counted {
    pub(crate) fn new(stream: TcpStream, traffic: Arc<Traffic>) -> Self {
        traffic.connections.fetch_add(1, Ordering::Relaxed);
        Self { stream, traffic }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        if read > 0 {
            this.traffic.down.add(read);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.traffic.up.add(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
