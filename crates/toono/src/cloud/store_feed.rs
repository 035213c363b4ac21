//! The fleet's bulk reads where the store is in the same process: what is stored is handed on as it is, without a
//! request, and nothing is encoded for it.

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use k8s_openapi::Resource as _;
use toono_fleet::{Change, Feed};
use toono_openyurt::NodePool;
use toono_store::{EventKind, Key, Prefix, Rev, Store, WatchItem, Watcher};

/// Objects at once: some MB, and some milliseconds of unpacking.
const PAGE: usize = 1_000;

/// A feed from a store.
pub(crate) struct StoreFeed(pub(crate) Store);

impl Feed for StoreFeed {
    fn nodes(&self) -> BoxStream<'static, Change> {
        self.follow("", "nodes")
    }

    fn pods(&self) -> BoxStream<'static, Change> {
        self.follow("", "pods")
    }

    fn services(&self) -> BoxStream<'static, Change> {
        self.follow("", "services")
    }

    fn endpoint_slices(&self) -> BoxStream<'static, Change> {
        self.follow("discovery.k8s.io", "endpointslices")
    }

    fn config_maps(&self) -> BoxStream<'static, Change> {
        self.follow("", "configmaps")
    }

    fn secrets(&self) -> BoxStream<'static, Change> {
        self.follow("", "secrets")
    }

    fn node_pools(&self) -> BoxStream<'static, Change> {
        self.follow(NodePool::GROUP, NodePool::URL_PATH_SEGMENT)
    }

    fn grants(&self, plural: &'static str) -> BoxStream<'static, Change> {
        self.follow("rbac.authorization.k8s.io", plural)
    }
}

impl StoreFeed {
    fn follow(&self, group: &str, plural: &str) -> BoxStream<'static, Change> {
        let follower = Follower {
            store: self.0.clone(),
            prefix: Prefix::resource(group, plural),
            step: Step::List,
        };
        let next = |mut follower: Follower| async { Some((follower.next().await, follower)) };
        stream::unfold(follower, next).boxed()
    }
}

struct Follower {
    store: Store,
    prefix: Prefix,
    step: Step,
}

/// What comes next.
enum Step {
    List,
    Page { at: Rev, after: Option<Key> },
    Listed { at: Rev },
    Watch(Box<Watcher>),
}

impl Follower {
    /// Begins anew when what it needs was forgotten meanwhile.
    async fn next(&mut self) -> Change {
        loop {
            let (change, step) = match &mut self.step {
                Step::List => {
                    let at = self.store.revision();
                    (Some(Change::List), Some(Step::Page { at, after: None }))
                }
                Step::Page { at, after } => {
                    // A million objects are a second of work, and others have some too.
                    tokio::task::yield_now().await;
                    page(&self.store, &self.prefix, *at, after.as_ref())
                }
                Step::Listed { at } => match self.store.watch(&self.prefix, *at) {
                    Ok(watcher) => {
                        let revision = at.0;
                        let watch = Step::Watch(Box::new(watcher));
                        (Some(Change::Listed { revision }), Some(watch))
                    }
                    Err(_) => (None, Some(Step::List)),
                },
                Step::Watch(watcher) => match watcher.next().await {
                    Ok(WatchItem::Event(event)) => {
                        let value = event.entry.value.clone();
                        let change = match event.kind {
                            EventKind::Put => Change::Put(value),
                            EventKind::Delete => Change::Delete(value),
                        };
                        (Some(change), None)
                    }
                    Ok(WatchItem::Progress(_)) => (None, None),
                    Err(lagged) => {
                        tracing::warn!(%lagged, "the fleet reads everything anew");
                        (None, Some(Step::List))
                    }
                },
            };
            self.step = step.unwrap_or_else(|| std::mem::replace(&mut self.step, Step::List));
            if let Some(change) = change {
                return change;
            }
        }
    }
}

/// The next objects of a list, and what comes after them.
fn page(
    store: &Store,
    prefix: &Prefix,
    at: Rev,
    after: Option<&Key>,
) -> (Option<Change>, Option<Step>) {
    let Ok(page) = store.list(prefix, at, after, PAGE) else { return (None, Some(Step::List)) };
    let next = match page.entries.last() {
        Some(last) if page.more => Step::Page { at, after: Some(last.key.clone()) },
        _ => Step::Listed { at },
    };
    let values = page.entries.into_iter().map(|entry| entry.value).collect();
    (Some(Change::Page(values)), Some(next))
}

#[cfg(test)]
mod tests {
    use toono_store::{Draft, Expect, Op, Owner, StoreConfig, Txn};

    use super::*;

    async fn write(store: &Store, op: Op) {
        let txn = Txn { guards: Vec::new(), ops: vec![(Expect::Any, op)] };
        store.commit(txn).await.unwrap();
    }

    fn put(name: usize) -> Op {
        let key = Key::new("", "nodes", "", &format!("n{name:05}"));
        Op::Put { key, value: Draft::new("{", "}"), owner: Owner::PLATFORM }
    }

    async fn told(feed: &mut BoxStream<'static, Change>) -> String {
        match feed.next().await.unwrap() {
            Change::List => "list".to_owned(),
            Change::Page(page) => format!("page {}", page.len()),
            Change::Listed { revision } => format!("listed {revision}"),
            Change::Put(value) => format!("put {}", String::from_utf8_lossy(&value)),
            Change::Delete(value) => format!("delete {}", String::from_utf8_lossy(&value)),
        }
    }

    #[tokio::test]
    async fn what_is_there_then_what_changes_and_all_anew_after_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = StoreConfig::new(dir.path());
        (config.events.whole_events, config.events.rested_events) = (2, 2);
        let (store, _) = Store::open(config).unwrap();
        let mut feed = StoreFeed(store.clone()).nodes();
        assert_eq!(told(&mut feed).await, "list");
        assert_eq!(told(&mut feed).await, "page 0");
        assert_eq!(told(&mut feed).await, "listed 0");
        write(&store, put(1)).await;
        let key = Key::new("", "nodes", "", "n00001");
        write(&store, Op::Delete { key, last: Draft::new("{last ", "}") }).await;
        assert_eq!(told(&mut feed).await, "put {1}");
        assert_eq!(told(&mut feed).await, "delete {last 2}");
        for name in 0..=PAGE {
            write(&store, put(name)).await;
        }
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(told(&mut feed).await);
        }
        assert_eq!(all, ["list", "page 1000", "page 1", "listed 1003"]);
    }
}
