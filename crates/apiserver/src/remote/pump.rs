//! The loop between a client's upgraded connection and the node's streams.
//!
//! One task, no locks: it reads from the client only when everything read before is on its way to
//! a node, and takes from nodes only when the client keeps up. So a session's memory is bounded
//! and back-pressure reaches both ends. What the bytes mean is the [`Session`]'s business.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use toono_streams::{CloseReason, Codec, Event};
use toono_wire::remote::Frame;

use super::node::{Down, Up, Uplink};

/// How much is read from a client at once.
pub const READ_CHUNK: usize = 32 * 1024;
/// With more than this waiting to be written to a client, nothing more is taken for it.
pub const OUTPUT_HIGH_WATER: usize = 128 * 1024;
/// How many frames (of at most 64 KiB) of all a session's node streams may wait for the client.
pub const DOWNLINK_QUEUE: usize = 8;
/// How long a client may take to open the streams that it asked for; a kubelet waits as long.
pub const STREAMS_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client that got everything may take to close its connection. Closing it before
/// would discard what is still in flight to it.
pub const LINGER: Duration = Duration::from_secs(10);
/// A session on which nothing moves for so long is ended; a kubelet's default.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(4 * 60 * 60);
/// How often a client is shown that the server lives. Clients give up after 60 s of silence, and a
/// write is what tells us that a client is gone while we do not read from it.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What the bytes of one client mean.
pub(super) trait Session: Send {
    /// The client did something.
    fn client(&mut self, event: Event, hands: &mut Hands);
    /// A node sent something.
    fn node(&mut self, down: Down, hands: &mut Hands);
    /// Whether what nodes send can be passed on already.
    fn ready(&self) -> bool;
    /// Whether all is said; then only the client's goodbye is awaited.
    fn over(&self) -> bool;
}

/// What a session acts with.
pub(super) struct Hands {
    pub(super) codec: Box<dyn Codec>,
    /// Towards the nodes.
    pub(super) inbound: Inbound,
    /// Where the readers of node streams put what they read.
    pub(super) down: mpsc::Sender<Down>,
    /// The readers; they end with the session.
    pub(super) readers: JoinSet<()>,
}

/// Frames that wait for a place in a node's queue. While there are any, the client is not read, so
/// there are never more than one read makes.
#[derive(Default)]
pub(super) struct Inbound {
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    key: u64,
    uplink: Uplink,
    frames: BytesMut,
}

impl Inbound {
    /// Queues payload for a node stream.
    pub(super) fn push(&mut self, key: u64, uplink: &Uplink, channel: u8, payload: &[u8]) {
        let frames = Frame::encode(channel, payload);
        match self.waiting.back_mut() {
            Some(last) if last.key == key => last.frames.extend_from_slice(&frames),
            _ => {
                let (uplink, frames) = (uplink.clone(), BytesMut::from(&frames[..]));
                self.waiting.push_back(Waiting { key, uplink, frames });
            }
        }
    }

    /// Forgets what waits for a node stream.
    pub(super) fn forget(&mut self, key: u64) {
        self.waiting.retain(|waiting| waiting.key != key);
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A place in the queue that the first waiting frames go to; none when that stream is over.
    /// Never ends when nothing waits.
    fn place(&self) -> impl Future<Output = Option<OwnedPermit<Up>>> + use<> {
        let uplink = self.waiting.front().map(|waiting| waiting.uplink.clone());
        async {
            match uplink {
                Some(uplink) => uplink.reserve_owned().await.ok(),
                None => std::future::pending().await,
            }
        }
    }

    fn deliver(&mut self, place: Option<OwnedPermit<Up>>) {
        let Some(first) = self.waiting.pop_front() else { return };
        match place {
            Some(place) => {
                place.send(Up::Frames(first.frames.freeze()));
            }
            None => self.forget(first.key),
        }
    }
}

/// Runs a session until either side is done. Nothing is left behind: what the session holds of
/// node streams is reset unless it ended them.
pub(super) async fn run<S: Session>(
    client: Upgraded,
    hands: Hands,
    down: mpsc::Receiver<Down>,
    session: S,
) {
    let (reader, writer) = tokio::io::split(TokioIo::new(client));
    let mut keep_alive = tokio::time::interval(KEEP_ALIVE);
    keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    keep_alive.reset();
    let now = Instant::now();
    let mut pump = Pump {
        reader,
        writer,
        buffer: vec![0; READ_CHUNK],
        unflushed: false,
        hands,
        down,
        session,
        keep_alive,
        started: now,
        moved: now,
        wrote: now,
        broken: false,
    };
    pump.events();
    let end = loop {
        let step = pump.step().await;
        if let Some(end) = pump.apply(step) {
            break end;
        }
        while pump.hands.readers.try_join_next().is_some() {}
    };
    tracing::debug!(?end, "a session with a client ended");
    pump.part(end).await;
}

struct Pump<S> {
    reader: ReadHalf<TokioIo<Upgraded>>,
    writer: WriteHalf<TokioIo<Upgraded>>,
    buffer: Vec<u8>,
    unflushed: bool,
    hands: Hands,
    down: mpsc::Receiver<Down>,
    session: S,
    keep_alive: Interval,
    started: Instant,
    /// When the client or a node last said something; keeping alive does not count.
    moved: Instant,
    /// When something was last written to the client.
    wrote: Instant,
    /// The client broke the protocol: what it sends is not read any more.
    broken: bool,
}

enum Step {
    Read(io::Result<usize>),
    Place(Option<OwnedPermit<Up>>),
    Down(Option<Down>),
    /// What remains to be done: a flush, or nothing.
    Wrote(io::Result<Flush>),
    KeepAlive,
    Deadline,
}

/// Whether what was written may still sit in TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flush {
    Due,
    Done,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client closed, or its connection failed.
    ClientGone,
    /// It broke the protocol.
    ProtocolError,
    /// It got everything and did not close.
    Lingered,
    /// It did not open its streams.
    NoStreams,
    /// Nothing moved.
    Idle,
}

