//! What the API shows of pods that run from files: mirrors, made, replaced and removed by this node.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{HASH, MIRROR, State, Statics, Title, annotation, title};
use crate::{
    cloud::{Cloud, CloudError},
    join::chain,
    retry,
};

/// The pause after the first failure; it doubles.
const RETRY: Duration = Duration::from_secs(5);
/// The longest such pause: the link may be down for weeks, and pods run without mirrors as well.
const RETRY_MOST: Duration = Duration::from_secs(5 * 60);

/// A mirror that the API has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mirror {
    pub(super) uid: String,
    hash: String,
    /// Somebody deletes it.
    leaving: bool,
    /// The cloud has said so, and will say when it is gone.
    told: bool,
}

impl Mirror {
    /// Whether it shows this pod.
    pub(super) fn shows(&self, uid: &str) -> bool {
        self.hash == uid && !self.leaving
    }
}

/// What is to be done about a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Errand {
    Create { uid: String },
    Delete { title: Title, uid: String },
}

/// Who writes mirrors.
pub(crate) struct MirrorKeeper {
    pub(crate) statics: Statics,
    pub(crate) cloud: Cloud,
    /// The Node's name and uid.
    pub(crate) node: (String, String),
}

impl Statics {
    /// The cloud has a mirror, or another version of one.
    pub(crate) fn see(&self, pod: &Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        let mirror = Mirror {
            uid,
            hash: annotation(pod, MIRROR).unwrap_or_default().to_owned(),
            leaving: pod.metadata.deletion_timestamp.is_some(),
            told: true,
        };
        self.keep(title(pod), mirror);
    }

    /// Forgets the mirrors that the cloud no longer has; their uids.
    pub(crate) fn forget(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let mut gone = Vec::new();
        self.state().mirrors.retain(|_, mirror| {
            let stays = !mirror.told || wanted(&mirror.uid);
            if !stays {
                gone.push(mirror.uid.clone());
            }
            stays
        });
        if !gone.is_empty() {
            self.inner.changed.notify_one();
        }
        gone
    }

    fn keep(&self, title: Title, mirror: Mirror) {
        let mut state = self.state();
        state.mirrors.insert(title, mirror);
        self.relate(&mut state);
        drop(state);
        self.inner.changed.notify_one();
    }
}

impl State {
    fn errand(&self) -> Option<Errand> {
        let shown = |title: &Title, mirror: &Mirror| {
            self.pods.iter().any(|(uid, it)| it == title && mirror.shows(uid))
        };
        let wrong = self.mirrors.iter().find(|(title, mirror)| !shown(title, mirror));
        if let Some((title, mirror)) = wrong {
            return Some(Errand::Delete { title: title.clone(), uid: mirror.uid.clone() });
        }
        let missing = self.pods.iter().find(|(_, title)| !self.mirrors.contains_key(*title));
        missing.map(|(uid, _)| Errand::Create { uid: uid.clone() })
    }
}

impl MirrorKeeper {
    /// Writes what is to be written, for as long as the agent lives.
    pub(crate) async fn run(self) {
        let mut pause = RETRY;
        loop {
            let errand = self.statics.state().errand();
            let Some(errand) = errand else {
                self.statics.inner.changed.notified().await;
                continue;
            };
            match self.go(&errand).await {
                Ok(()) => pause = RETRY,
                Err(error) => {
                    tracing::debug!(error = chain(&error), ?errand, "a mirror is not written");
                    tokio::time::sleep(pause / 2 + retry::jittered(pause / 2)).await;
                    pause = (pause * 2).min(RETRY_MOST);
                }
            }
        }
    }

    async fn go(&self, errand: &Errand) -> Result<(), CloudError> {
        match errand {
            Errand::Create { uid } => self.create(uid).await,
            Errand::Delete { title, uid } => self.delete(title, uid).await,
        }
    }

    async fn create(&self, uid: &str) -> Result<(), CloudError> {
        let Some(pod) = self.statics.pod(uid) else { return Ok(()) };
        let title = title(&pod);
        let body = serde_json::to_vec(&self.mirror(&pod)).unwrap_or_default();
        let path = format!("/api/v1/namespaces/{}/pods", title.0);
        let made: Value = self.cloud.post(&path, body).await?;
        let made = made.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
        let mirror =
            Mirror { uid: made.to_owned(), hash: uid.to_owned(), leaving: false, told: false };
        self.statics.keep(title, mirror);
        Ok(())
    }

    async fn delete(&self, title: &Title, uid: &str) -> Result<(), CloudError> {
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
                             "preconditions": {"uid": uid}});
        let path = format!("/api/v1/namespaces/{}/pods/{}", title.0, title.1);
        match self.cloud.delete(&path, options.to_string().into_bytes()).await {
            // Not there, or another one: it is the cloud's turn to say what there is.
            Err(CloudError::Status { status, .. }) if matches!(status.as_u16(), 404 | 409) => {}
            other => other?,
        }
        let mut state = self.statics.state();
        if state.mirrors.get(title).is_some_and(|mirror| mirror.uid == uid) {
            state.mirrors.remove(title);
        }
        Ok(())
    }

    /// As the kubelet writes it: the pod, owned by the Node, with the mark of a mirror.
    fn mirror(&self, pod: &Pod) -> Value {
        let mut pod = pod.clone();
        let hash = annotation(&pod, HASH).unwrap_or_default().to_owned();
        let meta = &mut pod.metadata;
        meta.uid = None;
        meta.annotations.get_or_insert_default().insert(MIRROR.to_owned(), hash);
        let mut value = serde_json::to_value(&pod).unwrap_or_default();
        let (name, uid) = &self.node;
        let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid, "controller": true}]);
        if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.insert("ownerReferences".to_owned(), owner);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(pods: &[&str], mirrors: &[(&str, bool)]) -> State {
        let title = ("d".to_owned(), "p".to_owned());
        let mirror = |(hash, leaving): &(&str, bool)| Mirror {
            uid: "m".to_owned(),
            hash: (*hash).to_owned(),
            leaving: *leaving,
            told: true,
        };
        State {
            pods: pods.iter().map(|uid| ((*uid).to_owned(), title.clone())).collect(),
            mirrors: mirrors.iter().map(|it| (title.clone(), mirror(it))).collect(),
            ..State::default()
        }
    }

    #[test]
    fn there_is_one_mirror_of_each_pod_as_it_is_now() {
        let create = Some(Errand::Create { uid: "a".to_owned() });
        let delete =
            Some(Errand::Delete { title: ("d".to_owned(), "p".to_owned()), uid: "m".to_owned() });
        assert_eq!(state(&[], &[]).errand(), None);
        assert_eq!(state(&["a"], &[]).errand(), create);
        assert_eq!(state(&["a"], &[("a", false)]).errand(), None);
        assert_eq!(state(&["b"], &[("a", false)]).errand(), delete, "of another version");
        assert_eq!(state(&["a"], &[("a", true)]).errand(), delete, "somebody deletes it");
        assert_eq!(state(&[], &[("a", false)]).errand(), delete, "the file is gone");
    }
}
