//! The session with the cloud: one datagram out and one back in each interval, and pokes in between.

use std::{io, time::Duration};

use tokio::{net::UdpSocket, time::Instant};
use toono_session::{NodeEvent, NodeSession, Poke, ReplyFlags};
use toono_wire::{datagram::MAX_DATAGRAM, join::SessionGrant, path};

use crate::{
    AgentError,
    cloud::Cloud,
    identity::{self, Identity},
    join::chain,
    outbox::Outbox,
    retry,
    sync::Sync,
    tunnel::Tunnels,
};

/// The cloud may ask for another interval, within these: below, a fleet would flood; above, a node
/// would be taken for dead.
const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(300);
/// After so many unanswered heartbeats a new socket is opened: the server's name may have another
/// address, or a NAT may have dropped the old port's way.
const NEW_SOCKET_AFTER: u64 = 3;
/// After so many the grant is asked for again over HTTPS: the cloud may have another secret.
const NEW_GRANT_AFTER: u64 = 9;
/// And after so few when the cloud never counted this session: a disk that was set back makes it
/// take every heartbeat for a replay, and the node would be NotReady before [`NEW_GRANT_AFTER`].
const FIRST_GRANT_AFTER: u64 = 2;
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

impl Heartbeat {
    /// Beats for as long as the agent lives; ends only when the disk refuses the boot number.
    pub(crate) async fn run(mut self) -> AgentError {
        loop {
            let mut session = match self.open_session() {
                Ok(session) => session,
                Err(error) => return error,
            };
            let grant = self.beat(&mut session).await;
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
    async fn beat(&self, session: &mut NodeSession) -> SessionGrant {
        let mut socket = None;
        let mut interval = clamp(Duration::from_millis(self.identity.session.interval_ms.into()));
        loop {
            if socket.is_none() || session.unanswered() % NEW_SOCKET_AFTER == NEW_SOCKET_AFTER - 1 {
                socket = self.open_socket().await;
            }
            self.send(session, socket.as_ref()).await;
            let spread = interval.mul_f64(JITTER);
            let next = Instant::now() + interval - spread + retry::jittered(spread * 2);
            let asked = self.listen(session, socket.as_ref(), next, &mut interval).await;
            let missed = session.unanswered();
            let stuck = missed > 0 && missed.is_multiple_of(NEW_GRANT_AFTER)
                || !session.counted() && missed == FIRST_GRANT_AFTER;
            if (asked || stuck)
                && let Ok(Some(grant)) =
                    tokio::time::timeout(GRANT_TIMEOUT, self.fetch_grant(asked)).await
            {
                return grant;
            }
        }
    }

    async fn open_socket(&self) -> Option<UdpSocket> {
        let host = self.cloud.server().host.as_str();
        let port = self.identity.session.udp_port;
        let open = async {
            let target = tokio::net::lookup_host((host, port)).await?.next();
            let target = target.ok_or(io::ErrorKind::NotFound)?;
            let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).await?;
            socket.connect(target).await?;
            Ok::<_, io::Error>(socket)
        };
        open.await.inspect_err(|error| tracing::debug!(%error, "no way to the server")).ok()
    }

    async fn send(&self, session: &mut NodeSession, socket: Option<&UdpSocket>) {
        let now = self.clock.now().elapsed;
        match session.heartbeat(now, self.sync.revision(), self.outbox.digest()) {
            Ok(datagram) => {
                if let Some(socket) = socket
                    && let Err(error) = socket.send(datagram.as_ref()).await
                {
                    tracing::debug!(%error, "heartbeat not sent");
                }
            }
            Err(error) => tracing::error!(%error, "no heartbeat"),
        }
    }

    /// Takes what comes until the next heartbeat is due; whether the cloud wants a new key.
    async fn listen(
        &self,
        session: &mut NodeSession,
        socket: Option<&UdpSocket>,
        next: Instant,
        interval: &mut Duration,
    ) -> bool {
        let Some(socket) = socket else {
            tokio::time::sleep_until(next).await;
            return false;
        };
        let mut buffer = [0; MAX_DATAGRAM];
        loop {
            let received = tokio::select! {
                () = tokio::time::sleep_until(next) => return false,
                received = socket.recv(&mut buffer) => received,
            };
            let bytes = match received {
                Ok(length) => buffer.get(..length).unwrap_or_default(),
                Err(error) => {
                    // An ICMP answer to an earlier datagram; there may be more of them at once.
                    tracing::debug!(%error, "the server refuses datagrams");
                    continue;
                }
            };
            let now = self.clock.now().elapsed;
            let gap = session.unanswered() >= GAP;
            match session.receive(bytes, now) {
                Ok(NodeEvent::Reply {
                    desired_revision,
                    flags,
                    interval: wanted,
                    send_again,
                    ..
                }) => {
                    *interval = clamp(wanted);
                    if gap {
                        self.cloud.renew();
                    }
                    self.on_reply(desired_revision, flags);
                    if send_again {
                        self.send(session, Some(socket)).await;
                    }
                    if flags.contains(ReplyFlags::REKEY) {
                        return true;
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

    /// A grant other than the one in use; the same one is of no help, except when it was asked for.
    async fn fetch_grant(&self, asked: bool) -> Option<SessionGrant> {
        let grant: SessionGrant = self
            .cloud
            .fetch(path::SESSION)
            .await
            .inspect_err(|error| tracing::debug!(error = chain(error), "no new session grant"))
            .ok()?;
        let old = &self.identity.session;
        let same = (grant.epoch, grant.generation, grant.index, &grant.key_hex, grant.udp_port)
            == (old.epoch, old.generation, old.index, &old.key_hex, old.udp_port);
        let rolled_back = grant.boot_floor > old.boot_floor;
        (asked || !same || rolled_back).then_some(grant)
    }
}

fn clamp(interval: Duration) -> Duration {
    interval.clamp(*INTERVALS.start(), *INTERVALS.end())
}
