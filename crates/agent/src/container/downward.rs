//! The downward API: what a pod can learn of itself, in variables and in files.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceFieldSelector},
    apimachinery::pkg::api::resource::Quantity as Amount,
};
use toono_api::Quantity;

use super::{ConfigError, Surroundings, find};

/// A field of the pod, as `fieldRef` names it.
pub(super) fn field(
    pod: &Pod,
    path: &str,
    around: Surroundings<'_>,
) -> Result<String, ConfigError> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let address = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    if let Some((list, key)) = subscript(path) {
        let map = match list {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(unsupported(path)),
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => around.node_name.to_owned(),
        "spec.serviceAccountName" => {
            spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default()
        }
        "status.hostIP" | "status.hostIPs" => address(around.host_ip),
        "status.podIP" | "status.podIPs" => address(around.pod_ip),
        _ => return Err(unsupported(path)),
    })
}

/// `metadata.labels['key']` → `("metadata.labels", "key")`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (list, rest) = path.split_once('[')?;
    let key = rest.strip_suffix(']')?;
    Some((list, key.trim_matches(['\'', '"'])))
}

fn unsupported(path: &str) -> ConfigError {
    ConfigError(format!("the field path {path} is not supported"))
}

/// A line for each, with the value in quotes.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// As Go quotes a text, which is what the kubelet writes.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            other if other.is_ascii_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(other));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// What a container may use of a resource, as `resourceFieldRef` names it, in units of its divisor, rounded up. What
/// has no limit may use what the node can give.
pub(super) fn resource(
    pod: &Pod,
    own: Option<&Container>,
    wanted: &ResourceFieldSelector,
    around: Surroundings<'_>,
) -> Result<String, ConfigError> {
    let unknown = || ConfigError(format!("unsupported container resource: {}", wanted.resource));
    let other = wanted.container_name.as_deref().filter(|name| !name.is_empty());
    let found = other.and_then(|name| find(pod.spec.as_ref()?, name));
    let container = if other.is_some() { found.as_deref() } else { own };
    let container = container.ok_or_else(|| {
        let name = wanted.container_name.as_deref().unwrap_or_default();
        ConfigError(format!("container {name} not found"))
    })?;
    let (list, name) = wanted.resource.split_once('.').ok_or_else(unknown)?;
    let resources = container.resources.as_ref();
    let (amounts, node) = match list {
        "limits" => (resources.and_then(|it| it.limits.as_ref()), around.allocatable.of(name)),
        "requests" => (resources.and_then(|it| it.requests.as_ref()), None),
        _ => return Err(unknown()),
    };
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage");
    if !known && !name.starts_with("hugepages-") {
        return Err(unknown());
    }
    let amount = match amounts.and_then(|amounts| amounts.get(name)) {
        Some(amount) => Some(parsed(amount)?),
        None => None,
    };
    let divisor = match &wanted.divisor {
        Some(divisor) => parsed(divisor)?,
        None => parsed(&Amount("1".to_owned()))?,
    };
    // A CPU is counted in thousandths.
    let scaled = |it: &Quantity| if name == "cpu" { it.millis() } else { it.units() };
    let amount = amount.map(|it| scaled(&it)).filter(|it| *it != 0).or(node).unwrap_or(0);
    let divisor = match scaled(&divisor) {
        0 if name == "cpu" => 1000,
        0 => 1,
        divisor => divisor,
    };
    let whole = amount.checked_div(divisor).unwrap_or(0);
    let rest = amount.checked_rem(divisor).unwrap_or(0);
    Ok((whole + i64::from(rest > 0)).to_string())
}

fn parsed(amount: &Amount) -> Result<Quantity, ConfigError> {
    amount.0.parse().map_err(|_| ConfigError(format!("{:?} is not a quantity", amount.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::tests::Home;

    #[test]
    fn an_unknown_field_is_an_error_that_names_it() {
        let home = Home::new();
        let error = field(&Pod::default(), "status.phase", home.around()).unwrap_err();
        assert!(error.to_string().contains("status.phase"));
    }

    #[test]
    fn maps_are_lines_as_go_writes_them() {
        let home = Home::new();
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"labels": {"b": "2", "a": "1"}, "annotations": {"x": "a\n\"b\"\\\u{1}ü"}}}))
        .unwrap();
        assert_eq!(field(&pod, "metadata.labels", home.around()).unwrap(), "a=\"1\"\nb=\"2\"");
        let annotations = field(&pod, "metadata.annotations", home.around()).unwrap();
        assert_eq!(annotations, r#"x="a\n\"b\"\\\x01ü""#);
    }

    #[test]
    fn resources_are_rounded_up_and_the_node_is_the_limit() {
        let home = Home::new();
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {"containers": [
            {"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "65Mi"}, "requests": {"cpu": "250m"}}},
            {"name": "free"}]}}))
        .unwrap();
        for (container, resource_name, divisor, expected) in [
            ("c", "limits.cpu", None, "2"),
            ("c", "limits.cpu", Some("1m"), "1500"),
            ("c", "limits.memory", Some("1Mi"), "65"),
            ("c", "limits.memory", Some("10Mi"), "7"),
            ("c", "limits.memory", Some("0"), "68157440"),
            ("c", "requests.cpu", None, "1"),
            ("c", "requests.memory", None, "0"),
            ("free", "limits.cpu", None, "4"),
            ("free", "limits.memory", Some("1Mi"), "512"),
            ("free", "requests.cpu", None, "0"),
        ] {
            let wanted = ResourceFieldSelector {
                container_name: Some(container.to_owned()),
                divisor: divisor.map(|it| Amount(it.to_owned())),
                resource: resource_name.to_owned(),
            };
            let found = resource(&pod, None, &wanted, home.around()).unwrap();
            assert_eq!(found, expected, "{container} {resource_name} {divisor:?}");
        }
        let wanted =
            ResourceFieldSelector { resource: "limits.dogs".to_owned(), ..Default::default() };
        let own = &pod.spec.as_ref().unwrap().containers[0];
        assert!(resource(&pod, Some(own), &wanted, home.around()).is_err());
    }
}
