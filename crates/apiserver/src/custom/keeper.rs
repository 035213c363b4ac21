//! Keeps the served kinds as the stored definitions say, on every server of a store: compiles what
//! changed, serves it, and then says so in the definitions' status, so that whoever waits for
//! `Established` finds the kind served.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, Weak},
};

use serde_json::{Value, json};
use tokio::sync::watch;
use toono_api::{ApiError, Resource, kinds, meta::text_at};
use toono_mvcc::{Entry, Prefix, Rev};
use toono_store::{WatchItem, Watcher};

use super::{
    compile::{Compiled, compile, priority},
    names::{Taken, settle},
    status::set_condition,
    view::View,
};
use crate::{
    limits,
    server::{ApiServer, Inner, expired},
    verbs,
};

/// What was made of a definition.
struct Known {
    modified: Rev,
    object: Arc<Value>,
    /// What the compiled kinds depend on.
    basis: Value,
    /// Whether no new object may be made any more.
    is_last: bool,
    compiled: Option<Arc<Compiled>>,
}

/// The definitions as they were last seen.
#[derive(Default)]
struct Keeper {
    known: HashMap<String, Known>,
    served: Vec<Arc<Resource>>,
}

fn definitions() -> Prefix {
    let row = &kinds::extensions::CUSTOM_RESOURCE_DEFINITION;
    Prefix::resource(row.group, row.plural)
}

impl ApiServer {
    /// Serves the custom kinds of the store, and follows their definitions from then on.
    pub(crate) async fn serve_custom_kinds(&self) {
        let mut keeper = Keeper::default();
        let seen = self.keep_custom_kinds(&mut keeper).await;
        tokio::spawn(follow(Arc::downgrade(&self.inner), keeper, seen));
    }

    /// One round; the revision that it goes by, or none if it has to be done again.
    async fn keep_custom_kinds(&self, keeper: &mut Keeper) -> Option<Rev> {
        let rev = self.revision();
        match keeper.round(self, rev).await {
            Ok(()) => Some(rev),
            Err(error) => {
                tracing::warn!(%error, "cannot bring the custom kinds up to date");
                None
            }
        }
    }
}

/// Goes round at each change of a definition, until the server ends.
async fn follow(server: Weak<Inner>, mut keeper: Keeper, mut seen: Option<Rev>) {
    loop {
        match seen {
            None => tokio::time::sleep(limits::CUSTOM_KIND_SWEEP).await,
            Some(rev) => {
                let Some(inner) = server.upgrade() else { return };
                let changes = inner.registries.changes();
                let watcher = inner.store.watch(&definitions(), rev);
                drop(inner);
                // What is no longer in the history is looked at anew as well.
                if let Ok(watcher) = watcher
                    && !changed(watcher, changes).await
                {
                    return;
                }
            }
        }
        let Some(inner) = server.upgrade() else { return };
        seen = ApiServer { inner }.keep_custom_kinds(&mut keeper).await;
    }
}

/// Waits for a change of a definition; false at the server's end.
async fn changed(mut watcher: Watcher, mut ends: watch::Receiver<()>) -> bool {
    loop {
        tokio::select! {
            item = watcher.next() => match item {
                Ok(WatchItem::Event(_)) | Err(_) => return true,
                Ok(WatchItem::Progress(_)) => {}
            },
            change = ends.changed() => if change.is_err() { return false },
        }
    }
}

impl Keeper {
    async fn round(&mut self, server: &ApiServer, rev: Rev) -> Result<(), ApiError> {
        let mut entries = server
            .inner
            .store
            .list(&definitions(), rev, None, usize::MAX)
            .map_err(expired)?
            .entries;
        // Whoever came first has the names.
        entries.sort_by_key(|entry| entry.created);
        let names: HashSet<&str> = entries.iter().map(|entry| entry.key.name()).collect();
        self.known.retain(|name, _| names.contains(name.as_str()));
        entries.iter().for_each(|entry| self.read(entry));
        let order: Vec<String> = entries.iter().map(|entry| entry.key.name().to_owned()).collect();
        let mut settled = self.settle_names(&order);
        for name in &order {
            self.recompile(name);
            if self.is_fault_untold(name) {
                settled.push(name.clone());
            }
        }
        self.serve(server, &order);
        for name in settled {
            if let Err(error) = self.tell(server, &name).await {
                // Read and told again in the next round.
                if let Some(known) = self.known.get_mut(&name) {
                    known.modified = Rev::ZERO;
                }
                return Err(error);
            }
        }
        for known in self.known.values() {
            let view = View(&known.object);
            if view.is_terminating() && view.waits_for_objects() {
                let stored = known.compiled.as_ref().map(|compiled| Arc::clone(&compiled.stored));
                server.remove_objects(view.name().to_owned(), view.uid().to_owned(), stored);
            }
        }
        Ok(())
    }

    /// Takes note of a definition, if it is not known as it is.
    fn read(&mut self, entry: &Entry) {
        let name = entry.key.name();
        if self.known.get(name).is_some_and(|known| known.modified == entry.modified) {
            return;
        }
        let Ok(object) = serde_json::from_slice::<Value>(&entry.value) else {
            tracing::error!(definition = name, "a stored definition is no JSON");
            return;
        };
        let before = self.known.remove(name);
        let object = Arc::new(object);
        let modified = entry.modified;
        let known = match before {
            Some(before) => Known { modified, object, ..before },
            None => Known { modified, object, basis: Value::Null, is_last: false, compiled: None },
        };
        self.known.insert(name.to_owned(), known);
    }

