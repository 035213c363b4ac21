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
    fn digits_are_encoded_as_in_kubernetes() {
        assert_eq!(safe_encode("0123456789"), "456789bcdf");
    }
}
