//! Informers of kube-rs, by lists and by streams, through restarts of the server and the end of history.
//! One writer knows the truth; what each informer was told must be that, without a gap or a double.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::PodTemplate;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, PostParams, WatchEvent, WatchParams},
    runtime::{
        WatchStreamExt as _, reflector,
        watcher::{self, Event, watcher},
    },
};
use serde_json::json;
use tokio::{sync::watch, task::JoinSet};
use toono_linear::{dice::Dice, etcd_server::EtcdServer};

use crate::server::{Server, answers};

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than an informer's first pauses after an error, so that a restart alone ends no history.
const HISTORY: &str = "4s";
/// A server must live for a while to see that it is time to compact.
const RESTART: Duration = Duration::from_secs(5);
const KEYS: u64 = 12;

/// A version of an object, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Write {
    key: String,
    version: String,
    deleted: bool,
}

type State = BTreeMap<String, String>;

/// What an informer was told since it began anew: everything, and then each change.
#[derive(Default)]
struct Telling {
    begun_with: State,
    whole: bool,
    then: Vec<Write>,
}

#[tokio::test(flavor = "multi_thread")]
async fn informers_miss_and_double_nothing_through_restarts() {
    let mut server = Server::start(&[], None);
    let (mut writer, informers) = begin(&server).await;
    restarts(&mut server, &mut writer, &informers).await;
}

/// With etcd, as a started server has no more history than etcd has.
#[tokio::test(flavor = "multi_thread")]
async fn informers_miss_and_double_nothing_through_compaction() {
    let etcd = EtcdServer::start();
    let store = format!("etcd={}", etcd.url());
    let options = ["--store", &store, "--compaction-interval", HISTORY];
    let mut server = Server::start(&options, None);
    let (mut writer, informers) = begin(&server).await;
    restarts(&mut server, &mut writer, &informers).await;

    // They sleep while their connections end and history moves beyond what they know.
    informers.iter().for_each(|informer| informer.wake(false));
    let known = writer.truth.last().unwrap().version.clone();
    writer.write(60).await;
    expire(&mut server, &known).await;
    writer.write(30).await;
    informers.iter().for_each(|informer| informer.wake(true));
    for informer in &informers {
        informer.caught_up(&writer.truth).await;
        assert_eq!(informer.tellings(), 2, "it cannot have been told all");
    }
    writer.write(30).await;
    for informer in &informers {
        informer.caught_up(&writer.truth).await;
        informer.check(&writer.truth);
    }
}

async fn begin(server: &Server) -> (Writer, [Informer; 2]) {
    let client = server.ready().await;
    let mut writer = Writer::new(client.clone());
    writer.write(30).await;
    let lists = Informer::start(client.clone(), watcher::Config::default());
    let streams = Informer::start(client, watcher::Config::default().streaming_lists());
    (writer, [lists, streams])
}

async fn restarts(server: &mut Server, writer: &mut Writer, informers: &[Informer]) {
    for _ in 0..3 {
        writer.write(30).await;
        for informer in informers {
            informer.caught_up(&writer.truth).await;
        }
        server.restart();
        answers(&writer.client).await;
    }
    writer.write(30).await;
    for informer in informers {
        informer.caught_up(&writer.truth).await;
        informer.check(&writer.truth);
        assert_eq!(informer.tellings(), 1, "a restart made an informer begin anew");
    }
}

/// Restarts the server until it can tell no more what happened after this version: etcd compacts what is
/// older than a period of its own, and a started server has what etcd has.
pub(crate) async fn expire(server: &mut Server, version: &str) {
    let client = server.client().await;
    let templates: Api<PodTemplate> = Api::default_namespaced(client.clone());
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let watch = templates.watch(&WatchParams::default().timeout(1), version).await;
            let first = std::pin::pin!(watch.unwrap()).next().await;
            if let Some(Ok(WatchEvent::Error(status))) = first {
                assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
                return;
            }
            tokio::time::sleep(RESTART).await;
            server.restart();
            answers(&client).await;
        }
    });
    waited.await.expect("history does not end");
}

struct Writer {
    client: Client,
    templates: Api<PodTemplate>,
    dice: Dice,
    truth: Vec<Write>,
}

impl Writer {
    fn new(client: Client) -> Self {
        let templates = Api::default_namespaced(client.clone());
        Self { client, templates, dice: Dice(1), truth: Vec::new() }
    }

