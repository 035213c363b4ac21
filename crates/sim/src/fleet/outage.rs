//! The server is away from all nodes at once, and they all regain it at once.
//!
//! What is true: heartbeats go on as ever. A node of which two stayed unanswered looks for the server as `toono
//! node` does: it connects by TCP, from an address of its own; when that works it sends one more heartbeat, and
//! begins TLS only when that stays unanswered for 2 to 4 s. What is simulated: TLS is without a certificate of the
//! node, and what would follow it is left out; a process has so many sockets, and looks beyond that are left out
//! and counted.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::timeout,
};

use super::{
    Figures, LIMIT, NETWORK, Run,
    drive::{Load, Urge},
    watch::Readiness,
};
use crate::{Failure, access::Access, percentiles::Percentiles, server::Server, storm::Other};

/// Looks at once.
const AT_ONCE: usize = 8_192;
/// As `toono node`: for how long TCP, an answer, and then TLS are waited for.
const REACH: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(2);
const TLS: Duration = Duration::from_secs(5);
/// Whoever is wrongly called silent is found by then.
const AFTER: Duration = Duration::from_secs(15);
/// How often it is seen who is back.
const POLL: Duration = Duration::from_millis(20);

/// What the nodes did to find the server.
#[derive(Default)]
struct Looks {
    /// Those by TCP that found it, that found nobody, and that were left out.
    reached: AtomicU64,
    away: AtomicU64,
    left_out: AtomicU64,
    /// Those that went on to TLS.
    handshakes: AtomicU64,
}

/// The nodes that look for the server.
struct Seekers {
    looks: Arc<Looks>,
    task: JoinHandle<()>,
}

impl Drop for Seekers {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seekers {
    fn start(load: &Load, access: &Access) -> Result<Self, Failure> {
        let (told, mut unanswered) = mpsc::unbounded_channel();
        let urge = load.tell_unanswered(told)?;
        let (looks, access) = (Arc::new(Looks::default()), access.clone());
        let shared = Arc::clone(&looks);
        let task = tokio::spawn(async move {
            let slots = Arc::new(Semaphore::new(AT_ONCE));
            while let Some(number) = unanswered.recv().await {
                let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                    shared.left_out.fetch_add(1, Ordering::Relaxed);
                    continue;
                };
                let (looks, access, urge) = (Arc::clone(&shared), access.clone(), urge.clone());
                tokio::spawn(async move {
                    look(number, &looks, &access, &urge).await;
                    drop(slot);
                });
            }
        });
        Ok(Self { looks, task })
    }

    fn counts(&self) -> [u64; 4] {
        let Looks { reached, away, left_out, handshakes } = &*self.looks;
        [reached, away, left_out, handshakes].map(|count| count.load(Ordering::Relaxed))
    }
}

/// One node looks for the server.
async fn look(number: usize, looks: &Looks, access: &Access, urge: &Urge) {
    let reached = timeout(REACH, reach(number, access.endpoint.port)).await;
    let Ok(Ok(stream)) = reached else {
        looks.away.fetch_add(1, Ordering::Relaxed);
        return;
    };
    looks.reached.fetch_add(1, Ordering::Relaxed);
    let before = urge.answers(number);
    urge.send(number);
    let ends = Instant::now() + ANSWER + ANSWER.mul_f64(fastrand::f64());
    while Instant::now() < ends {
        tokio::time::sleep(POLL).await;
        if urge.answers(number) != before {
            return;
        }
    }
    looks.handshakes.fetch_add(1, Ordering::Relaxed);
    let _ = timeout(TLS, access.begin_tls(stream)).await;
}

/// Many addresses, since one has no more than some 28,000 ports to connect from.
async fn reach(number: usize, port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let last = u32::try_from(number % 0xff_0000).unwrap_or(0);
    socket.bind((Ipv4Addr::from(0x7f02_0000 | last & 0xffff), 0).into())?;
    let stream = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await?;
    // What is dropped without TLS leaves nothing that waits for a minute.
    stream.set_zero_linger()?;
    Ok(stream)
}

impl Run<'_> {
    /// The server is away for a while; nobody may be called silent for that, and all come back.
    pub(super) async fn outage(
        &mut self,
        readiness: &Readiness,
        load: &Load,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        let (lost, nodes) = (readiness.lost()?.len(), self.args.nodes - self.args.silent);
        let seekers = Seekers::start(load, &self.access)?;
        let asked = load.counts().asked;
        let serving = self.go_away(load).await?;
        let (began, cpu) = (Instant::now(), self.server.cpu_seconds()?);
        let other = Other::start(self.access.clone());
        while load.heard() < nodes {
            if began.elapsed() > LIMIT {
                return Err(format!("{} of {nodes} are heard again", load.heard()).into());
            }
            tokio::time::sleep(POLL).await;
        }
        let all = serving + began.elapsed();
        let cores = (self.server.cpu_seconds()? - cpu) / began.elapsed().as_secs_f64().max(0.01);
        tokio::time::sleep(AFTER).await;
        let asks = Percentiles::of(other.end()?);
        let millis = |percent| asks.at(percent).as_secs_f64() * 1e3;
        let asked = load.counts().asked - asked;
        let [reached, away, left_out, handshakes] = seekers.counts();
        let lost = readiness.lost()?.len() - lost;
        let (rss, all) = (self.server.rss_mb()?, all.as_secs_f64());
        let how = if self.args.outage_kills { "killed" } else { "stopped" };
        figures.tell(
            "outage",
            &format!(
                "{how} for {} s; serving after {:.1} s, all {nodes} heard after {all:.1} s; false NotReady: {lost}; \
                 server {cores:.2} cores meanwhile, RSS {rss:.1} MB; another client's GET: p50 {:.1} ms p99 {:.1} ms \
                 slowest {:.0} ms; {asked} asked for something over HTTPS; looks by TCP: {reached} found the \
                 server, {away} did not, {left_out} left out; {handshakes} went on to TLS",
                self.args.outage,
                serving.as_secs_f64(),
                millis(50),
                millis(99),
                millis(100),
            ),
            json!({"how": how, "away_s": self.args.outage, "serving_s": serving.as_secs_f64(), "heard_s": all,
                "false_not_ready": lost, "cores": cores, "rss_mb": rss, "get_p50_ms": millis(50),
                "get_p99_ms": millis(99), "get_max_ms": millis(100), "asked": asked, "reached": reached,
                "away": away, "left_out": left_out, "handshakes": handshakes}),
        );
        Ok(())
    }

    /// Takes the server away for the time of the outage; how long it takes it to serve again.
    async fn go_away(&mut self, load: &Load) -> Result<Duration, Failure> {
        let away = Duration::from_secs(self.args.outage);
        if !self.args.outage_kills {
            self.server.pause()?;
            tokio::time::sleep(away).await;
            load.server_returns();
            self.server.go_on()?;
            return Ok(Duration::ZERO);
        }
        self.server.kill().await?;
        tokio::time::sleep(away).await;
        load.server_returns();
        let began = Instant::now();
        let Self { args, server, .. } = self;
        *server = Server::start_on(server.port, &args.toono, &args.data, &NETWORK).await?;
        Ok(began.elapsed())
    }
}
