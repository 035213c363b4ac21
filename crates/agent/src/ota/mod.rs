//! Upgrades that wait for an approval: what is offered to pods of this node, who may say yes here, and what comes
//! of it.
//!
//! An offer comes with the pod ([`toono_wire::upgrade`]). An answer is on disk before anything is done about it,
//! so it may be given while the link is down. Images are pulled first, the old pod runs meanwhile; then the cloud
//! hears of the approval and replaces the pod, or, where the pod runs from a file, this node writes the file.

mod answers;
mod carry;
mod serve;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use toono_wire::upgrade::{self, Offer};

use crate::{
    AgentError,
    cloud::Cloud,
    outbox::Outbox,
    statics::{self, Statics},
    sync::Sync,
    worker::Node,
};
use answers::Answers;
pub use serve::SOCKET;

/// Answers offers, for as long as the agent lives.
#[derive(Clone)]
pub(crate) struct Ota {
    inner: Arc<Inner>,
}

struct Inner {
    node: Arc<Node>,
    sync: Sync,
    statics: Statics,
    cloud: Cloud,
    answers: Mutex<Answers>,
    /// Where it is asked by TCP, if anywhere.
    listen: Option<SocketAddr>,
}

/// An offer to one pod.
#[derive(Debug, Clone)]
struct Offered {
    uid: String,
    pod: Pod,
    offer: Offer,
    /// The cloud's side asks to pull.
    pull: bool,
    /// The cloud's side approves.
    approved: bool,
}

/// One row of what a person at the node sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OfferState {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// What is offered; an approval is of this one and no other.
    pub revision: String,
    /// The images of it.
    pub images: Vec<String>,
    /// `waits`, `pulling`, `pulled` or `approved`.
    pub state: String,
}

/// Why there is nothing to approve.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("there is no pod {namespace}/{name} on this node; GET /pods lists them")]
    NoPod { namespace: String, name: String },
    #[error("Pod is not-updatable: no upgrade is offered to {namespace}/{name}")]
    NotOffered { namespace: String, name: String },
    #[error("the answer cannot be kept, so it does not count: {0}")]
    Disk(String),
}

impl Ota {
    pub(crate) fn load(
        node: Arc<Node>,
        sync: Sync,
        statics: Statics,
        cloud: Cloud,
        listen: Option<SocketAddr>,
    ) -> Result<Self, AgentError> {
        let answers = Mutex::new(Answers::load(&node.data)?);
        Ok(Self { inner: Arc::new(Inner { node, sync, statics, cloud, answers, listen }) })
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.inner.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outbox(&self) -> &Outbox {
        &self.inner.node.outbox
    }

    /// The pods that the cloud wants here.
    fn pods(&self) -> Vec<Pod> {
        let bundles = self.inner.sync.bundles();
        let pods = bundles.pods().unwrap_or_default();
        let wanted = |pod: &Pod| pod.metadata.uid.as_deref().is_some_and(|uid| bundles.wants(uid));
        pods.into_iter().filter(wanted).collect()
    }

    fn offers(&self) -> Vec<Offered> {
        self.pods().into_iter().filter_map(Offered::of).collect()
    }

    /// Somebody at this node says yes: to the upgrade, or to pulling its images and no more. Whether that is new.
    fn answer(&self, namespace: &str, name: &str, approve: bool) -> Result<bool, Refused> {
        let pods = self.pods();
        let named = |pod: &&Pod| {
            let meta = &pod.metadata;
            meta.namespace.as_deref() == Some(namespace) && meta.name.as_deref() == Some(name)
        };
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let Some(pod) = pods.iter().find(named) else {
            return Err(Refused::NoPod { namespace, name });
        };
        let Some(offered) = Offered::of(pod.clone()) else {
            return Err(Refused::NotOffered { namespace, name });
        };
        let now = self.now();
        let given = self.answers().give(&offered.uid, &offered.offer, approve, now);
        let is_new = given.map_err(|error| Refused::Disk(crate::join::chain(&error)))?;
        if is_new {
            let (reason, what) = match approve {
                true => ("UpgradeApproved", "approved on the node"),
                false => ("ImagePullRequested", "to be pulled, by somebody on the node"),
            };
            self.tell(&offered, reason, format!("Revision {} is {what}", offered.offer.revision));
            self.inner.node.offers.notify_one();
        }
        Ok(is_new)
    }

    fn states(&self) -> Vec<OfferState> {
        let answers = self.answers();
        let state = |offered: Offered| {
            let answer = answers.to(&offered.uid, &offered.offer);
            let approved = offered.approved || answer.is_some_and(|it| it.approved);
            let asked = offered.pull || answer.is_some();
            let state = match answer.is_some_and(|it| it.pulled) {
                true if approved => "approved",
                true => "pulled",
                false if approved || asked => "pulling",
                false => "waits",
            };
            OfferState {
                namespace: offered.pod.metadata.namespace.unwrap_or_default(),
                pod: offered.pod.metadata.name.unwrap_or_default(),
                revision: offered.offer.revision,
                images: offered.offer.images,
                state: state.to_owned(),
            }
        };
        self.offers().into_iter().map(state).collect()
    }

    fn now(&self) -> Timestamp {
        self.inner.node.clock.now().wall
    }

    fn tell(&self, offered: &Offered, reason: &str, message: String) {
        let meta = &offered.pod.metadata;
        self.outbox().events(vec![toono_wire::report::EventReport {
            namespace: meta.namespace.clone().unwrap_or_default(),
            pod: meta.name.clone().unwrap_or_default(),
            pod_uid: offered.uid.clone(),
            field_path: String::new(),
            kind: "Normal".to_owned(),
            reason: reason.to_owned(),
            message,
            at: Timestamp::from_second(self.now().as_second()).unwrap_or_default().to_string(),
        }]);
    }
}

impl Offered {
    fn of(pod: Pod) -> Option<Self> {
        if pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let note = |name: &str| pod.metadata.annotations.as_ref()?.get(name).map(String::as_str);
        let offer = Offer::parse(note(upgrade::OFFER)?)?;
        let says = |name: &str| note(name) == Some(offer.revision.as_str());
        let (pull, approved) = (says(upgrade::PULL), says(upgrade::APPROVED));
        // Only what shows a file's pod may bring a file.
        let fits = offer.manifest.is_some() == statics::is_mirror(&pod);
        let uid = pod.metadata.uid.clone()?;
        fits.then_some(Self { uid, pod, offer, pull, approved })
    }
}

/// Whether a pod that changed may have an offer.
pub(crate) fn concerns(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(upgrade::OFFER))
}

/// The images of what is offered to a pod: while it is, they are not to be deleted.
pub(crate) fn images_offered(pod: &Pod) -> Vec<String> {
    let annotations = pod.metadata.annotations.as_ref();
    let offer = annotations.and_then(|all| Offer::parse(all.get(upgrade::OFFER)?));
    offer.map(|offer| offer.images).unwrap_or_default()
}
