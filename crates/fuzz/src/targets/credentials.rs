//! What proves who somebody is: certificate requests and tokens.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use toono_pki::{CertificateRequest, REQUEST_MAX_BYTES, TOKEN_MAX_BYTES, TokenKey};

use super::joined;
use crate::{Decode, Grammar, Target};

pub(super) const CSR: Target = Target {
    name: "csr",
    grammar: Grammar::Bytes,
    tokens: &[
        "-----BEGIN CERTIFICATE REQUEST-----\n",
        "-----END CERTIFICATE REQUEST-----\n",
        "0\u{3}",
        "1\u{b}",
        "\u{6}\u{3}U\u{4}\u{3}",
        "\u{6}\u{3}U\u{4}\n",
        "\u{c}\u{1}a",
        "\u{2}\u{1}\0",
        "\u{5}\0",
        "system:nodes",
        "system:node:a",
        "\u{3}\u{2}\0",
        "\u{4}\0",
    ],
    max_bytes: REQUEST_MAX_BYTES,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: || Box::new(csr),
    giants: |bytes| {
        let der = bytes * 3 / 4 - 128;
        vec![
            "-----BEGIN CERTIFICATE REQUEST-----\n".repeat(bytes / 36).into(),
            vec![0x30; der],
            [0x30, 0x80].repeat(der / 2),
            [0x30, 0x84, 0, 0, 0x80, 0].repeat(der / 6),
        ]
    },
};

/// A request as it is sent, or the inside of one, which mutations can reach.
fn csr(input: &[u8]) {
    let pem = if input.starts_with(b"-----") {
        String::from_utf8_lossy(input).into_owned()
    } else {
        let body = STANDARD.encode(input);
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
    };
    if let Err(error) = CertificateRequest::from_pem(pem.as_bytes()) {
        drop(error.to_string());
    }
    drop(toono_pki::requested_subject(&pem));
}

pub(super) const JWT: Target = Target {
    name: "jwt",
    grammar: Grammar::Text,
    tokens: &[
        ".",
        "..",
        "eyJhbGciOiJFUzI1NiJ9",
        "eyJhbGciOiJub25lIn0",
        "e30",
        "=",
        "-",
        "_",
        "{\"alg\":\"ES256\"}",
        "\"kid\":",
        "\"crit\":[]",
        "\"exp\":",
        "\"aud\":",
        "\"kubernetes.io\":",
        "{",
        "}",
        "[",
        "]",
        "null",
    ],
    max_bytes: TOKEN_MAX_BYTES,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: jwt,
    giants: |bytes| {
        vec![
            ".".repeat(bytes).into(),
            format!("{}.e30.AA", "A".repeat(bytes - 8)).into(),
            "[".repeat(bytes / 2).into(),
            format!("{{{}}}", joined(bytes / 14, ",", |at| format!("\"k{at}\":1"))).into(),
        ]
    },
};

/// A token as it is sent; or one with this header, or these claims.
fn jwt() -> Decode {
    let key = TokenKey::generate().ok();
    Box::new(move |input| {
        let (Some(key), Ok(text)) = (&key, std::str::from_utf8(input)) else { return };
        drop(key.verify(text));
        let _ = toono_pki::unverified_claims(text);
        let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        drop(key.verify(&format!("{header}.{header}.AAAA")));
        let _ = toono_pki::unverified_claims(&format!("{header}.{header}.AAAA"));
        if let Ok(claims @ Value::Object(_)) = serde_json::from_str(text)
            && let Ok(signed) = key.sign(&claims)
            && signed.len() <= TOKEN_MAX_BYTES
        {
            let verified = key.verify(&signed);
            assert!(verified.is_ok(), "our own signature is good: {verified:?}");
        }
    })
}
