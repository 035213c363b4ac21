//! A certificate request as the API has it.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::{Deserialize, Serialize};

use crate::kinds::{Condition, kind};

pub(super) const APPROVED: &str = "Approved";
pub(super) const DENIED: &str = "Denied";
pub(super) const FAILED: &str = "Failed";

/// Signers of Kubernetes that the cluster's CA stands for.
pub(super) const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
pub(super) const KUBELET_CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(super) const KUBELET_SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
pub(super) const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";

/// Somebody wants a certificate.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SigningRequest {
    pub(super) metadata: ObjectMeta,
    pub(super) spec: SigningRequestSpec,
    pub(super) status: SigningRequestStatus,
}
kind!(
    SigningRequest,
    ClusterResourceScope,
    "certificates.k8s.io",
    "v1",
    "CertificateSigningRequest",
    "certificatesigningrequests"
);

/// What is wanted, and by whom.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct SigningRequestSpec {
    /// PEM.
    pub(super) request: ByteString,
    pub(super) signer_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expiration_seconds: Option<i32>,
    pub(super) usages: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) extra: BTreeMap<String, Vec<String>>,
}

/// What became of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SigningRequestStatus {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) conditions: Vec<Condition>,
    /// PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) certificate: Option<ByteString>,
}

impl SigningRequest {
    pub(super) fn has(&self, type_: &str) -> bool {
        self.condition(type_).is_some()
    }

    pub(super) fn condition(&self, type_: &str) -> Option<&Condition> {
        // A status that is left out is true: so they were before statuses were asked for.
        let is_true = |one: &Condition| matches!(one.status.as_str(), "True" | "");
        self.status.conditions.iter().find(|one| one.type_ == type_ && is_true(one))
    }

    pub(super) fn is_issued(&self) -> bool {
        self.status.certificate.as_ref().is_some_and(|bytes| !bytes.0.is_empty())
    }

    /// Somebody has approved or denied it.
    pub(super) fn is_decided(&self) -> bool {
        self.has(APPROVED) || self.has(DENIED) || self.is_issued()
    }
}
