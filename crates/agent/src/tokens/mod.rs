//! The tokens of service accounts that pods of this node hold: asked for in the cloud, kept on disk, renewed.
//!
//! A token is bound to its pod, and the server gives a node those of its own pods and no others. One that cannot be
//! renewed stays where it is: it may be good for whoever asks for it, and the next one comes when the link is back.

mod kept;
mod life;
mod wanted;

use std::{path::Path, sync::Arc, time::Duration};

use http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::{Mutex, Notify},
    time::{Instant, sleep, timeout},
};

pub(crate) use kept::{Kept, all, read};
pub(crate) use wanted::{Wanted, Wants};

use crate::{
    cloud::{Cloud, CloudError},
    join::chain,
    retry,
};

/// A pod that starts waits so long for a token; then it says why there is none, and tries again later.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks for tokens. Clones share their turns.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    cloud: Cloud,
    /// One is asked for at a time: all of them go by one connection.
    turn: Arc<Mutex<()>>,
    /// Wakes those who failed: there is a new one, so it may be worth a try.
    obtained: Arc<Notify>,
    start: Instant,
    phase: u32,
}

/// What of the answer matters.
#[derive(Deserialize)]
struct Answer {
    spec: Spec,
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    expiration_seconds: u32,
}

#[derive(Deserialize)]
struct Status {
    token: String,
}

impl Tokens {
    pub(crate) fn new(cloud: Cloud) -> Self {
        let (turn, obtained, start) = (Arc::default(), Arc::default(), Instant::now());
        Self { cloud, turn, obtained, start, phase: retry::random_u32() }
    }

    /// Asks for what a pod needs and has not got.
    ///
    /// # Errors
    /// Why one could not be had.
    pub(crate) async fn complete(&self, dir: &Path, wants: &Wants) -> Result<(), String> {
        for wanted in &wants.tokens {
            if read(dir, wanted).is_some() {
                continue;
            }
            let asked = timeout(PATIENCE, self.ask(dir, wants, wanted, None)).await;
            asked.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))?;
        }
        Ok(())
    }

    /// Waits until one of a pod's tokens is missing or due, and asks for all that are. It ends when it has got any.
    pub(crate) async fn renew(&self, dir: &Path, wants: &Wants) {
        loop {
            let due = wants.tokens.iter().map(|wanted| {
                let kept = read(dir, wanted);
                (self.wait(kept.as_ref()), wanted, kept.map(|it| it.obtained()))
            });
            let due: Vec<_> = due.collect();
            let next = due.iter().map(|it| it.0).min().unwrap_or(Duration::MAX);
            sleep(next).await;
            let (mut renewed, mut failed) = (false, false);
            for (_, wanted, old) in due.iter().filter(|it| it.0 <= next + life::TOGETHER) {
                match self.ask(dir, wants, wanted, *old).await {
                    Ok(is_new) => renewed |= is_new,
                    Err(error) => {
                        failed = true;
                        tracing::debug!(%wanted, error, "no token");
                    }
                }
            }
            if renewed {
                return;
            }
            if failed {
                self.until_worth_a_try().await;
            }
        }
    }

    async fn until_worth_a_try(&self) {
        tokio::select! {
            () = self.cloud.renewed() => {}
            () = self.obtained.notified() => {}
            () = sleep(retry::unasked()) => {}
        }
    }

    fn wait(&self, kept: Option<&Kept>) -> Duration {
        let Some(kept) = kept else { return Duration::ZERO };
        life::wait(kept.age(Timestamp::now()), kept.lifetime(), self.start.elapsed(), self.phase)
    }

    /// Asks for a token when it is this one's turn, unless by then there is another than the one of that time.
    /// Whether there is a new one.
    async fn ask(
        &self,
        dir: &Path,
        wants: &Wants,
        wanted: &Wanted,
        known: Option<i64>,
    ) -> Result<bool, String> {
        let _turn = self.turn.lock().await;
        let old = read(dir, wanted);
        if old.as_ref().map(Kept::obtained) != known {
            return Ok(false);
        }
        match self.cloud.post::<Answer>(&wants.path(wanted), request(wants, wanted)).await {
            Ok(Answer { spec, status }) => {
                let now = Timestamp::now();
                let new = Kept::new(wanted, status.token, spec.expiration_seconds, now);
                let new = new.in_place_of(old, now);
                kept::write(dir, wanted, &new).map_err(|error| chain(&error))?;
                tracing::debug!(%wanted, "a new token");
                self.obtained.notify_waiters();
                Ok(true)
            }
            Err(error) => {
                if let (true, Some(old)) = (is_refusal(&error), old.filter(|it| !it.is_refused())) {
                    // As far as this node is concerned it has no power any more.
                    kept::write(dir, wanted, &old.refused()).map_err(|error| chain(&error))?;
                }
                Err(reason(&error))
            }
        }
    }
}

/// The cloud knows the node and will not give it this token.
fn is_refusal(error: &CloudError) -> bool {
    let refusals = [StatusCode::FORBIDDEN, StatusCode::NOT_FOUND, StatusCode::CONFLICT];
    matches!(error, CloudError::Status { status, .. } if refusals.contains(status))
}

/// What the server says is enough where it says anything.
fn reason(error: &CloudError) -> String {
    match error {
        CloudError::Status { reason, .. } => reason.clone(),
        other => chain(other),
    }
}

fn request(wants: &Wants, wanted: &Wanted) -> Vec<u8> {
    let body = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {
        "audiences": wanted.audience.as_slice(), "expirationSeconds": wanted.seconds,
        "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": wants.name, "uid": wants.uid}}});
    body.to_string().into_bytes()
}
