//! Leader election over a Lease, by the rules of client-go's `leaderelection`: a candidate trusts only its
//! own clock, takes a lease that it saw unchanged for its whole duration, and leads no longer than its
//! renewals reach.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::task::JoinHandle;

use crate::server::{Server, answers};

const NAME: &str = "the-lease";
const LEASE: Duration = Duration::from_secs(2);
/// A leader that could not renew for this long stops leading, before others may begin.
const RENEW_DEADLINE: Duration = Duration::from_millis(1200);
const RETRY: Duration = Duration::from_millis(150);
const PATIENCE: Duration = Duration::from_secs(30);

/// Who led from when to when; the end moves with each renewal.
type Reigns = Arc<Mutex<Vec<(usize, Instant, Instant)>>>;

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_candidate_leads_through_a_restart_and_a_killed_leader() {
    let mut server = Server::start(&[], None);
    let client = server.ready().await;
    let reigns = Reigns::default();
    let mut candidates: Vec<JoinHandle<()>> =
        (0..3).map(|number| tokio::spawn(Candidate::new(number, &client, &reigns).run())).collect();
    let first = leads(&reigns, |_, _| true).await;
    server.restart();
    answers(&client).await;
    let restarted = Instant::now();
    let second = leads(&reigns, |_, until| until > restarted + RENEW_DEADLINE).await;
    candidates[second].abort();
    let killed = Instant::now();
    let third = leads(&reigns, |leader, until| leader != second && until > killed).await;
    assert_ne!(second, third);
    candidates.iter_mut().for_each(|candidate| candidate.abort());

    let mut reigns = reigns.lock().unwrap().clone();
    reigns.sort_by_key(|(_, from, _)| *from);
    for pair in reigns.windows(2) {
        assert!(pair[0].2 <= pair[1].1, "two led at once: {pair:?}");
    }
    let leases: Api<Lease> = Api::default_namespaced(client);
    let spec = leases.get(NAME).await.unwrap().spec.unwrap();
    let mut holders: Vec<usize> = reigns.iter().map(|(leader, ..)| *leader).collect();
    holders.dedup();
    assert_eq!(holders[0], first);
    assert_eq!(spec.holder_identity, Some(third.to_string()));
    assert_eq!(spec.lease_transitions, Some(i32::try_from(holders.len() - 1).unwrap()));
}

/// Waits for a leader that this is true of: who, and until when it may lead.
async fn leads(reigns: &Reigns, right: impl Fn(usize, Instant) -> bool) -> usize {
    let start = Instant::now();
    loop {
        let last = reigns.lock().unwrap().last().copied();
        match last {
            Some((leader, _, until)) if right(leader, until) => return leader,
            _ => assert!(start.elapsed() < PATIENCE, "nobody leads"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

struct Candidate {
    number: usize,
    leases: Api<Lease>,
    reigns: Reigns,
    /// The newest lease that this candidate saw, and when it saw that it had changed.
    observed: Option<(Lease, Instant)>,
    leads: bool,
}

impl Candidate {
    fn new(number: usize, client: &Client, reigns: &Reigns) -> Self {
        let leases = Api::default_namespaced(client.clone());
        Self { number, leases, reigns: Arc::clone(reigns), observed: None, leads: false }
    }

    async fn run(mut self) {
        loop {
            let asked = Instant::now();
            let held = tokio::time::timeout(RENEW_DEADLINE, self.acquire_or_renew()).await;
            if held.is_ok_and(|held| held.unwrap_or(false)) {
                self.reign(asked);
            }
            let lost = |(_, _, until): &(usize, Instant, Instant)| *until < Instant::now();
            let own = |it: &&(usize, Instant, Instant)| it.0 == self.number;
            self.leads &= !self.reigns.lock().unwrap().iter().rev().find(own).is_none_or(lost);
            tokio::time::sleep(RETRY).await;
        }
    }

    /// It leads from now on, until the deadline of a renewal that was asked for then.
    fn reign(&mut self, asked: Instant) {
        let mut reigns = self.reigns.lock().unwrap();
        let until = asked + RENEW_DEADLINE;
        let own = reigns.iter_mut().rev().find(|it| it.0 == self.number);
        match own {
            Some(reign) if self.leads && reign.2 >= Instant::now() => reign.2 = until,
            _ => reigns.push((self.number, Instant::now(), until)),
        }
        self.leads = true;
    }

    async fn acquire_or_renew(&mut self) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.leases.get_opt(NAME).await? else {
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(None)) };
            let created = self.leases.create(&PostParams::default(), &lease).await?;
            self.observed = Some((created, Instant::now()));
            return Ok(true);
        };
        if self.observed.as_ref().is_none_or(|(seen, _)| *seen != lease) {
            self.observed = Some((lease.clone(), Instant::now()));
        }
        let own = self.number.to_string();
        let held = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        let fresh = self.observed.as_ref().is_some_and(|(_, at)| at.elapsed() < LEASE);
        if held.is_some_and(|holder| holder != own) && fresh {
            return Ok(false);
        }
        // Its resourceVersion is the condition.
        lease.spec = Some(self.spec(lease.spec.as_ref()));
        let written = self.leases.replace(NAME, &PostParams::default(), &lease).await?;
        self.observed = Some((written, Instant::now()));
        Ok(true)
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let own = Some(self.number.to_string());
        let renews = before.filter(|spec| spec.holder_identity == own);
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: own,
            lease_duration_seconds: Some(i32::try_from(LEASE.as_secs()).unwrap()),
            acquire_time: renews.map_or(now.clone(), |spec| spec.acquire_time.clone()),
            renew_time: now,
            lease_transitions: Some(transitions + i32::from(before.is_some() && renews.is_none())),
            ..LeaseSpec::default()
        }
    }
}
