//! The UDP loop: datagrams in, replies and pokes out. All judgement is the session crate's.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::net::UdpSocket;
use toono_session::{Answer, Datagram, Poke, ReplyFlags};
use toono_wire::datagram::MAX_DATAGRAM;

use crate::{
    fleet::{Inner, State},
    pokes::Due,
};

/// Datagrams taken, and pokes sent, per wake-up before the other is served.
const BATCH: usize = 64;
/// One byte more than the longest datagram, so that a longer one is seen to be.
const RECEIVE: usize = MAX_DATAGRAM + 1;

/// Until its task is dropped.
pub(crate) async fn serve(inner: Arc<Inner>, socket: UdpSocket) {
    let mut buffer = [0; RECEIVE];
    loop {
        tokio::select! {
            readable = socket.readable() => {
                if let Err(error) = readable {
                    tracing::warn!(%error, "the session socket failed");
                }
            }
            () = inner.poked.notified() => {}
        }
        for _ in 0..BATCH {
            match socket.try_recv_from(&mut buffer) {
                Ok((length, from)) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    if let Some(reply) = judge(&inner, bytes, from) {
                        send(&socket, &reply, from);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An ICMP error of an earlier send; it says nothing about this socket.
                Err(error) => tracing::trace!(%error, "receive"),
            }
        }
        for _ in 0..BATCH {
            let (next, more) = next_poke(&inner);
            if let Some((datagram, to)) = next {
                send(&socket, &datagram, to);
            }
            if !more {
                break;
            }
        }
        if !inner.state().pokes.is_empty() {
            inner.poked.notify_one();
        }
        tokio::task::yield_now().await;
    }
}

/// Loss is part of UDP: a full send buffer drops, and the next heartbeat repeats.
fn send(socket: &UdpSocket, datagram: &Datagram, to: SocketAddr) {
    if let Err(error) = socket.try_send_to(datagram.as_bytes(), to) {
        tracing::trace!(%to, %error, "send");
    }
}

fn judge(inner: &Inner, bytes: &[u8], from: SocketAddr) -> Option<Datagram> {
    let now = inner.now();
    let mut state = inner.state();
    let State { table, bundles, returned, arrived, .. } = &mut *state;
    // Only what concerns the table is read before authentication: nothing is allocated or changed.
    let heartbeat = inner.config.heartbeat;
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
    let answer = Answer {
        desired_revision: bundles.desired(&member.name, opened.heartbeat.observed_revision),
        flags,
        interval: heartbeat,
    };
    let reply = table.sessions.reply(&opened, &answer);
    if opened.first {
        arrived.push_back(opened.index);
    }
    if opened.fresh && table.take_due(opened.index, now, inner.config.grace) {
        returned.push(opened.index);
        inner.readiness.notify_one();
    }
    Some(reply)
}

/// The next poke and whether more wait.
fn next_poke(inner: &Inner) -> (Option<(Datagram, SocketAddr)>, bool) {
    let mut state = inner.state();
    let State { table, bundles, pokes, .. } = &mut *state;
    let Some(due) = pokes.next() else { return (None, false) };
    let (index, poke) = match due {
        Due::Dial(index, ticket) => (index, Some(Poke::DialBack { ticket })),
        Due::Bundle(index) => {
            let observed = table.fresh(index).map_or(0, |fresh| fresh.observed_revision);
            let desired = table.member(index).map(|member| bundles.desired(&member.name, observed));
            // It may have heard meanwhile, by a reply.
            let poke = desired
                .filter(|desired| *desired != observed)
                .map(|revision| Poke::BundleMoved { revision });
            (index, poke)
        }
    };
    let next = poke.and_then(|poke| table.sessions.poke(index, poke));
    (next, !pokes.is_empty())
}
