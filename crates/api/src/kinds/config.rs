//! The rows of ConfigMaps and Secrets.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{
    ROW,
    checks::{self, Errors},
    field::At,
    map_in, set_default,
};
use crate::{error::FieldError, names, print::core as print, resource::BuiltIn};

/// ConfigMaps.
pub static CONFIG_MAP: BuiltIn = BuiltIn {
    kind: "ConfigMap",
    list_kind: "ConfigMapList",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    columns: print::CONFIG_MAP,
    row: print::config_map_row,
    message: "core.ConfigMap",
    validate: config_map_rules,
    validate_update: config_map_update,
    ..ROW
};

/// Secrets.
pub static SECRET: BuiltIn = BuiltIn {
    kind: "Secret",
    list_kind: "SecretList",
    plural: "secrets",
    singular: "secret",
    columns: print::SECRET,
    row: print::secret_row,
    message: "core.Secret",
    default: secret_defaults,
    validate: secret_rules,
    validate_update: secret_update,
    field_selectors: &["type"],
    ..ROW
};

/// Most bytes of all values of a ConfigMap or Secret together, as in Kubernetes.
pub const DATA_MAX_BYTES: usize = 1024 * 1024;

const KEPT: &str = "field is immutable when `immutable` is set";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const DOCKER_CONFIG: &str = ".dockercfg";
const DOCKER_CONFIG_JSON: &str = ".dockerconfigjson";

/// Checks keys, and counts the bytes of the values.
fn keys(root: At<'_, '_>, list: &str, encoded: bool, errors: &mut Errors) -> usize {
    let mut bytes = 0;
    for (key, value) in root.entries(list) {
        bytes += if encoded {
            STANDARD.decode(value.text()).map_or(0, |decoded| decoded.len())
        } else {
            value.text().len()
        };
        let wrong = names::config_key(key);
        errors.extend(wrong.iter().map(|why| value.invalid_text(key, why)));
    }
    bytes
}

fn config_map_rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let bytes = keys(root.at(), "data", false, &mut errors)
        + keys(root.at(), "binaryData", true, &mut errors);
    for (list, other) in [("data", "binaryData"), ("binaryData", "data")] {
        for (key, value) in root.entries(list).filter(|(key, _)| root.get(other).get(key).is_set())
        {
            let why = format!("duplicate of key present in {other}");
            errors.push(value.invalid_text(key, &why));
        }
    }
    if bytes > DATA_MAX_BYTES {
        errors.push(root.at().too_long(DATA_MAX_BYTES));
    }
    errors
}

fn secret_rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let data = root.get("data");
    let bytes = keys(root.at(), "data", true, &mut errors);
    if bytes > DATA_MAX_BYTES {
        errors.push(data.too_long(DATA_MAX_BYTES));
    }
    let must = |key: &str, errors: &mut Errors| {
        if !data.get(key).is_set() {
            let path = format!("data[{key}]");
            errors.push(FieldError::required(path, ""));
        }
    };
    match root.get("type").text() {
        "kubernetes.io/service-account-token" => {
            let annotation = root.get("metadata");
            let annotation = annotation.get("annotations");
            if annotation.get(ACCOUNT_NAME).text().is_empty() {
                let path = format!("metadata.annotations[{ACCOUNT_NAME}]");
                errors.push(FieldError::required(path, ""));
            }
        }
        "kubernetes.io/dockercfg" => docker_config(data, DOCKER_CONFIG, &mut errors),
        "kubernetes.io/dockerconfigjson" => docker_config(data, DOCKER_CONFIG_JSON, &mut errors),
        "kubernetes.io/basic-auth"
            if !data.get("username").is_set() && !data.get("password").is_set() =>
        {
            must("username", &mut errors);
            must("password", &mut errors);
        }
        "kubernetes.io/ssh-auth" if data.get("ssh-privatekey").text().is_empty() => {
            errors.push(FieldError::required("data[ssh-privatekey]", ""));
        }
        "kubernetes.io/tls" => {
            must("tls.crt", &mut errors);
            must("tls.key", &mut errors);
        }
        _ => {}
    }
    errors
}

fn docker_config(data: At<'_, '_>, key: &str, errors: &mut Errors) {
    let path = format!("data[{key}]");
    let value = data.get(key);
    if !value.is_set() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let decoded = STANDARD.decode(value.text()).unwrap_or_default();
    if serde_json::from_slice::<serde_json::Map<String, Value>>(&decoded).is_err() {
        // The value is a secret: it is not told.
        let why = "<secret contents redacted>";
        let error = FieldError::invalid_text(path, why, "invalid character");
        errors.push(error);
    }
}

/// An object that was made immutable stays as it is.
fn kept(new: At<'_, '_>, old: &Value, errors: &mut Errors) {
    if old.get("immutable") != Some(&Value::Bool(true)) {
        return;
    }
    if !new.get("immutable").is_true() {
        errors.push(new.get("immutable").forbidden(KEPT));
    }
    for field in ["data", "binaryData"] {
        if new.value.get(field) != old.get(field) {
            errors.push(new.get(field).forbidden(KEPT));
        }
    }
}

fn config_map_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    kept(At::root(new).at(), old, &mut errors);
    errors
}

fn secret_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let new = At::root(new);
    checks::unchanged(new.get("type"), old.get("type").unwrap_or(&Value::Null), &mut errors);
    kept(new.at(), old, &mut errors);
    errors
}

/// `stringData` is written only, and becomes `data`.
fn secret_defaults(object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    set_default(fields, "type", "Opaque");
    let Some(Value::Object(plain)) = fields.remove("stringData") else { return };
    if let Some(data) = map_in(object, "data") {
        for (key, value) in plain {
            let encoded = STANDARD.encode(value.as_str().unwrap_or_default());
            data.insert(key, encoded.into());
        }
    }
}
