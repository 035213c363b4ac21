//! The thread that sends the flood, at its rate, and counts what comes back.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use toono_net::datagrams::{Inbox, Outbox};

use super::forge::{Forge, KINDS};
use crate::Failure;

/// Datagrams of one system call.
const BATCH: u64 = 64;
/// Addresses that the flood comes from.
const SOCKETS: u32 = 4;
/// Nothing is due for less than this.
const PAUSE: Duration = Duration::from_micros(200);

/// What the flood has come to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) sent: u64,
    /// Datagrams that came back.
    pub(super) replies: u64,
}

/// The running flood.
pub(super) struct Flood {
    heard: mpsc::Sender<Vec<Vec<u8>>>,
    over: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Result<Counts, Failure>>,
}

impl Flood {
    /// Begins to send, once something was heard.
    pub(super) fn start(port: u16, nodes: usize, rate: u64, count: u64) -> Result<Self, Failure> {
        let (heard, hears) = mpsc::channel();
        let (over, ends) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (told, asked) = (Arc::clone(&over), Arc::clone(&ends));
        let forge = Forge::new(u32::try_from(nodes)?);
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let thread = std::thread::Builder::new().name("flood".to_owned()).spawn(move || {
            let sent = send(forge, &hears, server, rate, count);
            told.store(true, Ordering::Relaxed);
            let (mut counts, sockets) = sent?;
            while !asked.load(Ordering::Relaxed) {
                std::thread::sleep(PAUSE);
                counts.replies += replies(&sockets);
            }
            Ok(counts)
        })?;
        Ok(Self { heard, over, ends, thread })
    }

    /// The flood may use these.
    pub(super) fn hear(&self, datagrams: Vec<Vec<u8>>) {
        // It may be over.
        let _ = self.heard.send(datagrams);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(super) fn end(self) -> Result<Counts, Failure> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the flood failed")?
    }
}

fn send(
    mut forge: Forge,
    hears: &mpsc::Receiver<Vec<Vec<u8>>>,
    server: SocketAddr,
    rate: u64,
    count: u64,
) -> Result<(Counts, Vec<UdpSocket>), Failure> {
    let sockets: Vec<UdpSocket> = (0..SOCKETS)
        .map(|number| UdpSocket::bind((Ipv4Addr::from(0x7f02_0001 + number), 0)))
        .collect::<Result<_, _>>()?;
    forge.hear(hears.recv()?);
    let (mut counts, mut outbox, began) = (Counts::default(), Outbox::default(), Instant::now());
    let mut ways = sockets.iter().cycle();
    while counts.sent < count {
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        if due < counts.sent + BATCH {
            std::thread::sleep(PAUSE);
            continue;
        }
        while let Ok(more) = hears.try_recv() {
            forge.hear(more);
        }
        for number in counts.sent..counts.sent + BATCH {
            let kind = usize::try_from(number % KINDS.len() as u64)?;
            outbox.push(&forge.make(kind), server);
        }
        if let Some(socket) = ways.next() {
            counts.sent += outbox.send(socket) as u64;
        }
        counts.replies += replies(&sockets);
    }
    Ok((counts, sockets))
}

fn replies(sockets: &[UdpSocket]) -> u64 {
    let mut inbox = Inbox::new(16, 128);
    let taken = sockets.iter().map(|socket| inbox.receive(socket).unwrap_or(0));
    taken.sum::<usize>() as u64
}
