//! Certificate requests: `certificate approve` and `deny`, and what is signed.

use serde_json::json;

use crate::harness::Kubectl;

/// A PKCS #10 request, as PEM in base64, for the user `ada` of the group `team`.
const REQUEST: &str = "\
    LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIWE1IOENBUUF3SFRFTk1Bc0dB\
    MVVFQ2d3RWRHVmhiVEVNTUFvR0ExVUVBd3dEWVdSaE1Ga3dFd1lIS29aSQp6ajBDQVFZSUtvWkl6\
    ajBEQVFjRFFnQUVmbTlLSWt5SnBGMEZoN1g4YjV3WmNPc3pvSXZVUThPNFB0N1JIRzFaCmRvRzFm\
    bGlyNXcxWmxEVk80SXNQYk5uOFIvK3M5SXV0MENDVVFUbUlybTJ3dzZBQU1Bb0dDQ3FHU000OUJB\
    TUMKQTBnQU1FVUNJR21HSStuUmh2T0d2ZE1Da2NKYTVRUGdid2Jxb2lFbjdEeHBwRWxrR0N4QkFp\
    RUFneW9zeUFxbwo3TmZPM0dmZWpoblZUVG9LVWhMSlUvQzFBNEVsa3h4U2RFUT0KLS0tLS1FTkQg\
    Q0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg==";

pub(crate) fn run(k: &Kubectl<'_>) {
    for name in ["ada", "mallory"] {
        let request = json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": {"request": REQUEST, "signerName": "kubernetes.io/kube-apiserver-client",
                "expirationSeconds": 3600, "usages": ["client auth"]},
        });
        let created = format!("certificatesigningrequest.certificates.k8s.io/{name} created");
        k.fed("create -f -", &request.to_string(), &[&created]);
    }
    k.says(
        "get csr ada",
        &[
            "NAME AGE SIGNERNAME REQUESTOR REQUESTEDDURATION CONDITION",
            "kubernetes.io/kube-apiserver-client",
            "60m Pending",
        ],
    );
    k.is("certificate approve ada", "certificatesigningrequest.certificates.k8s.io/ada approved");
    k.until("get csr ada --no-headers", &["Approved,Issued"]);
    k.says(
        "get csr ada -o jsonpath='{.status.certificate}'",
        &["LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t"],
    );
    k.holds(
        "get csr ada",
        &[
            ("/status/conditions/0/type", json!("Approved")),
            ("/status/conditions/0/reason", json!("KubectlApprove")),
        ],
    );
    k.is(
        "certificate deny mallory",
        "certificatesigningrequest.certificates.k8s.io/mallory denied",
    );
    k.says("get csr mallory", &["Denied"]);
    k.is("get csr mallory -o jsonpath='{.status.certificate}'", "");
    k.says(
        "describe csr ada",
        &["Name: ada", "Status: Approved,Issued", "Common Name: ada", "Organization: team"],
    );
    k.says("delete csr ada mallory", &["\"ada\" deleted", "\"mallory\" deleted"]);
}
