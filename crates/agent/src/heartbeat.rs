//! The session with the cloud: one datagram out and one back in each interval, and pokes in between.

use std::time::Duration;

use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use toono_http::client::Endpoint;
use toono_session::{NodeEvent, NodeSession, Observed, Poke, ReplyFlags};
use toono_wire::{join::SessionGrant, path};

use crate::{
    AgentError,
    cloud::Cloud,
    course::Course,
    identity::{self, Credentials},
    join::chain,
    outbox::Outbox,
    pool::Pool,
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
/// After so many the server is asked over HTTPS, if it can be reached: it may have another secret, it may
/// take this session for a replay because the disk was set back, or the network may let no UDP through. Two
/// of 10 s leave enough of the cloud's 40 s to find out.
pub(crate) const ASK_AFTER: u64 = 2;
/// When TCP reaches the server, and before a WebSocket is left, an answer by UDP is waited for so long, and up
/// to twice as long: a server that was away and came back is found by datagrams, not by a million handshakes.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// The pause after the first time that HTTPS did not help; it doubles.
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// The longest such pause: with a heartbeat's interval to wait for and the handshake to make, a node whose link comes
/// back without UDP is heard within a minute.
const ASK_AGAIN_MOST: Duration = Duration::from_secs(40);
/// From a WebSocket UDP is tried again after this, give or take a third.
const PROBE_AFTER: Duration = Duration::from_secs(30);
/// A WebSocket in which so many heartbeats (one of them perhaps a probe) went unanswered is given up.
const SOCKET_DEAD_AFTER: u64 = 3;
/// Where another server can be asked, an answer in a WebSocket is waited for so long: what the link loses, TCP
/// sends again.
const SOCKET_ANSWER_WAIT: Duration = Duration::from_secs(5);
/// DNS, TCP, TLS and the upgrade together.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(10);
/// To find out that the server cannot be reached holds up the next heartbeat, too.
const REACH_TIMEOUT: Duration = Duration::from_secs(3);
/// Asking for a grant holds up the next heartbeat, so a link that is down must not hold it up long.
const GRANT_TIMEOUT: Duration = Duration::from_secs(5);
/// A reply after so many unanswered heartbeats is a link that came back.
const GAP: u64 = 2;

/// Everything that the heartbeat touches.
pub(crate) struct Heartbeat {
    pub(crate) data: std::path::PathBuf,
    pub(crate) credentials: Credentials,
    /// The server that this node was told of by hand.
    pub(crate) server: Endpoint,
    pub(crate) cloud: Cloud,
    pub(crate) sync: Sync,
    pub(crate) pool: Pool,
    pub(crate) outbox: Outbox,
    pub(crate) tunnels: Tunnels,
    pub(crate) clock: crate::clock::Clock,
    /// Told that the agent is awake.
    pub(crate) awake: std::sync::Arc<tokio::sync::Notify>,
}

/// Why listening ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing that ends it; it is time for what comes next.
    Due,
    Answer,
    /// An answer by UDP, while a WebSocket is open.
    UdpAgain,
    SocketLost,
    /// The cloud has a new key for this node, or servers that it does not know.
    NewKey,
}

impl Heartbeat {
    /// Beats for as long as the agent lives; ends only when the disk refuses the boot number.
    pub(crate) async fn run(self) -> AgentError {
        let mut ways = Ways::default();
        loop {
            let session = match self.open_session() {
                Ok(session) => session,
                Err(error) => return error,
            };
            let grant = self.beat(session, &mut ways).await;
            self.cloud.set_servers(grant.servers.clone());
            let epoch = grant.epoch;
            if let Err(error) = self.credentials.change(|identity| identity.session = grant) {
                return error;
            }
            tracing::info!(epoch, "the session has a new key");
        }
    }

    fn open_session(&self) -> Result<NodeSession, AgentError> {
        let grant = self.credentials.session();
        let boot = identity::next_boot(&self.data, grant.boot_floor)?;
        NodeSession::new(&grant, boot, retry::random_u32()).map_err(|error| AgentError::Identity {
            path: self.data.join("identity.json"),
            reason: error.to_string(),
        })
    }

