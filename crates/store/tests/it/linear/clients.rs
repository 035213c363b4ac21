//! Seeded clients, and the record of what they did and saw.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::task::JoinSet;
use toono_linear::dice::Dice;
use toono_linear::journal;
use toono_linear::{Action, Call, Change, Expect, History, Outcome, Snapshot, Story};

use super::host::{Answer, Ask, Version, When};

const CLIENTS: u64 = 8;
const WATCHES_PER_SERVER: usize = 2;
/// Few, so that clients meet.
const KEYS: u64 = 5;
/// A server that is being started again is asked again after this.
const RECONNECT: Duration = Duration::from_millis(5);

/// What all clients did and saw.
#[derive(Default)]
pub(super) struct Record {
    clock: AtomicU64,
    ids: AtomicU64,
    stop: AtomicBool,
    answers: watch::Sender<usize>,
    seen: Mutex<History>,
    /// The newest revision that anybody was told.
    newest: AtomicU64,
}

impl Record {
    /// Waits until so many more calls were answered.
    pub(super) async fn answered(&self, more: usize, patience: Duration) {
        let mut answers = self.answers.subscribe();
        let enough = *answers.borrow() + more;
        let waited = tokio::time::timeout(patience, answers.wait_for(|count| *count >= enough));
        waited.await.expect("clients get no answers").unwrap();
    }

    pub(super) fn history(&self) -> History {
        self.seen.lock().unwrap().clone()
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn note(&self, answer: Answer) -> Answer {
        let rev = match &answer {
            Answer::Done { rev } | Answer::Listed { rev, .. } | Answer::Told { rev, .. } => *rev,
            Answer::Found { current: Some((rev, _)) }
            | Answer::Refused { current: Some((rev, _)) } => *rev,
            _ => 0,
        };
        self.newest.fetch_max(rev, Ordering::SeqCst);
        answer
    }

    /// Tears off what nobody was told of, as a power cut would. Whether there was any.
    pub(super) fn tear_tail(&self, dir: &Path, dice: &mut Dice) -> bool {
        journal::tear(dir, self.newest.load(Ordering::SeqCst), u64::MAX, dice)
    }
}

/// The clients at work.
pub(super) struct Clients {
    record: Arc<Record>,
    callers: JoinSet<()>,
    watches: JoinSet<()>,
    sockets: Vec<PathBuf>,
}

impl Clients {
    pub(super) fn start(record: &Arc<Record>, sockets: Vec<PathBuf>, seed: u64) -> Self {
        let (mut callers, mut watches) = (JoinSet::new(), JoinSet::new());
        for client in 0..CLIENTS {
            let client = Client {
                record: Arc::clone(record),
                sockets: sockets.clone(),
                dice: Dice(seed.wrapping_mul(1000) + client),
                known: HashMap::new(),
            };
            callers.spawn(client.run());
        }
        for socket in sockets.iter().flat_map(|it| std::iter::repeat_n(it, WATCHES_PER_SERVER)) {
            let at = {
                let mut seen = record.seen.lock().unwrap();
                seen.stories.push(Story::default());
                seen.stories.len() - 1
            };
            watches.spawn(watch(Arc::clone(record), socket.clone(), at));
        }
        Self { record: Arc::clone(record), callers, watches, sockets }
    }