impl<S: Session> Pump<S> {
    async fn step(&mut self) -> Step {
        let deadline = self.deadline();
        let over = self.session.over() || self.broken;
        let backlog = self.hands.codec.output().len();
        let keeps_up = backlog < OUTPUT_HIGH_WATER;
        let reading = keeps_up && (over || self.hands.inbound.is_empty());
        let taking = keeps_up && !over && self.session.ready();
        let writing = backlog > 0 || self.unflushed;
        let place = self.hands.inbound.place();
        tokio::select! {
            read = self.reader.read(&mut self.buffer), if reading => Step::Read(read),
            place = place, if !over => Step::Place(place),
            down = self.down.recv(), if taking => Step::Down(down),
            wrote = write(&mut self.writer, self.hands.codec.output()), if writing => Step::Wrote(wrote),
            _ = self.keep_alive.tick() => Step::KeepAlive,
            () = tokio::time::sleep_until(deadline) => Step::Deadline,
        }
    }

    fn deadline(&mut self) -> Instant {
        let all_written = self.hands.codec.output().is_empty() && !self.unflushed;
        if (self.session.over() || self.broken) && all_written {
            self.wrote + LINGER
        } else if !self.session.ready() {
            self.started + STREAMS_TIMEOUT
        } else {
            self.moved + IDLE_TIMEOUT
        }
    }

    fn apply(&mut self, step: Step) -> Option<End> {
        match step {
            Step::Read(Ok(0) | Err(_)) | Step::Wrote(Err(_)) => return Some(End::ClientGone),
            Step::Read(Ok(_)) if self.broken => return None,
            Step::Read(Ok(length)) => {
                let read = self.buffer.get(..length).unwrap_or_default();
                if let Err(error) = self.hands.codec.push(read) {
                    return self.broke(&error);
                }
                return self.events();
            }
            Step::Place(place) => {
                self.moved = Instant::now();
                self.hands.inbound.deliver(place);
            }
            Step::Down(Some(down)) => {
                self.moved = Instant::now();
                self.session.node(down, &mut self.hands);
            }
            Step::Down(None) => {}
            Step::Wrote(Ok(flush)) => {
                self.wrote = Instant::now();
                self.unflushed = flush == Flush::Due;
            }
            Step::KeepAlive if self.session.over() => {}
            Step::KeepAlive => self.hands.codec.keep_alive(),
            Step::Deadline if self.broken => return Some(End::ProtocolError),
            Step::Deadline if self.session.over() => return Some(End::Lingered),
            Step::Deadline if !self.session.ready() => return Some(End::NoStreams),
            Step::Deadline => return Some(End::Idle),
        }
        None
    }

    /// Hands everything that the client did to the session.
    fn events(&mut self) -> Option<End> {
        loop {
            match self.hands.codec.next_event() {
                Ok(None) => return None,
                Ok(Some(Event::Closed)) => return Some(End::ClientGone),
                Ok(Some(_)) if self.session.over() => {}
                Ok(Some(event)) => {
                    self.moved = Instant::now();
                    self.session.client(event, &mut self.hands);
                }
                Err(error) => return self.broke(&error),
            }
        }
    }

    fn broke(&mut self, error: &toono_streams::ProtocolError) -> Option<End> {
        tracing::info!(%error, "a client broke the protocol");
        self.broken = true;
        self.hands.codec.close(CloseReason::ProtocolError);
        None
    }

    /// Says goodbye, if the client still listens, and closes.
    async fn part(mut self, end: End) {
        let reason = match end {
            End::ClientGone | End::Lingered | End::Idle => CloseReason::Done,
            End::ProtocolError | End::NoStreams => CloseReason::ProtocolError,
        };
        self.hands.codec.close(reason);
        let (output, writer) = (self.hands.codec.output(), &mut self.writer);
        let goodbye = async {
            writer.write_all_buf(output).await?;
            writer.shutdown().await
        };
        if !matches!(tokio::time::timeout(LINGER, goodbye).await, Ok(Ok(()))) {
            tracing::debug!(?end, "the client did not hear the goodbye");
        }
    }
}

/// Writes some of `output`, or flushes once all is written.
async fn write(
    writer: &mut WriteHalf<TokioIo<Upgraded>>,
    output: &mut BytesMut,
) -> io::Result<Flush> {
    if output.is_empty() {
        writer.flush().await?;
        return Ok(Flush::Done);
    }
    match writer.write_buf(output).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        _ => Ok(Flush::Due),
    }
}
