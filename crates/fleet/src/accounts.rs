//! What service accounts of pods may read, as roles and bindings say: a referent for each, computed when it is asked for.
//!
//! Nodes need it while they answer for the API to their pods. It is kept nowhere: the bundles keep its digest, and it is
//! the same on every server that has read the same objects.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use serde_json::value::{RawValue, to_raw_value};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};
use toono_access::{Kind, Object, Rules};
use toono_api::UserInfo;
use toono_session::ReferentDigest;
use toono_wire::referent::{READABLE, Referent, ReferentKind, ReferentName};

use crate::{
    Change,
    fleet::{Inner, State},
    follow,
    objects::{PodObject, ReferentObject},
};

/// Changes of roles and bindings wait so long for others: a chart brings a dozen at once, and each may concern all.
const COALESCE: Duration = Duration::from_millis(200);
/// Accounts that are looked at without a pause: some hundred microseconds' work.
const SLICE: usize = 32;

/// The roles and bindings.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    rules: Rules,
    /// The newest revision of any of them.
    revision: u64,
    /// Namespaces and names of all that were told; empty namespaces for the cluster's.
    there: HashMap<Kind, BTreeSet<(String, String)>>,
    /// Of lists that are being told: what they have told.
    listing: HashMap<Kind, BTreeSet<(String, String)>>,
}

impl Accounts {
    /// What a service account may read; none if its name cannot be one.
    pub(crate) fn referent(&self, name: &ReferentName) -> Option<(ReferentObject, Box<RawValue>)> {
        let readable = self.rules.readable(&UserInfo::service_account(&name.namespace, &name.name));
        let text = serde_json::to_string(&readable).ok()?;
        let data = to_raw_value(&HashMap::from([(READABLE, text)])).ok()?;
        let referent = Referent {
            kind: ReferentKind::ServiceAccount,
            namespace: name.namespace.as_ref().into(),
            name: name.name.as_ref().into(),
            data: Some(&data),
            binary_data: None,
            r#type: None,
            immutable: None,
        };
        let digest = ReferentDigest::of(&referent).ok()?;
        let object = ReferentObject { name: referent.named()?, revision: self.revision, digest };
        Some((object, to_raw_value(&referent).ok()?))
    }

    /// Whether a list of the kind has ended with this.
    fn take(&mut self, kind: Kind, change: &Change) -> bool {
        match change {
            Change::List => drop(self.listing.insert(kind, BTreeSet::new())),
            Change::Page(objects) => objects.iter().for_each(|json| self.put(kind, json)),
            Change::Put(json) => self.put(kind, json),
            Change::Delete(json) => {
                if let Some((object, revision)) = parse(kind, json) {
                    self.revision = self.revision.max(revision);
                    self.remove(kind, (object.namespace().to_owned(), object.name().to_owned()));
                }
            }
            Change::Listed { revision } => {
                self.revision = self.revision.max(*revision);
                let listed = self.listing.remove(&kind).unwrap_or_default();
                let there = self.there.get(&kind).cloned().unwrap_or_default();
                there.difference(&listed).for_each(|gone| self.remove(kind, gone.clone()));
                return true;
            }
        }
        false
    }

    fn put(&mut self, kind: Kind, json: &Bytes) {
        let Some((object, revision)) = parse(kind, json) else { return };
        let name = (object.namespace().to_owned(), object.name().to_owned());
        self.revision = self.revision.max(revision);
        self.rules.apply(&object);
        self.there.entry(kind).or_default().insert(name.clone());
        if let Some(listing) = self.listing.get_mut(&kind) {
            listing.insert(name);
        }
    }

    fn remove(&mut self, kind: Kind, name: (String, String)) {
        self.rules.remove(kind, &name.0, &name.1);
        self.there.entry(kind).or_default().remove(&name);
    }
}

fn parse(kind: Kind, json: &Bytes) -> Option<(Object, u64)> {
    let object = Object::parse(kind, json)
        .inspect_err(|error| tracing::warn!(kind = kind.plural(), %error, "not readable"))
        .ok()?;
    let revision = object.metadata().resource_version.as_ref();
    let revision = revision.and_then(|it| it.parse().ok()).unwrap_or(0);
    Some((object, revision))
}

impl State {
    /// The accounts of a pod are known before the pod is.
    pub(crate) fn learn_accounts(&mut self, pod: &PodObject) {
        let accounts = pod.references.iter().filter(|it| it.0 == ReferentKind::ServiceAccount);
        for (kind, name) in accounts.filter(|_| !pod.node.is_empty() && !pod.ended) {
            let (namespace, name) = (Arc::from(&*pod.namespace), Arc::from(&**name));
            let name = ReferentName { kind: *kind, namespace, name };
            if !self.bundles.knows(&name)
                && let Some((object, _)) = self.accounts.referent(&name)
            {
                // Nobody references it yet.
                drop(self.bundles.put_referent(object));
            }
        }
    }
}

