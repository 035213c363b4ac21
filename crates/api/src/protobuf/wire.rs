//! The protobuf wire format: a message as numbered values. It knows no message's fields.

use super::ProtobufError;

/// One value as it is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire<'m> {
    /// An integer, a truth value or an enumeration.
    Varint(u64),
    /// Eight bytes, little endian.
    Fixed64(u64),
    /// Text, bytes, a message, or packed scalars.
    Bytes(&'m [u8]),
    /// Four bytes, little endian.
    Fixed32(u32),
}

/// The fields of an encoded message, in the order in which they were written.
pub(super) struct Fields<'m> {
    rest: &'m [u8],
}

/// Most bytes of a variable-length integer: 64 bits, seven in each.
const VARINT_MAX_BYTES: usize = 10;

impl<'m> Fields<'m> {
    pub(super) fn of(message: &'m [u8]) -> Self {
        Self { rest: message }
    }

    fn field(&mut self) -> Result<(u32, Wire<'m>), ProtobufError> {
        let tag = varint(&mut self.rest)?;
        let number = u32::try_from(tag >> 3).map_err(|_| ProtobufError::Malformed)?;
        let value = match tag & 7 {
            0 => Wire::Varint(varint(&mut self.rest)?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let bytes = varint(&mut self.rest)?;
                Wire::Bytes(
                    self.take(usize::try_from(bytes).map_err(|_| ProtobufError::Malformed)?)?,
                )
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            // Groups, which Kubernetes never had, and what was never assigned.
            _ => return Err(ProtobufError::Malformed),
        };
        Ok((number, value))
    }

    fn take(&mut self, bytes: usize) -> Result<&'m [u8], ProtobufError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(ProtobufError::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtobufError> {
        self.take(N)?.try_into().map_err(|_| ProtobufError::Malformed)
    }
}

impl<'m> Iterator for Fields<'m> {
    type Item = Result<(u32, Wire<'m>), ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Reads a variable-length integer off the front.
pub(super) fn varint(bytes: &mut &[u8]) -> Result<u64, ProtobufError> {
    let mut value = 0_u64;
    for shift in (0..).step_by(7).take(VARINT_MAX_BYTES) {
        let (byte, rest) = bytes.split_first().ok_or(ProtobufError::Malformed)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(ProtobufError::Malformed)
}
