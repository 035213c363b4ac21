//! LimitRanges: what containers of a namespace get that say nothing, and how much one object may ask for.
//!
//! <https://kubernetes.io/docs/concepts/policy/limit-range/>

use serde_json::{Map, Value};
use toono_api::{
    ApiError, Quantity, kinds,
    meta::{at, items_at, text_at},
};
use toono_mvcc::Prefix;

use super::{Operation, Review, is_resized_pod, service_account::is_new_pod};
use crate::{encode, server::expired};

/// Where the server tells what it has set.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Gives containers of a new pod what they do not say.
pub(super) fn mutate(review: &Review<'_>, pod: &mut Value) -> Result<(), ApiError> {
    if !is_new_pod(review) {
        return Ok(());
    }
    for range in ranges(review)? {
        set_defaults(pod, &range);
    }
    Ok(())
}

/// Refuses what asks for too much or too little.
pub(super) fn validate(review: &Review<'_>, object: &Value) -> Result<(), ApiError> {
    let is_claim = review.resource.is(&kinds::volume::PERSISTENT_VOLUME_CLAIM)
        && review.operation != Operation::Delete
        && review.subresource.is_empty();
    if !is_new_pod(review) && !is_claim && !is_resized_pod(review) {
        return Ok(());
    }
    let mut violations = Vec::new();
    for range in ranges(review)? {
        for item in items_at(&range, &["spec", "limits"]) {
            check(object, item, is_claim, &mut violations);
        }
    }
    match violations.as_slice() {
        [] => Ok(()),
        [one] => Err(review.forbidden(one)),
        many => Err(review.forbidden(&format!("[{}]", many.join(", ")))),
    }
}

fn ranges(review: &Review<'_>) -> Result<Vec<Value>, ApiError> {
    let server = review.server;
    let resource = server.built_in(&kinds::limits::LIMIT_RANGE);
    let prefix =
        Prefix::namespace(&resource.stored_group, &resource.stored_plural, review.namespace);
    let page = server.inner.store.list(&prefix, server.revision(), None, usize::MAX);
    let entries = page.map_err(expired)?.entries;
    entries.iter().map(|entry| encode::decode(&resource, entry)).collect()
}

fn set_defaults(pod: &mut Value, range: &Value) {
    let mut told = Vec::new();
    for item in items_at(range, &["spec", "limits"]) {
        if text_at(item, &["type"]) != Some("Container") {
            continue;
        }
        for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
            let containers = pod.get_mut("spec").and_then(|spec| spec.get_mut(list));
            let containers = containers.and_then(Value::as_array_mut).into_iter().flatten();
            for container in containers {
                let name = text_at(container, &["name"]).unwrap_or_default().to_owned();
                for (part, defaults) in [("requests", "defaultRequest"), ("limits", "default")] {
                    let set = fill(container, part, item.get(defaults));
                    if !set.is_empty() {
                        let names = set.join(", ");
                        let part = part.trim_end_matches('s');
                        told.push(format!("{names} {part} for {what} {name}"));
                    }
                }
            }
        }
    }
    if told.is_empty() {
        return;
    }
    let text = format!("LimitRanger plugin set: {}", told.join("; "));
    if let Ok(metadata) = encode::metadata(pod) {
        let annotations = metadata.entry("annotations").or_insert_with(|| Map::new().into());
        encode::set(annotations, ANNOTATION, text);
    }
}

/// Sets the amounts that a container does not state; their names.
fn fill(container: &mut Value, part: &str, defaults: Option<&Value>) -> Vec<String> {
    let mut set = Vec::new();
    let Some(defaults) = defaults.and_then(Value::as_object) else { return set };
    let Some(fields) = container.as_object_mut() else { return set };
    let resources = fields.entry("resources").or_insert_with(|| Map::new().into());
    let Some(resources) = resources.as_object_mut() else { return set };
    let amounts = resources.entry(part).or_insert_with(|| Map::new().into());
    let Some(amounts) = amounts.as_object_mut() else { return set };
    for (name, amount) in defaults {
        if !amounts.contains_key(name) {
            amounts.insert(name.clone(), amount.clone());
            set.push(name.clone());
        }
    }
    set
}

/// What one kind of object asks for of one resource.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Asked {
    request: Option<Quantity>,
    limit: Option<Quantity>,
}

fn check(object: &Value, item: &Value, is_claim: bool, violations: &mut Vec<String>) {
    let kind = text_at(item, &["type"]).unwrap_or_default();
    let mut names: Vec<&String> = ["min", "max", "maxLimitRequestRatio"]
        .iter()
        .filter_map(|bound| item.get(*bound)?.as_object())
        .flat_map(Map::keys)
        .collect();
    names.sort();
    names.dedup();
    for name in names {
        let bound = |which: &str| quantity(at(item, &[which, name]));
        let bounds = Bounds {
            kind,
            name,
            min: bound("min"),
            max: bound("max"),
            ratio: bound("maxLimitRequestRatio"),
        };
        match (kind, is_claim) {
            ("Container", false) => {
                for list in ["containers", "initContainers"] {
                    for container in items_at(object, &["spec", list]) {
                        bounds.check(of_container(container, name), violations);
                    }
                }
            }
            ("Pod", false) => bounds.check(of_pod(object, name), violations),
            ("PersistentVolumeClaim", true) => {
                let request = quantity(at(object, &["spec", "resources", "requests", name]));
                bounds.check(Asked { request, limit: request }, violations);
            }
            _ => {}
        }
    }
}

struct Bounds<'a> {
    kind: &'a str,
    name: &'a str,
    min: Option<Quantity>,
    max: Option<Quantity>,
    ratio: Option<Quantity>,
}

