//! Events: what controllers tell people. Repeated ones are counted in one object, many similar ones
//! become one, and who talks too much is not listened to. Losing an event never matters to the
//! cluster, so they are written behind and dropped when too many.

mod correlate;

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{sync::mpsc, time::Instant};
use tracing::debug;

use self::correlate::{Correlator, Told};
use crate::{
    error::{chain, is_not_found},
    object::{Metadata, OfKind},
};

/// Events waiting to be written; more are dropped.
const MAX_WAITING: usize = 1000;

/// `Normal` or `Warning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Severity {
    Normal,
    Warning,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Something that happened to an object, but for its wording.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Subject {
    component: &'static str,
    severity: Severity,
    reason: &'static str,
    kind: String,
    api_version: String,
    namespace: String,
    name: String,
    uid: String,
}

struct Happening {
    subject: Subject,
    message: String,
}

/// Takes events from controllers and writes them.
pub(crate) struct Recorder {
    client: Client,
    sender: mpsc::Sender<Happening>,
    receiver: Mutex<Option<mpsc::Receiver<Happening>>>,
}

impl Recorder {
    pub(crate) fn new(client: Client) -> Self {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        Self { client, sender, receiver: Mutex::new(Some(receiver)) }
    }

    /// Tells that `reason` happened to `object`; never waits.
    pub(crate) fn record<O: OfKind>(
        &self,
        component: &'static str,
        object: &O,
        severity: Severity,
        reason: &'static str,
        message: String,
    ) {
        let metadata = object.metadata();
        let subject = Subject {
            component,
            severity,
            reason,
            kind: O::kind().into_owned(),
            api_version: O::api_version().into_owned(),
            namespace: metadata.namespace().to_owned(),
            name: metadata.name().to_owned(),
            uid: metadata.uid().to_owned(),
        };
        if self.sender.try_send(Happening { subject, message }).is_err() {
            debug!(reason, "too many events wait; this one is dropped");
        }
    }

    /// Writes events for ever.
    pub(crate) async fn run(&self) {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut receiver) = receiver else { return };
        let mut correlator = Correlator::default();
        while let Some(happening) = receiver.recv().await {
            let reason = happening.subject.reason;
            let Some(told) = correlator.judge(happening, Instant::now()) else { continue };
            if let Err(error) = self.write(told, &mut correlator).await {
                debug!(reason, error = chain(&error), "event not written");
            }
        }
    }

    async fn write(&self, told: Told, correlator: &mut Correlator) -> Result<(), kube::Error> {
        let Told { identity, message } = told;
        let subject = &identity.subject;
        let namespace = if subject.namespace.is_empty() { "default" } else { &subject.namespace };
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let now = Timestamp::now();
        if let Some(known) = correlator.written(&identity) {
            let count = known.count + 1;
            let patch = json!({"count": count, "message": message, "lastTimestamp": Time(now)});
            match api.patch(&known.event_name, &PatchParams::default(), &Patch::Merge(&patch)).await
            {
                Ok(_) => {
                    known.count = count;
                    return Ok(());
                }
                // It has expired meanwhile: a new one begins.
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let event = subject.event(namespace, message, now);
        let event_name = event.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &event).await?;
        correlator.remember(identity, event_name);
        Ok(())
    }
}

impl Subject {
    fn event(&self, namespace: &str, message: String, now: Timestamp) -> Event {
        let involved = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Event {
            metadata: ObjectMeta {
                // Kubernetes' own way to a name: unique by the time in nanoseconds.
                name: Some(format!("{}.{:x}", self.name, now.as_nanosecond())),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: involved(&self.api_version),
                kind: involved(&self.kind),
                name: involved(&self.name),
                namespace: involved(&self.namespace),
                uid: involved(&self.uid),
                ..ObjectReference::default()
            },
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            message: Some(message),
            reason: Some(self.reason.to_owned()),
            reporting_component: Some(self.component.to_owned()),
            source: Some(EventSource { component: Some(self.component.to_owned()), host: None }),
            type_: Some(self.severity.as_str().to_owned()),
            ..Event::default()
        }
    }
}
