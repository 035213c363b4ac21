//! Uids as keys: nearly all are UUIDs, and there is one for each object that there is.

use std::{fmt, sync::Arc};

/// Bytes of a UUID.
const BYTES: usize = 16;
/// Characters of its text.
const CHARACTERS: usize = 36;
/// Where dashes are in it.
const DASHES: [usize; 4] = [8, 13, 18, 23];

/// An object's `metadata.uid`, in 24 bytes. It keeps its text: what [`From`] takes, [`fmt::Display`] gives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(Form);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Form {
    /// A UUID in small letters.
    Usual([u8; BYTES]),
    Other(Arc<str>),
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        Self(usual(text).map_or_else(|| Form::Other(text.into()), Form::Usual))
    }
}

fn usual(text: &str) -> Option<[u8; BYTES]> {
    if text.len() != CHARACTERS {
        return None;
    }
    let mut bytes = [0; BYTES];
    let mut digits = 0;
    for (at, character) in text.bytes().enumerate() {
        if DASHES.contains(&at) {
            if character != b'-' {
                return None;
            }
            continue;
        }
        let value = match character {
            b'0'..=b'9' => character - b'0',
            b'a'..=b'f' => character - b'a' + 10,
            _ => return None,
        };
        let byte = bytes.get_mut(digits / 2)?;
        *byte = *byte << 4 | value;
        digits += 1;
    }
    Some(bytes)
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = match &self.0 {
            Form::Usual(bytes) => bytes,
            Form::Other(text) => return f.write_str(text),
        };
        let mut written = 0;
        for byte in bytes {
            if DASHES.contains(&written) {
                f.write_str("-")?;
                written += 1;
            }
            write!(f, "{byte:02x}")?;
            written += 2;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_keep_their_text() {
        for (text, is_usual) in [
            ("01234567-89ab-cdef-0123-456789abcdef", true),
            ("01234567-89AB-cdef-0123-456789abcdef", false),
            ("01234567+89ab-cdef-0123-456789abcdef", false),
            ("01234567-89ab-cdef-0123-456789abcde-", false),
            ("owner", false),
            ("", false),
        ] {
            let uid = Uid::from(text);
            assert_eq!(uid.to_string(), text);
            assert_eq!(matches!(uid.0, Form::Usual(_)), is_usual, "{text}");
        }
        assert!(size_of::<Uid>() <= 24);
    }
}
