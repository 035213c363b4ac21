//! Bytes from anyone, in the parsers of tokens and certificate requests: no panic, no long thought, and
//! nothing is taken for what it is not.
#![expect(clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::time::{Duration, Instant};

use toono_pki::{NodeKey, TokenKey, requested_subject, unverified_claims};

const ROUNDS: u64 = 20_000;
const TOO_LONG: Duration = Duration::from_millis(100);

/// A seed with some bytes changed, cut out, doubled, or put in.
fn mutated(random: &mut fastrand::Rng, seed: &str) -> String {
    let mut bytes = seed.as_bytes().to_vec();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..=bytes.len());
        let to = (at + random.usize(..40)).min(bytes.len());
        match random.u8(..5) {
            0 if at < bytes.len() => bytes[at] = random.u8(..),
            1 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            2 => drop(bytes.drain(at..to)),
            3 => {
                let piece = bytes[at..to].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let piece: Vec<u8> = (0..random.usize(..20)).map(|_| random.u8(..)).collect();
                bytes.splice(at..at, piece);
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn each(seeds: &[String], mut look: impl FnMut(&str)) {
    for round in 0..ROUNDS {
        let mut random = fastrand::Rng::with_seed(round);
        let chosen = random.usize(..seeds.len());
        let text = mutated(&mut random, &seeds[chosen]);
        let began = Instant::now();
        look(&text);
        assert!(began.elapsed() < TOO_LONG, "seed {round}: {:?}", began.elapsed());
    }
}

#[test]
fn no_bytes_are_a_token_but_those_that_were_signed() {
    let key = TokenKey::generate().unwrap();
    let claims =
        serde_json::json!({"iss": "me", "aud": ["you"], "kubernetes.io": {"namespace": "a"}});
    let good = key.sign(&claims).unwrap();
    let deep = format!("{}.{}.x", "[".repeat(7000), "{\"a\":".repeat(1000));
    let seeds = [good.clone(), "e30.e30.".to_owned(), "eyJhbGciOiJub25lIn0.e30.".to_owned(), deep];
    each(&seeds, |text| {
        assert!(key.verify(text).is_err() || text == good, "{text}");
        let _ = unverified_claims(text);
    });
}

#[test]
fn no_bytes_are_more_than_the_request_that_they_are() {
    let good = NodeKey::generate("edge-1").unwrap().csr_pem;
    assert_eq!(requested_subject(&good).unwrap().common_name, "system:node:edge-1");
    let long = format!("{good}{}", "A".repeat(70_000));
    let empty = "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n";
    assert!(requested_subject(&long).is_err() && requested_subject(empty).is_err());
    each(&[good, empty.to_owned()], |text| drop(requested_subject(text)));
}
