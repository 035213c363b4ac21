//! The session with the cloud: one datagram out and one back in each interval, and pokes in between.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use toono_session::{NodeEvent, NodeSession, Poke, ReplyFlags};
use toono_wire::{join::SessionGrant, path};

use crate::{
    AgentError,
    cloud::Cloud,
    identity::{self, Identity},
    join::chain,
    outbox::Outbox,
    retry,
    sync::Sync,
    tunnel::Tunnels,
    ways::{Way, Ways},
};

/// The cloud may ask for another interval, within these: below, a fleet would flood; above, a node
/// would be taken for dead.
const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(300);
/// After so many unanswered heartbeats a new socket is opened: the server's name may have another
/// address, or a NAT may have dropped the old port's way.
const NEW_SOCKET_AFTER: u64 = 3;
/// After so many the server is asked over HTTPS: it may have another secret, it may take this session for
/// a replay because the disk was set back, or the network may let no UDP through. Two of 10 s leave
/// enough of the cloud's 40 s to find out.
const ASK_AFTER: u64 = 2;
/// Before that, and before a WebSocket is left, an answer by UDP is waited for so long, and up to twice as
/// long: a server that was away and came back is found by datagrams, not by a million handshakes.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// The pause after the first time that HTTPS did not help; it doubles.
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// The longest such pause.
const ASK_AGAIN_MOST: Duration = Duration::from_secs(60);
/// The first heartbeats of a session follow one another so soon until one is answered, so that a node
/// whose network lets no UDP through is ready in ten seconds, not in thirty.
const FIRST_PAUSE: Duration = Duration::from_secs(3);
/// From a WebSocket UDP is tried again after this, give or take a third.
const PROBE_AFTER: Duration = Duration::from_secs(30);
/// A WebSocket in which so many heartbeats (one of them perhaps a probe) went unanswered is given up.
const SOCKET_DEAD_AFTER: u64 = 3;
/// DNS, TCP, TLS and the upgrade together.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(10);
/// Asking for a grant holds up the next heartbeat, so a link that is down must not hold it up long.
const GRANT_TIMEOUT: Duration = Duration::from_secs(5);
/// A reply after so many unanswered heartbeats is a link that came back.
const GAP: u64 = 2;
/// Intervals vary by this part, so that nodes that started together drift apart.
const JITTER: f64 = 0.05;

/// Everything that the heartbeat touches.
pub(crate) struct Heartbeat {
    pub(crate) data: std::path::PathBuf,
    pub(crate) identity: Identity,
    pub(crate) cloud: Cloud,
    pub(crate) sync: Sync,
    pub(crate) outbox: Outbox,
    pub(crate) tunnels: Tunnels,
    pub(crate) clock: crate::clock::Clock,
}

/// What one session has come to, apart from its counters.
struct Course {
    session: NodeSession,
    interval: Duration,
    /// Datagrams did not get through when they were tried last.
    blocked: bool,
    /// HTTPS is not tried before.
    ask_at: Instant,
    ask_pause: Duration,
    /// UDP is not tried before, while a WebSocket serves.
    probe_at: Instant,
}

/// Why listening ended.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// Nothing that ends it; it is time for what comes next.
    Due,
    Answer,
    /// An answer by UDP, while a WebSocket is open.
    UdpAgain,
    SocketLost,
    /// The cloud has a new key for this node.
    NewKey,
}

impl Heartbeat {
    /// Beats for as long as the agent lives; ends only when the disk refuses the boot number.
    pub(crate) async fn run(mut self) -> AgentError {
        let mut ways = Ways::default();
        loop {
            let session = match self.open_session() {
                Ok(session) => session,
                Err(error) => return error,
            };
            let grant = self.beat(session, &mut ways).await;
            self.identity.session = grant;
            if let Err(error) = self.identity.save(&self.data) {
                return error;
            }
            tracing::info!(epoch = self.identity.session.epoch, "the session has a new key");
        }
    }

    fn open_session(&self) -> Result<NodeSession, AgentError> {
        let grant = &self.identity.session;
        let boot = identity::next_boot(&self.data, grant.boot_floor)?;
        NodeSession::new(grant, boot, retry::random_u32()).map_err(|error| AgentError::Identity {
            path: self.data.join("identity.json"),
            reason: error.to_string(),
        })
    }

