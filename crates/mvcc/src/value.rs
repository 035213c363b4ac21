//! An object as the store holds it, and as it is handed in to be written. It must not look inside
//! the encoded bytes.

use bytes::Bytes;

use crate::{Key, Owner, Rev};

/// One version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where the object is.
    pub key: Key,
    /// The encoded object. It carries `modified` as its `resourceVersion`.
    pub value: Bytes,
    /// The revision at which the object came to be.
    pub created: Rev,
    /// The revision of this version.
    pub modified: Rev,
    /// Who the object belongs to.
    pub owner: Owner,
}

/// An encoded object with a hole where its `resourceVersion` goes.
///
/// The number is known only when the transaction's turn has come, so the object is encoded around
/// the hole before, and filled by one copy then; nothing is encoded twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    head: Bytes,
    tail: Bytes,
}

/// The longest revision in decimal digits.
const REV_DIGITS: usize = 20;

impl Draft {
    /// The bytes before and after the digits. For JSON, `head` ends in `"resourceVersion":"` and
    /// `tail` begins with the closing quote.
    #[must_use]
    pub fn new(head: impl Into<Bytes>, tail: impl Into<Bytes>) -> Self {
        Self { head: head.into(), tail: tail.into() }
    }

    /// The bytes before the digits.
    #[must_use]
    pub fn head(&self) -> &Bytes {
        &self.head
    }

    /// The bytes after the digits.
    #[must_use]
    pub fn tail(&self) -> &Bytes {
        &self.tail
    }

    /// The encoded object with `rev` in decimal digits in its hole.
    #[must_use]
    pub fn seal(&self, rev: Rev) -> Bytes {
        let digits = rev.to_string();
        // The exact size: `Bytes` keeps a vector without spare room as it is.
        let mut value = Vec::with_capacity(self.head.len() + digits.len() + self.tail.len());
        value.extend_from_slice(&self.head);
        value.extend_from_slice(digits.as_bytes());
        value.extend_from_slice(&self.tail);
        value.into()
    }

    /// The most bytes that the sealed object can have.
    #[must_use]
    pub fn max_len(&self) -> usize {
        self.head.len() + REV_DIGITS + self.tail.len()
    }
}
