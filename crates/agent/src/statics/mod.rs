//! Pods that run from files of this node, whatever the cloud says: which there are, and what the API shows of
//! them.
//!
//! The API shows a *mirror* of each, which this node writes, and writes again when somebody deletes it
//! (<https://kubernetes.io/docs/tasks/configure-pod-container/static-pod/>). The directory is looked at when the
//! agent is awake for a heartbeat anyway. How such a pod is run is nobody's special matter.

mod manifest;
mod mirrors;
mod replace;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, mpsc};

use crate::{
    AgentError,
    bundles::{self, News},
    disk::{self, Durability},
    outbox::Outbox,
    views::Views,
};
use manifest::Seen;
use mirrors::Mirror;
pub(crate) use mirrors::MirrorKeeper;

/// Where a pod comes from, if not from the API.
const SOURCE: &str = "kubernetes.io/config.source";
/// Which version of its file a pod is of.
const HASH: &str = "kubernetes.io/config.hash";
/// What makes a pod of the API the mirror of a static one; the same as its hash.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// When the file was made.
const SEEN: &str = "kubernetes.io/config.seen";
/// How often it is seen whether the pod of a file's former version has ended.
const PREDECESSOR_PAUSE: Duration = Duration::from_millis(500);

/// Whether the pod runs from a file of this node.
pub(crate) fn is_static(pod: &Pod) -> bool {
    annotation(pod, SOURCE).is_some_and(|source| source != "api") && !is_mirror(pod)
}

/// Whether it only shows a pod that runs from a file.
pub(crate) fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, MIRROR).is_some()
}

/// Whether a uid is one that a file gives: the API's have hyphens.
pub(crate) fn is_static_uid(uid: &str) -> bool {
    uid.len() == manifest::UID_DIGITS && uid.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// A pod's namespace and name.
type Title = (String, String);

fn title(pod: &Pod) -> Title {
    let meta = &pod.metadata;
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// All that run from files.
#[derive(Debug, Clone)]
pub(crate) struct Statics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: Option<PathBuf>,
    data: PathBuf,
    node: String,
    outbox: Outbox,
    state: Mutex<State>,
    /// A pod or a mirror came or went.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    seen: Seen,
    /// By uid: those that a file says now.
    pods: BTreeMap<String, Title>,
    /// What the API has.
    mirrors: BTreeMap<Title, Mirror>,
}

impl Statics {
    pub(crate) fn new(dir: Option<PathBuf>, data: PathBuf, node: String, outbox: Outbox) -> Self {
        let (state, changed) = (Mutex::default(), Notify::new());
        Self { inner: Arc::new(Inner { dir, data, node, outbox, state, changed }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a file says that this pod runs.
    pub(crate) fn wants(&self, uid: &str) -> bool {
        self.state().pods.contains_key(uid)
    }

    /// Looks at the directory; when it changed, the pods that are new. Their files are on disk where all pods'
    /// are.
    pub(crate) fn scan(&self) -> Result<Option<Vec<Pod>>, AgentError> {
        let Some(dir) = &self.inner.dir else { return Ok(None) };
        let seen = manifest::look(dir).map_err(disk::failed("read", dir))?;
        if seen == self.state().seen {
            return Ok(None);
        }
        let pods = self.read(&seen);
        let wanted: BTreeMap<String, Title> =
            pods.iter().map(|(uid, pod)| (uid.clone(), title(pod))).collect();
        let mut new = Vec::new();
        for (uid, pod) in pods {
            if !self.wants(&uid) {
                self.write(&uid, &pod)?;
                self.inner.outbox.hold(&uid);
                new.push(pod);
            }
        }
        let mut state = self.state();
        (state.seen, state.pods) = (seen, wanted);
        self.relate(&mut state);
        drop(state);
        self.inner.changed.notify_one();
        Ok(Some(new))
    }

    fn read(&self, seen: &Seen) -> Vec<(String, Pod)> {
        let mut titles = BTreeSet::new();
        let read = |path: &PathBuf| match manifest::read(path, &self.inner.node) {
            Ok((uid, pod)) if titles.insert(title(&pod)) => Some((uid, pod)),
            Ok((_, pod)) => {
                let path = path.display();
                tracing::warn!(%path, pod = ?title(&pod), "another file says a pod of this name");
                None
            }
            Err(reason) => {
                tracing::warn!(path = %path.display(), reason, "a manifest is not taken");
                None
            }
        };
        seen.keys().filter_map(read).collect()
    }

    fn write(&self, uid: &str, pod: &Pod) -> Result<(), AgentError> {
        let dir = bundles::pod_dir(&self.inner.data, uid);
        disk::make_dir(&dir)?;
        let bytes = serde_json::to_vec(pod).unwrap_or_default();
        disk::rewrite_checked(&dir.join("pod"), &bytes, Durability::Synced)
    }

    /// The pod of a file, as it was written.
    fn pod(&self, uid: &str) -> Option<Pod> {
        bundles::read_pod(&bundles::pod_dir(&self.inner.data, uid))
    }

    /// Tells the outbox as which pod of the API each is to be told.
    fn relate(&self, state: &mut State) {
        for (uid, title) in &state.pods {
            let mirror = state.mirrors.get(title).filter(|it| it.shows(uid));
            if let Some(mirror) = mirror {
                self.inner.outbox.release(uid, &mirror.uid);
            }
        }
    }

    /// Looks whenever the agent is awake, and hands on what changed.
    pub(crate) async fn run(self, awake: Arc<Notify>, views: Views, changed: mpsc::Sender<News>) {
        loop {
            awake.notified().await;
            match self.scan() {
                Ok(Some(pods)) => self.hand_on(pods, &views, &changed).await,
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "manifests are not read"),
            }
        }
    }

    async fn hand_on(&self, pods: Vec<Pod>, views: &Views, changed: &mpsc::Sender<News>) {
        // Those that are no more end first: a file's new version takes the name, and what its old one holds.
        let _ = changed.send(News::default()).await;
        for pod in pods {
            let ((namespace, name), uid) = (title(&pod), pod.metadata.uid.clone());
            while views.find(&namespace, &name).is_some_and(|it| Some(&it.uid) != uid.as_ref()) {
                tokio::time::sleep(PREDECESSOR_PAUSE).await;
            }
            let _ = changed.send(News { pods: vec![pod], ..News::default() }).await;
        }
    }
}
