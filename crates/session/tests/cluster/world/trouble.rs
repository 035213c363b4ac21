//! What goes wrong: restarts, disks set back, cuts, addresses that change, and an attacker.

use super::*;

impl World {
    pub(super) fn go_wrong(&mut self) {
        let server = self.random.pick(self.servers.len());
        let node = self.random.pick(self.nodes.len());
        let good = self.nodes[node].good;
        match self.random.below(1000) {
            0..=1 => self.restart_server(server),
            2..=4 => self.write_ring(|ring, secret, now| ring.rotate(secret, now + GRANTED_IN)),
            5..=6 => self.write_ring(|ring, secret, now| {
                ring.rotate(secret, now);
                ring.retire(now, true, 0);
            }),
            7..=8 => {
                let step = i64::try_from(self.random.below(7_200)).unwrap() - 3_600;
                self.servers[server].skew = step;
                self.tell(server);
            }
            9..=15 if !good => self.nodes[node].address = address(&mut self.random),
            16..=25 if !good => self.nodes[node].home = server,
            26..=45 if !good => self.restart_node(node),
            46..=55 => self.nodes[node].back_up(),
            56..=75 => self.poke(server, node),
            76..=85 | 100..=139 => self.change(),
            86..=87 => self.backup = self.store.back_up(),
            88 if self.random.chance(200) => self.set_back(),
            _ => {}
        }
    }

    pub(super) fn restart_node(&mut self, node: usize) {
        let (bug, now) = (self.bug, self.now);
        let off = Duration::from_millis(self.random.below(150_000));
        let restarted = &mut self.nodes[node];
        if self.random.chance(300) {
            restarted.roll_back(bug);
        }
        if self.random.chance(200) {
            restarted.disk.held.damage();
        }
        restarted.off_until = if self.random.chance(500) { now + off } else { now };
        restarted.start(bug, &mut self.random);
        let start = restarted.start;
        self.schedule(now, Event::Beat { node, start });
    }

    pub(super) fn poke(&mut self, server: usize, node: usize) {
        let index = NodeIndex(u32::try_from(node).unwrap());
        let revision = self.servers[server].index.desired(node).newest;
        let poke = Poke::BundleMoved { revision };
        let sessions = &mut self.servers[server].sessions;
        let Some((datagram, Address::Udp(to))) = sessions.poke(index, poke) else { return };
        let bytes = datagram.as_bytes().to_vec();
        self.ledger.answered(&bytes, self.now);
        if to == self.nodes[node].address {
            self.transmit(node, false, Event::AtNode { node, bytes });
        }
    }

    /// The attacker sends something that it heard, as it was or changed.
    pub(super) fn attack(&mut self) {
        if self.seen.is_empty() {
            return;
        }
        let place = self.random.pick(self.seen.len());
        let (server, node) =
            (self.random.pick(self.servers.len()), self.random.pick(self.nodes.len()));
        let Seen { up, at, ref bytes } = self.seen[place];
        let mut bytes = bytes.clone();
        let index = u32::from_be_bytes(bytes[4..8].try_into().unwrap());
        if self.random.chance(300) {
            match self.random.below(3) {
                0 => bytes.truncate(self.random.pick(bytes.len())),
                1 => bytes[4..8].copy_from_slice(&u32::try_from(node).unwrap().to_be_bytes()),
                _ => {
                    let bit = self.random.pick(bytes.len() * 8);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
            }
            if bytes == self.seen[place].bytes {
                return;
            }
        } else if up && self.is_news(server, index, at, &bytes)
            || !up && self.ledger.is_news_to(usize::try_from(index).unwrap(), &bytes)
        {
            // Who can hold back a datagram can also deliver it: that is no replay.
            return;
        }
        if up {
            self.at_server(server, &bytes, ATTACKER);
        } else {
            let its_own = usize::try_from(index).unwrap();
            let to = if self.random.chance(500) { node } else { its_own };
            self.at_node(to, &bytes);
        }
    }

    /// Whether it is a heartbeat that this server can have missed.
    pub(super) fn is_news(&self, server: usize, index: u32, at: Duration, bytes: &[u8]) -> bool {
        let counter = u64::from_be_bytes(bytes[8..16].try_into().unwrap());
        let newest = self.servers[server].sessions.fresh(NodeIndex(index));
        at >= self.servers[server].started && newest.is_none_or(|fresh| fresh.counter < counter)
    }
}
