//! What a PersistentVolumeClaim uses: storage, in all and by storage class.

use serde_json::Value;
use toono_api::Quantity;

use crate::{
    Amounts,
    usage::{at, text},
};

const REQUESTS_STORAGE: &str = "requests.storage";
const BY_CLASS: &str = ".storageclass.storage.k8s.io/";
/// How a claim named its class before there was a field for it.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub(crate) fn counts(resource: &str) -> bool {
    let by_class =
        |suffix: &str| resource.strip_suffix(suffix).is_some_and(|class| class.ends_with(BY_CLASS));
    resource == REQUESTS_STORAGE || by_class(REQUESTS_STORAGE) || by_class("persistentvolumeclaims")
}

pub(crate) fn usage(claim: &Value) -> Amounts {
    let class = text(claim, &["metadata", "annotations", CLASS_ANNOTATION])
        .or_else(|| text(claim, &["spec", "storageClassName"]));
    let mut used = Amounts::default();
    if let Some(class) = class {
        let name = format!("{class}{BY_CLASS}persistentvolumeclaims");
        used.set(name, Quantity::from_millis(1000));
    }
    let requested = Amounts::read(at(claim, &["spec", "resources", "requests"])).of("storage");
    // A claim being expanded may hold more than it asks for.
    let allocated = Amounts::read(at(claim, &["status", "allocatedResources"])).of("storage");
    if let Some(storage) = requested.max(allocated) {
        used.set(REQUESTS_STORAGE, storage);
        if let Some(class) = class {
            used.set(format!("{class}{BY_CLASS}{REQUESTS_STORAGE}"), storage);
        }
    }
    used
}
