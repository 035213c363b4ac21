//! Questions in datagrams, by the batch.

use tokio::{io::Interest, net::UdpSocket};
use toono_names::{MAX_DATAGRAM, Way, Whom};
use toono_net::datagrams::{Inbox, Outbox};

use super::Inner;

/// Questions taken at once. Each has its room in memory, used or not.
const BATCH: usize = 16;
/// Batches taken before the agent's other tasks have their turn.
const BATCHES: usize = 4;

impl Inner {
    pub(super) async fn serve_datagrams(&self, socket: &UdpSocket) {
        let (mut inbox, mut outbox) = (Inbox::new(BATCH, MAX_DATAGRAM), Outbox::default());
        let mut out = Vec::with_capacity(MAX_DATAGRAM);
        loop {
            if let Err(error) = socket.readable().await {
                tracing::error!(%error, "DNS hears no datagrams any more");
                return;
            }
            for _ in 0..BATCHES {
                let taken = socket.try_io(Interest::READABLE, || inbox.receive(socket));
                // Another error than that there is nothing is an earlier answer's, which nobody waited for.
                let Ok(taken) = taken else { break };
                self.answer_batch(&inbox, &mut out, &mut outbox);
                outbox.send(socket);
                if taken < BATCH {
                    break;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    fn answer_batch(&self, inbox: &Inbox, out: &mut Vec<u8>, outbox: &mut Outbox) {
        self.pool.read(|records| {
            for (message, address) in inbox.iter() {
                let whom = Whom { address, way: Way::Udp };
                if self.admits(address.ip()) && self.take(records, message, whom, out) {
                    outbox.push(out, address);
                }
            }
        });
    }
}