/// Follows roles and bindings, pokes the nodes with pods whose accounts may read something else by them, and says
/// when all are read.
pub(crate) async fn follow(inner: Arc<Inner>, read: oneshot::Sender<()>) {
    let of = |kind: Kind| inner.feed.grants(kind.plural()).map(move |change| (kind, change));
    let all: Vec<BoxStream<'_, _>> = Kind::ALL.map(|kind| of(kind).boxed()).into();
    let mut changes = stream::select_all(all);
    let (mut read, mut unread) = (Some(read), BTreeSet::from(Kind::ALL));
    let mut due: Option<Instant> = None;
    loop {
        let timer = async {
            match due {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            change = changes.next() => {
                let Some((kind, change)) = change else { return };
                if inner.state().accounts.take(kind, &change) {
                    unread.remove(&kind);
                }
                if unread.is_empty() {
                    if let Some(read) = read.take() {
                        // Who waited has ended; so will this.
                        let _ = read.send(());
                    }
                    due.get_or_insert_with(|| Instant::now() + COALESCE);
                }
            }
            () = timer => {
                due = None;
                look_again(&inner).await;
            }
        }
    }
}

/// Computes all accounts anew, and tells the nodes that are concerned of those that differ.
async fn look_again(inner: &Inner) {
    let names = inner.state().bundles.referenced(ReferentKind::ServiceAccount);
    for slice in names.chunks(SLICE) {
        let spreads: Vec<_> = {
            let mut state = inner.state();
            let State { accounts, bundles, .. } = &mut *state;
            let objects = slice.iter().filter_map(|name| accounts.referent(name));
            objects.filter_map(|(object, _)| bundles.put_referent(object)).collect()
        };
        for spread in spreads {
            follow::tell(inner, spread).await;
        }
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bytes(value: serde_json::Value) -> Bytes {
        value.to_string().into()
    }

    fn role(name: &str, resource: &str) -> Bytes {
        bytes(json!({"metadata": {"name": name, "namespace": "d", "resourceVersion": "7"},
            "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get", "create"]}]}))
    }

    fn binding(name: &str) -> Bytes {
        bytes(json!({"metadata": {"name": name, "namespace": "d", "resourceVersion": "9"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "bot", "namespace": "d"}]}))
    }

    fn told(accounts: &Accounts, name: &str) -> (u64, String) {
        let (object, text) = accounts.referent(&name.parse().unwrap()).unwrap();
        let referent: Referent<'_> = serde_json::from_str(text.get()).unwrap();
        assert_eq!(
            ReferentDigest::of(&referent).unwrap(),
            object.digest,
            "as the node computes it"
        );
        let data: HashMap<String, String> =
            serde_json::from_str(referent.data.unwrap().get()).unwrap();
        (object.digest.0, data[READABLE].clone())
    }

    #[test]
    fn an_accounts_referent_is_what_it_may_read_and_goes_with_the_rules() {
        let mut accounts = Accounts::default();
        let nothing = told(&accounts, "serviceaccounts/d/bot");
        assert_eq!(nothing.1, "[]");
        assert!(!accounts.take(Kind::Role, &Change::List));
        accounts.take(Kind::Role, &Change::Page(vec![role("maps", "configmaps")]));
        assert!(accounts.take(Kind::Role, &Change::Listed { revision: 8 }));
        accounts.take(Kind::RoleBinding, &Change::Put(binding("maps")));
        assert_eq!(accounts.revision, 9);
        let maps = told(&accounts, "serviceaccounts/d/bot");
        let rules = json!([{"namespace": "d", "rules": [
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]}]);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&maps.1).unwrap(), rules);
        assert_eq!(told(&accounts, "serviceaccounts/d/other").1, "[]");
        // A list anew that does not have the role any more.
        accounts.take(Kind::Role, &Change::List);
        accounts.take(Kind::Role, &Change::Listed { revision: 10 });
        assert_eq!(told(&accounts, "serviceaccounts/d/bot"), nothing);
        accounts.take(Kind::Role, &Change::Put(role("maps", "configmaps")));
        assert_eq!(told(&accounts, "serviceaccounts/d/bot"), maps);
        accounts.take(Kind::RoleBinding, &Change::Delete(binding("maps")));
        assert_eq!(told(&accounts, "serviceaccounts/d/bot"), nothing);
    }
}
