//! The UDP loop: datagrams in, replies and pokes out. All judgement is the session crate's.
//!
//! It has a thread of its own. Between two looks at the socket a runtime that is shared runs whatever else there
//! is to do, and when that is much, as while a million nodes become ready, half of their heartbeats found no room in
//! the socket, and nodes were called silent that were not.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use tokio::{io::Interest, net::UdpSocket, sync::oneshot};
use toono_net::datagrams::{Inbox, Outbox, hurry_this_thread, set_receive_buffer};
use toono_session::{
    Address, Answer, BundleDigest, Datagram, NodeIndex, Opened, Poke, ReplyFlags, ServerSessions,
    Standing,
};
use toono_wire::datagram::MAX_DATAGRAM;

use crate::{
    fleet::{Inner, State},
    pokes::Due,
};

/// Datagrams taken, and pokes sent, at once.
const BATCH: usize = 128;
/// Batches taken before pokes are served, and other tasks.
const BATCHES: usize = 8;
/// When all that had arrived is taken, others are waited for this long and then taken together: no heartbeat is
/// in a hurry, and to wake up for each costs more than to answer it.
const LINGER: Duration = Duration::from_millis(2);
/// One byte more than the longest datagram, so that a longer one is seen to be.
const RECEIVE: usize = MAX_DATAGRAM + 1;
/// Room for what arrives while this loop does not run: some 20,000 heartbeats, a fifth of a second of a
/// million nodes.
const RECEIVE_BUFFER: usize = 16 * 1024 * 1024;

/// The priority of the thread: it needs little, and that in time, while controllers that read a million nodes and pods
/// could use every processor for a minute.
const NICE: i32 = -10;

/// Serves sessions until this is dropped, or its thread has failed.
pub(crate) async fn run(inner: Arc<Inner>, socket: UdpSocket) -> io::Result<()> {
    let socket = socket.into_std()?;
    // Each end tells the other by being dropped.
    let (dropped, ends) = oneshot::channel::<()>();
    let (fails, failed) = oneshot::channel::<io::Error>();
    std::thread::Builder::new().name("sessions".to_owned()).spawn(move || {
        if let Err(error) = serve_here(inner, socket, ends) {
            let _ = fails.send(error);
        }
    })?;
    let _dropped = dropped;
    Err(failed.await.unwrap_or_else(|_| io::Error::other("the thread of sessions panicked")))
}

fn serve_here(
    inner: Arc<Inner>,
    socket: std::net::UdpSocket,
    ends: oneshot::Receiver<()>,
) -> io::Result<()> {
    if let Err(error) = hurry_this_thread(NICE) {
        tracing::debug!(%error, "the thread of sessions has no priority");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = UdpSocket::from_std(socket)?;
        tokio::select! {
            _ = ends => Ok(()),
            never = serve(inner, socket) => match never {},
        }
    })
}

async fn serve(inner: Arc<Inner>, socket: UdpSocket) -> Infallible {
    if let Err(error) = set_receive_buffer(&socket, RECEIVE_BUFFER) {
        tracing::warn!(%error, "the session socket keeps a small receive buffer");
    }
    let (mut inbox, mut outbox) = (Inbox::new(BATCH, RECEIVE), Outbox::default());
    let mut waits = None;
    loop {
        tokio::select! {
            readable = socket.readable() => {
                if let Err(error) = readable {
                    tracing::warn!(%error, "the session socket failed");
                }
            }
            () = inner.poked.notified() => {}
            () = tokio::time::sleep(waits.unwrap_or_default()), if waits.is_some() => {}
        }
        let mut more = true;
        for _ in 0..BATCHES {
            more = take(&inner, &socket, &mut inbox, &mut outbox);
            if !more {
                break;
            }
        }
        waits = next_pokes(&inner, &mut outbox);
        send(&socket, &mut outbox);
        if more {
            tokio::task::yield_now().await;
        } else {
            // What is to be poked is in a hurry.
            let poked = tokio::time::timeout(LINGER, inner.poked.notified()).await;
            poked.into_iter().for_each(|()| inner.poked.notify_one());
        }
    }
}

