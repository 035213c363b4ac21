//! The UDP loop: datagrams in, replies and pokes out. All judgement is the session crate's.

use std::{io, sync::Arc, time::Duration};

use tokio::{io::Interest, net::UdpSocket};
use toono_net::datagrams::{Inbox, Outbox, set_receive_buffer};
use toono_session::{Address, Answer, Datagram, NodeIndex, Poke, ReplyFlags, ServerSessions};
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

/// Until its task is dropped.
pub(crate) async fn serve(inner: Arc<Inner>, socket: UdpSocket) {
    if let Err(error) = set_receive_buffer(&socket, RECEIVE_BUFFER) {
        tracing::warn!(%error, "the session socket keeps a small receive buffer");
    }
    let (mut inbox, mut outbox) = (Inbox::new(BATCH, RECEIVE), Outbox::default());
    loop {
        tokio::select! {
            readable = socket.readable() => {
                if let Err(error) = readable {
                    tracing::warn!(%error, "the session socket failed");
                }
            }
            () = inner.poked.notified() => {}
        }
        let mut more = true;
        for _ in 0..BATCHES {
            more = take(&inner, &socket, &mut inbox, &mut outbox);
            if !more {
                break;
            }
        }
        if next_pokes(&inner, &mut outbox) {
            inner.poked.notify_one();
        }
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
    let State { table, bundles, returned, arrived, rekeys, .. } = state;
    if only.is_some_and(|index| ServerSessions::claimed(bytes) != Some(index)) {
        return None;
    }
    // Only what concerns the table is read before authentication: nothing is allocated or changed.
    let opened = table.sessions.receive(bytes, from, now);
    let opened =
        opened.inspect_err(|reason| tracing::trace!(%from, %reason, "datagram refused")).ok()?;
    let member = table.member_mut(opened.index)?;
    let mut flags = ReplyFlags::default();
    if opened.fresh {
        let expected = *member.reported.get_or_insert(opened.heartbeat.status_digest);
        if member.resend || expected != opened.heartbeat.status_digest {
            flags = flags.with(ReplyFlags::RESEND_STATUS);
            member.resend = false;
        }
    }
    if opened.old_key && rekeys.take(now) {
        flags = flags.with(ReplyFlags::REKEY);
    }
    let answer = Answer {
        desired_revision: bundles.desired(member.bundle, opened.heartbeat.observed_revision),
        flags,
        interval: inner.config.heartbeat,
    };
    let reply = table.sessions.reply(&opened, &answer);
    if opened.first {
        arrived.push_back(opened.index);
    }
    if opened.fresh && table.take_due(opened.index, now, &inner.config.grace) {
        returned.push(opened.index);
    }
    Some(reply)
}

/// Some of the pokes that wait; whether more do.
fn next_pokes(inner: &Inner, outbox: &mut Outbox) -> bool {
    let mut state = inner.state();
    for _ in 0..BATCH {
        let Some(due) = state.pokes.next() else { break };
        let (index, poke) = match due {
            Due::Dial(index, ticket) => (index, Some(Poke::DialBack { ticket })),
            Due::Bundle(index) => (index, bundle_moved(&state, index)),
        };
        if let Some(poke) = poke
            && let Some((datagram, to)) = state.table.sessions.poke(index, poke)
        {
            match to {
                Address::Udp(to) => outbox.push(datagram.as_bytes(), to),
                Address::Stream(number) => inner.sockets.send(number, datagram),
            }
        }
    }
    !state.pokes.is_empty()
}

/// What a node does not know yet of its bundle; it may have heard meanwhile, by a reply.
fn bundle_moved(state: &State, index: NodeIndex) -> Option<Poke> {
    let observed = state.table.fresh(index).map_or(0, |fresh| fresh.observed_revision);
    let member = state.table.member(index)?;
    let desired = state.bundles.desired(member.bundle, observed);
    (desired != observed).then_some(Poke::BundleMoved { revision: desired })
}
