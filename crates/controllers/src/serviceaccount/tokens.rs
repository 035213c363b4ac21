//! Secrets of type `kubernetes.io/service-account-token`: each gets a token of the account that it names,
//! and goes with the account. Such a token has no end: it is good as long as its secret holds it.
//!
//! <https://kubernetes.io/docs/concepts/configuration/secret/#serviceaccount-token-secrets>

use std::sync::Arc;

use k8s_openapi::ByteString;
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};
use serde_json::{Value, json};
use toono_pki::TokenKey;

use super::ServiceAccount;
use crate::{
    context::Context,
    error::{SyncError, is_not_found},
    informer::{Index, Informer, by_namespace},
    key::Key,
    kinds::Secret,
    patch,
    queue::WorkQueue,
    worker::{self, Again},
};

const COMPONENT: &str = "tokens-controller";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// Entries of such a secret.
const TOKEN: &str = "token";
const ROOT_CA: &str = "ca.crt";
const NAMESPACE: &str = "namespace";
/// Who signs these tokens, which differ from those made on request.
const ISSUER: &str = "kubernetes/serviceaccount";

/// Fills the secrets and removes them. The queue holds their names.
pub(crate) struct Controller {
    key: Option<Arc<TokenKey>>,
    queue: Arc<WorkQueue<Key>>,
    secrets: Arc<Informer<Secret>>,
    accounts: Informer<ServiceAccount>,
}

impl Controller {
    /// Without a key it does nothing.
    pub(crate) fn new(key: Option<Arc<TokenKey>>) -> Self {
        let queue = Arc::new(WorkQueue::new());
        let mut secrets = Informer::<Secret>::new(vec![(Index::Namespace, by_namespace)])
            .with_fields("type=kubernetes.io/service-account-token");
        secrets.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                if let Some(secret) = &change.new {
                    queue.add(Key::of(&secret.metadata));
                }
            }
        });
        let secrets = Arc::new(secrets);
        let mut accounts = Informer::<ServiceAccount>::new(Vec::new());
        accounts.on_change({
            let (queue, secrets) = (Arc::clone(&queue), Arc::clone(&secrets));
            move |change| {
                // Only an account that comes, or goes, matters to its secrets.
                let ((None, Some(account)) | (Some(account), None)) = (&change.new, &change.old)
                else {
                    return;
                };
                let account = Key::of(&account.metadata);
                let near = secrets.by(Index::Namespace, &account.namespace);
                for secret in near.iter().filter(|secret| account_of(secret) == &*account.name) {
                    queue.add(Key::of(&secret.metadata));
                }
            }
        });
        Self { key, queue, secrets, accounts }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        let Some(key) = &self.key else { return };
        let (secrets, accounts, shared) = (&self.secrets, &self.accounts, &context);
        let sync = |secret: Key| async move {
            let Some(found) = secrets.get(&secret) else { return Ok(None) };
            sync(shared, key, accounts, &secret, &found).await
        };
        let work = async {
            secrets.wait_synced().await;
            accounts.wait_synced().await;
            let count = context.config.concurrent_syncs;
            worker::run(COMPONENT, count, Arc::clone(&self.queue), sync).await;
        };
        let client = &context.client;
        futures::join!(
            secrets.run(Api::all(client.clone())),
            accounts.run(Api::all(client.clone())),
            work
        );
    }
}

fn annotation<'s>(secret: &'s Secret, name: &str) -> &'s str {
    let annotations = secret.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(name)).map_or("", String::as_str)
}

fn account_of(secret: &Secret) -> &str {
    annotation(secret, ACCOUNT_NAME)
}

async fn sync(
    context: &Context,
    key: &TokenKey,
    accounts: &Informer<ServiceAccount>,
    place: &Key,
    secret: &Secret,
) -> Result<Again, SyncError> {
    let account = Key::new(&place.namespace, account_of(secret));
    let found = match accounts.get(&account) {
        Some(found) => Some(found),
        // The cache may be behind a client that has just made both.
        None => context
            .api::<ServiceAccount>(&place.namespace)
            .get_opt(&account.name)
            .await
            .map_err(SyncError::api("get", "ServiceAccount", &account))?
            .map(Arc::new),
    };
    let api: Api<Secret> = context.api(&place.namespace);
    let uid = found.and_then(|found| found.metadata.uid.clone());
    let known = annotation(secret, ACCOUNT_UID);
    let written = match uid.filter(|uid| known.is_empty() || known == uid) {
        None => {
            let only_this = Preconditions {
                uid: secret.metadata.uid.clone(),
                resource_version: secret.metadata.resource_version.clone(),
            };
            let params = DeleteParams::default().preconditions(only_this);
            api.delete(&place.name, &params).await.map(drop)
        }
        Some(uid) => match missing(key, &context.config.root_ca, place, secret, &uid) {
            None => return Ok(None),
            Some(change) => {
                let change = patch::on_top_of(secret, change);
                patch::merge(&api, &place.name, &change).await.map(drop)
            }
        },
    };
    match written {
        Ok(()) => Ok(None),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(SyncError::api("write", "Secret", place)(error)),
    }
}

/// The change that gives a secret what it lacks, if it lacks anything.
fn missing(
    key: &TokenKey,
    root_ca: &str,
    place: &Key,
    secret: &Secret,
    uid: &str,
) -> Option<Value> {
    let held = |entry: &str| secret.data.get(entry).map(|bytes| bytes.0.as_slice());
    let mut data = serde_json::Map::new();
    let mut set = |entry: &str, text: &str| {
        data.insert(entry.to_owned(), json!(ByteString(text.as_bytes().to_vec())));
    };
    if !root_ca.is_empty() && held(ROOT_CA) != Some(root_ca.as_bytes()) {
        set(ROOT_CA, root_ca);
    }
    if held(NAMESPACE).is_none_or(<[u8]>::is_empty) {
        set(NAMESPACE, &place.namespace);
    }
    if held(TOKEN).is_none_or(<[u8]>::is_empty) {
        match key.sign(&claims(place, account_of(secret), uid)) {
            Ok(token) => set(TOKEN, &token),
            Err(error) => tracing::warn!(secret = %place, %error, "cannot sign a token"),
        }
    }
    let marked = annotation(secret, ACCOUNT_UID) == uid;
    (!data.is_empty() || !marked)
        .then(|| json!({"metadata": {"annotations": {ACCOUNT_UID: uid}}, "data": data}))
}

fn claims(secret: &Key, account: &str, uid: &str) -> Value {
    let namespace = &*secret.namespace;
    json!({
        "iss": ISSUER,
        "sub": format!("system:serviceaccount:{namespace}:{account}"),
        "kubernetes.io/serviceaccount/namespace": namespace,
        "kubernetes.io/serviceaccount/secret.name": &*secret.name,
        "kubernetes.io/serviceaccount/service-account.name": account,
        "kubernetes.io/serviceaccount/service-account.uid": uid,
    })
}
