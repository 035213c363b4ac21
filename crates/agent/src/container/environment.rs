//! A container's variables and command line: values, what they are taken from, and `$(NAME)`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVarSource, Pod};
use toono_images::Image;
use toono_wire::referent::ReferentKind;

use super::{ConfigError, Surroundings, downward};

/// Names and values in the order of the pod; a later one of the same name wins.
pub(crate) type Variables = Vec<(String, String)>;

/// The variables that the pod sets, and those that tell it of Services.
pub(super) fn of_pod(
    pod: &Pod,
    container: &Container,
    around: Surroundings<'_>,
) -> Result<Variables, ConfigError> {
    let mut variables = Variables::new();
    for source in container.env_from.iter().flatten() {
        for (name, value) in all_of(pod, source, around)? {
            set(&mut variables, name, value);
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (variable.value.as_deref().unwrap_or_default(), &variable.value_from) {
            ("", Some(source)) => value_from(pod, container, source, around)?,
            (text, _) => Some(expand_by(text, |name| {
                value_of(name, &variables).or_else(|| value_of(name, around.services))
            })),
        };
        // What is optional and missing is not set.
        if let Some(value) = value {
            set(&mut variables, variable.name.clone(), value);
        }
    }
    for (name, value) in around.services {
        if !variables.iter().any(|(known, _)| known == name) {
            variables.push((name.clone(), value.clone()));
        }
    }
    Ok(variables)
}

fn set(variables: &mut Variables, name: String, value: String) {
    variables.retain(|(known, _)| *known != name);
    variables.push((name, value));
}

/// All keys of a ConfigMap or Secret as variables.
fn all_of(
    pod: &Pod,
    source: &EnvFromSource,
    around: Surroundings<'_>,
) -> Result<Variables, ConfigError> {
    let (kind, name, optional) = match (&source.config_map_ref, &source.secret_ref) {
        (Some(map), _) => (ReferentKind::ConfigMap, &map.name, map.optional),
        (None, Some(secret)) => (ReferentKind::Secret, &secret.name, secret.optional),
        (None, None) => return Ok(Variables::new()),
    };
    let content = around.find(pod, kind, name, optional == Some(true))?.unwrap_or_default();
    let prefix = source.prefix.as_deref().unwrap_or_default();
    let named =
        |(key, value): (String, Vec<u8>)| Ok((format!("{prefix}{key}"), text(&key, value)?));
    content.data.into_iter().map(named).collect()
}

/// The value that a variable takes from elsewhere; none when it is optional and missing.
fn value_from(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    around: Surroundings<'_>,
) -> Result<Option<String>, ConfigError> {
    if let Some(field) = &source.field_ref {
        return downward::field(pod, &field.field_path, around).map(Some);
    }
    if let Some(wanted) = &source.resource_field_ref {
        return downward::resource(pod, Some(container), wanted, around).map(Some);
    }
    let (kind, name, key, optional) = match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(map), _) => (ReferentKind::ConfigMap, &map.name, &map.key, map.optional),
        (None, Some(secret)) => (ReferentKind::Secret, &secret.name, &secret.key, secret.optional),
        (None, None) => {
            return Err(ConfigError(format!(
                "spec.containers[{}].env.valueFrom: no source that this node knows",
                container.name
            )));
        }
    };
    let optional = optional == Some(true);
    let Some(mut content) = around.find(pod, kind, name, optional)? else { return Ok(None) };
    match content.data.remove(key) {
        Some(value) => text(key, value).map(Some),
        None if optional => Ok(None),
        None => {
            let what = match kind {
                ReferentKind::ConfigMap => "ConfigMap",
                _ => "Secret",
            };
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let text = format!("couldn't find key {key} in {what} {namespace}/{name}");
            Err(ConfigError(text))
        }
    }
}

