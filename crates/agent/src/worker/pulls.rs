//! What a pod's machine asks of images: whether one is here, and to get it.

use jiff::Timestamp;
use toono_images::{BadImageRef, Image, ImageRef, Keyring, PullError};
use toono_podmachine::Observation;
use toono_wire::report::EventReport;

use super::actions::Job;
use crate::{join::chain, pull_secrets};

impl Job {
    pub(super) fn look_up(&self, container: String, image: &str) -> Observation {
        let reference: ImageRef = match image.parse() {
            Ok(reference) => reference,
            Err(error) => return invalid_name(container, error),
        };
        match self.node.images.lookup(&reference) {
            Some(found) => Observation::ImagePresent { container, image_id: image_id(&found) },
            None => Observation::ImageAbsent { container },
        }
    }

    pub(super) async fn pull(&self, container: String, image: &str) -> Observation {
        let reference: ImageRef = match image.parse() {
            Ok(reference) => reference,
            Err(error) => return invalid_name(container, error),
        };
        let keyring = match self.keyring() {
            Ok(keyring) => keyring,
            Err(message) => {
                return Observation::ImagePullFailed { container, unreachable: false, message };
            }
        };
        let began = std::time::Instant::now();
        match self.node.images.pull(&reference, &keyring).await {
            Ok(pulled) => Observation::ImagePulled {
                container,
                image_id: image_id(&pulled),
                took: began.elapsed(),
                size: pulled.size,
            },
            Err(error) => {
                let unreachable =
                    matches!(error, PullError::Unreachable { .. } | PullError::Interrupted { .. });
                if matches!(error, PullError::NoSpace { .. }) {
                    self.node.wants_room.notify_one();
                }
                let message = format!("{}; {}", chain(&error), error.hint());
                Observation::ImagePullFailed { container, unreachable, message }
            }
        }
    }

    /// The credentials of the pod's pull secrets. Those that are missing may not be needed.
    fn keyring(&self) -> Result<Keyring, String> {
        let pod = self.pod()?;
        let found = pull_secrets::of(&pod, &self.node.referents)?;
        if !found.missing.is_empty() {
            let names = found.missing.join(", ");
            self.node.outbox.events(vec![EventReport {
                namespace: pod.metadata.namespace.unwrap_or_default(),
                pod: pod.metadata.name.unwrap_or_default(),
                pod_uid: self.uid.clone(),
                field_path: String::new(),
                kind: "Warning".to_owned(),
                reason: "FailedToRetrieveImagePullSecret".to_owned(),
                message: format!(
                    "Unable to retrieve some image pull secrets ({names}); \
                     attempting to pull the image may not succeed."
                ),
                at: whole_seconds(self.node.clock.now().wall),
            }]);
        }
        Ok(found.keyring)
    }
}

fn invalid_name(container: String, error: BadImageRef) -> Observation {
    Observation::ImageNameInvalid { container, message: error.reason.to_owned() }
}

/// As `status.containerStatuses[].imageID` has it: `registry/repository@digest`.
fn image_id(image: &Image) -> String {
    let reference = &image.reference;
    format!("{}/{}@{}", reference.registry(), reference.repository(), image.digest)
}

pub(super) fn whole_seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}
