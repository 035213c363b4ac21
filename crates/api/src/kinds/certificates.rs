//! The row of CertificateSigningRequests.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{
    ROW, SPEC_AND_STATUS, STATUS_VERBS,
    checks::{self, Errors},
    field::At,
    set_default, status_of, subresource,
};
use crate::{
    names,
    print::cluster as print,
    resource::{BuiltIn, Strategy},
};

const GROUP: &str = "certificates.k8s.io";
const KIND: &str = "CertificateSigningRequest";

/// CertificateSigningRequests.
pub static CERTIFICATE_SIGNING_REQUEST: BuiltIn = BuiltIn {
    group: GROUP,
    kind: KIND,
    list_kind: "CertificateSigningRequestList",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    namespaced: false,
    subresources: &[
        subresource("approval", (GROUP, "v1", KIND), STATUS_VERBS),
        status_of(GROUP, "v1", KIND),
    ],
    strategy: Strategy { counts_generation: false, name_rule: names::any, ..SPEC_AND_STATUS },
    columns: print::SIGNING_REQUEST,
    row: print::signing_request_row,
    message: "certificates.CertificateSigningRequest",
    default: defaults,
    validate: rules,
    validate_update: update_rules,
    field_selectors: &["spec.signerName"],
    ..ROW
};

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";
const CONDITION_STATUSES: &[&str] = &["False", "True", "Unknown"];
/// Shortest life that a certificate can be asked to have.
const LIFE_MIN_SECONDS: i64 = 600;
/// Longest name of a signer.
const SIGNER_MAX_BYTES: usize = 571;

fn defaults(object: &mut Value) {
    let status = object.get_mut("status").and_then(Value::as_object_mut);
    for condition in status.into_iter().flat_map(|status| super::maps_in(status, "conditions")) {
        set_default(condition, "status", "True");
    }
}

fn rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    if !is_request(spec.get("request").text()) {
        errors.push(spec.get("request").invalid("PEM block type must be CERTIFICATE REQUEST"));
    }
    usages(spec, &mut errors);
    let signer = spec.get("signerName");
    if signer.text() == LEGACY_UNKNOWN {
        errors.push(signer.invalid("the legacy signerName is not allowed via this API version"));
    } else {
        signer_name(signer, &mut errors);
    }
    let life = spec.get("expirationSeconds");
    if life.number().is_some_and(|seconds| seconds < LIFE_MIN_SECONDS) {
        errors.push(life.invalid("may not specify a duration less than 600 seconds (10 minutes)"));
    }
    conditions(root.at(), &mut errors);
    errors
}

/// Whether the text is base64 of a PEM block that says that it is a request.
fn is_request(text: &str) -> bool {
    let pem = STANDARD.decode(text).unwrap_or_default();
    let pem = String::from_utf8_lossy(&pem);
    let body = pem
        .split_once("-----BEGIN CERTIFICATE REQUEST-----")
        .and_then(|(_, rest)| rest.split_once("-----END CERTIFICATE REQUEST-----"));
    body.is_some_and(|(body, _)| {
        let der: String = body.split_whitespace().collect();
        STANDARD.decode(der).is_ok_and(|der| der.first() == Some(&0x30))
    })
}

fn usages(spec: At<'_, '_>, errors: &mut Errors) {
    let all = spec.get("usages");
    if all.len() == 0 {
        errors.push(all.required(""));
    }
    let mut seen = BTreeSet::new();
    for usage in spec.each("usages") {
        if !USAGES.contains(&usage.text()) {
            errors.push(usage.unsupported(USAGES));
        } else {
            checks::unique(usage, &mut seen, errors);
        }
    }
}

/// `example.com/name`
fn signer_name(signer: At<'_, '_>, errors: &mut Errors) {
    if !checks::required(signer, errors) {
        return;
    }
    let text = signer.text();
    if text.len() > SIGNER_MAX_BYTES {
        errors.push(signer.too_long(SIGNER_MAX_BYTES));
    }
    match text.split_once('/') {
        Some((_, rest)) if rest.contains('/') => errors.push(signer.invalid(
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        )),
        None => errors.push(signer.invalid(
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        )),
        Some((domain, path)) => {
            if domain.split('.').count() < 2 {
                errors
                    .push(signer.invalid(
                        "should be a domain with at least two segments separated by dots",
                    ));
            }
            for wrong in names::dns_subdomain(domain) {
                errors.push(signer.invalid(&format!("validating label {domain:?}: {wrong}")));
            }
            for wrong in names::dns_subdomain(path) {
                errors.push(signer.invalid(&format!("validating label {path:?}: {wrong}")));
            }
        }
    }
}

fn conditions(root: At<'_, '_>, errors: &mut Errors) {
    let status = root.get("status");
    let (mut seen, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for condition in status.each("conditions") {
        let (kind, is) = (condition.get("type"), condition.get("status"));
        checks::required(kind, errors);
        match is.text() {
            "" => errors.push(is.required("")),
            "True" => {}
            _ if matches!(kind.text(), "Approved" | "Denied" | "Failed") => {
                errors.push(is.unsupported(&["True"]));
            }
            _ => checks::choice(is, CONDITION_STATUSES, errors),
        }
        if !seen.insert(kind.text()) {
            errors.push(kind.duplicate());
        }
        kinds.insert(kind.text());
    }
    if kinds.contains("Approved") && kinds.contains("Denied") {
        let both = status.get("conditions");
        errors.push(both.invalid("Approved and Denied conditions are mutually exclusive"));
    }
    let certificate = status.get("certificate");
    if !certificate.text().is_empty() {
        let pem = STANDARD.decode(certificate.text()).unwrap_or_default();
        let pem = String::from_utf8_lossy(&pem);
        if !pem.contains("-----BEGIN CERTIFICATE-----") {
            errors
                .push(certificate.invalid_empty("must contain at least one CERTIFICATE PEM block"));
        }
    }
}

fn update_rules(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let (new, old) = (At::root(new), At::root(old));
    checks::unchanged(new.get("spec"), old.get("spec").value, &mut errors);
    let (new, old) = (new.get("status"), old.get("status"));
    for kind in ["Approved", "Denied", "Failed"] {
        let has = |status: At<'_, '_>| {
            status.each("conditions").any(|condition| condition.get("type").text() == kind)
        };
        if has(old) && !has(new) {
            let why = format!("updates may not remove a condition of type {kind:?}");
            errors.push(new.get("conditions").forbidden(&why));
        }
    }
    let (new, old) = (new.get("certificate"), old.get("certificate"));
    if !old.text().is_empty() && new.text() != old.text() {
        errors.push(new.forbidden("updates may not set certificate content to something else"));
    }
    errors
}
