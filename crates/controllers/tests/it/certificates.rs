//! Certificate requests, from the asking to the certificate.

use k8s_openapi::{
    ByteString,
    api::{
        certificates::v1::CertificateSigningRequest as SigningRequest, rbac::v1::ClusterRoleBinding,
    },
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::cluster::{Cluster, wait_for};

fn pem(common_name: &str, organization: &str) -> ByteString {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.distinguished_name.push(DnType::CommonName, common_name);
    let key = KeyPair::generate().unwrap();
    ByteString(params.serialize_request(&key).unwrap().pem().unwrap().into_bytes())
}

async fn ask(api: &Api<SigningRequest>, name: &str, request: ByteString, more: Value) {
    let mut spec = json!({"request": request, "signerName": "kubernetes.io/kube-apiserver-client",
        "usages": ["client auth", "digital signature"]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let object = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

async fn approve(api: &Api<SigningRequest>, name: &str) {
    let approved = json!({"status": {"conditions": [
        {"type": "Approved", "status": "True", "reason": "Test", "message": "by hand"}]}});
    let patch = Patch::Merge(&approved);
    api.patch_subresource("approval", name, &PatchParams::default(), &patch).await.unwrap();
}

fn certificate(all: &[SigningRequest], name: &str) -> Option<Vec<u8>> {
    let found = all.iter().find(|one| one.metadata.name.as_deref() == Some(name))?;
    let bytes = found.status.as_ref()?.certificate.clone()?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&bytes.0).unwrap();
    Some(pem.contents)
}

fn condition(all: &[SigningRequest], name: &str, type_: &str) -> Option<String> {
    let found = all.iter().find(|one| one.metadata.name.as_deref() == Some(name))?;
    let conditions = found.status.as_ref()?.conditions.iter().flatten();
    conditions.into_iter().find(|one| one.type_ == type_).and_then(|one| one.message.clone())
}

#[tokio::test]
async fn an_approved_request_gets_a_certificate_of_the_clusters_ca() {
    let cluster = Cluster::start(&[]).await;
    let api: Api<SigningRequest> = Api::all(cluster.client.clone());
    ask(&api, "anna", pem("anna", "developers"), json!({"expirationSeconds": 3600})).await;
    ask(&api, "bad", pem("bob", "developers"), json!({"usages": ["server auth"]})).await;
    let other = json!({"signerName": "example.com/other"});
    ask(&api, "other", pem("carl", "developers"), other).await;
    approve(&api, "other").await;
    approve(&api, "bad").await;
    let all =
        wait_for(api.clone(), "a failure", |all| condition(all, "bad", "Failed").is_some()).await;
    let why = "invalid usage for client certificate: server auth";
    assert_eq!(condition(&all, "bad", "Failed").as_deref(), Some(why));
    assert!(certificate(&all, "anna").is_none(), "nobody approved it yet");
    approve(&api, "anna").await;
    let all = wait_for(api, "a certificate", |all| certificate(all, "anna").is_some()).await;
    assert!(certificate(&all, "other").is_none() && certificate(&all, "bad").is_none());
    let der = certificate(&all, "anna").unwrap();
    let (_, made) = X509Certificate::from_der(&der).unwrap();
    let (_, ca) = x509_parser::pem::parse_x509_pem(cluster.ca.cert_pem().as_bytes()).unwrap();
    made.verify_signature(Some(ca.parse_x509().unwrap().public_key())).unwrap();
    assert_eq!(made.subject().to_string(), "O=developers, CN=anna");
    let left = made.validity().time_to_expiration().unwrap().whole_minutes();
    assert!((55..=60).contains(&left), "{left} minutes");
}

#[tokio::test]
async fn a_kubelet_that_may_renews_its_certificate_without_anybody() {
    let cluster = Cluster::start(&["a1"]).await;
    let kubelet = cluster.client_of("system:node:a1", &["system:nodes", "system:authenticated"]);
    let api: Api<SigningRequest> = Api::all(kubelet);
    let kubelets = json!({"signerName": "kubernetes.io/kube-apiserver-client-kubelet"});
    ask(&api, "before", pem("system:node:a1", "system:nodes"), kubelets.clone()).await;
    ask(&api, "others", pem("system:node:a2", "system:nodes"), kubelets.clone()).await;
    let binding = json!({"metadata": {"name": "renewal"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}]});
    Api::<ClusterRoleBinding>::all(cluster.client.clone())
        .create(&PostParams::default(), &serde_json::from_value(binding).unwrap())
        .await
        .unwrap();
    ask(&api, "after", pem("system:node:a1", "system:nodes"), kubelets).await;
    let all: Api<SigningRequest> = Api::all(cluster.client.clone());
    let all = wait_for(all, "a certificate", |all| certificate(all, "after").is_some()).await;
    let message = "Auto approving self kubelet client certificate after SubjectAccessReview.";
    assert_eq!(condition(&all, "after", "Approved").as_deref(), Some(message));
    assert_eq!(condition(&all, "others", "Approved"), None);
}
