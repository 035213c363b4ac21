//! Which kinds live in namespaces and can be deleted, at this moment. A group that cannot be asked
//! hides its kinds, not those of the others.

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, APIResourceList};
use kube::{Client, core::ApiResource};

use crate::error::chain;

/// A kind that lives in namespaces.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) resource: ApiResource,
    pub(super) deletes_collections: bool,
    pub(super) lists: bool,
}

/// What could be found out.
#[derive(Debug, Default)]
pub(super) struct Served {
    pub(super) kinds: Vec<Kind>,
    /// `group/version: why it could not be asked`.
    pub(super) failures: Vec<String>,
}

/// Asks the API for all its kinds, each in its group's preferred version.
pub(super) async fn served(client: &Client) -> Result<Served, kube::Error> {
    let mut served = Served::default();
    let mut known = HashSet::new();
    for version in client.list_core_api_versions().await?.versions {
        let listed = client.list_core_api_resources(&version).await;
        served.add(&mut known, "", &version, listed);
    }
    for group in client.list_api_groups().await?.groups {
        let preferred = group.preferred_version.map(|preferred| preferred.version);
        let others = group.versions.into_iter().map(|other| other.version);
        let mut asked = HashSet::new();
        for version in preferred.into_iter().chain(others) {
            if asked.insert(version.clone()) {
                let listed =
                    client.list_api_group_resources(&format!("{}/{version}", group.name)).await;
                served.add(&mut known, &group.name, &version, listed);
            }
        }
    }
    Ok(served)
}

impl Served {
    fn add(
        &mut self,
        known: &mut HashSet<(String, String)>,
        group: &str,
        version: &str,
        listed: Result<APIResourceList, kube::Error>,
    ) {
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) => {
                let name =
                    if group.is_empty() { version.into() } else { format!("{group}/{version}") };
                return self.failures.push(format!("{name}: {}", chain(&error)));
            }
        };
        for found in listed.resources {
            let can = |verb: &str| found.verbs.iter().any(|known| known == verb);
            let subresource = found.name.contains('/');
            if subresource || !found.namespaced || !can("delete") {
                continue;
            }
            if known.insert((group.to_owned(), found.name.clone())) {
                let (deletes_collections, lists) = (can("deletecollection"), can("list"));
                let resource = resource(group, version, &found);
                self.kinds.push(Kind { resource, deletes_collections, lists });
            }
        }
    }
}

fn resource(group: &str, version: &str, found: &APIResource) -> ApiResource {
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: if group.is_empty() { version.into() } else { format!("{group}/{version}") },
        kind: found.kind.clone(),
        plural: found.name.clone(),
    }
}
