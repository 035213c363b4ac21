//! The servers: what they hear, whom they believe alive, and the store of their secrets.

use super::*;

impl World {
    pub(super) fn at_server(&mut self, place: usize, bytes: &[u8], from: SocketAddr) {
        let now = self.now;
        if self.servers[place].started > now {
            return;
        }
        self.read_store(place);
        let Some(opened) = self.judge(place, bytes, from) else { return };
        let node = usize::try_from(opened.index.0).unwrap();
        let instance = self.servers[place].sessions.instance();
        let ignored = self.bug == Bug::SomeNotCounted && node.is_multiple_of(6);
        if (opened.fresh || self.bug == Bug::FreshnessIgnored) && !ignored {
            let observed = opened.heartbeat.observed_revision;
            let belief = Belief { at: now, address: from, observed };
            self.ledger.counted(bytes, instance, &belief);
            self.servers[place].beliefs.insert(node, belief);
        }
        let told = opened.old_key && (!self.in_trouble() || self.random.chance(300));
        let rekey = if told { ReplyFlags::REKEY } else { ReplyFlags::default() };
        let (desired_revision, flags) = self.judge_bundle(place, &opened, bytes);
        let answer = Answer { desired_revision, flags: flags.with(rekey), interval: INTERVAL };
        let reply = self.servers[place].sessions.reply(&opened, &answer);
        self.ledger.answered(reply.as_bytes(), now);
        self.last_opened = Some(opened);
        // A NAT gives the reply to whoever has that address now.
        if from == self.nodes[node].address {
            let bytes = reply.as_bytes().to_vec();
            self.transmit(node, false, Event::AtNode { node, bytes });
        }
    }

    pub(super) fn judge(&mut self, place: usize, bytes: &[u8], from: SocketAddr) -> Option<Opened> {
        let index = ServerSessions::claimed(bytes);
        let server = &mut self.servers[place];
        let before = index.and_then(|index| server.sessions.fresh(index).copied());
        let judged = server.sessions.receive(bytes, from, self.now);
        let after = index.and_then(|index| server.sessions.fresh(index).copied());
        if before != after && !judged.as_ref().is_ok_and(|opened| opened.fresh) {
            self.ledger.broken(rules::ALIVE_BY_REPLAY, "a refused datagram changed something");
        }
        if after.is_some_and(|fresh| before != after && fresh.address != Address::Udp(from)) {
            self.ledger.broken(rules::WRONG_ADDRESS, "not where it came from");
        }
        match (judged, self.bug) {
            (Ok(opened), _) => Some(opened),
            (Err(Refused::Replayed), Bug::ReplaysAccepted) => {
                let instance = self.servers[place].sessions.instance();
                let mut forgetful = self.fresh_server(0, Some(instance)).sessions;
                forgetful.receive(bytes, from, self.now).ok()
            }
            (Err(Refused::Unauthentic), Bug::ForgeriesTaken) => {
                let mut opened = self.last_opened.clone()?;
                opened.fresh = true;
                Some(opened)
            }
            _ => None,
        }
    }

    pub(super) fn restart_server(&mut self, place: usize) {
        let instance = self.servers[place].sessions.instance();
        let instance = (self.bug == Bug::InstanceReused).then_some(instance);
        let skew = self.servers[place].skew;
        let mut server = self.fresh_server(skew, instance);
        server.started = self.now + Duration::from_millis(self.random.below(5_000));
        if self.bug == Bug::LivenessKept {
            let known = self.servers[place].beliefs.iter();
            let renewed = known.map(|(node, belief)| (*node, Belief { at: self.now, ..*belief }));
            server.beliefs = renewed.collect();
        }
        self.servers[place] = server;
    }

    /// One server writes the ring; the others read it a little later.
    pub(super) fn write_ring(&mut self, change: impl Fn(&mut Keyring, [u8; 32], u64)) {
        if self.now < self.written + WRITTEN_AGAIN {
            return;
        }
        self.written = self.now;
        let writer = self.random.pick(self.servers.len());
        let (secret, now) = (self.random.secret(), wall(self.now, self.servers[writer].skew));
        change(&mut self.stored, secret, now);
        for server in 0..self.servers.len() {
            let delay = if server == writer { 0 } else { self.random.below(2_000) };
            self.schedule(self.now + Duration::from_millis(delay), Event::Adopt(server));
        }
    }
}
