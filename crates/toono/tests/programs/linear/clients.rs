//! Seeded clients that write under conditions, read and list.

use std::{collections::HashMap, sync::Arc, sync::atomic::Ordering, time::Duration};

use k8s_openapi::api::core::v1::PodTemplate;
use kube::{
    Api, Client, Error, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use toono_linear::{Action, Call, Expect, Outcome, Snapshot, dice::Dice};

use super::{
    record::{Record, WRITE, id, key, rev},
    watches,
};
use crate::server::answers;

const CLIENTS: u64 = 6;
const WATCHES: usize = 3;
/// Few, so that clients meet.
const KEYS: u64 = 4;

/// The clients at work.
pub(super) struct Clients {
    record: Arc<Record>,
    callers: JoinSet<()>,
    watches: JoinSet<()>,
    servers: Vec<Client>,
}

impl Clients {
    pub(super) async fn start(record: &Arc<Record>, servers: Vec<Client>, seed: u64) -> Self {
        let (mut callers, mut watches) = (JoinSet::new(), JoinSet::new());
        let templates: Api<PodTemplate> = Api::default_namespaced(servers[0].clone());
        let begin = templates.list(&ListParams::default()).await.unwrap();
        let begin = begin.metadata.resource_version.unwrap();
        for number in 0..WATCHES {
            record.seen.lock().unwrap().told.push(Vec::new());
            let (record, servers) = (Arc::clone(record), servers.clone());
            watches.spawn(watches::follow(record, servers, begin.clone(), number));
        }
        for client in 0..CLIENTS {
            let dice = Dice(seed.wrapping_mul(1000) + client);
            callers.spawn(Caller::new(record, &servers, dice).run());
        }
        Self { record: Arc::clone(record), callers, watches, servers }
    }

    /// Lets all calls end.
    pub(super) async fn stop(mut self, patience: Duration) {
        self.join(patience).await;
        self.watches.abort_all();
    }

    /// Lets all calls end, and the watches catch up with the last of them.
    pub(super) async fn finish(mut self, patience: Duration) {
        self.join(patience).await;
        let last = tokio::time::timeout(patience, async {
            let mut caller = Caller::new(&self.record, &self.servers, Dice(0));
            let last = loop {
                if let Some(rev) = caller.write(0, Expect::Any).await {
                    break rev;
                }
            };
            let mut answers = self.record.answers.subscribe();
            let all_told = |_: &usize| {
                let seen = self.record.seen.lock().unwrap();
                seen.told.iter().all(|told| told.last().is_some_and(|it| it.rev == last))
            };
            answers.wait_for(all_told).await.unwrap();
        });
        tokio::select! {
            caught_up = last => caught_up.expect("watches do not catch up"),
            Some(ended) = self.watches.join_next() => ended.unwrap(),
        }
        self.watches.shutdown().await;
    }

    async fn join(&mut self, patience: Duration) {
        self.record.stop.store(true, Ordering::SeqCst);
        let ended = async {
            while let Some(ended) = self.callers.join_next().await {
                ended.unwrap();
            }
        };
        tokio::time::timeout(patience, ended).await.expect("calls do not end");
    }
}

struct Caller {
    record: Arc<Record>,
    servers: Vec<Client>,
    /// The one that is asked now.
    server: Client,
    dice: Dice,
    /// Version and write that this client last saw of a key.
    known: HashMap<usize, (String, u64)>,
}

impl Caller {
    fn new(record: &Arc<Record>, servers: &[Client], dice: Dice) -> Self {
        let (record, server) = (Arc::clone(record), servers[0].clone());
        Self { record, servers: servers.to_vec(), server, dice, known: HashMap::new() }
    }

    fn templates(&self) -> Api<PodTemplate> {
        Api::default_namespaced(self.server.clone())
    }

    async fn run(mut self) {
        while !self.record.ended() {
            let at = self.dice.below(self.servers.len() as u64);
            self.server = self.servers[usize::try_from(at).unwrap()].clone();
            let key = usize::try_from(self.dice.below(KEYS)).unwrap();
            let known = self.known.get(&key).map(|(_, id)| *id);
            match (self.dice.below(12), known) {
                (0..=3, Some(id)) => drop(self.write(key, Expect::Is(id)).await),
                (4, Some(_)) => drop(self.write(key, Expect::Present).await),
                (5, _) => drop(self.write(key, Expect::Any).await),
                (0..=4 | 6, _) => drop(self.write(key, Expect::Absent).await),
                (7, Some(id)) => self.delete(key, id).await,
                (8, _) => self.list(None).await,
                (9, _) => self.list(Some(2)).await,
                _ => self.get(key).await,
            }
        }
    }

    /// Writes, by the verb that has such a condition; the revision if it was done.
    async fn write(&mut self, key: usize, expect: Expect) -> Option<u64> {
        let id = self.record.next_id();
        let (templates, name) = (self.templates(), format!("k{key}"));
        let mut object = object(&name, id);
        let start = self.record.now();
        let done = match expect {
            Expect::Any => {
                let patch = PatchParams::apply("linear").force();
                templates.patch(&name, &patch, &Patch::Apply(&object)).await
            }
            Expect::Absent => templates.create(&PostParams::default(), &parse(object)).await,
            Expect::Present | Expect::Is(_) => {
                if matches!(expect, Expect::Is(_)) {
                    object["metadata"]["resourceVersion"] = self.known[&key].0.clone().into();
                }
                templates.replace(&name, &PostParams::default(), &parse(object)).await
            }
        };
        let outcome = match done {
            Ok(object) => {
                self.learn(key, Some(&object));
                Outcome::Done { rev: self.record.told(rev(&object)) }
            }
            // The server gave up against others: it was not done.
            Err(Error::Api(status))
                if status.code == 409 && matches!(expect, Expect::Any | Expect::Present) =>
            {
                return None;
            }
            Err(error) => self.failed(key, error).await,
        };
        self.add(key, start, Action::Put { id, expect }, outcome);
        match outcome {
            Outcome::Done { rev } => Some(rev),
            _ => None,
        }
    }

    async fn delete(&mut self, key: usize, removed: u64) {
        let resource_version = Some(self.known[&key].0.clone());
        let preconditions = Preconditions { resource_version, uid: None };
        let parameters = DeleteParams::default().preconditions(preconditions);
        let id = self.record.next_id();
        let start = self.record.now();
        let outcome = match self.templates().delete(&format!("k{key}"), &parameters).await {
            Ok(answer) => {
                let object = answer.left().expect("deletions are answered with the object");
                self.learn(key, None);
                Outcome::Done { rev: self.record.told(rev(&object)) }
            }
            Err(error) => self.failed(key, error).await,
        };
        self.add(key, start, Action::Delete { id, expect: Expect::Is(removed) }, outcome);
    }

    async fn get(&mut self, key: usize) {
        let start = self.record.now();
        let outcome = match self.templates().get_opt(&format!("k{key}")).await {
            Ok(object) => Outcome::Found { current: self.learn(key, object.as_ref()) },
            Err(_) => return answers(&self.server).await,
        };
        self.add(key, start, Action::Get, outcome);
    }

    /// A list, in pages of that many, is a read of every key at one revision.
    async fn list(&mut self, limit: Option<u32>) {
        let start = self.record.now();
        let mut parameters = ListParams { limit, ..ListParams::default() };
        let mut objects = Vec::new();
        let rev_of_all = loop {
            let Ok(page) = self.templates().list(&parameters).await else {
                return answers(&self.server).await;
            };
            objects.extend(page.items);
            let rev = self.record.told(page.metadata.resource_version.unwrap().parse().unwrap());
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters.continue_token = Some(token),
                None => break rev,
            }
        };
        for key_listed in 0..usize::try_from(KEYS).unwrap() {
            let object = objects.iter().find(|object| key(object) == key_listed);
            let current = self.learn(key_listed, object);
            self.add(key_listed, start, Action::Get, Outcome::Found { current });
        }
        let values = objects.iter().map(|object| (key(object), rev(object), id(object))).collect();
        self.record.seen.lock().unwrap().lists.push(Snapshot { rev: rev_of_all, values });
    }

    /// What an error says about a write.
    async fn failed(&mut self, key: usize, error: Error) -> Outcome {
        match error {
            Error::Api(status) if status.code == 404 => {
                self.learn(key, None);
                Outcome::Refused { current: None }
            }
            Error::Api(status) if status.code == 409 => Outcome::Unmet,
            Error::Api(status) if status.code < 500 => panic!("refused: {status:?}"),
            _ => {
                answers(&self.server).await;
                Outcome::Unknown
            }
        }
    }

    fn learn(&mut self, key: usize, object: Option<&PodTemplate>) -> Option<u64> {
        match object {
            Some(object) => {
                let version = (object.resource_version().unwrap(), id(object));
                self.record.told(rev(object));
                self.known.insert(key, version);
            }
            None => drop(self.known.remove(&key)),
        }
        object.map(id)
    }

    fn add(&self, key: usize, start: u64, action: Action, outcome: Outcome) {
        let end = self.record.now();
        self.record.add(Call { key, start, end, action, outcome });
    }
}

fn object(name: &str, id: u64) -> Value {
    let container = json!({"name": "one", "image": "one"});
    json!({
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"name": name, "annotations": {WRITE: id.to_string()}},
        "template": {"spec": {"containers": [container]}},
    })
}

fn parse(object: Value) -> PodTemplate {
    serde_json::from_value(object).unwrap()
}
