//! Signing what was approved, for the signers of Kubernetes that the cluster's CA stands for. What
//! a signer does not allow fails for good, and says why.

use std::collections::BTreeSet;

use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::Time};
use time::{Duration, OffsetDateTime};
use toono_pki::{CLIENT_LIFETIME, CertificateRequest, ClusterCa};

use super::request::{
    APPROVED, CLIENT_SIGNER, FAILED, KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER, LEGACY_SIGNER,
    SigningRequest,
};
use crate::{
    context::Context,
    error::{SyncError, is_not_found},
    key::Key,
    kinds::{self, Condition},
};

/// The shortest life of a certificate: twice what it is dated back.
const SHORTEST: Duration = Duration::minutes(10);
const NODE_PREFIX: &str = "system:node:";
const NODES: &str = "system:nodes";

/// Signs the request if that is for us to do.
pub(super) async fn sign(
    context: &Context,
    ca: &ClusterCa,
    request: &SigningRequest,
    key: &Key,
) -> Result<(), SyncError> {
    if !request.has(APPROVED) || request.has(FAILED) || request.is_issued() {
        return Ok(());
    }
    let Some(outcome) = certificate(ca, request, OffsetDateTime::now_utc()) else { return Ok(()) };
    let mut written = request.clone();
    match outcome {
        Ok(pem) => written.status.certificate = Some(ByteString(pem.into_bytes())),
        Err(why) => {
            let mut condition = Condition::new(FAILED, true, "SignerValidationFailure", why);
            condition.last_update_time = Some(Time(jiff::Timestamp::now()));
            written.status.conditions.push(condition);
        }
    }
    match kinds::replace_part(&context.client, &written, "status").await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(SyncError::api("sign", "CertificateSigningRequest", key)(error)),
    }
}

/// The certificate, or why there is none; nothing when another signer is meant.
fn certificate(
    ca: &ClusterCa,
    request: &SigningRequest,
    now: OffsetDateTime,
) -> Option<Result<String, String>> {
    let spec = &request.spec;
    let check: Check = match spec.signer_name.as_str() {
        CLIENT_SIGNER => check_client,
        KUBELET_CLIENT_SIGNER => check_kubelet_client,
        KUBELET_SERVING_SIGNER => check_kubelet_serving,
        LEGACY_SIGNER => |_, _| Ok(()),
        _ => return None,
    };
    let text = |error: toono_pki::PkiError| crate::error::chain(&error);
    Some(CertificateRequest::from_pem(&spec.request.0).map_err(text).and_then(|asked| {
        check(&asked, &spec.usages)?;
        ca.sign_request(&asked, &spec.usages, lifetime(spec.expiration_seconds), now).map_err(text)
    }))
}

type Check = fn(&CertificateRequest, &[String]) -> Result<(), String>;

/// As long as asked for, within what we grant.
fn lifetime(asked_seconds: Option<i32>) -> Duration {
    let asked = asked_seconds.map(|seconds| Duration::seconds(seconds.into()));
    asked.map_or(CLIENT_LIFETIME, |asked| asked.clamp(SHORTEST, CLIENT_LIFETIME))
}

fn check_client(_: &CertificateRequest, usages: &[String]) -> Result<(), String> {
    let optional = ["digital signature", "key encipherment"];
    for usage in usages {
        if usage != "client auth" && !optional.contains(&usage.as_str()) {
            return Err(format!("invalid usage for client certificate: {usage}"));
        }
    }
    if usages.iter().any(|usage| usage == "client auth") {
        Ok(())
    } else {
        Err("missing required usage for client certificate: client auth".to_owned())
    }
}

/// What a kubelet may ask for to talk to the API server.
pub(super) fn check_kubelet_client(
    asked: &CertificateRequest,
    usages: &[String],
) -> Result<(), String> {
    if asked.organizations != [NODES] {
        return Err("subject organization is not system:nodes".to_owned());
    }
    let named = [
        ("DNS", asked.dns_names.len()),
        ("Email", asked.emails),
        ("IP", asked.ip_addresses),
        ("URI", asked.uris),
    ];
    if let Some((kind, _)) = named.into_iter().find(|(_, count)| *count > 0) {
        return Err(format!("{kind} subjectAltNames are not allowed"));
    }
    check_common_name(asked)?;
    check_usages(usages, "client auth")
}

