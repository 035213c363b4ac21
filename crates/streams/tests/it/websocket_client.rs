//! A WebSocket client as RFC 6455 describes it: masks and fragments, reads the server's frames.

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

pub(crate) fn frame(opcode: u8, fin: bool, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![opcode | if fin { 0x80 } else { 0 }];
    if payload.len() < 126 {
        frame.push(0x80 | u8::try_from(payload.len()).unwrap());
    } else if payload.len() < 65536 {
        frame.push(0x80 | 126);
        frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    } else {
        frame.push(0x80 | 127);
        frame.extend((payload.len() as u64).to_be_bytes());
    }
    frame.extend(mask);
    frame.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
    frame
}

pub(crate) fn message(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(opcode, true, [0x12, 0x9a, 0xff, 0x00], payload)
}

/// Opcodes and payloads of whole frames of the server, none of which is masked or fragmented.
pub(crate) fn read(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes[0] & 0xf0, 0x80);
        let (length, head) = match bytes[1] {
            127 => {
                (usize::try_from(u64::from_be_bytes(bytes[2..10].try_into().unwrap())).unwrap(), 10)
            }
            126 => (u16::from_be_bytes(bytes[2..4].try_into().unwrap()).into(), 4),
            short => (usize::from(short), 2),
        };
        frames.push((bytes[0] & 0x0f, bytes[head..head + length].to_vec()));
        bytes = &bytes[head + length..];
    }
    frames
}
