//! One leader among several servers: who holds a Lease does the work, the others wait. The holder renews
//! it; who cannot renew it in time stops working before another may begin.
//!
//! <https://kubernetes.io/docs/concepts/architecture/leases/#leader-election>

use std::{future::Future, pin::pin, time::Duration};

use futures::{StreamExt, future::Either};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
    runtime::watcher,
};
use tokio::{sync::watch, time::Instant};
use tracing::{debug, info, warn};

use crate::error::{chain, is_already_exists, is_conflict, is_not_found};

const NAMESPACE: &str = "kube-system";
/// One lease for all controllers and the scheduler, which are one loop here.
pub const CLUSTER_LEASE: &str = "kube-controller-manager";
/// The lease of those that run beside the controllers of another Kubernetes.
pub const BESIDE_LEASE: &str = "toono-controllers";
/// Others wait so long for a holder that is silent: Kubernetes' defaults, as the next two.
const DURATION: Duration = Duration::from_secs(15);
/// The holder stops when it could not renew for so long.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Most of the delay that each waiting one adds to it.
const JITTER_MILLISECONDS: u64 = 400;
/// Between two tries.
const RETRY: Duration = Duration::from_secs(2);
/// What cannot be helped by trying again is said so often.
const COMPLAINTS_APART: Duration = Duration::from_secs(60);

/// Has `work` done whenever this process holds the lease of this name, until `shutdown`. `work` gets a future that
/// completes when it has to stop; only once it has stopped the lease is given back.
pub async fn lead<W, F>(
    client: Client,
    lease: &str,
    identity: &str,
    shutdown: impl Future<Output = ()> + Send,
    mut work: W,
) where
    W: FnMut(futures::future::BoxFuture<'static, ()>) -> F,
    F: Future<Output = ()>,
{
    let mut candidate = Candidate {
        leases: Api::namespaced(client, NAMESPACE),
        lease,
        identity,
        seen: None,
        told: None,
    };
    let mut shutdown = pin!(shutdown);
    loop {
        let won = {
            let winning = pin!(candidate.win());
            matches!(futures::future::select(&mut shutdown, winning).await, Either::Right(((), _)))
        };
        if !won {
            return;
        }
        info!(identity, "leading");
        let (stop, stopping) = watch::channel(false);
        let working = work(Box::pin(stopped(stopping)));
        let ends = {
            let holding = pin!(candidate.hold());
            let mut working = pin!(working);
            let over = futures::future::select(&mut shutdown, holding);
            let ends = tokio::select! {
                over = over => matches!(over, Either::Left(_)),
                () = &mut working => true,
            };
            let _ = stop.send(true);
            if !ends {
                warn!(identity, "the lease is lost: stopping");
            }
            working.await;
            ends
        };
        if ends {
            candidate.release().await;
            return;
        }
    }
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that nobody leads any more, which is an end as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

struct Candidate<'i> {
    leases: Api<Lease>,
    lease: &'i str,
    identity: &'i str,
    /// The revision of the lease as last seen, and when it was first seen: clocks of machines differ, so
    /// only this one's passing counts.
    seen: Option<(String, Instant)>,
    /// When it was last said that the lease cannot be taken.
    told: Option<Instant>,
}

impl Candidate<'_> {
    /// Waits until the lease is ours.
    async fn win(&mut self) {
        let events = watcher::watch_object(self.leases.clone(), self.lease);
        let mut events = pin!(events);
        loop {
            match self.try_to_win().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => self.complain(&error),
            }
            // A lease that is given back is taken at once.
            let pause = pin!(tokio::time::sleep(RETRY + jitter()));
            let _ = futures::future::select(pause, events.next()).await;
        }
    }

    /// In one line a while.
    fn complain(&mut self, error: &kube::Error) {
        let error = chain(error);
        if self.told.is_some_and(|told| told.elapsed() < COMPLAINTS_APART) {
            debug!(error, "cannot take the lease");
        } else {
            warn!(error, lease = self.lease, "cannot take the lease; trying again");
            self.told = Some(Instant::now());
        }
    }

    async fn try_to_win(&mut self) -> Result<bool, kube::Error> {
        let Some(lease) = self.leases.get_opt(self.lease).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.lease.to_owned()), ..ObjectMeta::default() },
                spec: Some(self.held(0)),
            };
            return settled(self.leases.create(&PostParams::default(), &lease).await);
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => {
                let now = Instant::now();
                self.seen = Some((version, now));
                now
            }
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        let lasts = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let lasts = lasts.map_or(DURATION, Duration::from_secs);
        let is_free = holder.is_empty() || holder == self.identity || since.elapsed() > lasts;
        if !is_free {
            return Ok(false);
        }
        let transitions = spec.lease_transitions.unwrap_or(0).saturating_add(1);
        let taken = Lease { spec: Some(self.held(transitions)), ..lease };
        settled(self.leases.replace(self.lease, &PostParams::default(), &taken).await)
    }

    /// Renews the lease until that has failed for too long.
    async fn hold(&self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RETRY).await;
            let left = RENEW_DEADLINE.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.renew()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => {
                    warn!(error = chain(&error), "cannot renew the lease");
                    if renewed.elapsed() + RETRY >= RENEW_DEADLINE {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }

    /// Whether the lease is still ours.
    async fn renew(&self) -> Result<bool, kube::Error> {
        let lease = self.leases.get(self.lease).await?;
        let Some(spec) = self.own(&lease) else { return Ok(false) };
        let spec = LeaseSpec { renew_time: Some(MicroTime(Timestamp::now())), ..spec };
        let renewed = Lease { spec: Some(spec), ..lease };
        match self.leases.replace(self.lease, &PostParams::default(), &renewed).await {
            // Somebody wrote to it, which need not mean that somebody took it.
            Err(error) if is_conflict(&error) => {
                Ok(self.own(&self.leases.get(self.lease).await?).is_some())
            }
            written => written.map(|_| true),
        }
    }

    fn own(&self, lease: &Lease) -> Option<LeaseSpec> {
        let spec = lease.spec.clone()?;
        (spec.holder_identity.as_deref() == Some(self.identity)).then_some(spec)
    }

    /// Gives the lease back, so that another one need not wait for its end.
    async fn release(&self) {
        let given_back = async {
            let lease = self.leases.get(self.lease).await?;
            let Some(spec) = self.own(&lease) else { return Ok(()) };
            let spec = LeaseSpec {
                holder_identity: Some(String::new()),
                lease_duration_seconds: Some(1),
                renew_time: Some(MicroTime(Timestamp::now())),
                ..spec
            };
            let free = Lease { spec: Some(spec), ..lease };
            self.leases.replace(self.lease, &PostParams::default(), &free).await.map(drop)
        };
        match tokio::time::timeout(RETRY, given_back).await {
            Ok(Ok(())) => info!(identity = self.identity, "gave the lease back"),
            Ok(Err(error)) => warn!(error = chain(&error), "cannot give the lease back"),
            Err(_) => warn!("cannot give the lease back in time"),
        }
    }

    fn held(&self, transitions: i32) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.identity.to_owned()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

/// So that candidates do not all ask in the same moment.
fn jitter() -> Duration {
    Duration::from_millis(fastrand::u64(..JITTER_MILLISECONDS))
}

/// Whether a try to take the lease worked; that another was quicker is no failure.
fn settled(written: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match written {
        Ok(_) => Ok(true),
        Err(error) if is_conflict(&error) || is_already_exists(&error) || is_not_found(&error) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
