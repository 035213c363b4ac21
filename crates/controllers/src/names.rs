//! Names that Kubernetes' controllers make: random suffixes and encoded hashes.

/// Letters and digits without vowels and look-alikes, so that no word and no doubt comes out.
const SAFE_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Length of a generated suffix.
const SUFFIX_LENGTH: usize = 5;
/// Longest name of an object: a generated one is cut before its suffix.
const MAX_NAME_LENGTH: usize = 63;

fn safe(index: usize) -> char {
    char::from(SAFE_ALPHABET.get(index % SAFE_ALPHABET.len()).copied().unwrap_or(b'b'))
}

/// `prefix` with five random characters.
pub(crate) fn generate(prefix: &str) -> String {
    let kept = prefix.get(..MAX_NAME_LENGTH - SUFFIX_LENGTH).unwrap_or(prefix);
    let suffix = (0..SUFFIX_LENGTH).map(|_| safe(fastrand::usize(..SAFE_ALPHABET.len())));
    kept.chars().chain(suffix).collect()
}

/// `name` and `suffix`, the name cut so far that random characters still fit behind.
pub(crate) fn with_suffix(name: &str, suffix: &str) -> String {
    let room = (MAX_NAME_LENGTH - SUFFIX_LENGTH).saturating_sub(suffix.len());
    format!("{}{suffix}", name.get(..room).unwrap_or(name))
}

/// As many characters as a random suffix has, always the same for the same parts.
pub(crate) fn hashed(parts: &[&str]) -> String {
    // FNV-1a, 64 bit; parts end with a byte that no text has.
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let digits = std::iter::successors(Some(hash ^ (hash >> 32)), |rest| {
        Some(rest / SAFE_ALPHABET.len() as u64)
    });
    let digits = digits.map(|rest| safe((rest % SAFE_ALPHABET.len() as u64) as usize));
    digits.take(SUFFIX_LENGTH).collect()
}

/// Each character of `text` mapped into the safe alphabet.
pub(crate) fn safe_encode(text: &str) -> String {
    text.bytes().map(|byte| safe(usize::from(byte))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit() {
        let name = generate("hello-");
        assert!(name.starts_with("hello-") && name.len() == 11, "{name}");
        assert_eq!(generate(&"x".repeat(80)).len(), 63);
        let long = with_suffix(&"x".repeat(70), "-12-");
        assert!(long.len() == 58 && long.ends_with("x-12-"), "{long}");
    }

    #[test]
    fn hashes_tell_parts_apart() {
        assert_eq!(hashed(&["a", "bc"]), hashed(&["a", "bc"]));
        assert_ne!(hashed(&["a", "bc"]), hashed(&["ab", "c"]));
        assert_eq!(hashed(&[]).len(), SUFFIX_LENGTH);
    }

    #[test]
    fn digits_are_encoded_as_in_kubernetes() {
        assert_eq!(safe_encode("0123456789"), "456789bcdf");
    }
}
