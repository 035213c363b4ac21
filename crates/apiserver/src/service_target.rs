//! Which pod answers for a Service: a ready one of its endpoints. It must not dial.

use serde_json::Value;
use toono_api::{
    ApiError, kinds,
    meta::{at, items_at, text_at},
};
use toono_mvcc::Prefix;

use crate::{
    encode,
    server::{ApiServer, expired},
};

/// A port of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) pod: String,
    pub(crate) port: u16,
}

/// A ready pod behind a port of a Service, which is given by number or name; an empty one is the only
/// port. Which of several is left to chance.
///
/// # Errors
/// When the Service or the port does not exist, or nothing is ready behind it.
pub(crate) fn of(
    server: &ApiServer,
    namespace: &str,
    name: &str,
    port: &str,
) -> Result<Target, ApiError> {
    let services = server.built_in(&kinds::core::SERVICE);
    let service = encode::decode(&services, &server.existing(&services, namespace, name)?)?;
    let named = port_name(&service, port).ok_or_else(|| {
        ApiError::Unavailable(format!("no service port {port:?} found for service {name:?}"))
    })?;
    let mut targets = Vec::new();
    for slice in slices(server, namespace, name)? {
        let ports = items_at(&slice, &["ports"]);
        let found = ports.filter(|one| text_at(one, &["name"]).unwrap_or_default() == named);
        let numbers: Vec<u16> =
            found.filter_map(|one| u16::try_from(at(one, &["port"])?.as_u64()?).ok()).collect();
        for endpoint in items_at(&slice, &["endpoints"]) {
            let ready = at(endpoint, &["conditions", "ready"]) != Some(&Value::Bool(false));
            let is_pod = text_at(endpoint, &["targetRef", "kind"]) == Some("Pod");
            let pod = text_at(endpoint, &["targetRef", "name"]).filter(|_| ready && is_pod);
            let pairs = pod.into_iter().flat_map(|pod| {
                numbers.iter().map(|port| Target { pod: pod.to_owned(), port: *port })
            });
            targets.extend(pairs);
        }
    }
    let chance = usize::from(uuid::Uuid::new_v4().as_bytes().first().copied().unwrap_or(0));
    let chosen = chance.checked_rem(targets.len()).map(|at| targets.swap_remove(at));
    chosen.ok_or_else(|| {
        ApiError::Unavailable(format!("no endpoints available for service {name:?}"))
    })
}

/// The name of the Service's port that is meant; endpoints go by it.
fn port_name(service: &Value, port: &str) -> Option<String> {
    let ports: Vec<&Value> = items_at(service, &["spec", "ports"]).collect();
    let name = |one: &Value| text_at(one, &["name"]).unwrap_or_default().to_owned();
    if let ([only], "") = (ports.as_slice(), port) {
        return Some(name(only));
    }
    let number = port.parse::<u64>().ok();
    let meant = |one: &&Value| match number {
        Some(number) => at(one, &["port"]).and_then(Value::as_u64) == Some(number),
        None => !port.is_empty() && name(one) == port,
    };
    ports.into_iter().find(meant).map(name)
}

fn slices(server: &ApiServer, namespace: &str, name: &str) -> Result<Vec<Value>, ApiError> {
    let resource = server.built_in(&kinds::discovery::ENDPOINT_SLICE);
    let prefix = Prefix::namespace(&resource.stored_group, &resource.stored_plural, namespace);
    let page = server.inner.store.list(&prefix, server.revision(), None, usize::MAX);
    let mut slices = Vec::new();
    for entry in page.map_err(expired)?.entries {
        let slice = encode::decode(&resource, &entry)?;
        let label = ["metadata", "labels", "kubernetes.io/service-name"];
        if text_at(&slice, &label) == Some(name) {
            slices.push(slice);
        }
    }
    Ok(slices)
}