/// A variable's value cannot be any bytes.
fn text(key: &str, bytes: Vec<u8>) -> Result<String, ConfigError> {
    let text = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    text.ok_or_else(|| ConfigError(format!("the value of {key} cannot be that of a variable")))
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

/// As [`expand`], where each variable must have a value.
pub(super) fn expand_wholly(text: &str, variables: &Variables) -> Result<String, ConfigError> {
    let mut missing = BTreeSet::new();
    let expanded = expand_by(text, |name| {
        let value = value_of(name, variables).filter(|value| !value.is_empty());
        if value.is_none() {
            missing.insert(name.to_owned());
        }
        value
    });
    if missing.is_empty() {
        return Ok(expanded);
    }
    let names: Vec<String> = missing.into_iter().collect();
    Err(ConfigError(format!("missing value for {}", names.join(", "))))
}

/// Replaces `$(NAME)` by the variable's value and `$$` by `$`. What names no variable stays.
fn expand(text: &str, variables: &Variables) -> String {
    expand_by(text, |name| value_of(name, variables))
}

fn value_of<'a>(name: &str, variables: &'a [(String, String)]) -> Option<&'a str> {
    variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn expand_by<'a>(text: &str, mut value_of: impl FnMut(&str) -> Option<&'a str>) -> String {
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
            match value_of(name) {
                Some(value) => out.push_str(value),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::tests::Home;

    #[test]
    fn what_must_have_a_value_is_named_when_it_has_none() {
        let variables = vec![("A".to_owned(), "1".to_owned()), ("E".to_owned(), String::new())];
        assert_eq!(expand_wholly("x/$(A)/$$(A)", &variables).unwrap(), "x/1/$(A)");
        let error = expand_wholly("$(NO)/$(A)/$(E)", &variables).unwrap_err();
        assert_eq!(error.to_string(), "missing value for E, NO");
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
        let variables = of_pod(&pod, container, Home::new().around()).unwrap();
        let value = |name: &str| variables.iter().find(|(it, _)| it == name).unwrap().1.as_str();
        assert_eq!(value("ALL"), "p/web@10.244.0.2");
        assert_eq!((value("NODE"), value("NAME")), ("n1", "again"));
        assert_eq!(variables.len(), 5);
        let image = ["PATH=/bin".to_owned(), "APP=image".to_owned()];
        let all = merged(&image, variables);
        assert_eq!(all[0], ("PATH".to_owned(), "/bin".to_owned()));
        assert_eq!(all.iter().filter(|(name, _)| name == "APP").count(), 1);
    }

    /// The variables of a container with this `env` and `envFrom`, as `NAME=VALUE`.
    fn variables(home: &Home, env: &str, env_from: &str) -> Result<Vec<String>, String> {
        let text = format!(
            r#"{{"metadata": {{"namespace": "d"}},
                "spec": {{"containers": [{{"name": "c", "env": {env}, "envFrom": {env_from},
                    "resources": {{"limits": {{"cpu": "1500m"}}}}}}]}}}}"#
        );
        let pod: Pod = serde_json::from_str(&text).unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let made = of_pod(&pod, container, home.around()).map_err(|it| it.to_string())?;
        Ok(made.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
    }

    #[test]
    fn values_come_from_config_maps_and_secrets() {
        let home = Home::new();
        home.put(r#"{"kind":"ConfigMap","namespace":"d","name":"m","data":{"A":"1","1st":"2"},"binaryData":{"X":"AP8="}}"#);
        home.put(r#"{"kind":"Secret","namespace":"d","name":"s","data":{"A":"c2VjcmV0"}}"#);
        let from = r#"[{"configMapRef": {"name": "m"}}, {"prefix": "S_", "secretRef": {"name": "s"}},
            {"secretRef": {"name": "none", "optional": true}}]"#;
        let env = r#"[{"name": "B", "value": "$(A)-$(S_A)"},
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "A"}}},
            {"name": "D", "valueFrom": {"secretKeyRef": {"name": "s", "key": "A"}}},
            {"name": "E", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "X", "optional": true}}},
            {"name": "F", "valueFrom": {"secretKeyRef": {"name": "none", "key": "X", "optional": true}}},
            {"name": "G", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "A", "value": "own"}]"#;
        assert_eq!(
            variables(&home, env, from).unwrap(),
            ["1st=2", "S_A=secret", "B=1-secret", "C=1", "D=secret", "G=2", "A=own"]
        );
    }

    #[test]
    fn what_is_missing_is_told_as_the_kubelet_does() {
        let home = Home::new();
        home.put(r#"{"kind":"ConfigMap","namespace":"d","name":"m","data":{"A":"1"}}"#);
        home.put(r#"{"kind":"Secret","namespace":"d","name":"s","data":{"A":"AP8="}}"#);
        home.put(r#"{"kind":"Secret","namespace":"e","name":"other","data":{"A":""}}"#);
        let one = |source: &str| format!(r#"[{{"name": "V", "valueFrom": {source}}}]"#);
        for (env, env_from, expected) in [
            (
                one(r#"{"configMapKeyRef": {"name": "x", "key": "A"}}"#),
                "[]",
                "configmap \"x\" not found",
            ),
            (
                one(r#"{"configMapKeyRef": {"name": "m", "key": "B"}}"#),
                "[]",
                "couldn't find key B in ConfigMap d/m",
            ),
            (
                one(r#"{"secretKeyRef": {"name": "s", "key": "B"}}"#),
                "[]",
                "couldn't find key B in Secret d/s",
            ),
            (
                one(r#"{"secretKeyRef": {"name": "s", "key": "A"}}"#),
                "[]",
                "the value of A cannot be that of a variable",
            ),
            (
                "[]".to_owned(),
                r#"[{"secretRef": {"name": "other"}}]"#,
                "secret \"other\" not found",
            ),
        ] {
            assert_eq!(variables(&home, &env, env_from), Err(expected.to_owned()));
        }
    }
}