    async fn write(&mut self, count: usize) {
        for _ in 0..count {
            let key = format!("t{}", self.dice.below(KEYS));
            let present = state(&self.truth).contains_key(&key);
            let object = template(&key, self.truth.len());
            let deleted = present && self.dice.below(4) == 0;
            let written = if deleted {
                let answer = self.templates.delete(&key, &DeleteParams::default()).await;
                answer.unwrap().left().unwrap()
            } else if present {
                self.templates.replace(&key, &PostParams::default(), &object).await.unwrap()
            } else {
                self.templates.create(&PostParams::default(), &object).await.unwrap()
            };
            self.truth.push(Write { key, version: written.resource_version().unwrap(), deleted });
        }
    }
}

fn template(name: &str, number: usize) -> PodTemplate {
    let container = json!({"name": "one", "image": format!("one:{number}")});
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "template": {"spec": {"containers": [container]}},
    }))
    .unwrap()
}

struct Informer {
    awake: watch::Sender<bool>,
    told: Arc<Mutex<Vec<Telling>>>,
    changed: watch::Receiver<()>,
    store: reflector::Store<PodTemplate>,
    _task: JoinSet<()>,
}

impl Informer {
    fn start(client: Client, config: watcher::Config) -> Self {
        let templates: Api<PodTemplate> = Api::default_namespaced(client);
        let (awake, mut wakes) = watch::channel(true);
        let (changes, changed) = watch::channel(());
        let (store, writer) = reflector::store();
        let told = Arc::new(Mutex::new(Vec::new()));
        let mut task = JoinSet::new();
        let record = Arc::clone(&told);
        task.spawn(async move {
            let events = watcher(templates, config).default_backoff();
            let mut events = std::pin::pin!(events.reflect(writer));
            loop {
                wakes.wait_for(|awake| *awake).await.unwrap();
                tokio::select! {
                    event = events.next() => {
                        // Errors are of the time without a server, and of history's end.
                        if let Ok(event) = event.unwrap() {
                            note(&mut record.lock().unwrap(), event);
                            changes.send_replace(());
                        }
                    }
                    _ = wakes.changed() => {}
                }
            }
        });
        Self { awake, told, changed, store, _task: task }
    }

    /// Lets it sleep, or go on.
    fn wake(&self, awake: bool) {
        self.awake.send_replace(awake);
    }

    fn tellings(&self) -> usize {
        self.told.lock().unwrap().len()
    }

    /// Waits until it was told the last write.
    async fn caught_up(&self, truth: &[Write]) {
        let wanted = state(truth);
        let mut changed = self.changed.clone();
        let same = changed.wait_for(|()| {
            let told = self.told.lock().unwrap();
            told.last().is_some_and(|telling| telling.whole && telling.now() == wanted)
        });
        let waited = tokio::time::timeout(PATIENCE, same).await;
        waited.expect("an informer does not catch up").unwrap();
    }

    /// Each telling is a part of the truth without a gap or a double, and the last one is up to its end.
    fn check(&self, truth: &[Write]) {
        let stored = self.store.state();
        let stored = stored.iter().map(|it| (it.name_any(), it.resource_version().unwrap()));
        assert_eq!(stored.collect::<State>(), state(truth), "the informer's store");
        let told = self.told.lock().unwrap();
        for (number, telling) in told.iter().enumerate() {
            let fits = (0..=truth.len()).any(|at| {
                let rest = &truth[at..];
                let through = number + 1 < told.len() || rest.len() == telling.then.len();
                through
                    && rest.starts_with(&telling.then)
                    && state(&truth[..at]) == telling.begun_with
            });
            assert!(fits, "telling {number} is no part of what was written: {:?}", telling.then);
        }
    }
}

impl Telling {
    fn now(&self) -> State {
        let mut now = self.begun_with.clone();
        self.then.iter().for_each(|write| apply(&mut now, write));
        now
    }
}

fn note(told: &mut Vec<Telling>, event: Event<PodTemplate>) {
    let write = |object: &PodTemplate, deleted| Write {
        key: object.name_any(),
        version: object.resource_version().unwrap(),
        deleted,
    };
    match event {
        Event::Init => told.push(Telling::default()),
        Event::InitApply(object) => {
            let Write { key, version, .. } = write(&object, false);
            told.last_mut().unwrap().begun_with.insert(key, version);
        }
        Event::InitDone => told.last_mut().unwrap().whole = true,
        Event::Apply(object) => told.last_mut().unwrap().then.push(write(&object, false)),
        Event::Delete(object) => told.last_mut().unwrap().then.push(write(&object, true)),
    }
}

fn apply(state: &mut State, write: &Write) {
    if write.deleted {
        state.remove(&write.key);
    } else {
        state.insert(write.key.clone(), write.version.clone());
    }
}

fn state(writes: &[Write]) -> State {
    let newest: HashMap<&String, &Write> = writes.iter().map(|it| (&it.key, it)).collect();
    let present = newest.into_values().filter(|write| !write.deleted);
    present.map(|write| (write.key.clone(), write.version.clone())).collect()
}
