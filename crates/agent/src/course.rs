//! What one session has come to, and which of several servers it goes on with. What is sent and heard is the
//! heartbeat's business.

use std::time::Duration;

use tokio::time::Instant;
use toono_http::client::Endpoint;
use toono_session::{
    NodeSession, NodeUid,
    servers::{Choice, Step},
};
use toono_wire::join::{Server, SessionGrant};

use crate::{
    cloud,
    heartbeat::{ASK_AFTER, Heard, Heartbeat},
    retry,
    ways::{Way, Ways},
};

/// The first heartbeats of a session follow one another so soon until one is answered, so that a node
/// whose network lets no UDP through is ready in ten seconds, not in thirty.
const FIRST_PAUSE: Duration = Duration::from_secs(3);
/// Intervals vary by this part, so that nodes that started together drift apart.
const JITTER: f64 = 0.05;
/// A WebSocket that broke is not opened again before this, at most: its server may be about to start anew.
const SOCKET_AGAIN: Duration = Duration::from_millis(7_500);

/// What one session has come to, apart from its counters.
pub(crate) struct Course {
    pub(crate) session: NodeSession,
    pub(crate) choice: Choice,
    /// Intervals since the newest answer, where several servers are tried in one.
    pub(crate) missed: u64,
    pub(crate) interval: Duration,
    /// Datagrams did not get through when they were tried last.
    pub(crate) blocked: bool,
    /// HTTPS is not tried before.
    pub(crate) ask_at: Instant,
    pub(crate) ask_pause: Duration,
    /// UDP is not tried before, while a WebSocket serves.
    pub(crate) probe_at: Instant,
}

impl Course {
    /// When the heartbeat after this one is due.
    pub(crate) fn next(&self) -> Instant {
        let first = self.session.answered_at().is_none() && self.session.unanswered() < ASK_AFTER;
        let interval = if first { self.interval.min(FIRST_PAUSE) } else { self.interval };
        let spread = interval.mul_f64(JITTER);
        Instant::now() + interval - spread + retry::jittered(spread * 2)
    }

    /// Intervals without an answer.
    pub(crate) fn unanswered(&self) -> u64 {
        if self.choice.has_others() { self.missed } else { self.session.unanswered() }
    }

    /// An interval begins; how many there were before it without an answer.
    pub(crate) fn miss(&mut self) -> u64 {
        let before = self.unanswered();
        self.missed += 1;
        before
    }

    /// Whether it is time to see if HTTPS works: where no server answers there is no third interval to wait for.
    pub(crate) fn is_stuck(&self, missed: u64) -> bool {
        self.blocked || missed >= if self.choice.has_others() { 1 } else { ASK_AFTER }
    }

    /// Whether the session turns to its first server now, since that may be back.
    pub(crate) fn go_home(&mut self, now: Duration) -> bool {
        self.choice.go_home(now)
    }
}

impl Heartbeat {
    /// The servers in this node's order. The one that it was told of by hand comes last: perhaps it is a name that
    /// leads to all of them.
    pub(crate) fn choice(&self) -> Choice {
        let SessionGrant { servers, udp_port, .. } = self.credentials.session();
        let Endpoint { host, port, .. } = self.server.clone();
        let last = Server { name: String::new(), host, port, udp_port };
        Choice::new(&NodeUid::new(&self.credentials.uid()), servers).with_last(last)
    }

    /// Has requests go to the chosen server, too: it answers. While it is only tried they stay where they are, so
    /// that none is broken off by a server that is not there.
    pub(crate) fn follow(&self, course: &Course) {
        self.cloud.turn_to(self.chosen(course));
    }

    fn chosen(&self, course: &Course) -> Endpoint {
        course.choice.server().map_or_else(|| self.server.clone(), cloud::endpoint)
    }

    /// Opens a UDP socket to the chosen server.
    pub(crate) async fn open_udp(&self, course: &Course, ways: &mut Ways) {
        match course.choice.server() {
            Some(server) => ways.open_udp(&server.host, server.udp_port).await,
            None => ways.open_udp(&self.server.host, self.credentials.session().udp_port).await,
        }
    }

    async fn turn_to_next(&self, course: &mut Course, ways: &mut Ways) {
        course.choice.turn_to_next(self.clock.now().elapsed, retry::random_u32());
        self.open_udp(course, ways).await;
        self.tell_of_turn(course);
    }

    fn tell_of_turn(&self, course: &Course) {
        let server = self.chosen(course);
        tracing::info!(%server, "no answer: the session goes on with another server");
    }

    /// Waits for the answer to a heartbeat that was sent; repeats it; then tries other servers.
    pub(crate) async fn find(&self, course: &mut Course, ways: &mut Ways) -> Heard {
        loop {
            let until = Instant::now() + course.choice.patience();
            let heard = self.listen(course, ways, until, true).await;
            if heard != Heard::Due {
                return heard;
            }
            let step = course.choice.unanswered(self.clock.now().elapsed, retry::random_u32());
            if step != Step::Repeat {
                self.open_udp(course, ways).await;
            }
            match step {
                Step::Rest => return Heard::Due,
                Step::Next => self.tell_of_turn(course),
                Step::Repeat => {}
            }
            self.send(course, ways, Way::Udp).await;
        }
    }

    /// Asks for the grant where a server answers HTTPS, and stays with that server.
    pub(crate) async fn ask_any(
        &self,
        course: &mut Course,
        ways: &mut Ways,
    ) -> Option<Option<SessionGrant>> {
        for _ in 1..course.choice.tries() {
            self.follow(course);
            let asked = self.ask(&course.session).await;
            if asked.is_some() {
                return asked;
            }
            self.turn_to_next(course, ways).await;
        }
        self.follow(course);
        self.ask(&course.session).await
    }

    /// The WebSocket is gone, so it is UDP's turn, or that of another server's socket.
    pub(crate) async fn lose_socket(&self, course: &mut Course, ways: &mut Ways) {
        tracing::debug!("back to UDP: the session's socket is lost");
        course.blocked = true;
        course.ask_at = Instant::now();
        if !course.choice.has_others() {
            course.ask_at += retry::jittered(SOCKET_AGAIN);
        } else if course.unanswered() > 0 {
            self.turn_to_next(course, ways).await;
        } else {
            self.open_udp(course, ways).await;
        }
    }
}
