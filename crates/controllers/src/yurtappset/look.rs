//! One look at one pool: is its workload there, and as it should be? If not, one request.

use std::collections::HashMap;

use tokio::time::Instant;

use super::{
    app::App,
    choice::{Pools, tweaks_of},
    history::History,
    live::Live,
    memory::{Basis, PoolMemory, Refusal, fingerprint},
    render::{Rendered, render},
    sync::Sync,
    write::{self, Made},
};

/// What became of one pool.
pub(super) struct Outcome {
    pub(super) pool: String,
    pub(super) memory: PoolMemory,
    pub(super) done: Done,
    /// Its failure is one of just now.
    pub(super) refused: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// It is as it should be.
    Current,
    /// It is not, and nothing could be done now.
    Waiting,
    Created,
    Updated,
}

/// What is needed to look at one pool.
pub(super) struct Look<'a> {
    pub(super) sync: &'a Sync<'a>,
    pub(super) app: &'a App,
    pub(super) history: &'a History,
    pub(super) older: &'a HashMap<String, App>,
    pub(super) pools: &'a Pools,
    pub(super) known: &'a HashMap<String, PoolMemory>,
}

impl Look<'_> {
    pub(super) async fn at(&self, pool: &str, live: Option<&Live>, basis: Basis) -> Outcome {
        let known = self.known.get(pool).filter(|known| known.basis == basis).cloned();
        let mut memory = known.unwrap_or_else(|| PoolMemory::new(basis));
        let version = live.map(Live::version);
        let waits = memory.failure.as_ref().is_some_and(|it| Instant::now() < it.again);
        let mut refused = false;
        let done = if version.is_some() && memory.checked.as_deref() == version {
            Done::Current
        } else if waits || (version.is_some() && memory.written_over.as_deref() == version) {
            Done::Waiting
        } else {
            match self.write(pool, live, &mut memory).await {
                Ok(done) => {
                    memory.failure = None;
                    done
                }
                Err(why) => {
                    let refusal = Refusal::after(memory.failure.as_ref(), why, Instant::now());
                    memory.failure = Some(refusal);
                    refused = true;
                    Done::Waiting
                }
            }
        };
        Outcome { pool: pool.to_owned(), memory, done, refused }
    }

    async fn write(
        &self,
        pool: &str,
        live: Option<&Live>,
        memory: &mut PoolMemory,
    ) -> Result<Done, String> {
        let set = self.sync.key;
        let rendered = render(self.app, &set.name, pool, &memory.basis.tweaks)
            .map_err(|error| error.to_string())?;
        memory.notes = rendered.notes.as_slice().into();
        match live {
            None => self.create(pool, &rendered, memory).await,
            Some(live) => {
                let before = live.revision().and_then(|revision| self.older.get(revision));
                let before = before.zip(self.pools.get(pool)).and_then(|(before, labels)| {
                    render(before, &set.name, pool, &tweaks_of(before, pool, labels)).ok()
                });
                self.update(live, &rendered, before.as_ref(), memory).await
            }
        }
    }

    async fn create(
        &self,
        pool: &str,
        rendered: &Rendered,
        memory: &mut PoolMemory,
    ) -> Result<Done, String> {
        let (sync, revision) = (self.sync, self.history.current_name());
        sync.expectations.expect_creations(sync.key, 1);
        let made = write::create(sync.context, sync.set, pool, rendered, revision).await;
        if !matches!(made, Ok(Made::New(_))) {
            sync.expectations.creation_observed(sync.key);
        }
        match made? {
            Made::New(made) => {
                self.accept(&made, rendered, memory)?;
                Ok(Done::Created)
            }
            Made::Already => Ok(Done::Waiting),
        }
    }

    async fn update(
        &self,
        live: &Live,
        rendered: &Rendered,
        before: Option<&Rendered>,
        memory: &mut PoolMemory,
    ) -> Result<Done, String> {
        let revision = self.history.current_name();
        let difference = live
            .difference(rendered, before, revision)
            .map_err(|error| shapeless(rendered, &error))?;
        let Some(patch) = difference.filter(|it| memory.accepted != Some(fingerprint(it))) else {
            memory.checked = Some(live.version().to_owned());
            return Ok(Done::Current);
        };
        let Some(changed) = write::update(self.sync.context, live, patch).await? else {
            return Ok(Done::Waiting);
        };
        self.accept(&changed, rendered, memory)?;
        if changed.version() == live.version() {
            return Ok(Done::Current);
        }
        memory.written_over = Some(live.version().to_owned());
        Ok(Done::Updated)
    }

    /// What the API answered to a write is how it is to be, whatever became of it on the way.
    fn accept(
        &self,
        written: &Live,
        rendered: &Rendered,
        memory: &mut PoolMemory,
    ) -> Result<(), String> {
        let left = written
            .difference(rendered, None, self.history.current_name())
            .map_err(|error| shapeless(rendered, &error))?;
        memory.accepted = left.as_ref().map(fingerprint);
        memory.checked = Some(written.version().to_owned());
        Ok(())
    }
}

fn shapeless(rendered: &Rendered, error: &serde_json::Error) -> String {
    format!("the template with its tweaks is no {}: {error}", rendered.kind.name())
}
