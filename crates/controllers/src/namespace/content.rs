//! Deleting what is in a namespace, kind by kind, and counting what is left: pods first, so that
//! nothing is taken from under a program that still runs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, PartialObjectMeta},
};

use super::discovery::{self, Kind};
use crate::error::{chain, is_not_found};

type Metadata = PartialObjectMeta<DynamicObject>;

/// Objects read at once when what is left is counted.
const PAGE: u32 = 500;

/// What a round left over and what went wrong in it.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Why the kinds are not all known.
    pub(super) undiscovered: Option<String>,
    /// By `plural.group`, how many objects are left.
    pub(super) objects: BTreeMap<String, usize>,
    /// By finalizer, how many objects it keeps.
    pub(super) finalizers: BTreeMap<String, usize>,
    /// Why kinds could not be deleted.
    pub(super) undeleted: Vec<String>,
}

impl Left {
    /// The namespace may go.
    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty() && !self.has_failures()
    }

    pub(super) fn has_failures(&self) -> bool {
        self.undiscovered.is_some() || !self.undeleted.is_empty()
    }

    pub(super) fn failures(&self) -> Vec<String> {
        self.undiscovered.iter().chain(&self.undeleted).cloned().collect()
    }
}

/// One round over all kinds of the namespace that was deleted at this time.
pub(super) async fn delete_all(client: &Client, namespace: &str, deleted: Timestamp) -> Left {
    let mut left = Left::default();
    let served = match discovery::served(client).await {
        Ok(served) => served,
        Err(error) => {
            left.undiscovered = Some(chain(&error));
            return left;
        }
    };
    left.undiscovered = discovery_failure(&served.failures);
    let is_pods = |kind: &&Kind| kind.resource.group.is_empty() && kind.resource.plural == "pods";
    for pods in served.kinds.iter().filter(is_pods) {
        delete_kind(client, namespace, deleted, pods, &mut left).await;
    }
    if !left.objects.is_empty() {
        return left;
    }
    for kind in served.kinds.iter().filter(|kind| !is_pods(kind)) {
        delete_kind(client, namespace, deleted, kind, &mut left).await;
    }
    left
}

fn discovery_failure(failures: &[String]) -> Option<String> {
    let all = failures.join(", ");
    (!failures.is_empty()).then(|| {
        format!(
            "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {all}",
            failures.len()
        )
    })
}

async fn delete_kind(
    client: &Client,
    namespace: &str,
    deleted: Timestamp,
    kind: &Kind,
    left: &mut Left,
) {
    let api: Api<Metadata> = Api::namespaced_with(client.clone(), namespace, &kind.resource);
    match delete_and_list(&api, kind).await {
        Ok(objects) => {
            let grace = count(kind, &objects, left);
            let waits = Timestamp::now().duration_since(deleted).as_secs() < grace
                || objects.iter().any(|object| !finalizers(object).is_empty());
            if !objects.is_empty() && !waits {
                left.undeleted.push(format!(
                    "unexpected items still remain in namespace: {namespace} for gvr: {}/{}, Resource={}",
                    kind.resource.group, kind.resource.version, kind.resource.plural
                ));
            }
        }
        // The kind itself went away meanwhile, and its objects with it.
        Err(error) if is_not_found(&error) => {}
        Err(error) => left.undeleted.push(chain(&error)),
    }
}

async fn delete_and_list(api: &Api<Metadata>, kind: &Kind) -> Result<Vec<Metadata>, kube::Error> {
    let background = DeleteParams::background();
    if kind.deletes_collections {
        api.delete_collection(&background, &ListParams::default()).await?;
    } else {
        for object in list(api, kind).await? {
            let name = object.metadata.name.as_deref().unwrap_or_default();
            match api.delete(name, &background).await {
                Ok(_) => {}
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    list(api, kind).await
}

async fn list(api: &Api<Metadata>, kind: &Kind) -> Result<Vec<Metadata>, kube::Error> {
    if !kind.lists {
        return Ok(Vec::new());
    }
    let mut params = ListParams::default().limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = api.list(&params).await?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = ListParams::default().limit(PAGE).continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// Counts what is left of a kind; the longest grace period in it, in seconds.
fn count(kind: &Kind, objects: &[Metadata], left: &mut Left) -> i64 {
    if !objects.is_empty() {
        let name = format!("{}.{}", kind.resource.plural, kind.resource.group);
        left.objects.insert(name, objects.len());
    }
    for finalizer in objects.iter().flat_map(finalizers) {
        *left.finalizers.entry(finalizer.clone()).or_default() += 1;
    }
    let graces = objects.iter().filter_map(|one| one.metadata.deletion_grace_period_seconds);
    graces.max().unwrap_or(0)
}

fn finalizers(object: &Metadata) -> &[String] {
    object.metadata.finalizers.as_deref().unwrap_or_default()
}
