//! The hash of a pod template that names replica sets and labels pods.
//!
//! Kubernetes hashes a dump of its Go structures. Which value comes out is no part of the API;
//! that equal templates give equal values is.

use k8s_openapi::{api::core::v1::PodTemplateSpec, serde::Serialize};

use crate::names::safe_encode;

/// FNV-1a, 32 bit.
const OFFSET_BASIS: u32 = 0x811c_9dc5;
const PRIME: u32 = 0x0100_0193;

fn fnv1a(hash: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(PRIME))
}

/// The hash of a template; `collisions` tells templates apart whose hashes collided before.
pub(crate) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    hash_of(template, collisions)
}

/// The same of anything that has string keys only.
pub(crate) fn hash_of(value: &impl Serialize, collisions: Option<i32>) -> String {
    // So encoding has no failure.
    let encoded = serde_json::to_vec(value).unwrap_or_default();
    let mut hash = fnv1a(OFFSET_BASIS, &encoded);
    if let Some(collisions) = collisions {
        hash = fnv1a(hash, &collisions.to_le_bytes());
    }
    safe_encode(&hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collisions_change_the_hash() {
        let template = PodTemplateSpec::default();
        assert_eq!(template_hash(&template, None), template_hash(&template, None));
        assert_ne!(template_hash(&template, None), template_hash(&template, Some(1)));
        assert_ne!(template_hash(&template, Some(1)), template_hash(&template, Some(2)));
        assert_eq!(fnv1a(OFFSET_BASIS, b"foobar"), 0xbf9c_f968);
    }
}
