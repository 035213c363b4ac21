//! Upgrades that wait for an approval: what the cloud offers to a node for one of its pods, and what the node
//! answers. Both travel with the pod: the offer as an annotation, the answers as conditions of its status.

use serde::{Deserialize, Serialize};

/// The annotation of a pod that has an [`Offer`], as JSON.
pub const OFFER: &str = "apps.openyurt.io/pod-upgrade";
/// The annotation of a pod by which the cloud's side approves: its value is the offer's revision.
pub const APPROVED: &str = "apps.openyurt.io/upgrade-approved";
/// The annotation of a pod by which the cloud's side asks its node to pull the offer's images ahead: its value
/// is the offer's revision.
pub const PULL: &str = "apps.openyurt.io/image-pull";

/// The condition of a pod that an upgrade is offered to: `True`, and `False` once it is of the newest revision.
pub const NEEDED: &str = "PodNeedUpgrade";
/// The condition by which a node tells whether it has the offer's images: `False` from when it was asked to pull
/// them until they are there. Its message begins with the offer's revision.
pub const IMAGE_READY: &str = "PodImageReady";
/// The condition by which a node approves; its message is the offer's revision.
pub const APPROVED_HERE: &str = "PodUpgradeApproved";

/// As long as the name of a ControllerRevision.
const LONGEST_REVISION: usize = 253;

/// What a pod would be replaced by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// Tells revisions of one workload apart. An approval is of one revision and good for no other.
    pub revision: String,
    /// What its containers run, each once.
    #[serde(default)]
    pub images: Vec<String>,
    /// Names of the secrets of its namespace that these are pulled with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<String>,
    /// Of a pod that runs from a file of its node: what is to be in that file. The node writes it once the upgrade
    /// is approved; other pods are replaced by the cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
}

impl Offer {
    /// As the annotation has it.
    #[must_use]
    pub fn to_text(&self) -> String {
        // Encoding has no failure: it is texts only.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Of an annotation; none where it is no offer.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|offer: &Self| is_revision(&offer.revision))
    }
}

/// Revisions are digests or names of revisions; messages, which begin with one, can be told apart.
fn is_revision(text: &str) -> bool {
    let may = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=LONGEST_REVISION).contains(&text.len()) && text.bytes().all(may)
}

/// The message of [`IMAGE_READY`]: of which revision, and what is to be said.
#[must_use]
pub fn image_message(revision: &str, what: &str) -> String {
    format!("{revision}: {what}")
}

/// Whether a message of [`IMAGE_READY`] is of this revision.
#[must_use]
pub fn is_of_revision(message: &str, revision: &str) -> bool {
    message.split_once(':').is_some_and(|(of, _)| of == revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_survives_its_text_and_nothing_else_is_one() {
        let offer = Offer {
            revision: "5d9".to_owned(),
            images: vec!["web:2".to_owned()],
            image_pull_secrets: vec![],
            manifest: None,
        };
        assert_eq!(offer.to_text(), r#"{"revision":"5d9","images":["web:2"]}"#);
        assert_eq!(Offer::parse(&offer.to_text()), Some(offer));
        let wrong =
            ["", "{}", r#"{"revision":""}"#, r#"{"revision":"a: b"}"#, "true", r#"{"images":[]}"#];
        for text in wrong {
            assert_eq!(Offer::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_message_is_of_one_revision() {
        let message = image_message("5d9", "2 images are here");
        assert!(is_of_revision(&message, "5d9"));
        assert!(!is_of_revision(&message, "5d") && !is_of_revision("5d9", "5d9"));
    }
}
