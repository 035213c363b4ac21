//! The node's end of a session: makes heartbeats, judges what comes back.

use std::time::Duration;

use toono_wire::{
    datagram::{
        DownlinkHeader, HeartbeatBody, Poke, ReplyBody, ReplyFlags, SealedDownlink, UplinkHeader,
        UplinkKind,
    },
    join::SessionGrant,
};

use crate::{
    Datagram, SessionKey,
    key::{Cipher, downlink_nonce, uplink_nonce},
};

/// The part of a counter that counts within a start.
const SEQUENCE: u64 = 0xffff_ffff;

/// One start of the node daemon, under one grant.
///
/// The caller keeps the boot number on disk and **increments and syncs it before each `new`**;
/// the first is 1. A number at or below [`SessionGrant::boot_floor`] counts as a replay at the cloud:
/// go on from `boot_floor + 1` then, again synced to disk before use.
pub struct NodeSession {
    epoch: u8,
    generation: u16,
    index: u32,
    salt: u32,
    key: SessionKey,
    cipher: Cipher,
    /// Counter of the newest heartbeat; its high half is the boot number.
    sent: u64,
    sent_at: Duration,
    /// Newest heartbeat counter that was answered.
    answered: u64,
    answered_at: Option<Duration>,
    /// Whether the newest heartbeat was sent ahead of time, because a reply asked for it. Its own
    /// reply cannot ask again: two servers that answer in turn (a misbehaving load balancer) must
    /// not drive a node into a tight loop.
    repeat: Repeat,
    instance: Option<Instance>,
    /// The instance has answered a heartbeat since the one that taught it.
    counted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    No,
    /// The next heartbeat is the repeated one.
    Next,
    Sent,
}

/// What a node says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Observed {
    /// The bundle revision on its disk; 0 when nothing is whole there.
    pub revision: u64,
    /// The digest that came with that bundle.
    pub bundle: u32,
    /// The digest of the status that the cloud acknowledged last; 0 for none.
    pub status: u32,
}

/// The server process that the node last learnt.
struct Instance {
    id: u64,
    downlink: Cipher,
    /// Newest counter taken under this instance. Replies count too: a poke that somebody held back is of no
    /// use any more once the instance has said something else.
    newest: u64,
}

/// What a datagram from the cloud means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeEvent {
    /// The cloud answered a heartbeat.
    Reply {
        /// Fetch what is newer when this is above the observed revision.
        desired_revision: u64,
        /// What else the cloud asks for.
        flags: ReplyFlags,
        /// Time until the next heartbeat.
        interval: Duration,
        /// The answer came from a server that has not yet counted this node as alive (it started
        /// anew): send one more heartbeat now.
        send_again: bool,
        /// Since the newest heartbeat was made.
        round_trip: Duration,
    },
    /// The cloud wants something now.
    Poke(Poke),
}

/// Why a datagram was dropped. Nothing changed, and nothing is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    /// Not a reply or poke of this version.
    #[error("not a session datagram")]
    Malformed,
    /// It names another node, generation or epoch.
    #[error("a datagram for another session")]
    Misdirected,
    /// The tag does not match.
    #[error("a datagram that fails authentication")]
    Unauthentic,
    /// A reply to a heartbeat that was answered before, or is not the one outstanding.
    #[error("a stale reply")]
    Stale,
    /// A poke seen before, or from a server instance that this node does not know.
    #[error("a replayed poke")]
    Replayed,
    /// A poke of a reason from a later version.
    #[error("a poke of an unknown reason")]
    UnknownPoke,
}

/// The grant cannot start a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// `key_hex` is not 64 hexadecimal digits.
    #[error("the session key is not 64 hexadecimal digits")]
    Key,
    /// Boot numbers start at 1.
    #[error("the boot number is 0")]
    Boot,
}

/// All sequence numbers of this start are used up, after 1,300 years at 10 s: start a new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session has used its last counter")]
pub struct SessionExhausted;

impl NodeSession {
    /// A session for this start of the daemon.
    ///
    /// `boot` is this start's number, already on disk; `salt` is random.
    ///
    /// # Errors
    /// When the grant's key or the boot number are unusable.
    pub fn new(grant: &SessionGrant, boot: u32, salt: u32) -> Result<Self, GrantError> {
        let key = SessionKey::from_hex(&grant.key_hex).ok_or(GrantError::Key)?;
        if boot == 0 {
            return Err(GrantError::Boot);
        }
        let start = u64::from(boot) << 32;
        Ok(Self {
            epoch: grant.epoch,
            generation: grant.generation,
            index: grant.index,
            salt,
            cipher: key.uplink(),
            key,
            sent: start,
            sent_at: Duration::ZERO,
            answered: start,
            answered_at: None,
            repeat: Repeat::No,
            instance: None,
            counted: false,
        })
    }

    /// The next heartbeat.
    ///
    /// # Errors
    /// When this start has no counter left.
    pub fn heartbeat(
        &mut self,
        now: Duration,
        observed: Observed,
    ) -> Result<Datagram, SessionExhausted> {
        self.uplink(UplinkKind::Heartbeat, now, observed)
    }

    /// As [`heartbeat`](Self::heartbeat), to find out whether answers come back on another way than the one
    /// in use: the cloud's pokes stay on that one.
    ///
    /// # Errors
    /// As [`heartbeat`](Self::heartbeat).
    pub fn probe(
        &mut self,
        now: Duration,
        observed: Observed,
    ) -> Result<Datagram, SessionExhausted> {
        self.uplink(UplinkKind::Probe, now, observed)
    }