impl Bounds<'_> {
    fn check(&self, asked: Asked, violations: &mut Vec<String>) {
        let Self { kind, name, .. } = self;
        if let Some(min) = self.min {
            match asked.request {
                None => violations.push(format!(
                    "minimum {name} usage per {kind} is {min}.  No request is specified"
                )),
                Some(request) if request < min => violations.push(format!(
                    "minimum {name} usage per {kind} is {min}, but request is {request}"
                )),
                Some(_) => {}
            }
        }
        if let Some(max) = self.max {
            match asked.limit {
                None => violations.push(format!(
                    "maximum {name} usage per {kind} is {max}.  No limit is specified"
                )),
                Some(limit) if limit > max => violations.push(format!(
                    "maximum {name} usage per {kind} is {max}, but limit is {limit}"
                )),
                Some(_) => {}
            }
        }
        if let Some(ratio) = self.ratio {
            self.check_ratio(ratio, asked, violations);
        }
    }

    fn check_ratio(&self, ratio: Quantity, asked: Asked, violations: &mut Vec<String>) {
        let Self { kind, name, .. } = self;
        let what = format!("{name} max limit to request ratio per {kind} is {ratio}");
        match (asked.request.map(millis), asked.limit.map(millis)) {
            (None | Some(0.0), _) => {
                violations.push(format!("{what}, but no request is specified or request is 0"));
            }
            (_, None | Some(0.0)) => {
                violations.push(format!("{what}, but no limit is specified or limit is 0"));
            }
            (Some(request), Some(limit)) if limit / request > millis(ratio) / 1000.0 => {
                let provided = limit / request;
                violations.push(format!("{what}, but provided ratio is {provided:.6}"));
            }
            _ => {}
        }
    }
}

fn of_container(container: &Value, name: &str) -> Asked {
    let part = |part: &str| quantity(at(container, &["resources", part, name]));
    Asked { request: part("requests"), limit: part("limits") }
}

/// What the containers ask for together, or an init container alone if that is more. A limit counts
/// only if every container has one.
fn of_pod(pod: &Value, name: &str) -> Asked {
    let (mut sum, mut has_limits) = (Asked::default(), true);
    let mut add = |asked: Asked| {
        let plus = |a: Option<Quantity>, b: Option<Quantity>| match (a, b) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (a, b) => a.or(b),
        };
        has_limits &= asked.limit.is_some();
        sum.request = plus(sum.request, asked.request);
        sum.limit = plus(sum.limit, asked.limit);
    };
    let inits = || items_at(pod, &["spec", "initContainers"]);
    let is_sidecar = |container: &&Value| text_at(container, &["restartPolicy"]) == Some("Always");
    items_at(pod, &["spec", "containers"]).for_each(|one| add(of_container(one, name)));
    inits().filter(is_sidecar).for_each(|one| add(of_container(one, name)));
    for container in inits().filter(|container| !is_sidecar(container)) {
        let asked = of_container(container, name);
        has_limits &= asked.limit.is_some();
        sum.request = sum.request.max(asked.request);
        sum.limit = sum.limit.max(asked.limit);
    }
    if !has_limits {
        sum.limit = None;
    }
    sum
}

/// For a ratio that people read.
#[expect(clippy::cast_precision_loss, reason = "six digits are shown")]
fn millis(quantity: Quantity) -> f64 {
    quantity.millis() as f64
}

fn quantity(value: Option<&Value>) -> Option<Quantity> {
    value?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn violations(pod: &Value, item: &Value) -> Vec<String> {
        let mut violations = Vec::new();
        check(pod, item, false, &mut violations);
        violations
    }

    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "a"}, "spec": {"containers": [
            {"name": "main", "resources": resources}, {"name": "side", "resources": {
                "requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}}}]}})
    }

    #[test]
    fn bounds_are_told_in_kubernetes_words() {
        let item = json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "500m"}});
        let small = pod(json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "1"}}));
        assert_eq!(
            violations(&small, &item),
            [
                "minimum cpu usage per Container is 100m, but request is 50m",
                "maximum cpu usage per Container is 500m, but limit is 1"
            ]
        );
        assert_eq!(
            violations(&pod(json!({})), &item),
            [
                "minimum cpu usage per Container is 100m.  No request is specified",
                "maximum cpu usage per Container is 500m.  No limit is specified"
            ]
        );
        let item = json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}});
        let wide = pod(json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}}));
        assert_eq!(
            violations(&wide, &item),
            ["cpu max limit to request ratio per Container is 2, but provided ratio is 5.000000"]
        );
    }

    #[test]
    fn a_pod_is_the_sum_of_its_containers() {
        let item = json!({"type": "Pod", "max": {"cpu": "500m"}});
        let given = pod(json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "400m"}}));
        assert_eq!(
            violations(&given, &item),
            ["maximum cpu usage per Pod is 500m, but limit is 600m"]
        );
        assert_eq!(
            violations(&pod(json!({})), &item),
            ["maximum cpu usage per Pod is 500m.  No limit is specified"]
        );
    }

    #[test]
    fn defaults_are_set_and_told() {
        let range = json!({"spec": {"limits": [{"type": "Container",
            "default": {"cpu": "300m"}, "defaultRequest": {"cpu": "200m"}}]}});
        let mut given = pod(json!({"requests": {"cpu": "100m"}}));
        set_defaults(&mut given, &range);
        assert_eq!(
            given["spec"]["containers"][0]["resources"],
            json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "300m"}})
        );
        assert_eq!(
            given["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu limit for container main"
        );
    }
}
