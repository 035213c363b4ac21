//! The rows of `admissionregistration.k8s.io`: webhooks that are asked about writes.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    ROW,
    checks::{self, Errors},
    field::At,
    maps_in, set_default,
};
use crate::{
    names,
    print::cluster as print,
    resource::{BuiltIn, Strategy},
};

const WEBHOOKS: BuiltIn = BuiltIn {
    group: "admissionregistration.k8s.io",
    namespaced: false,
    categories: &["api-extensions"],
    strategy: Strategy { counts_generation: true, ..super::DATA },
    columns: print::WEBHOOKS,
    row: print::webhooks_row,
    ..ROW
};

/// MutatingWebhookConfigurations.
pub static MUTATING_WEBHOOK_CONFIGURATION: BuiltIn = BuiltIn {
    kind: "MutatingWebhookConfiguration",
    list_kind: "MutatingWebhookConfigurationList",
    plural: "mutatingwebhookconfigurations",
    singular: "mutatingwebhookconfiguration",
    message: "admissionregistration.MutatingWebhookConfiguration",
    default: |object| defaults(object, true),
    validate: rules,
    ..WEBHOOKS
};

/// ValidatingWebhookConfigurations.
pub static VALIDATING_WEBHOOK_CONFIGURATION: BuiltIn = BuiltIn {
    kind: "ValidatingWebhookConfiguration",
    list_kind: "ValidatingWebhookConfigurationList",
    plural: "validatingwebhookconfigurations",
    singular: "validatingwebhookconfiguration",
    message: "admissionregistration.ValidatingWebhookConfiguration",
    default: |object| defaults(object, false),
    validate: rules,
    ..WEBHOOKS
};

const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];
const REINVOCATIONS: &[&str] = &["IfNeeded", "Never"];
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];
/// Versions of `AdmissionReview` that the server speaks.
const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];
/// Longest wait for a webhook.
const TIMEOUT_MAX_SECONDS: i64 = 30;
/// Most match conditions of a webhook.
const CONDITIONS_MAX: usize = 64;

fn defaults(object: &mut Value, mutating: bool) {
    let Some(fields) = object.as_object_mut() else { return };
    for webhook in maps_in(fields, "webhooks") {
        set_default(webhook, "failurePolicy", "Fail");
        set_default(webhook, "matchPolicy", "Equivalent");
        set_default(webhook, "namespaceSelector", json!({}));
        set_default(webhook, "objectSelector", json!({}));
        set_default(webhook, "timeoutSeconds", 10);
        if mutating {
            set_default(webhook, "reinvocationPolicy", "Never");
        }
        maps_in(webhook, "rules").for_each(|rule| set_default(rule, "scope", "*"));
        service_defaults(webhook);
    }
}

/// A client configuration that names a Service.
pub(super) fn service_defaults(holder: &mut Map<String, Value>) {
    let service = holder.get_mut("clientConfig").and_then(|config| config.get_mut("service"));
    if let Some(service) = service.and_then(Value::as_object_mut) {
        set_default(service, "port", 443);
    }
}

fn rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let mut seen = BTreeSet::new();
    for webhook in root.each("webhooks") {
        webhook_rules(webhook, &mut errors);
        checks::unique(webhook.get("name"), &mut seen, &mut errors);
    }
    errors
}

fn webhook_rules(webhook: At<'_, '_>, errors: &mut Errors) {
    qualified_domain(webhook.get("name"), errors);
    versions(webhook, errors);
    for rule in webhook.each("rules") {
        rule_rules(rule, errors);
    }
    checks::choice(webhook.get("failurePolicy"), FAILURE_POLICIES, errors);
    checks::choice(webhook.get("matchPolicy"), MATCH_POLICIES, errors);
    checks::choice(webhook.get("reinvocationPolicy"), REINVOCATIONS, errors);
    let effects = webhook.get("sideEffects");
    if !effects.is_set() {
        errors.push(effects.required(&format!("must specify one of {}", SIDE_EFFECTS.join(", "))));
    } else if !SIDE_EFFECTS.contains(&effects.text()) {
        errors.push(effects.unsupported(SIDE_EFFECTS));
    }
    let timeout = webhook.get("timeoutSeconds");
    if timeout.number().is_some_and(|seconds| !(1..=TIMEOUT_MAX_SECONDS).contains(&seconds)) {
        errors.push(timeout.invalid("the timeout value must be between 1 and 30 seconds"));
    }
    checks::label_selector(webhook.get("namespaceSelector"), errors);
    checks::label_selector(webhook.get("objectSelector"), errors);
    client_config(webhook.get("clientConfig"), errors);
    conditions(webhook, errors);
}

/// At least three labels, as `name.example.com`.
fn qualified_domain(name: At<'_, '_>, errors: &mut Errors) {
    if !checks::required(name, errors) {
        return;
    }
    let before = errors.len();
    checks::named(name, names::dns_subdomain, errors);
    if errors.len() == before && name.text().split('.').count() < 3 {
        errors.push(
            name.invalid("should be a domain with at least three segments separated by dots"),
        );
    }
}

