//! Cuts terminal sizes out of a resize stream.
//!
//! SPDY gives a stream of JSON objects without frames; the node expects one object a frame. This
//! finds where objects end and does not interpret them.

use bytes::{Bytes, BytesMut};

/// The longest object kept; `{"Width":65535,"Height":65535}` needs 30 bytes.
pub const MAX_RESIZE: usize = 256;

/// Collects a resize stream's bytes.
#[derive(Debug, Default)]
pub struct ResizeReader {
    object: BytesMut,
    oversize: bool,
}

impl ResizeReader {
    /// Takes the next bytes and returns the objects they complete. An object longer than
    /// [`MAX_RESIZE`] is dropped.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Bytes> {
        let mut whole = Vec::new();
        for &byte in bytes {
            if byte == b'{' {
                self.object.clear();
                self.oversize = false;
            } else if self.object.is_empty() {
                continue;
            }
            if self.object.len() == MAX_RESIZE {
                self.oversize = true;
            } else {
                self.object.extend_from_slice(&[byte]);
            }
            if byte == b'}' {
                let object = self.object.split().freeze();
                if !self.oversize {
                    whole.push(object);
                }
            }
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_survive_any_cut() {
        let sent = b"{\"Width\":80,\"Height\":24}\n{\"Width\":100,\"Height\":30}\n";
        for cut in 1..sent.len() {
            let mut reader = ResizeReader::default();
            let got: Vec<Bytes> = sent.chunks(cut).flat_map(|part| reader.push(part)).collect();
            assert_eq!(got, [&sent[..24], &sent[25..50]], "cut at {cut}");
        }
    }

    #[test]
    fn an_endless_object_is_dropped_and_the_next_one_read() {
        let mut reader = ResizeReader::default();
        assert!(reader.push(&[b'{'; 1]).is_empty());
        assert!(reader.push(&[b' '; 10_000]).is_empty());
        assert!(reader.object.capacity() <= 2 * MAX_RESIZE);
        assert_eq!(reader.push(b"}{}"), ["{}"]);
    }
}
