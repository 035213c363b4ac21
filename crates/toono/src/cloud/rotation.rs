//! When the cluster secret has a new epoch and an old one ends; the file and the store that keep them. What
//! an epoch means is the session crate's business, who has moved the fleet's.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures::FutureExt as _;
use tokio::sync::Mutex;
use toono_fleet::{Fleet, Keyring, RotateReply, RotateRequest};
use toono_store::{Rev, Store};

use crate::{
    cloud::{
        secret,
        store::shared::{self, Files},
    },
    failure::Failure,
    shutdown::Shutdown,
};

/// How often the store, the clock and the fleet are asked.
const TICK: Duration = Duration::from_secs(1);
/// Ticks between two looks at all nodes, which only happen while there are older epochs.
const TICKS_BETWEEN_LOOKS: u32 = 15;
/// Servers that share a store know a new secret so long before its keys are granted: many times what it
/// takes to reach them, and nothing to a node.
const GRANTED_IN_S: u64 = 30;
/// An older epoch is accepted so long after the next one became current, for nodes that are away. One that
/// stays away longer has to ask for its key first when it returns, which costs it half a minute.
const ACCEPTED_FOR_S: u64 = 7 * 24 * 3600;
/// Other servers may write at the same moment.
const ATTEMPTS: usize = 5;

/// The keeper of this server's ring.
pub(crate) struct Rotation {
    dir: PathBuf,
    fleet: Fleet,
    /// The store that servers share their ring in, and the token that seals it there.
    shared: Option<(Store, String)>,
    max_age: Option<Duration>,
    ring: Mutex<Kept>,
}

struct Kept {
    ring: Keyring,
    /// The version of the shared one that this is.
    seen: Option<Rev>,
    /// The epoch that the fleet was told to grant.
    granted: u8,
}

impl Rotation {
    /// A keeper of `ring`, which is in `dir`. After `max_age` it begins an epoch by itself.
    pub(crate) fn new(
        dir: PathBuf,
        ring: Keyring,
        fleet: Fleet,
        shared: Option<(Store, String)>,
        max_age: Option<Duration>,
    ) -> Arc<Self> {
        let granted = ring.current_epoch(secret::now());
        let kept = Mutex::new(Kept { ring, seen: None, granted });
        let this = Arc::new(Self { dir, fleet, shared, max_age, ring: kept });
        let asked = this.clone();
        this.fleet.on_rotate(Box::new(move |request| {
            let this = asked.clone();
            async move { this.rotate(request).await.map_err(|failure| failure.to_string()) }.boxed()
        }));
        this
    }

    /// Until shutdown.
    pub(crate) async fn run(self: Arc<Self>, shutdown: Shutdown) {
        let mut ticks: u32 = 0;
        loop {
            tokio::select! {
                () = shutdown.clone().wait() => return,
                () = tokio::time::sleep(TICK) => ticks = ticks.wrapping_add(1),
            }
            if let Err(failure) = self.tick(ticks.is_multiple_of(TICKS_BETWEEN_LOOKS)).await {
                tracing::warn!(%failure, "the cluster's secret stays as it is");
            }
        }
    }

    async fn tick(&self, look: bool) -> Result<(), Failure> {
        let mut kept = self.ring.lock().await;
        self.follow(&mut kept)?;
        let now = secret::now();
        if kept.granted != kept.ring.current_epoch(now) {
            self.tell(&mut kept);
        }
        let due = |ring: &Keyring| {
            let old = self.max_age.is_some_and(|most| ring.age(now) >= most.as_secs());
            old && !ring.is_turning(now)
        };
        if due(&kept.ring) {
            let (secret, from) = (secret::random()?, self.granted_from(now));
            self.change(&mut kept, |ring| {
                // Another server may have been quicker.
                let due = due(ring);
                if due {
                    ring.rotate(secret, from);
                }
                due
            })
            .await?;
        }
        if look && !kept.ring.older(now).is_empty() {
            let moved = self.fleet.all_have_current_keys();
            let ended = |ring: &mut Keyring| ring.retire(now, moved, ACCEPTED_FOR_S);
            if ended(&mut kept.ring.clone()) {
                self.change(&mut kept, ended).await?;
            }
        }
        Ok(())
    }