    /// Lets all calls end, and the watches catch up with the last of them.
    pub(super) async fn finish(mut self, patience: Duration) {
        self.record.stop.store(true, Ordering::SeqCst);
        tokio::time::timeout(patience, async {
            while let Some(ended) = self.callers.join_next().await {
                ended.unwrap();
            }
            // A last write, which every watch is waited to tell.
            let mut client = Client {
                record: Arc::clone(&self.record),
                sockets: self.sockets.clone(),
                dice: Dice(0),
                known: HashMap::new(),
            };
            let last = loop {
                let mut connection = client.connect().await;
                let id = client.record.ids.fetch_add(1, Ordering::SeqCst) + 1;
                let ask = Ask::Put { key: 0, id, expect: When::Any };
                if client.call(&mut connection, ask).await == Some(true) {
                    break id;
                }
            };
            let mut answers = self.record.answers.subscribe();
            let all_told = |_: &usize| {
                let seen = self.record.seen.lock().unwrap();
                seen.stories.iter().all(|story| story.0.last().is_some_and(|it| it.id == last))
            };
            answers.wait_for(all_told).await.unwrap();
        })
        .await
        .expect("calls do not end, or watches do not catch up");
        self.watches.shutdown().await;
    }
}

type Connection = (Lines<BufReader<OwnedReadHalf>>, OwnedWriteHalf);

async fn connect(socket: &Path) -> Connection {
    loop {
        if let Ok(connection) = UnixStream::connect(socket).await {
            let (read, write) = connection.into_split();
            return (BufReader::new(read).lines(), write);
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

async fn send(write: &mut OwnedWriteHalf, ask: Ask) -> std::io::Result<()> {
    write.write_all(format!("{}\n", serde_json::to_string(&ask).unwrap()).as_bytes()).await
}

async fn receive(record: &Record, connection: &mut Connection) -> Option<Answer> {
    let line = connection.0.next_line().await.ok().flatten()?;
    Some(record.note(serde_json::from_str(&line).ok()?))
}

/// Follows one server, resuming after what it was told last.
async fn watch(record: Arc<Record>, socket: PathBuf, at: usize) {
    let mut since = 0;
    loop {
        let mut connection = connect(&socket).await;
        if send(&mut connection.1, Ask::Watch { since }).await.is_err() {
            continue;
        }
        while let Some(answer) = receive(&record, &mut connection).await {
            let Answer::Told { rev, key, id, deleted } = answer else { panic!("{answer:?}") };
            since = rev;
            record.seen.lock().unwrap().stories[at].0.push(Change { rev, key, id, deleted });
            // Also wakes whoever waits for watches to catch up.
            record.answers.send_modify(|_| {});
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

struct Client {
    record: Arc<Record>,
    sockets: Vec<PathBuf>,
    dice: Dice,
    /// What this client last saw of a key.
    known: HashMap<usize, Version>,
}

impl Client {
    async fn run(mut self) {
        while !self.record.stop.load(Ordering::SeqCst) {
            let mut connection = self.connect().await;
            // A few calls through this server, then perhaps another.
            for _ in 0..20 {
                if self.record.stop.load(Ordering::SeqCst) {
                    return;
                }
                let ask = self.next();
                if self.call(&mut connection, ask).await.is_none() {
                    break;
                }
            }
        }
    }

    async fn connect(&mut self) -> Connection {
        let at = self.dice.below(self.sockets.len() as u64);
        connect(&self.sockets[usize::try_from(at).unwrap()]).await
    }

    fn next(&mut self) -> Ask {
        let key = usize::try_from(self.dice.below(KEYS)).unwrap();
        let id = self.record.ids.fetch_add(1, Ordering::SeqCst) + 1;
        let expect = match (self.dice.below(4), self.known.get(&key)) {
            (0, _) => When::Any,
            (1, _) | (_, None) => When::Absent,
            (_, Some((rev, _))) => When::At(*rev),
        };
        match self.dice.below(10) {
            0..=4 => Ask::Put { key, id, expect },
            5 => Ask::Delete { key, id, expect },
            6 => Ask::List,
            _ => Ask::Get { key },
        }
    }

    /// Makes a call and records it; `None` if the connection is of no more use, else whether it was done.
    async fn call(&mut self, connection: &mut Connection, ask: Ask) -> Option<bool> {
        let start = self.record.now();
        if send(&mut connection.1, ask).await.is_err() {
            // Perhaps a part of it was sent: a write that counts as without an answer.
            self.record(ask, start, &Answer::Unknown);
            return None;
        }
        let answer = receive(&self.record, connection).await;
        self.record(ask, start, answer.as_ref().unwrap_or(&Answer::Unknown));
        answer.map(|answer| matches!(answer, Answer::Done { .. }))
    }

    fn record(&mut self, ask: Ask, start: u64, answer: &Answer) {
        let end = self.record.now();
        let mut seen = Vec::new();
        match (ask, answer) {
            (_, Answer::NotDone) | (Ask::List, Answer::Unknown) => return,
            (_, Answer::Listed { rev, values }) => {
                let found = |key| values.iter().find(|(at, _)| *at == key).map(|(_, it)| *it);
                for key in 0..usize::try_from(KEYS).unwrap() {
                    let current = found(key).map(|(_, id)| id);
                    let outcome = Outcome::Found { current };
                    seen.push(Call { key, start, end, action: Action::Get, outcome });
                }
                let values = values.iter().map(|(key, (rev, id))| (*key, *rev, *id)).collect();
                self.record.seen.lock().unwrap().lists.push(Snapshot { rev: *rev, values });
            }
            (Ask::Put { key, id, expect }, answer) => {
                let action = Action::Put { id, expect: self.expect(key, expect) };
                seen.push(Call { key, start, end, action, outcome: self.learn(key, id, answer) });
            }
            (Ask::Delete { key, id, expect }, answer) => {
                let action = Action::Delete { id, expect: self.expect(key, expect) };
                let outcome = self.learn(key, id, answer);
                if matches!(outcome, Outcome::Done { .. }) {
                    self.known.remove(&key);
                }
                seen.push(Call { key, start, end, action, outcome });
            }
            (Ask::Get { key }, answer) => {
                let outcome = self.learn(key, 0, answer);
                seen.push(Call { key, start, end, action: Action::Get, outcome });
            }
            (ask, answer) => panic!("{ask:?} was answered with {answer:?}"),
        }
        self.record.seen.lock().unwrap().calls.extend(seen);
        if !matches!(answer, Answer::Unknown) {
            self.record.answers.send_modify(|count| *count += 1);
        }
    }

    /// The condition in terms of values: a client knows a revision by what it saw there.
    fn expect(&self, key: usize, when: When) -> Expect {
        match when {
            When::Any => Expect::Any,
            When::Absent => Expect::Absent,
            When::At(_) => Expect::Is(self.known[&key].1),
        }
    }

    fn learn(&mut self, key: usize, id: u64, answer: &Answer) -> Outcome {
        let mut know = |current: &Option<Version>| {
            match current {
                Some(version) => self.known.insert(key, *version),
                None => self.known.remove(&key),
            };
            current.map(|(_, id)| id)
        };
        match answer {
            Answer::Done { rev } => {
                know(&Some((*rev, id)));
                Outcome::Done { rev: *rev }
            }
            Answer::Refused { current } => Outcome::Refused { current: know(current) },
            Answer::Found { current } => Outcome::Found { current: know(current) },
            _ => Outcome::Unknown,
        }
    }
}