    /// Beats with one session until the cloud grants another.
    async fn beat(&self, session: NodeSession, ways: &mut Ways) -> SessionGrant {
        let now = Instant::now();
        let mut course = Course {
            session,
            interval: clamp(Duration::from_millis(self.identity.session.interval_ms.into())),
            blocked: false,
            ask_at: now,
            ask_pause: ASK_AGAIN,
            probe_at: now + PROBE_AFTER,
        };
        self.open_udp(ways).await;
        loop {
            let next = course.next();
            let heard = if ways.has_socket() {
                self.by_socket(&mut course, ways, next).await
            } else {
                self.by_udp(&mut course, ways, next).await
            };
            match heard {
                Ok(Heard::SocketLost) => {
                    tracing::debug!("back to UDP: the session's socket is lost");
                    course.blocked = true;
                    course.ask_at = Instant::now() + retry::jittered(ASK_AGAIN / 2);
                }
                Ok(Heard::NewKey) => {
                    if let Some(Some(grant)) = self.ask(&course.session).await {
                        return grant;
                    }
                    self.listen(&mut course, ways, next, false).await;
                }
                Ok(_) => {}
                Err(grant) => return *grant,
            }
        }
    }

    /// One interval on UDP. When too much stays unanswered HTTPS is asked; the error is a new grant.
    async fn by_udp(
        &self,
        course: &mut Course,
        ways: &mut Ways,
        next: Instant,
    ) -> Result<Heard, Box<SessionGrant>> {
        let missed = course.session.unanswered();
        if !ways.has_udp() || missed % NEW_SOCKET_AFTER == NEW_SOCKET_AFTER - 1 {
            self.open_udp(ways).await;
        }
        self.send(course, ways, Way::Udp).await;
        let stuck = course.blocked || missed >= ASK_AFTER;
        if stuck && Instant::now() >= course.ask_at {
            let wait = Instant::now() + ANSWER_WAIT + retry::jittered(ANSWER_WAIT);
            match self.listen(course, ways, wait, true).await {
                Heard::Due => {
                    self.fall_back(course, ways).await?;
                    // That may have taken longer than the interval, and its answer is on the way.
                    let until = next.max(Instant::now() + ANSWER_WAIT * 2);
                    return Ok(self.listen(course, ways, until, false).await);
                }
                Heard::Answer => {}
                other => return Ok(other),
            }
        }
        Ok(self.listen(course, ways, next, false).await)
    }

    /// One interval on the WebSocket, in which UDP may be found to work again.
    async fn by_socket(
        &self,
        course: &mut Course,
        ways: &mut Ways,
        next: Instant,
    ) -> Result<Heard, Box<SessionGrant>> {
        if course.session.unanswered() >= SOCKET_DEAD_AFTER {
            ways.close_socket().await;
            return Ok(Heard::SocketLost);
        }
        let mut heard = Heard::Due;
        if Instant::now() >= course.probe_at {
            course.probe_at = probe_after();
            self.open_udp(ways).await;
            self.probe(course, ways).await;
            heard = self.listen(course, ways, Instant::now() + ANSWER_WAIT, true).await;
        }
        if matches!(heard, Heard::Due | Heard::Answer) {
            self.send(course, ways, Way::Socket).await;
            if !ways.has_socket() {
                return Ok(Heard::SocketLost);
            }
            heard = self.listen(course, ways, next, false).await;
        }
        if heard == Heard::UdpAgain {
            tracing::info!("UDP works again: the session leaves its socket");
            course.blocked = false;
            ways.close_socket().await;
            // The probe moved nothing; this one tells the cloud where to poke.
            self.send(course, ways, Way::Udp).await;
            heard = self.listen(course, ways, next, false).await;
        }
        Ok(heard)
    }

    /// UDP gets no answers. Whether HTTPS does, with a new grant as the error if that is what was missing;
    /// else the session goes on in a WebSocket.
    async fn fall_back(
        &self,
        course: &mut Course,
        ways: &mut Ways,
    ) -> Result<(), Box<SessionGrant>> {
        let pause = course.ask_pause;
        course.ask_at = Instant::now() + pause / 2 + retry::jittered(pause / 2);
        course.ask_pause = (pause * 2).min(ASK_AGAIN_MOST);
        match self.ask(&course.session).await {
            None => return Ok(()),
            Some(Some(grant)) => return Err(Box::new(grant)),
            Some(None) => {}
        }
        match timeout(SOCKET_TIMEOUT, ways.open_socket(&self.cloud)).await {
            Ok(Ok(())) => {
                tracing::info!("UDP gets no answers: the session goes on in a socket");
                course.probe_at = probe_after();
                self.send(course, ways, Way::Socket).await;
            }
            Ok(Err(error)) => tracing::debug!(error = chain(&error), "no session socket"),
            Err(_) => tracing::debug!("no session socket within {SOCKET_TIMEOUT:?}"),
        }
        Ok(())
    }