    /// Decides on the names of all definitions, in order; the ones whose status changes by that.
    fn settle_names(&mut self, order: &[String]) -> Vec<String> {
        let now = ApiServer::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut settled = Vec::new();
        for name in order {
            let Some(known) = self.known.get(name) else { continue };
            let view = View(&known.object);
            let mut others = Taken::default();
            for (other, known) in self.known.iter().filter(|(other, _)| *other != name) {
                let other_view = View(&known.object);
                debug_assert_eq!(other, other_view.name());
                if other_view.group() == view.group() {
                    others.add(other_view.accepted());
                }
            }
            if view.is_terminating() {
                continue;
            }
            let mut object = (*known.object).clone();
            settle(&mut object, &others, &now);
            if object != *known.object
                && let Some(known) = self.known.get_mut(name)
            {
                known.object = Arc::new(object);
                settled.push(name.clone());
            }
        }
        settled
    }

    /// Compiles a definition anew if what it depends on changed.
    fn recompile(&mut self, name: &str) {
        let Some(known) = self.known.get_mut(name) else { return };
        let view = View(&known.object);
        if !view.is_established() {
            known.compiled = None;
            known.basis = Value::Null;
            return;
        }
        let spec = known.object.get("spec").cloned().unwrap_or_default();
        let accepted = view.accepted().0.clone();
        let basis = json!([spec, accepted]);
        if known.compiled.is_none() || known.basis != basis {
            let compiled = compile(view);
            for problem in &compiled.problems {
                tracing::error!(definition = name, problem, "a custom kind is not served");
            }
            known.compiled = Some(Arc::new(compiled));
            known.basis = basis;
            known.is_last = false;
        }
        if View(&known.object).is_terminating() && !known.is_last {
            known.compiled = known.compiled.as_ref().map(|compiled| Arc::new(compiled.last()));
            known.is_last = true;
        }
    }

    /// Whether the status does not say whether the schemas compile.
    fn is_fault_untold(&self, name: &str) -> bool {
        let Some(known) = self.known.get(name) else { return false };
        let is_faulty =
            known.compiled.as_ref().is_some_and(|compiled| !compiled.problems.is_empty());
        is_faulty != View(&known.object).condition(FAULT).is_some()
    }

    fn serve(&mut self, server: &ApiServer, order: &[String]) {
        let compiled = order.iter().filter_map(|name| self.known.get(name)?.compiled.as_ref());
        let mut served: Vec<Arc<Resource>> =
            compiled.flat_map(|compiled| compiled.served.iter().cloned()).collect();
        // The versions of a group in the order of preference, whichever kind has which.
        served.sort_by(|left, right| {
            let version = priority(&right.version).cmp(&priority(&left.version));
            left.group.cmp(&right.group).then(version)
        });
        let is_same = served.len() == self.served.len()
            && served.iter().zip(&self.served).all(|(new, old)| Arc::ptr_eq(new, old));
        if !is_same {
            self.served.clone_from(&served);
            server.inner.registries.serve(served);
        }
    }

    /// Writes what was decided into the status of a definition.
    async fn tell(&self, server: &ApiServer, name: &str) -> Result<(), ApiError> {
        let Some(known) = self.known.get(name) else { return Ok(()) };
        let resource = server.built_in(&kinds::extensions::CUSTOM_RESOURCE_DEFINITION);
        let problems = known.compiled.iter().flat_map(|compiled| &compiled.problems);
        let problems: Vec<&str> = problems.map(String::as_str).collect();
        let now = ApiServer::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let told = verbs::modify_own(server, &resource, "", name, |object| {
            // A definition that changed meanwhile is looked at in the next round.
            if View(object).uid() != View(&known.object).uid() {
                return Ok(());
            }
            let decided = known.object.get("status").cloned().unwrap_or_default();
            let present = object.get("status").cloned().unwrap_or_default();
            if !says_the_same(&decided, &present) {
                take_over(object, &decided);
            }
            if problems.is_empty() {
                forget_fault(object);
            } else {
                set_condition(object, (FAULT, true), "Violations", &problems.join("; "), &now);
            }
            Ok(())
        });
        match told.await {
            Ok(_) | Err(ApiError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The condition that tells of schemas that do not compile.
const FAULT: &str = "NonStructuralSchema";

/// Whether two statuses differ in nothing but the moments of their conditions. Another server of the
/// store may have decided the same a moment earlier.
fn says_the_same(one: &Value, other: &Value) -> bool {
    let said = |status: &Value| {
        let mut conditions = status.get("conditions").cloned().unwrap_or_default();
        for condition in conditions.as_array_mut().into_iter().flatten() {
            if let Some(fields) = condition.as_object_mut() {
                fields.remove("lastTransitionTime");
            }
        }
        (conditions, status.get("acceptedNames").cloned())
    };
    said(one) == said(other)
}

/// Takes over names and conditions.
fn take_over(object: &mut Value, decided: &Value) {
    let Some(fields) = object.as_object_mut() else { return };
    let status = fields.entry("status").or_insert_with(|| json!({}));
    let Some(status) = status.as_object_mut() else { return };
    for field in ["acceptedNames", "conditions"] {
        if let Some(value) = decided.get(field) {
            status.insert(field.to_owned(), value.clone());
        }
    }
}

fn forget_fault(object: &mut Value) {
    let conditions = object.get_mut("status").and_then(|status| status.get_mut("conditions"));
    if let Some(conditions) = conditions.and_then(Value::as_array_mut) {
        conditions.retain(|condition| text_at(condition, &["type"]) != Some(FAULT));
    }
}

/// Definitions whose objects are being removed, by name.
#[derive(Debug, Default)]
pub(crate) struct Removals(std::sync::Mutex<HashSet<String>>);

impl Removals {
    /// Whether the caller is the one to do it.
    pub(super) fn begin(&self, name: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned())
    }

    pub(super) fn end(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}
