//! A SPDY/3.1 client as the protocol's text describes it: writes frames, reads the server's.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use toono_streams::spdy::DICTIONARY;

pub(crate) struct Client {
    deflate: Compress,
    inflate: Decompress,
    dictionary_given: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Reply { stream: u32, headers: Vec<u8> },
    Reset { stream: u32, status: u32 },
    Ping(u32),
    GoAway { last: u32, status: u32 },
    Data { stream: u32, fin: bool, bytes: Vec<u8> },
}

impl Client {
    pub(crate) fn new() -> Self {
        let mut deflate = Compress::new(Compression::best(), true);
        deflate.set_dictionary(DICTIONARY).unwrap();
        Self { deflate, inflate: Decompress::new(true), dictionary_given: false }
    }

    /// Compresses a block of these headers.
    pub(crate) fn block(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            plain.extend(text.as_bytes());
        }
        self.compress(&plain)
    }

    pub(crate) fn compress(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(plain.len() + 1024);
        let before = self.deflate.total_in();
        self.deflate.compress_vec(plain, &mut out, FlushCompress::Sync).unwrap();
        assert_eq!(self.deflate.total_in() - before, plain.len() as u64);
        out
    }

    pub(crate) fn open(&mut self, stream: u32, fin: bool, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut body = stream.to_be_bytes().to_vec();
        body.extend([0; 6]);
        body.extend(self.block(headers));
        control(1, u8::from(fin), &body)
    }

    /// Reads whole frames of the server.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) -> Vec<Said> {
        let word =
            |bytes: &[u8], at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let mut said = Vec::new();
        while !bytes.is_empty() {
            let length = usize::try_from(word(bytes, 4) & 0x00ff_ffff).unwrap();
            let (first, fin, body) = (word(bytes, 0), bytes[4] & 1 == 1, &bytes[8..8 + length]);
            bytes = &bytes[8 + length..];
            said.push(match first {
                0x8003_0002 => {
                    Said::Reply { stream: word(body, 0), headers: self.decompress(&body[4..]) }
                }
                0x8003_0003 => Said::Reset { stream: word(body, 0), status: word(body, 4) },
                0x8003_0006 => Said::Ping(word(body, 0)),
                0x8003_0007 => Said::GoAway { last: word(body, 0), status: word(body, 4) },
                stream if stream >> 31 == 0 => Said::Data { stream, fin, bytes: body.to_vec() },
                other => panic!("the server sent {other:#x}"),
            });
        }
        said
    }

    fn decompress(&mut self, mut block: &[u8]) -> Vec<u8> {
        let mut plain = Vec::with_capacity(64 * 1024);
        loop {
            let before = self.inflate.total_in();
            let result = self.inflate.decompress_vec(block, &mut plain, FlushDecompress::Sync);
            block = &block[usize::try_from(self.inflate.total_in() - before).unwrap()..];
            match result {
                Err(error) if error.needs_dictionary().is_some() && !self.dictionary_given => {
                    self.inflate.set_dictionary(DICTIONARY).unwrap();
                    self.dictionary_given = true;
                }
                Err(error) => panic!("{error}"),
                Ok(_) => break,
            }
        }
        assert!(block.is_empty(), "the server's block has more in it");
        plain
    }
}

pub(crate) fn control(kind: u16, flags: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let mut frame = vec![0x80, 3];
    frame.extend(kind.to_be_bytes());
    frame.extend([flags, length[1], length[2], length[3]]);
    frame.extend(body);
    frame
}

pub(crate) fn data(stream: u32, fin: bool, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    let mut frame = stream.to_be_bytes().to_vec();
    frame.extend([u8::from(fin), length[1], length[2], length[3]]);
    frame.extend(bytes);
    frame
}

pub(crate) fn reset(stream: u32) -> Vec<u8> {
    control(3, 0, &[stream.to_be_bytes(), 5_u32.to_be_bytes()].concat())
}

pub(crate) fn ping(id: u32) -> Vec<u8> {
    control(6, 0, &id.to_be_bytes())
}
