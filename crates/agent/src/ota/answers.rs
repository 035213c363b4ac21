//! What was answered to offers of upgrades, on disk: an approval that was given while the link was down, or just
//! before a power cut, is carried out all the same, and once.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use toono_wire::upgrade::{self, Offer};

use crate::{
    AgentError,
    disk::{self, Durability},
};

/// What somebody at this node said to one offer, and how far it is carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Of the offer. To another offer it says nothing.
    pub(super) revision: String,
    /// It may be carried out. Otherwise its images are to be pulled, and nothing else.
    pub(super) approved: bool,
    /// The images are here.
    pub(super) pulled: bool,
    /// When it was given.
    pub(super) at: Timestamp,
}

/// All answers, by the pod's uid.
#[derive(Debug)]
pub(super) struct Answers {
    path: PathBuf,
    known: BTreeMap<String, Answer>,
}

impl Answers {
    /// Reads them. Damaged ones are no approval: somebody has to say it again.
    pub(super) fn load(data: &Path) -> Result<Self, AgentError> {
        let path = data.join("approvals");
        let stored = disk::read_checked(&path)?;
        let known = stored.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(Self { path, known: known.unwrap_or_default() })
    }

    /// The answer to this offer.
    pub(super) fn to(&self, uid: &str, offer: &Offer) -> Option<&Answer> {
        self.known.get(uid).filter(|answer| answer.revision == offer.revision)
    }

    /// Keeps an answer; whether it says something new. It is on disk before anything comes of it. An approval is
    /// not taken back by a wish to pull.
    pub(super) fn give(
        &mut self,
        uid: &str,
        offer: &Offer,
        approve: bool,
        at: Timestamp,
    ) -> Result<bool, AgentError> {
        let before = self.to(uid, offer);
        if before.is_some_and(|answer| answer.approved || !approve) {
            return Ok(false);
        }
        let pulled = before.is_some_and(|answer| answer.pulled);
        let revision = offer.revision.clone();
        self.put(uid, Answer { revision, approved: approve, pulled, at })?;
        Ok(true)
    }

    /// The images are here.
    pub(super) fn pulled(&mut self, uid: &str, offer: &Offer) -> Result<(), AgentError> {
        match self.to(uid, offer).cloned() {
            Some(answer) if !answer.pulled => self.put(uid, Answer { pulled: true, ..answer }),
            _ => Ok(()),
        }
    }

    /// Forgets what was said of pods that are no more.
    pub(super) fn keep_only(&mut self, is_there: impl Fn(&str) -> bool) -> Result<(), AgentError> {
        let before = self.known.len();
        self.known.retain(|uid, _| is_there(uid));
        if self.known.len() == before { Ok(()) } else { self.save() }
    }

    fn put(&mut self, uid: &str, answer: Answer) -> Result<(), AgentError> {
        self.known.insert(uid.to_owned(), answer);
        self.save()
    }

    fn save(&self) -> Result<(), AgentError> {
        let bytes = serde_json::to_vec(&self.known).unwrap_or_default();
        disk::write_checked(&self.path, &bytes, Durability::Synced)
    }
}

/// The conditions by which an answer is told. `state` is what there is to say of the images.
pub(super) fn conditions(answer: &Answer, state: &str, approves: bool) -> Vec<Value> {
    let condition = |type_: &str, holds: bool, reason: &str, message: String| {
        json!({"type": type_, "status": if holds { "True" } else { "False" }, "reason": reason,
            "message": message, "lastTransitionTime": whole_seconds(answer.at)})
    };
    let reason = if answer.pulled { "Pulled" } else { "Pulling" };
    let message = upgrade::image_message(&answer.revision, state);
    let mut all = vec![condition(upgrade::IMAGE_READY, answer.pulled, reason, message)];
    if approves && answer.approved && answer.pulled {
        let message = answer.revision.clone();
        all.push(condition(upgrade::APPROVED_HERE, true, "ApprovedOnNode", message));
    }
    all
}

fn whole_seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(revision: &str) -> Offer {
        Offer {
            revision: revision.to_owned(),
            images: vec![],
            image_pull_secrets: vec![],
            manifest: None,
        }
    }

    #[test]
    fn an_approval_is_kept_and_is_of_one_offer() {
        let dir = tempfile::tempdir().unwrap();
        let mut answers = Answers::load(dir.path()).unwrap();
        let now = Timestamp::UNIX_EPOCH;
        assert!(answers.give("u", &offer("a"), false, now).unwrap(), "pull");
        answers.pulled("u", &offer("a")).unwrap();
        assert!(answers.give("u", &offer("a"), true, now).unwrap(), "then approve");
        assert!(!answers.give("u", &offer("a"), true, now).unwrap(), "said already");
        assert!(!answers.give("u", &offer("a"), false, now).unwrap(), "more was said already");
        let mut answers = Answers::load(dir.path()).unwrap();
        let kept = answers.to("u", &offer("a")).unwrap();
        assert!(kept.approved && kept.pulled);
        assert_eq!((answers.to("u", &offer("b")), answers.to("v", &offer("a"))), (None, None));
        answers.keep_only(|uid| uid != "u").unwrap();
        assert_eq!(Answers::load(dir.path()).unwrap().to("u", &offer("a")), None);
    }

    #[test]
    fn the_cloud_hears_of_an_approval_when_the_images_are_here() {
        let answer = Answer {
            revision: "a".to_owned(),
            approved: true,
            pulled: false,
            at: Timestamp::UNIX_EPOCH,
        };
        let types = |answer: &Answer| -> Vec<(String, String)> {
            let told = conditions(answer, "x", true);
            let text = |it: &Value, key: &str| it[key].as_str().unwrap().to_owned();
            told.iter().map(|it| (text(it, "type"), text(it, "status"))).collect()
        };
        let pair = |type_: &str, status: &str| (type_.to_owned(), status.to_owned());
        assert_eq!(types(&answer), [pair(upgrade::IMAGE_READY, "False")]);
        let pulled = Answer { pulled: true, ..answer };
        assert_eq!(
            types(&pulled),
            [pair(upgrade::IMAGE_READY, "True"), pair(upgrade::APPROVED_HERE, "True")]
        );
        assert_eq!(conditions(&pulled, "x", false).len(), 1, "a file is this node's own matter");
    }
}