/// Takes and answers a batch; whether more may have arrived.
fn take(inner: &Inner, socket: &UdpSocket, inbox: &mut Inbox, outbox: &mut Outbox) -> bool {
    match socket.try_io(Interest::READABLE, || inbox.receive(socket)) {
        Ok(count) => {
            judge(inner, inbox, outbox);
            send(socket, outbox);
            count == BATCH
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        // An ICMP error of an earlier send; it says nothing about this socket.
        Err(error) => {
            tracing::trace!(%error, "receive");
            true
        }
    }
}

fn send(socket: &UdpSocket, outbox: &mut Outbox) {
    let all = outbox.len();
    let left = outbox.send(socket);
    if left < all {
        // The next heartbeat repeats what a reply would have said.
        tracing::debug!(dropped = all - left, "datagrams had no way out");
    }
}

/// Judges what arrived together, and answers it.
fn judge(inner: &Inner, inbox: &Inbox, outbox: &mut Outbox) {
    let now = inner.now();
    let mut state = inner.state();
    let before = state.returned.len();
    for (bytes, from) in inbox.iter() {
        if let Some(reply) = judge_one(inner, &mut state, bytes, Address::Udp(from), None, now) {
            outbox.push(reply.as_bytes(), from);
        }
    }
    if state.returned.len() > before {
        inner.readiness.notify_one();
    }
}

/// What to answer to a datagram, if anything. What comes on a way that one node opened must be that node's
/// (`only`). Who is put into [`State::returned`] is for the caller to tell.
pub(crate) fn judge_one(
    inner: &Inner,
    state: &mut State,
    bytes: &[u8],
    from: Address,
    only: Option<NodeIndex>,
    now: Duration,
) -> Option<Datagram> {
    if state.table.servers.is_mute() {
        return None;
    }
    if only.is_some_and(|index| ServerSessions::claimed(bytes) != Some(index)) {
        return None;
    }
    let claimed = ServerSessions::claimed(bytes);
    let was_elsewhere = claimed.and_then(|index| state.table.speaks_to(index));
    // Only what concerns the table is read before authentication: nothing is allocated or changed.
    let opened = state.table.sessions.receive(bytes, from, now);
    let opened =
        opened.inspect_err(|reason| tracing::trace!(%from, %reason, "datagram refused")).ok()?;
    let mut answer = Answer {
        desired_revision: opened.heartbeat.observed_revision,
        flags: ReplyFlags::default(),
        interval: inner.config.heartbeat,
    };
    if opened.fresh {
        state.table.heard_one(now);
        if was_elsewhere.is_some()
            && let Some(member) = state.table.member_mut(opened.index)
        {
            // Another server acknowledged its reports meanwhile.
            member.reported = None;
        }
        // What is not fresh may have been sent by anybody long ago: it gets nothing asked, and takes no slot.
        ask(state, &opened, now, &mut answer);
        state.table.servers.heard_here(opened.index);
    }
    let reply = state.table.sessions.reply(&opened, &answer);
    if opened.fresh && state.table.take_due(opened.index, now, &inner.config.grace) {
        state.returned.push(opened.index);
    }
    Some(reply)
}

/// What a node is to do besides, as far as there are slots for it.
fn ask(state: &mut State, opened: &Opened, now: Duration, answer: &mut Answer) {
    let State { table, bundles, slots, versions, .. } = state;
    let Some(member) = table.member_mut(opened.index) else { return };
    let heartbeat = &opened.heartbeat;
    // The node's digest is its own bundle's and its pool's part's together.
    let standing = |share: u32| {
        let digest = BundleDigest(heartbeat.bundle_digest.wrapping_sub(share));
        bundles.standing(member.bundle, heartbeat.observed_revision, digest)
    };
    let part = versions.of(&member.pool);
    let held = standing(part.map_or(0, |part| part.share()));
    // What has just changed of the part is on its way.
    let differs = held == Standing::Differs
        && part.is_some()
        && opened.repeats
        && !versions.lately(&member.pool, now).any(|share| standing(share) == Standing::Right);
    match held {
        Standing::Behind(revision) if slots.fetches.take(now) => answer.desired_revision = revision,
        Standing::Differs if differs && slots.compares.take(now) => {
            answer.flags = answer.flags.with(ReplyFlags::COMPARE);
        }
        _ => {}
    }
    // What a node told an earlier server is taken as told, until it says otherwise.
    let reported = *member.reported.get_or_insert(heartbeat.status_digest);
    let waits = heartbeat.status_digest == 0;
    if (member.resend || waits || reported != heartbeat.status_digest) && slots.reports.take(now) {
        answer.flags = answer.flags.with(ReplyFlags::RESEND_STATUS);
        member.resend = false;
    }
    if (opened.old_key || member.old_list) && slots.rekeys.take(now) {
        answer.flags = answer.flags.with(ReplyFlags::REKEY);
    }
}

/// Some of the pokes that wait; if more do, for how long.
fn next_pokes(inner: &Inner, outbox: &mut Outbox) -> Option<Duration> {
    let (now, mut state) = (inner.now(), inner.state());
    for _ in 0..BATCH {
        let due = state.pokes.next()?;
        let (index, poke) = match due {
            Due::Dial(index, ticket) => (index, Some(Poke::DialBack { ticket })),
            Due::Bundle(index) => (index, bundle_moved(&state, index)),
            Due::Pool(index) => (index, pool_moved(&state, index)),
        };
        let Some(poke) = poke else { continue };
        // One that speaks to another server does not take our word any more.
        if state.table.speaks_to(index).is_some() {
            continue;
        }
        // Somebody waits for a dial; what makes a node fetch has its slot.
        if !matches!(due, Due::Dial(..)) && !state.slots.fetches.take(now) {
            state.pokes.put_back(due);
            return Some(state.slots.fetches.wait(now));
        }
        if let Some((datagram, to)) = state.table.sessions.poke(index, poke) {
            match to {
                Address::Udp(to) => outbox.push(datagram.as_bytes(), to),
                Address::Stream(number) => inner.sockets.send(number, datagram),
            }
        }
    }
    Some(Duration::ZERO)
}

/// What the part of a node's pool is now.
fn pool_moved(state: &State, index: NodeIndex) -> Option<Poke> {
    let version = state.versions.of(&state.table.member(index)?.pool)?;
    Some(Poke::PoolMoved { revision: version.revision })
}

/// What a node does not know yet of its bundle; it may have heard meanwhile, by a reply.
fn bundle_moved(state: &State, index: NodeIndex) -> Option<Poke> {
    let fresh = state.table.fresh(index)?;
    match state.standing(index, fresh)? {
        Standing::Behind(revision) => Some(Poke::BundleMoved { revision }),
        Standing::Right | Standing::Differs => None,
    }
}
