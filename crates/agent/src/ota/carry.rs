//! Carries out what was answered: pulls images until they are here, tells the cloud, writes the file of a pod that
//! runs from one.

use std::time::Duration;

use k8s_openapi::api::core::v1::{LocalObjectReference, Pod};
use tokio::time::{Instant, sleep_until};
use toono_images::ImageRef;

use super::{Offered, Ota, answers};
use crate::{join::chain, pull_secrets};

/// After images could not be pulled; a link that comes back ends the wait. What was pulled of a layer stays.
const PULL_AGAIN: Duration = Duration::from_secs(30);

impl Ota {
    /// For as long as the agent lives.
    pub(crate) async fn run(self) {
        let cloud = self.inner.cloud.clone();
        let mut again = Some(Instant::now());
        loop {
            let due = async {
                match again {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.inner.node.offers.notified() => {}
                () = cloud.renewed(), if again.is_some() => {}
            }
            again = match self.step().await {
                true => None,
                false => Some(Instant::now() + PULL_AGAIN),
            };
        }
    }

    /// Looks at every offer once; whether nothing is left to be tried again.
    async fn step(&self) -> bool {
        let offers = self.offers();
        let is_there = |uid: &str| offers.iter().any(|offered| offered.uid == uid);
        if let Err(error) = self.answers().keep_only(is_there) {
            tracing::warn!(error = chain(&error), "old answers stay");
        }
        let mut done = true;
        for offered in &offers {
            match self.carry(offered).await {
                Ok(()) => {}
                Err(reason) => {
                    tracing::info!(pod = offered.pod.metadata.name, reason, "an upgrade waits");
                    done = false;
                }
            }
        }
        done
    }

    async fn carry(&self, offered: &Offered) -> Result<(), String> {
        let (uid, offer) = (offered.uid.as_str(), &offered.offer);
        let is_file = offer.manifest.is_some();
        // A daemon that the cloud approved without asking for its images is replaced by the cloud at once.
        let approved_there = offered.approved && is_file;
        if offered.pull || approved_there {
            let given = self.answers().give(uid, offer, approved_there, self.now());
            given.map_err(|error| chain(&error))?;
        }
        let Some(answer) = self.answers().to(uid, offer).cloned() else { return Ok(()) };
        if !answer.pulled {
            self.pull(offered).await?;
            self.answers().pulled(uid, offer).map_err(|error| chain(&error))?;
        }
        let Some(answer) = self.answers().to(uid, offer).cloned() else { return Ok(()) };
        let state = format!("{} images are here", offer.images.len());
        self.outbox().answer(uid, answers::conditions(&answer, &state, !is_file));
        match (&offer.manifest, answer.approved) {
            (Some(text), true) => self.write(offered, text),
            _ => Ok(()),
        }
    }

    async fn pull(&self, offered: &Offered) -> Result<(), String> {
        let answer = self.answers().to(&offered.uid, &offered.offer).cloned();
        let tell = |state: &str| {
            if let Some(answer) = &answer {
                self.outbox().answer(&offered.uid, answers::conditions(answer, state, false));
            }
        };
        tell("pulling");
        let found = pull_secrets::of(&with_secrets(offered), &self.inner.node.referents)?;
        for image in &offered.offer.images {
            let reference: ImageRef =
                image.parse().map_err(|error| format!("{image:?}: {error}"))?;
            if self.inner.node.images.lookup(&reference).is_some() {
                continue;
            }
            if let Err(error) = self.inner.node.images.pull(&reference, &found.keyring).await {
                let missing = match found.missing.is_empty() {
                    true => String::new(),
                    false => format!("; this node has no secret {}", found.missing.join(", ")),
                };
                let text = format!("{image} is not pulled: {}{missing}", chain(&error));
                tell(&text);
                return Err(text);
            }
        }
        Ok(())
    }

    fn write(&self, offered: &Offered, text: &str) -> Result<(), String> {
        if self.inner.statics.replace(&offered.pod, text)? {
            let revision = &offered.offer.revision;
            self.tell(offered, "UpgradeStarted", format!("The file says revision {revision} now"));
            self.inner.node.awake.notify_waiters();
        }
        Ok(())
    }
}

/// The pod, with the pull secrets of what is offered. Which of them this node has depends on what its pods of now
/// reference.
fn with_secrets(offered: &Offered) -> Pod {
    let mut pod = offered.pod.clone();
    let names = offered.offer.image_pull_secrets.iter();
    let secrets = names.map(|name| LocalObjectReference { name: name.clone() });
    pod.spec.get_or_insert_default().image_pull_secrets = Some(secrets.collect());
    pod
}
