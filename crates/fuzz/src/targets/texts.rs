//! Selectors, and the small texts that stand in objects and requests.

use serde_json::{Value, json};
use toono_api::{FieldSelector, LabelSelector, Quantity, cron::Schedule, names};

use super::{joined, no_giants};
use crate::{Decode, Grammar, Target};

const SELECTOR_BYTES: usize = toono_api::selector::MAX_TEXT_BYTES;
/// Longest text of a field that is tried; fields with longer ones are opaque.
const SMALL_BYTES: usize = 4096;

pub(super) const LABEL_SELECTOR: Target = Target {
    name: "label-selector",
    grammar: Grammar::Text,
    tokens: &[
        "=",
        "==",
        "!=",
        "!",
        "in",
        "notin",
        "(",
        ")",
        ",",
        " ",
        "a",
        "app",
        "kubernetes.io/x",
        ">",
        "<",
        "1",
        "-",
        "_",
        ".",
        "a in (b,c)",
        "{\"matchLabels\":",
        "\"matchExpressions\":",
        "\"operator\":\"In\"",
        "\"values\":[",
        "DoesNotExist",
        "é",
    ],
    max_bytes: SELECTOR_BYTES,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: || Box::new(label_selector),
    giants: |bytes| {
        vec![
            joined(bytes / 9, ",", |at| format!("k{at}=v")).into(),
            joined(bytes / 9, ",", |at| format!("!k{at}")).into(),
            format!("a in ({})", joined(bytes / 8, ",", |at| format!("v{at}"))).into(),
            joined(bytes / 14, ",", |_| "a notin (b,c)".to_owned()).into(),
            "(".repeat(bytes).into(),
            " ".repeat(bytes).into(),
            ",".repeat(bytes).into(),
        ]
    },
};

fn label_selector(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let parsed = match serde_json::from_str::<Value>(text) {
        Ok(object) => LabelSelector::from_object(&object),
        Err(_) => LabelSelector::parse(text),
    };
    match parsed {
        Ok(selector) => {
            selector.matches(|key| (key.len() > 2).then_some("v"));
        }
        Err(error) => drop(error.to_string()),
    }
}

pub(super) const FIELD_SELECTOR: Target = Target {
    name: "field-selector",
    grammar: Grammar::Text,
    tokens: &[
        "=",
        "==",
        "!=",
        ",",
        "\\",
        "\\,",
        "\\=",
        "metadata.name",
        "metadata.namespace",
        "spec.nodeName",
        "status.phase",
        "spec.x",
        "a",
    ],
    max_bytes: SELECTOR_BYTES,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: || Box::new(field_selector),
    giants: |bytes| {
        vec![
            joined(bytes / 16, ",", |_| "metadata.name=a".to_owned()).into(),
            joined(bytes / 17, ",", |_| "metadata.name!=a".to_owned()).into(),
            "\\".repeat(bytes).into(),
            ",".repeat(bytes).into(),
        ]
    },
};

fn field_selector(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let known = ["metadata.name", "metadata.namespace", "spec.nodeName", "status.phase"];
    match FieldSelector::parse(text, &known) {
        Ok(selector) => {
            let object = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n"}});
            let _ = selector.matches(&object);
            let _ = selector.exact("metadata.name");
        }
        Err(error) => drop(error.to_string()),
    }
}

pub(super) const SMALL: Target = Target {
    name: "small-texts",
    grammar: Grammar::Text,
    tokens: &[
        "1",
        "0",
        "9",
        ".",
        "e",
        "E",
        "m",
        "Ki",
        "Gi",
        "n",
        "+",
        "-",
        "*",
        "/",
        ",",
        "@every ",
        "@daily",
        "1h",
        "MON",
        "JAN",
        "?",
        "L",
        ":",
        "@sha256:",
        "docker.io/",
        "latest",
        "TZ=",
        "localhost:5000",
        "{.spec",
        "[*]",
        "[?(@.a==\"b\")]",
        "..",
        "'",
        "\"",
        "[0:2]",
        "é",
        "00",
        "abcdef.0123456789abcdef",
        "sha256:",
    ],
    max_bytes: SMALL_BYTES,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: small,
    giants: no_giants,
};

fn small() -> Decode {
    let object = json!({"spec": {"a": [{"b": 1, "c": [1, 2, [3]]}, {"b": "x"}], "d": {"e": {}}}});
    Box::new(move |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok(quantity) = text.parse::<Quantity>() {
            let _ = quantity.to_string();
        }
        if let Ok(schedule) = Schedule::parse(text) {
            let _ = schedule.every_seconds();
        }
        if let Ok(path) = toono_schema::JsonPath::parse(text) {
            drop(path.find(&object));
        }
        if let Ok(image) = text.parse::<toono_images::ImageRef>() {
            let _ = image.manifest_reference();
        }
        let _ = text.parse::<toono_images::Digest>();
        let _ = text.parse::<toono_pki::BootstrapToken>();
        let _ = text.parse::<toono_pki::CaPin>();
        let _ = text.parse::<toono_http::client::Endpoint>();
        for rule in [
            names::dns_label,
            names::dns_subdomain,
            names::dns_label_1035,
            names::wildcard_subdomain,
            names::port_name,
            names::variable_name,
            names::ip_address,
            names::path_segment,
            names::qualified_name,
            names::label_value,
            names::config_key,
        ] {
            drop(rule(text));
        }
        let value = json!({"creationTimestamp": text, "managedFields": [{"time": text}]});
        drop(toono_api::decode::decode("core.Pod", json!({"metadata": value})));
    })
}