    async fn open_udp(&self, ways: &mut Ways) {
        let host = self.cloud.server().host.as_str();
        ways.open_udp(host, self.identity.session.udp_port).await;
    }

    async fn send(&self, course: &mut Course, ways: &mut Ways, way: Way) {
        let now = self.clock.now().elapsed;
        let (revision, digest) = (self.sync.revision(), self.outbox.digest());
        match course.session.heartbeat(now, revision, digest) {
            Ok(datagram) => ways.send(way, datagram.as_ref()).await,
            Err(error) => tracing::error!(%error, "no heartbeat"),
        }
    }

    async fn probe(&self, course: &mut Course, ways: &mut Ways) {
        let now = self.clock.now().elapsed;
        let (revision, digest) = (self.sync.revision(), self.outbox.digest());
        if let Ok(datagram) = course.session.probe(now, revision, digest) {
            ways.send(Way::Udp, datagram.as_ref()).await;
        }
    }

    /// Takes what comes until then. An answer ends it when it is waited for (`for_answer`), or when it tells
    /// something new of the ways.
    async fn listen(
        &self,
        course: &mut Course,
        ways: &mut Ways,
        until: Instant,
        for_answer: bool,
    ) -> Heard {
        let had_socket = ways.has_socket();
        loop {
            let Some((way, bytes)) = ways.receive(until).await else {
                let lost = had_socket && !ways.has_socket();
                return if lost { Heard::SocketLost } else { Heard::Due };
            };
            let now = self.clock.now().elapsed;
            let gap = course.session.unanswered() >= GAP;
            match course.session.receive(&bytes, now) {
                Ok(NodeEvent::Reply { desired_revision, flags, interval, send_again, .. }) => {
                    course.interval = clamp(interval);
                    course.ask_pause = ASK_AGAIN;
                    course.blocked &= way != Way::Udp;
                    if gap {
                        self.cloud.renew();
                    }
                    self.on_reply(desired_revision, flags);
                    if way == Way::Udp && ways.has_socket() {
                        return Heard::UdpAgain;
                    }
                    if send_again {
                        self.send(course, ways, way).await;
                    }
                    if flags.contains(ReplyFlags::REKEY) {
                        return Heard::NewKey;
                    }
                    if for_answer {
                        return Heard::Answer;
                    }
                }
                Ok(NodeEvent::Poke(Poke::BundleMoved { revision })) => {
                    if revision != self.sync.revision() {
                        self.sync.fetch();
                    }
                }
                Ok(NodeEvent::Poke(Poke::DialBack { ticket })) => self.tunnels.dial_back(ticket),
                Err(reason) => tracing::debug!(%reason, "a datagram is dropped"),
            }
        }
    }

    fn on_reply(&self, desired_revision: u64, flags: ReplyFlags) {
        self.outbox.online();
        if desired_revision != self.sync.revision() {
            self.sync.fetch();
        }
        if flags.contains(ReplyFlags::RESEND_STATUS) {
            self.outbox.resend_all();
        }
    }

    /// Asks for the grant over HTTPS: none when that got no answer, else whether it is of any help.
    async fn ask(&self, session: &NodeSession) -> Option<Option<SessionGrant>> {
        let fetched = timeout(GRANT_TIMEOUT, self.cloud.fetch::<SessionGrant>(path::SESSION)).await;
        let grant = fetched
            .ok()?
            .inspect_err(|error| tracing::debug!(error = chain(error), "no session grant"))
            .ok()?;
        let old = &self.identity.session;
        let same = (grant.epoch, grant.generation, grant.index, &grant.key_hex, grant.udp_port)
            == (old.epoch, old.generation, old.index, &old.key_hex, old.udp_port);
        // The cloud has heard of this very start, unless it never counted this session: then the disk was set
        // back, and an earlier start had the number.
        let boot = session.boot();
        let rolled_back = grant.boot_floor > boot || grant.boot_floor == boot && !session.counted();
        Some((!same || rolled_back).then_some(grant))
    }
}

impl Course {
    /// When the heartbeat after this one is due.
    fn next(&self) -> Instant {
        let first = self.session.answered_at().is_none() && self.session.unanswered() < ASK_AFTER;
        let interval = if first { self.interval.min(FIRST_PAUSE) } else { self.interval };
        let spread = interval.mul_f64(JITTER);
        Instant::now() + interval - spread + retry::jittered(spread * 2)
    }
}

fn probe_after() -> Instant {
    Instant::now() + PROBE_AFTER * 2 / 3 + retry::jittered(PROBE_AFTER * 2 / 3)
}

fn clamp(interval: Duration) -> Duration {
    interval.clamp(*INTERVALS.start(), *INTERVALS.end())
}