    /// Begins an epoch because somebody asked.
    async fn rotate(&self, request: RotateRequest) -> Result<RotateReply, Failure> {
        let (secret, now) = (secret::random()?, secret::now());
        let from = if request.revoke { now } else { self.granted_from(now) };
        let mut kept = self.ring.lock().await;
        self.change(&mut kept, |ring| {
            // One that waits for its time is as new as can be. More of them would push out what nodes use.
            if ring.is_turning(now) && !request.revoke {
                return false;
            }
            ring.rotate(secret, from);
            if request.revoke {
                ring.retire(now, true, 0);
            }
            true
        })
        .await?;
        Ok(RotateReply {
            epoch: kept.ring.current_epoch(from),
            granted_in_s: from.saturating_sub(now),
            accepted: kept.ring.older(from),
            accepted_for_s: ACCEPTED_FOR_S,
        })
    }

    fn granted_from(&self, now: u64) -> u64 {
        if self.shared.is_some() { now + GRANTED_IN_S } else { now }
    }

    /// Takes the ring that another server wrote, if one did.
    fn follow(&self, kept: &mut Kept) -> Result<(), Failure> {
        let Some((store, token)) = &self.shared else { return Ok(()) };
        let newest = shared::version(store)?;
        if newest.is_none() || newest == kept.seen {
            return Ok(());
        }
        if let Some((revision, files)) = shared::read(store, token)? {
            let ring = ring_of(&files)?;
            self.keep(kept, ring, Some(revision))?;
        }
        Ok(())
    }

    /// Changes the ring where it is kept, and then here. Nothing is written when `change` says that there is
    /// nothing to change.
    async fn change(
        &self,
        kept: &mut Kept,
        change: impl Fn(&mut Keyring) -> bool,
    ) -> Result<(), Failure> {
        let Some((store, token)) = &self.shared else {
            let mut ring = kept.ring.clone();
            return if change(&mut ring) { self.keep(kept, ring, None) } else { Ok(()) };
        };
        for _ in 0..ATTEMPTS {
            let Some((revision, mut files)) = shared::read(store, token)? else { break };
            let mut ring = ring_of(&files)?;
            if !change(&mut ring) {
                return self.keep(kept, ring, Some(revision));
            }
            files.insert(secret::FILE_NAME.to_owned(), ring.render());
            if let Some(written) = shared::replace(store, token, &files, revision).await? {
                return self.keep(kept, ring, Some(written));
            }
        }
        Err(Failure::new(
            "store-failed",
            "the cluster's shared credentials cannot be changed",
            "look at the store, and try again",
        ))
    }

    /// The file first: a server that starts anew must accept what this one granted.
    fn keep(&self, kept: &mut Kept, ring: Keyring, seen: Option<Rev>) -> Result<(), Failure> {
        if ring != kept.ring {
            secret::save(&self.dir, &ring)?;
            kept.ring = ring;
            self.tell(kept);
        }
        kept.seen = seen;
        Ok(())
    }

    fn tell(&self, kept: &mut Kept) {
        let now = secret::now();
        self.fleet.set_secrets(kept.ring.secrets(now));
        kept.granted = kept.ring.current_epoch(now);
        let older = kept.ring.older(now);
        tracing::info!(epoch = kept.granted, ?older, "the cluster's secret has other epochs");
    }
}

fn ring_of(files: &Files) -> Result<Keyring, Failure> {
    let text = files.get(secret::FILE_NAME).map(String::as_str).unwrap_or_default();
    Keyring::parse(text).map_err(|error| {
        let hint = "restore the store from a backup";
        Failure::caused("cluster-secret", &error, hint)
    })
}