    /// Beats with one session until the cloud grants another.
    async fn beat(&self, session: NodeSession, ways: &mut Ways) -> SessionGrant {
        let mut course = Course {
            session,
            choice: self.choice(),
            missed: 0,
            interval: clamp(Duration::from_millis(self.credentials.session().interval_ms.into())),
            blocked: false,
            ask_at: Instant::now(),
            ask_pause: ASK_AGAIN,
            probe_at: Instant::now() + PROBE_AFTER,
        };
        self.open_udp(&course, ways).await;
        loop {
            let next = course.next();
            let heard = if ways.has_socket() {
                self.by_socket(&mut course, ways, next).await
            } else {
                self.by_udp(&mut course, ways, next).await
            };
            match heard {
                Ok(Heard::SocketLost) => self.lose_socket(&mut course, ways).await,
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
        let missed = course.miss();
        if missed >= GAP {
            self.cloud.set_link(false);
        }
        let goes_home = course.go_home(self.clock.now().elapsed);
        let is_due = !ways.has_udp() || missed % NEW_SOCKET_AFTER == NEW_SOCKET_AFTER - 1;
        if goes_home || is_due {
            self.open_udp(course, ways).await;
        }
        self.send(course, ways, Way::Udp).await;
        let asks = course.is_stuck(missed) && Instant::now() >= course.ask_at;
        if course.choice.has_others() && !asks {
            match self.find(course, ways).await {
                Heard::Due | Heard::Answer => {}
                other => return Ok(other),
            }
        }
        if asks && let Some(reached) = self.reach(course).await {
            // If the server was away until now, this one is answered, and there is nothing to ask for.
            self.send(course, ways, Way::Udp).await;
            let wait = Instant::now() + ANSWER_WAIT + retry::jittered(ANSWER_WAIT);
            match self.listen(course, ways, wait, true).await {
                Heard::Due => {
                    self.fall_back(course, ways, reached).await?;
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
        if course.go_home(self.clock.now().elapsed) {
            ways.close_socket().await;
            return Ok(Heard::SocketLost);
        }
        let missed = course.miss();
        if missed >= GAP {
            self.cloud.set_link(false);
        }
        if missed >= SOCKET_DEAD_AFTER {
            ways.close_socket().await;
            return Ok(Heard::SocketLost);
        }
        let mut heard = Heard::Due;
        if Instant::now() >= course.probe_at {
            course.probe_at = probe_after();
            self.open_udp(course, ways).await;
            self.probe(course, ways).await;
            heard = self.listen(course, ways, Instant::now() + ANSWER_WAIT, true).await;
        }
        if matches!(heard, Heard::Due | Heard::Answer) {
            self.send(course, ways, Way::Socket).await;
            if !ways.has_socket() {
                return Ok(Heard::SocketLost);
            }
            if course.choice.has_others() {
                let wait = Instant::now() + SOCKET_ANSWER_WAIT;
                heard = self.listen(course, ways, wait, true).await;
                if heard == Heard::Due {
                    ways.close_socket().await;
                    return Ok(Heard::SocketLost);
                }
            }
            if matches!(heard, Heard::Due | Heard::Answer) {
                heard = self.listen(course, ways, next, false).await;
            }
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

    /// A connection by TCP, which costs the server next to nothing; none means that it is away. Where there are
    /// several servers each is to be asked in its turn, and nothing is found out beforehand.
    async fn reach(&self, course: &mut Course) -> Option<Option<TcpStream>> {
        let pause = course.ask_pause;
        course.ask_at = Instant::now() + pause / 2 + retry::jittered(pause / 2);
        course.ask_pause = (pause * 2).min(ASK_AGAIN_MOST);
        if course.choice.has_others() {
            return Some(None);
        }
        let reached = timeout(REACH_TIMEOUT, self.cloud.reach()).await.ok()?;
        reached.inspect_err(|error| tracing::debug!(%error, "the server is away")).ok().map(Some)
    }

    /// UDP gets no answers though the server can be reached. Whether HTTPS gets any, with a new grant as the
    /// error if that is what was missing; else the session goes on in a WebSocket.
    async fn fall_back(
        &self,
        course: &mut Course,
        ways: &mut Ways,
        reached: Option<TcpStream>,
    ) -> Result<(), Box<SessionGrant>> {
        if let Some(stream) = reached
            && !matches!(timeout(GRANT_TIMEOUT, self.cloud.go_on(stream)).await, Ok(Ok(())))
        {
            return Ok(());
        }
        match self.ask_any(course, ways).await {
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

    pub(crate) async fn send(&self, course: &mut Course, ways: &mut Ways, way: Way) {
        self.awake.notify_waiters();
        let now = self.clock.now().elapsed;
        match course.session.heartbeat(now, self.observed()) {
            Ok(datagram) => ways.send(way, datagram.as_ref()).await,
            Err(error) => tracing::error!(%error, "no heartbeat"),
        }
    }

    async fn probe(&self, course: &mut Course, ways: &mut Ways) {
        let now = self.clock.now().elapsed;
        if let Ok(datagram) = course.session.probe(now, self.observed()) {
            ways.send(Way::Udp, datagram.as_ref()).await;
        }
    }

    fn observed(&self) -> Observed {
        let (revision, own) = self.sync.observed();
        let bundle = own.wrapping_add(self.pool.version().share());
        Observed { revision, bundle, status: self.outbox.digest() }
    }

    /// Takes what comes until then. An answer ends it when it is waited for (`for_answer`), or when it tells
    /// something new of the ways.
    pub(crate) async fn listen(
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
            let gap = course.unanswered() >= GAP;
            match course.session.receive(&bytes, now) {
                Ok(NodeEvent::Reply {
                    desired_revision,
                    flags,
                    interval,
                    send_again,
                    round_trip,
                }) => {
                    course.interval = clamp(interval);
                    course.missed = 0;
                    self.cloud.set_link(true);
                    course.choice.answered(round_trip);
                    self.follow(course);
                    course.ask_pause = ASK_AGAIN;
                    course.blocked &= way != Way::Udp;
                    let mut send_again = send_again;
                    if gap {
                        send_again |= self.outbox.link_is_back()
                            && !flags.contains(ReplyFlags::RESEND_STATUS);
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
                    self.sync.desired(revision);
                }
                Ok(NodeEvent::Poke(Poke::PoolMoved { revision })) => self.pool.moved(revision),
                Ok(NodeEvent::Poke(Poke::DialBack { ticket })) => {
                    self.tunnels.dial_back(ticket);
                    if !self.cloud.knows_owner(ticket) {
                        return Heard::NewKey;
                    }
                }
                Err(reason) => tracing::debug!(%reason, "a datagram is dropped"),
            }
        }
    }

    fn on_reply(&self, desired_revision: u64, flags: ReplyFlags) {
        self.sync.desired(desired_revision);
        if flags.contains(ReplyFlags::COMPARE) {
            self.sync.compare();
        }
        if flags.contains(ReplyFlags::RESEND_STATUS) {
            self.outbox.resend_all();
        }
    }

    /// Asks for the grant over HTTPS: none when that got no answer, else whether it is of any help.
    pub(crate) async fn ask(&self, session: &NodeSession) -> Option<Option<SessionGrant>> {
        let fetched = timeout(GRANT_TIMEOUT, self.cloud.fetch::<SessionGrant>(path::SESSION)).await;
        let grant = fetched
            .ok()?
            .inspect_err(|error| tracing::debug!(error = chain(error), "no session grant"))
            .ok()?;
        let old = self.credentials.session();
        let same = (grant.epoch, grant.generation, grant.index, &grant.key_hex)
            == (old.epoch, old.generation, old.index, &old.key_hex)
            && grant.servers == old.servers
            // Several servers may have a port each, and are listed with it.
            && (grant.udp_port == old.udp_port || !grant.servers.is_empty());
        // The cloud has heard of this very start, unless it never counted this session: then the disk was set
        // back, and an earlier start had the number.
        let boot = session.boot();
        let rolled_back = grant.boot_floor > boot || grant.boot_floor == boot && !session.counted();
        Some((!same || rolled_back).then_some(grant))
    }
}

fn probe_after() -> Instant {
    Instant::now() + PROBE_AFTER * 2 / 3 + retry::jittered(PROBE_AFTER * 2 / 3)
}

fn clamp(interval: Duration) -> Duration {
    interval.clamp(*INTERVALS.start(), *INTERVALS.end())
}
