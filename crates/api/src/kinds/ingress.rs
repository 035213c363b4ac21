//! Rules of Ingresses and IngressClasses.

use serde_json::Value;

use super::{
    checks::{self, Errors},
    field::At,
};
use crate::names;

const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
const PARAMETER_SCOPES: &[&str] = &["Cluster", "Namespace"];
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// What a path that is matched by its elements may not hold.
const BAD_SEQUENCES: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const BAD_SUFFIXES: [&str; 2] = ["/..", "/."];
/// Longest name of a controller.
const CONTROLLER_MAX_BYTES: usize = 250;

/// Rules of an Ingress.
pub(super) fn rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    if spec.get("rules").len() == 0 && !spec.get("defaultBackend").is_set() {
        errors.push(spec.invalid_empty("either `defaultBackend` or `rules` must be specified"));
    }
    if spec.get("defaultBackend").is_set() {
        backend(spec.get("defaultBackend"), &mut errors);
    }
    for rule in spec.each("rules") {
        host(rule.get("host"), &mut errors);
        let http = rule.get("http");
        if http.is_set() && http.get("paths").len() == 0 {
            errors.push(http.get("paths").required(""));
        }
        for one in http.each("paths") {
            path(one, &mut errors);
            backend(one.get("backend"), &mut errors);
        }
    }
    for tls in spec.each("tls") {
        for name in tls.each("hosts") {
            host(name, &mut errors);
        }
        if !tls.get("secretName").text().is_empty() {
            checks::named(tls.get("secretName"), names::dns_subdomain, &mut errors);
        }
    }
    let class = spec.get("ingressClassName");
    if class.is_set() {
        checks::named(class, names::dns_subdomain, &mut errors);
        let metadata = root.get("metadata");
        let annotations = metadata.get("annotations");
        if annotations.get(CLASS_ANNOTATION).is_set() {
            errors.push(
                annotations
                    .get(CLASS_ANNOTATION)
                    .invalid("can not be set when the class field is also set"),
            );
        }
    }
    errors
}

fn host(host: At<'_, '_>, errors: &mut Errors) {
    let text = host.text();
    if text.is_empty() {
        return;
    }
    if text.parse::<std::net::IpAddr>().is_ok() {
        errors.push(host.invalid("must be a DNS name, not an IP address"));
        return;
    }
    match text.strip_prefix("*.") {
        Some(rest) if names::dns_subdomain(rest).is_empty() => {}
        Some(_) => {
            errors.extend(names::wildcard_subdomain(text).iter().map(|why| host.invalid(why)))
        }
        None if text.contains('*') => {
            errors.extend(names::wildcard_subdomain(text).iter().map(|why| host.invalid(why)));
        }
        None => checks::named(host, names::dns_subdomain, errors),
    }
}

fn path(one: At<'_, '_>, errors: &mut Errors) {
    let (kind, text) = (one.get("pathType"), one.get("path"));
    if !kind.is_set() {
        errors.push(kind.required("pathType must be specified"));
        return;
    }
    match kind.text() {
        "Exact" | "Prefix" => {
            if !text.text().starts_with('/') {
                errors.push(text.invalid("must be an absolute path"));
            }
            for bad in BAD_SEQUENCES.iter().filter(|bad| text.text().contains(**bad)) {
                errors.push(text.invalid(&format!("must not contain '{bad}'")));
            }
            for bad in BAD_SUFFIXES.iter().filter(|bad| text.text().ends_with(**bad)) {
                errors.push(text.invalid(&format!("cannot end with '{bad}'")));
            }
        }
        "ImplementationSpecific" => {
            if !text.text().is_empty() && !text.text().starts_with('/') {
                errors.push(text.invalid("must be an absolute path"));
            }
        }
        _ => errors.push(kind.unsupported(PATH_TYPES)),
    }
}

fn backend(backend: At<'_, '_>, errors: &mut Errors) {
    let (service, resource) = (backend.get("service"), backend.get("resource"));
    match (service.is_set(), resource.is_set()) {
        (true, true) => {
            errors.push(backend.invalid_empty("cannot set both resource and service backends"))
        }
        (false, false) => errors.push(backend.required("resource or service backend is required")),
        (false, true) => {
            checks::required(resource.get("kind"), errors);
            checks::required(resource.get("name"), errors);
        }
        (true, false) => {
            checks::required_name(service.get("name"), names::dns_label_1035, errors);
            let port = service.get("port");
            let (number, name) = (port.get("number"), port.get("name"));
            match (number.is_set() && number.number() != Some(0), !name.text().is_empty()) {
                (true, true) => {
                    errors.push(port.invalid("cannot set both port name & port number"))
                }
                (true, false) => checks::between(number, 1, 65535, errors),
                (false, true) => checks::named(name, names::port_name, errors),
                (false, false) => errors.push(port.required("port name or number is required")),
            }
        }
    }
}

/// Rules of an IngressClass.
pub(super) fn class_rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    let controller = spec.get("controller");
    if controller.text().len() > CONTROLLER_MAX_BYTES {
        errors.push(controller.too_long(CONTROLLER_MAX_BYTES));
    }
    if checks::required(controller, &mut errors) {
        domain_path(controller, &mut errors);
    }
    let parameters = spec.get("parameters");
    if !parameters.is_set() {
        return errors;
    }
    if !parameters.get("apiGroup").text().is_empty() {
        checks::named(parameters.get("apiGroup"), names::dns_subdomain, &mut errors);
    }
    checks::required_name(parameters.get("kind"), names::path_segment, &mut errors);
    checks::required_name(parameters.get("name"), names::path_segment, &mut errors);
    let (scope, namespace) = (parameters.get("scope"), parameters.get("namespace"));
    match scope.text() {
        "Namespace" if namespace.text().is_empty() => {
            errors.push(namespace.required("`parameters.scope` is set to 'Namespace'"));
        }
        "Cluster" if !namespace.text().is_empty() => {
            errors.push(namespace.forbidden("`parameters.scope` is set to 'Cluster'"));
        }
        "Namespace" | "Cluster" => {}
        "" => errors.push(scope.required("")),
        _ => errors.push(scope.unsupported(PARAMETER_SCOPES)),
    }
    errors
}

/// `example.com/path`
fn domain_path(place: At<'_, '_>, errors: &mut Errors) {
    let Some((domain, path)) = place.text().split_once('/') else {
        errors.push(place.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")"));
        return;
    };
    errors.extend(names::dns_subdomain(domain).iter().map(|why| place.invalid(why)));
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:@".contains(&b);
    if path.is_empty() || !path.bytes().all(allowed) {
        errors.push(place.invalid("Invalid path"));
    }
}

/// What may not change of an IngressClass.
pub(super) fn class_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let (new, old) = (At::root(new), At::root(old));
    let (new, old) = (new.get("spec"), old.get("spec"));
    checks::unchanged(new.get("controller"), old.get("controller").value, &mut errors);
    errors
}
