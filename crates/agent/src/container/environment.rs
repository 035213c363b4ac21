//! A container's variables and command line: values, the downward API, and `$(NAME)`.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod};
use toono_images::Image;

use super::{ConfigError, Surroundings};

/// Names and values in the order of the pod; a later one of the same name wins.
pub(super) type Variables = Vec<(String, String)>;

/// The variables that the pod sets.
pub(super) fn of_pod(
    pod: &Pod,
    container: &Container,
    around: Surroundings<'_>,
) -> Result<Variables, ConfigError> {
    let mut variables = Variables::new();
    for variable in container.env.iter().flatten() {
        let field = variable.value_from.as_ref().and_then(|source| source.field_ref.as_ref());
        let value = match (&variable.value_from, field) {
            (None, _) => expand(variable.value.as_deref().unwrap_or_default(), &variables),
            (Some(_), Some(field)) => downward(pod, &field.field_path, around)?,
            (Some(_), None) => {
                let path = format!("spec.containers[{}].env[{}]", container.name, variable.name);
                return Err(ConfigError(format!("{path}.valueFrom is not supported by this node")));
            }
        };
        variables.retain(|(name, _)| *name != variable.name);
        variables.push((variable.name.clone(), value));
    }
    Ok(variables)
}

/// The image's variables with the pod's over them.
pub(super) fn merged(image: &[String], pod: Variables) -> Variables {
    let of_image = image.iter().filter_map(|text| {
        let (name, value) = text.split_once('=')?;
        (!pod.iter().any(|(other, _)| other == name)).then(|| (name.to_owned(), value.to_owned()))
    });
    let mut all: Variables = of_image.collect();
    all.extend(pod);
    all
}

/// The command line: the pod's `command` replaces the image's entry point and arguments, its `args`
/// alone replace the arguments.
pub(super) fn command(container: &Container, variables: &Variables, image: &Image) -> Vec<String> {
    let expanded = |list: &[String]| list.iter().map(|text| expand(text, variables)).collect();
    let command: Vec<String> = expanded(container.command.as_deref().unwrap_or_default());
    let args: Vec<String> = expanded(container.args.as_deref().unwrap_or_default());
    let (entrypoint, cmd) = (image.config.entrypoint.clone(), image.config.cmd.clone());
    match (command.is_empty(), args.is_empty()) {
        (true, true) => [entrypoint, cmd].concat(),
        (true, false) => [entrypoint, args].concat(),
        (false, _) => [command, args].concat(),
    }
}

/// Replaces `$(NAME)` by the variable's value and `$$` by `$`. What names no variable stays.
fn expand(text: &str, variables: &Variables) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        if let Some(after) = from.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) =
            from.strip_prefix("$(").and_then(|it| it.split_once(')'))
        {
            match variables.iter().find(|(known, _)| known == name) {
                Some((_, value)) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
            rest = from.get(1..).unwrap_or_default();
        }
    }
    out.push_str(rest);
    out
}

/// A field of the pod, as `valueFrom.fieldRef` names it.
fn downward(pod: &Pod, path: &str, around: Surroundings<'_>) -> Result<String, ConfigError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn around() -> Surroundings<'static> {
        Surroundings {
            dir: Path::new("/"),
            node_name: "n1",
            host_ip: Some([192, 0, 2, 1].into()),
            pod_ip: Some([10, 244, 0, 2].into()),
            memory_capacity: 1,
        }
    }

    #[test]
    fn references_expand_as_the_kubelet_does() {
        let variables = vec![("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())];
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(MISSING)", "$(MISSING)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(B)", "$(A)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("ü$(A)ü", "ü1ü"),
        ] {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }

    #[test]
    fn the_downward_api_and_earlier_variables() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "u", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "env": [
                {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "ALL", "value": "$(NAME)/$(APP)@$(IP)"},
                {"name": "NAME", "value": "again"}]}]},
        }))
        .unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let variables = of_pod(&pod, container, around()).unwrap();
        let value = |name: &str| variables.iter().find(|(it, _)| it == name).unwrap().1.as_str();
        assert_eq!(value("ALL"), "p/web@10.244.0.2");
        assert_eq!((value("NODE"), value("NAME")), ("n1", "again"));
        assert_eq!(variables.len(), 5);
        let image = ["PATH=/bin".to_owned(), "APP=image".to_owned()];
        let all = merged(&image, variables);
        assert_eq!(all[0], ("PATH".to_owned(), "/bin".to_owned()));
        assert_eq!(all.iter().filter(|(name, _)| name == "APP").count(), 1);
    }

    #[test]
    fn an_unknown_field_is_an_error_that_names_it() {
        let error = downward(&Pod::default(), "status.phase", around()).unwrap_err();
        assert!(error.to_string().contains("status.phase"));
    }
}
