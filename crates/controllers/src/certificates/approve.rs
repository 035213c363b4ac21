//! Approving what needs no person: a kubelet's client certificate, when whoever asks may have it.

use serde::{Deserialize, Serialize};
use serde_json::json;
use toono_pki::CertificateRequest;

use super::{
    request::{APPROVED, KUBELET_CLIENT_SIGNER, SigningRequest},
    sign,
};
use crate::{
    context::Context,
    error::{SyncError, is_not_found},
    key::Key,
    kinds::{self, Condition, kind},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

/// The answer to the question whether somebody may.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct AccessReview {
    metadata: ObjectMeta,
    status: AccessReviewStatus,
}
kind!(
    AccessReview,
    ClusterResourceScope,
    "authorization.k8s.io",
    "v1",
    "SubjectAccessReview",
    "subjectaccessreviews"
);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct AccessReviewStatus {
    allowed: bool,
}

/// Approves the request if it is a kubelet's and its sender may.
pub(super) async fn approve(
    context: &Context,
    request: &SigningRequest,
    key: &Key,
) -> Result<(), SyncError> {
    // What cannot be read is for a person to judge.
    let Ok(asked) = CertificateRequest::from_pem(&request.spec.request.0) else { return Ok(()) };
    for (right, message) in recognized(request, &asked) {
        if may(context, request, key, right).await? {
            return write(context, request, key, message).await;
        }
    }
    Ok(())
}

/// The rights that allow a request, each with what is said when it does.
fn recognized(
    request: &SigningRequest,
    asked: &CertificateRequest,
) -> Vec<(&'static str, &'static str)> {
    let is_kubelets = request.spec.signer_name == KUBELET_CLIENT_SIGNER
        && sign::check_kubelet_client(asked, &request.spec.usages).is_ok();
    if !is_kubelets {
        return Vec::new();
    }
    let renewal = (
        "selfnodeclient",
        "Auto approving self kubelet client certificate after SubjectAccessReview.",
    );
    let first =
        ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.");
    if request.spec.username == asked.common_name { vec![renewal, first] } else { vec![first] }
}

async fn may(
    context: &Context,
    request: &SigningRequest,
    key: &Key,
    right: &str,
) -> Result<bool, SyncError> {
    let spec = &request.spec;
    let question = json!({"spec": {
        "user": spec.username, "uid": spec.uid, "groups": spec.groups, "extra": spec.extra,
        "resourceAttributes": {"group": "certificates.k8s.io", "verb": "create",
            "resource": "certificatesigningrequests", "subresource": right},
    }});
    let answer = kinds::create::<AccessReview>(&context.client, None, question)
        .await
        .map_err(SyncError::api("ask who may create", "CertificateSigningRequest", key))?;
    Ok(answer.status.allowed)
}

async fn write(
    context: &Context,
    request: &SigningRequest,
    key: &Key,
    message: &str,
) -> Result<(), SyncError> {
    let mut approved = request.clone();
    let mut condition = Condition::new(APPROVED, true, "AutoApproved", message.to_owned());
    condition.last_update_time = Some(Time(jiff::Timestamp::now()));
    approved.status.conditions.push(condition);
    match kinds::replace_part(&context.client, &approved, "approval").await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(SyncError::api("approve", "CertificateSigningRequest", key)(error)),
    }
}

#[cfg(test)]
mod tests {
    use toono_pki::NodeKey;

    use super::*;

    #[test]
    fn only_kubelets_own_names_are_renewed_without_a_right_for_all() {
        let node = |username: &str, signer: &str| {
            let spec = json!({"signerName": signer, "username": username,
                "usages": ["digital signature", "client auth"], "request": ""});
            serde_json::from_value::<SigningRequest>(json!({"metadata": {}, "spec": spec})).unwrap()
        };
        // What our own nodes ask for has no organization, so it is no kubelet's.
        let ours = NodeKey::generate("a1").unwrap().csr_pem;
        let ours = CertificateRequest::from_pem(ours.as_bytes()).unwrap();
        assert!(recognized(&node("system:node:a1", KUBELET_CLIENT_SIGNER), &ours).is_empty());
        let mut kubelets = ours;
        kubelets.organizations = vec!["system:nodes".into()];
        let rights = |username: &str, signer: &str| {
            let found = recognized(&node(username, signer), &kubelets);
            found.into_iter().map(|(right, _)| right).collect::<Vec<_>>()
        };
        assert_eq!(
            rights("system:node:a1", KUBELET_CLIENT_SIGNER),
            ["selfnodeclient", "nodeclient"]
        );
        assert_eq!(rights("system:bootstrap:x", KUBELET_CLIENT_SIGNER), ["nodeclient"]);
        assert!(rights("system:node:a1", "example.com/mine").is_empty());
    }
}
