//! Domain names in the form in which they travel, in lower case (RFC 1035, 3.1; RFC 4343).

use std::fmt;

/// Longest name, with all its length bytes.
const MAX_NAME: usize = 255;
/// Longest label.
const MAX_LABEL: usize = 63;
/// The two highest bits of a length byte that is a pointer's first.
const POINTER: u8 = 0b1100_0000;

/// A whole name: labels behind their lengths, then a zero. Two names that differ in case are equal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

/// What was read is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a domain name")]
pub struct BadName;

impl Name {
    /// A name as people write it, with or without the last dot. It knows no escapes.
    ///
    /// # Errors
    /// When a label is empty or too long, or all of it is.
    pub fn of(text: &str) -> Result<Self, BadName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut bytes = Vec::with_capacity(text.len() + 2);
        for label in text.split('.').filter(|_| !text.is_empty()) {
            let length = u8::try_from(label.len()).map_err(|_| BadName)?;
            if length == 0 || label.len() > MAX_LABEL {
                return Err(BadName);
            }
            bytes.push(length);
            bytes.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        bytes.push(0);
        if bytes.len() > MAX_NAME { Err(BadName) } else { Ok(Self(bytes.into())) }
    }

    /// Reads the name at this place of a message; what follows it there is the second.
    ///
    /// # Errors
    /// When there is none. Pointers lead only backwards, so that none leads in a circle.
    pub(crate) fn read(message: &[u8], at: usize) -> Result<(Self, usize), BadName> {
        let mut bytes = Vec::with_capacity(64);
        let (mut place, mut end, mut earliest) = (at, None, at);
        loop {
            let length = *message.get(place).ok_or(BadName)?;
            match length & POINTER {
                0 => {
                    let next = place + 1 + usize::from(length);
                    let label = message.get(place + 1..next).ok_or(BadName)?;
                    bytes.push(length);
                    bytes.extend(label.iter().map(u8::to_ascii_lowercase));
                    if bytes.len() > MAX_NAME {
                        return Err(BadName);
                    }
                    place = next;
                    if length == 0 {
                        return Ok((Self(bytes.into()), end.unwrap_or(place)));
                    }
                }
                POINTER => {
                    let low = *message.get(place + 1).ok_or(BadName)?;
                    let to = usize::from(length & !POINTER) << 8 | usize::from(low);
                    if to >= earliest {
                        return Err(BadName);
                    }
                    end = end.or(Some(place + 2));
                    (place, earliest) = (to, to);
                }
                _ => return Err(BadName),
            }
        }
    }

    /// What follows the name at this place of a message, without reading where its pointer leads.
    pub(crate) fn skip(message: &[u8], mut at: usize) -> Result<usize, BadName> {
        loop {
            let length = *message.get(at).ok_or(BadName)?;
            match length & POINTER {
                0 if length == 0 => return Ok(at + 1),
                0 => at += 1 + usize::from(length),
                POINTER if message.len() > at + 1 => return Ok(at + 2),
                _ => return Err(BadName),
            }
        }
    }

    /// The bytes that travel.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its labels, the most special one first.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first().filter(|(length, _)| **length > 0)?;
            let (label, after) = after.split_at_checked(usize::from(*length))?;
            rest = after;
            Some(label)
        })
    }

    /// The labels in front of this ending, or none when it has another.
    #[must_use]
    pub fn below(&self, ending: &Self) -> Option<Vec<&[u8]>> {
        let own = self.0.strip_suffix(ending.as_bytes())?;
        let mut labels = Vec::new();
        let mut length = 0;
        for label in self.labels() {
            if length == own.len() {
                break;
            }
            length += 1 + label.len();
            labels.push(label);
        }
        // The ending began in the middle of a label.
        (length == own.len()).then_some(labels)
    }

    /// The name with another label in front of it.
    ///
    /// # Errors
    /// When either is too long.
    pub fn child(&self, label: &str) -> Result<Self, BadName> {
        let length = u8::try_from(label.len()).map_err(|_| BadName)?;
        let fits = (1..=MAX_LABEL).contains(&label.len());
        if !fits || 1 + label.len() + self.0.len() > MAX_NAME {
            return Err(BadName);
        }
        let mut bytes = Vec::with_capacity(1 + label.len() + self.0.len());
        bytes.push(length);
        bytes.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        bytes.extend_from_slice(&self.0);
        Ok(Self(bytes.into()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for label in self.labels() {
            for byte in label {
                match byte {
                    b'.' | b'\\' => write!(f, "\\{}", char::from(*byte))?,
                    0x21..=0x7e => write!(f, "{}", char::from(*byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            f.write_str(".")?;
        }
        if self.0.len() == 1 { f.write_str(".") } else { Ok(()) }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_read_without_regard_to_case() {
        let name = Name::of("Web.Shop.").unwrap();
        assert_eq!(name, Name::of("web.shop").unwrap());
        assert_eq!(name.as_bytes(), b"\x03web\x04shop\0");
        assert_eq!(Name::read(b"\x03WEB\x04Shop\0", 0), Ok((name.clone(), 10)));
        assert_eq!(name.to_string(), "web.shop.");
        assert_eq!(Name::of("").unwrap().to_string(), ".");
        for bad in ["a..b", ".a", &"x".repeat(64), &vec!["abcdefg"; 32].join(".")] {
            assert_eq!(Name::of(bad), Err(BadName), "{bad}");
        }
    }

    #[test]
    fn endings_are_of_whole_labels() {
        let zone = Name::of("cluster.local").unwrap();
        let below = |text: &str| {
            let name = Name::of(text).unwrap();
            name.below(&zone).map(|it| it.iter().map(|it| it.to_vec()).collect::<Vec<_>>())
        };
        assert_eq!(below("a.b.cluster.local"), Some(vec![b"a".to_vec(), b"b".to_vec()]));
        assert_eq!(below("cluster.local"), Some(Vec::new()));
        assert_eq!(below("local"), None);
        // A label that ends with the bytes of the zone: 8 + "x\x07cluster"...
        let (odd, _) = Name::read(b"\x09x\x07cluster\x05local\0", 0).unwrap();
        assert_eq!(odd.below(&zone), None);
    }

    #[test]
    fn pointers_lead_backwards_only() {
        let message = b"\x04shop\0\x03web\xc0\x00\xc0\x06\xc0\x0e";
        assert_eq!(Name::read(message, 6), Ok((Name::of("web.shop").unwrap(), 12)));
        assert_eq!(Name::read(message, 12), Ok((Name::of("web.shop").unwrap(), 14)));
        assert_eq!(Name::read(message, 14), Err(BadName), "to itself");
        assert_eq!(Name::read(b"\xc0\x02\xc0\x00", 2), Err(BadName));
        assert_eq!(Name::read(b"\x80a", 0), Err(BadName));
        assert_eq!((Name::skip(message, 6), Name::skip(message, 12)), (Ok(12), Ok(14)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_stumble(bytes: Vec<u8>, at in 0_usize..40) {
            if let Ok((name, end)) = Name::read(&bytes, at) {
                prop_assert_eq!(Name::skip(&bytes, at), Ok(end));
                prop_assert_eq!(Name::read(name.as_bytes(), 0).map(|it| it.0), Ok(name.clone()));
                let _ = name.to_string();
            }
            let _ = Name::skip(&bytes, at);
        }
    }
}