fn check_kubelet_serving(asked: &CertificateRequest, usages: &[String]) -> Result<(), String> {
    if asked.organizations != [NODES] {
        return Err("subject organization is not system:nodes".to_owned());
    }
    if asked.dns_names.is_empty() && asked.ip_addresses == 0 {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    for (kind, count) in [("Email", asked.emails), ("URI", asked.uris)] {
        if count > 0 {
            return Err(format!("{kind} subjectAltNames are not allowed"));
        }
    }
    check_usages(usages, "server auth")?;
    check_common_name(asked)
}

fn check_common_name(asked: &CertificateRequest) -> Result<(), String> {
    if asked.common_name.starts_with(NODE_PREFIX) {
        Ok(())
    } else {
        Err("subject common name does not begin with system:node:".to_owned())
    }
}

/// Exactly these, `key encipherment` being for RSA keys only.
fn check_usages(usages: &[String], purpose: &str) -> Result<(), String> {
    let given: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let short = BTreeSet::from(["digital signature", purpose]);
    let long = BTreeSet::from(["digital signature", "key encipherment", purpose]);
    if given == short || given == long {
        return Ok(());
    }
    let mut wanted: Vec<_> = long.into_iter().collect();
    wanted.sort_unstable();
    Err(format!("usages did not match [{}]", wanted.join(" ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use toono_pki::NodeKey;

    use super::*;

    fn signed(
        signer: &str,
        usages: &[&str],
        change: fn(&mut SigningRequest),
    ) -> Option<Result<String, String>> {
        let ca = ClusterCa::generate().unwrap();
        let pem = NodeKey::generate("a1").unwrap().csr_pem;
        let mut request: SigningRequest = serde_json::from_value(
            json!({"metadata": {}, "spec": {"request": "", "signerName": signer, "usages": usages}}),
        )
        .unwrap();
        request.spec.request = ByteString(pem.into_bytes());
        change(&mut request);
        certificate(&ca, &request, OffsetDateTime::now_utc())
    }

    #[test]
    fn each_signer_allows_what_it_is_for() {
        let none: fn(&mut SigningRequest) = |_| {};
        assert!(signed(CLIENT_SIGNER, &["client auth"], none).unwrap().is_ok());
        assert!(signed("example.com/other", &["client auth"], none).is_none());
        let refused =
            |signer: &str, usages: &[&str]| signed(signer, usages, none).unwrap().unwrap_err();
        assert_eq!(
            refused(CLIENT_SIGNER, &["client auth", "server auth"]),
            "invalid usage for client certificate: server auth"
        );
        assert_eq!(
            refused(CLIENT_SIGNER, &["digital signature"]),
            "missing required usage for client certificate: client auth"
        );
        assert_eq!(
            refused(KUBELET_CLIENT_SIGNER, &["client auth"]),
            "subject organization is not system:nodes"
        );
        let garbage = signed(CLIENT_SIGNER, &["client auth"], |request| {
            request.spec.request = ByteString(b"nothing".to_vec());
        });
        assert!(garbage.unwrap().is_err());
    }

    #[test]
    fn kubelets_usages_and_names_are_exact() {
        let mut kubelets = CertificateRequest::default();
        kubelets.common_name = "system:node:a1".to_owned();
        kubelets.organizations = vec![NODES.to_owned()];
        let usages = |all: &[&str]| all.iter().map(|&one| one.to_owned()).collect::<Vec<_>>();
        let client = usages(&["client auth", "digital signature"]);
        assert_eq!(check_kubelet_client(&kubelets, &client), Ok(()));
        let more = usages(&["client auth", "digital signature", "cert sign"]);
        assert_eq!(
            check_kubelet_client(&kubelets, &more),
            Err("usages did not match [client auth digital signature key encipherment]".to_owned())
        );
        let mut named = kubelets.clone();
        named.dns_names = vec!["x".to_owned()];
        assert!(check_kubelet_client(&named, &client).is_err());
        let serving = usages(&["server auth", "digital signature", "key encipherment"]);
        assert!(check_kubelet_serving(&kubelets, &serving).is_err(), "no name to serve");
        assert_eq!(check_kubelet_serving(&named, &serving), Ok(()));
    }

    #[test]
    fn lives_are_between_ten_minutes_and_a_year() {
        assert_eq!(lifetime(None), CLIENT_LIFETIME);
        assert_eq!(lifetime(Some(60)), SHORTEST);
        assert_eq!(lifetime(Some(3600)), Duration::hours(1));
        assert_eq!(lifetime(Some(i32::MAX)), CLIENT_LIFETIME);
    }
}