fn versions(webhook: At<'_, '_>, errors: &mut Errors) {
    let given = webhook.get("admissionReviewVersions");
    if given.len() == 0 {
        errors.push(given.required(&format!("must specify one of {}", REVIEW_VERSIONS.join(", "))));
        return;
    }
    let mut seen = BTreeSet::new();
    for version in webhook.each("admissionReviewVersions") {
        if seen.contains(version.text()) {
            errors.push(version.invalid("duplicate version"));
            continue;
        }
        checks::named(version, names::dns_label_1035, errors);
        seen.insert(version.text());
    }
    if !seen.iter().any(|version| REVIEW_VERSIONS.contains(version)) {
        errors.push(
            given.invalid(&format!("must include at least one of {}", REVIEW_VERSIONS.join(", "))),
        );
    }
}

fn rule_rules(rule: At<'_, '_>, errors: &mut Errors) {
    let operations = rule.get("operations");
    if operations.len() == 0 {
        errors.push(operations.required(""));
    }
    if operations.len() > 1 && rule.each("operations").any(|operation| operation.text() == "*") {
        errors.push(operations.invalid("if '*' is present, must not specify other operations"));
    }
    for operation in rule.each("operations") {
        checks::choice(operation, OPERATIONS, errors);
    }
    for (list, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let given = rule.get(list);
        if given.len() == 0 {
            errors.push(given.required(""));
        }
        if given.len() > 1 && rule.each(list).any(|one| one.text() == "*") {
            errors
                .push(given.invalid(&format!("if '*' is present, must not specify other {what}")));
        }
    }
    for version in rule.each("apiVersions") {
        checks::required(version, errors);
    }
    resources(rule, errors);
    checks::choice(rule.get("scope"), SCOPES, errors);
}

fn resources(rule: At<'_, '_>, errors: &mut Errors) {
    let given = rule.get("resources");
    if given.len() == 0 {
        errors.push(given.required(""));
    }
    let names: Vec<&str> = rule.each("resources").map(|one| one.text()).collect();
    for one in rule.each("resources") {
        if !checks::required(one, errors) {
            continue;
        }
        if let Some((resource, _)) = one.text().split_once('/')
            && names.contains(&format!("{resource}/*").as_str())
            && one.text() != format!("{resource}/*")
        {
            let why = format!("if '{resource}/*' is present, must not specify {}", one.text());
            errors.push(one.invalid(&why));
        }
    }
    if names.contains(&"*/*") && names.len() > 1 {
        errors.push(given.invalid("if '*/*' is present, must not specify other resources"));
    }
    if names.contains(&"*") && names.iter().any(|one| *one != "*" && !one.contains('/')) {
        let why = "if '*' is present, must not specify other resources without subresources";
        errors.push(given.invalid(why));
    }
}

/// Rules of a `clientConfig`: a URL or a Service, and not both.
pub(super) fn client_config(config: At<'_, '_>, errors: &mut Errors) {
    let (url, service) = (config.get("url"), config.get("service"));
    if url.is_set() == service.is_set() {
        errors.push(config.required("exactly one of url or service is required"));
        return;
    }
    if url.is_set() {
        web_address(url, errors);
        return;
    }
    checks::required(service.get("name"), errors);
    checks::required(service.get("namespace"), errors);
    checks::between(service.get("port"), 1, 65535, errors);
    let path = service.get("path");
    if path.is_set() && !path.text().starts_with('/') {
        errors.push(path.invalid("must start with a '/'"));
    }
    if path.text().len() > 1 && path.text().contains("//") {
        errors.push(path.invalid("segment[1] may not be empty"));
    }
}

fn web_address(url: At<'_, '_>, errors: &mut Errors) {
    let form = "desired format: https://host[/path]";
    let Some(rest) = url.text().strip_prefix("https://") else {
        errors.push(url.invalid(&format!("'https' is the only allowed URL scheme; {form}")));
        return;
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() {
        errors.push(url.invalid(&format!("host must be specified; {form}")));
    }
    if host.contains('@') {
        errors.push(url.invalid("user information is not permitted in the URL"));
    }
    if rest.contains('#') {
        errors.push(url.invalid("fragments are not permitted in the URL"));
    }
    if rest.contains('?') {
        errors.push(url.invalid("query parameters are not permitted in the URL"));
    }
}

fn conditions(webhook: At<'_, '_>, errors: &mut Errors) {
    let all = webhook.get("matchConditions");
    if all.len() > CONDITIONS_MAX {
        errors.push(all.too_many(CONDITIONS_MAX));
    }
    let mut seen = BTreeSet::new();
    for condition in webhook.each("matchConditions") {
        let expression = condition.get("expression");
        if expression.text().trim().is_empty() {
            errors.push(expression.required(""));
        }
        if checks::required(condition.get("name"), errors) {
            checks::named(condition.get("name"), names::qualified_name, errors);
            checks::unique(condition.get("name"), &mut seen, errors);
        }
    }
}
