//! The nodes: their heartbeats, what they make of what they hear, and the way in between.

use super::*;

impl World {
    pub(super) fn beat(&mut self, node: usize) {
        let (now, sender) = (self.now, &mut self.nodes[node]);
        let start = sender.start;
        if sender.off_until > now {
            let at = sender.off_until;
            return self.schedule(at, Event::Beat { node, start });
        }
        let missed = sender.session.unanswered();
        self.schedule(now + INTERVAL, Event::Beat { node, start });
        if missed >= 2 && self.bug != Bug::NothingAskedAgain {
            self.schedule(now + Duration::from_secs(3), Event::Ask { node, start });
        }
        self.send(node);
    }

    pub(super) fn send(&mut self, node: usize) {
        let (now, sender) = (self.now, &mut self.nodes[node]);
        let held = &sender.disk.held;
        let observed = Observed { revision: held.revision, bundle: held.digest.0, status: 1 };
        let datagram = sender.session.heartbeat(now, observed).unwrap();
        let (from, home) = (sender.address, sender.home);
        self.ledger.said(node, datagram.as_bytes(), now, from, held);
        let bytes = datagram.as_bytes().to_vec();
        self.transmit(node, true, Event::AtServer { server: home, from, bytes });
    }

    /// The network, and who listens to it.
    pub(super) fn transmit(&mut self, node: usize, up: bool, event: Event) {
        let (Event::AtServer { bytes, .. } | Event::AtNode { bytes, .. }) = &event else { return };
        let bytes = bytes.clone();
        self.seen.push(Seen { up, at: self.now, bytes: bytes.clone() });
        let clean = self.nodes[node].good || !self.in_trouble();
        if !clean && self.random.chance(150) {
            return;
        }
        if let (true, Event::AtServer { server, from, .. }) = (self.random.chance(50), &event) {
            let again = Event::AtServer { server: *server, from: *from, bytes };
            self.deliver(clean, again);
        }
        self.deliver(clean, event);
    }

    pub(super) fn deliver(&mut self, clean: bool, event: Event) {
        // Mostly quick, sometimes longer than an interval: behind later ones.
        let late = !clean && self.random.chance(30);
        let delay = Duration::from_millis(self.random.below(if late { 24_000 } else { 400 }));
        self.schedule(self.now + delay, event);
    }

    pub(super) fn at_node(&mut self, node: usize, bytes: &[u8]) {
        let now = self.now;
        if self.nodes[node].off_until > now {
            return;
        }
        let judged = self.nodes[node].session.receive(bytes, now);
        let own = bytes.len() > 8 && bytes[4..8] == u32::try_from(node).unwrap().to_be_bytes();
        let taken = judged.is_ok() || self.bug == Bug::OldAnswersTaken && own;
        if taken {
            let start = self.nodes[node].start;
            self.ledger.took(node, start, bytes, now);
        }
        match judged {
            Ok(NodeEvent::Reply { desired_revision, flags, send_again, .. }) => {
                self.told(node, desired_revision, flags);
                if send_again {
                    self.send(node);
                }
                if flags.contains(ReplyFlags::REKEY) {
                    self.ask(node);
                }
            }
            Ok(NodeEvent::Poke(Poke::BundleMoved { revision })) => {
                self.told(node, revision, ReplyFlags::default());
            }
            Ok(NodeEvent::Poke(Poke::DialBack { .. } | Poke::PoolMoved { .. })) | Err(_) => {}
        }
    }

    /// Asks for the grant over HTTPS.
    pub(super) fn ask(&mut self, node: usize) {
        let works = self.nodes[node].good || !self.in_trouble() || self.random.chance(700);
        if !works || self.nodes[node].off_until > self.now {
            return;
        }
        let server = &self.servers[self.nodes[node].home];
        let index = NodeIndex(u32::try_from(node).unwrap());
        let (epoch, key) = server.sessions.grant(&uid(node), GENERATION).unwrap();
        let floor = server.sessions.fresh(index).map_or(0, |fresh| fresh.counter >> 32);
        let grant = SessionGrant {
            epoch,
            key_hex: key.to_hex(),
            boot_floor: u32::try_from(floor).unwrap(),
            servers: Vec::new(),
            ..self.nodes[node].disk.grant.clone()
        };
        let before = self.nodes[node].start;
        self.nodes[node].take(grant, self.bug, &mut self.random);
        let start = self.nodes[node].start;
        if start != before {
            self.schedule(self.now, Event::Beat { node, start });
        }
    }
}