    fn uplink(
        &mut self,
        kind: UplinkKind,
        now: Duration,
        observed: Observed,
    ) -> Result<Datagram, SessionExhausted> {
        if self.sent & SEQUENCE == SEQUENCE {
            return Err(SessionExhausted);
        }
        self.sent += 1;
        self.sent_at = now;
        self.repeat = if self.repeat == Repeat::Next { Repeat::Sent } else { Repeat::No };
        let header = UplinkHeader {
            kind,
            epoch: self.epoch,
            generation: self.generation,
            index: self.index,
            counter: self.sent,
            salt: self.salt,
        }
        .encode();
        let mut body = HeartbeatBody {
            observed_revision: observed.revision,
            status_digest: observed.status,
            bundle_digest: observed.bundle,
            instance: self.instance.as_ref().map_or(0, |instance| instance.id),
        }
        .encode();
        let tag = self.cipher.seal(uplink_nonce(self.sent, self.salt), &header, &mut body);
        Ok(Datagram::assemble(&header, &body, &tag))
    }

    /// Judges bytes that arrived. Only what is authentic and new makes an event.
    ///
    /// # Errors
    /// The reason why the datagram changes nothing.
    pub fn receive(&mut self, bytes: &[u8], now: Duration) -> Result<NodeEvent, Dropped> {
        let (header, sealed) = DownlinkHeader::split(bytes).map_err(|_| Dropped::Malformed)?;
        if (header.epoch, header.generation, header.index)
            != (self.epoch, self.generation, self.index)
        {
            return Err(Dropped::Misdirected);
        }
        let nonce = downlink_nonce(header.counter, self.salt);
        let clear = header.encode();
        match sealed {
            SealedDownlink::Reply(mut body, tag) => {
                let known =
                    self.instance.as_ref().filter(|instance| instance.id == header.instance);
                let stranger = match known {
                    Some(instance) => {
                        instance
                            .downlink
                            .open(nonce, &clear, &mut body, tag)
                            .ok_or(Dropped::Unauthentic)?;
                        None
                    }
                    None => {
                        let downlink = self.key.downlink(header.instance);
                        downlink.open(nonce, &clear, &mut body, tag).ok_or(Dropped::Unauthentic)?;
                        Some(Instance { id: header.instance, downlink, newest: 0 })
                    }
                };
                self.reply(&ReplyBody::decode(&body), header.counter, stranger, now)
            }
            SealedDownlink::Poke(mut body, tag) => {
                let instance = self
                    .instance
                    .as_mut()
                    .filter(|instance| instance.id == header.instance)
                    .ok_or(Dropped::Replayed)?;
                instance
                    .downlink
                    .open(nonce, &clear, &mut body, tag)
                    .ok_or(Dropped::Unauthentic)?;
                if header.counter <= instance.newest {
                    return Err(Dropped::Replayed);
                }
                instance.newest = header.counter;
                Poke::decode(&body).map(NodeEvent::Poke).ok_or(Dropped::UnknownPoke)
            }
        }
    }

    /// An authentic reply. A new instance must answer the newest heartbeat: an older answer could be
    /// a replay that leads the node back to a server that is gone.
    fn reply(
        &mut self,
        body: &ReplyBody,
        counter: u64,
        stranger: Option<Instance>,
        now: Duration,
    ) -> Result<NodeEvent, Dropped> {
        // Of this start: what answers another one does not open with this one's salt.
        let echo = self.sent & !SEQUENCE | u64::from(body.echo);
        let expected = echo > self.answered && echo <= self.sent;
        if !expected || (stranger.is_some() && echo != self.sent) {
            return Err(Dropped::Stale);
        }
        self.answered = echo;
        self.answered_at = Some(now);
        let mut send_again = false;
        self.counted = stranger.is_none();
        if let Some(stranger) = stranger {
            self.instance = Some(stranger);
            send_again = self.repeat != Repeat::Sent;
            if send_again {
                self.repeat = Repeat::Next;
            }
        }
        if let Some(instance) = &mut self.instance {
            instance.newest = instance.newest.max(counter);
        }
        Ok(NodeEvent::Reply {
            desired_revision: body.desired_revision,
            flags: body.flags,
            interval: Duration::from_millis(u64::from(body.interval_ms)),
            send_again,
            round_trip: now.saturating_sub(self.sent_at),
        })
    }

    /// Heartbeats sent since the newest answered one. After some, and once more after a long time,
    /// a node that reaches the cloud over HTTPS should ask for its grant again.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        self.sent - self.answered
    }

    /// The number of this start.
    #[must_use]
    pub fn boot(&self) -> u32 {
        u32::try_from(self.sent >> 32).unwrap_or(u32::MAX)
    }

    /// Whether the server that the node knows counts it as alive. One that only told its instance,
    /// and then keeps silent, takes this session for a replay of an earlier start: the boot number
    /// was set back, and the grant's floor tells how far.
    #[must_use]
    pub fn counted(&self) -> bool {
        self.counted
    }

    /// When the newest answer came.
    #[must_use]
    pub fn answered_at(&self) -> Option<Duration> {
        self.answered_at
    }
}

impl std::fmt::Debug for NodeSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeSession")
            .field("index", &self.index)
            .field("generation", &self.generation)
            .field("sent", &self.sent)
            .field("answered", &self.answered)
            .finish_non_exhaustive()
    }
}
