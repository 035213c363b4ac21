//! Layers and archives as they come: plain, gzip or zstd, told apart by how they begin.
//!
//! Media types are not asked: they are wrong often enough, and archives have none.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

/// The most memory that one zstd frame may ask for to be decoded; what its highest levels use.
pub const MAX_ZSTD_WINDOW_BYTES: u64 = 128 << 20;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Of frames with anything in them, which decoders skip; the first byte's low half is free.
const ZSTD_SKIPPABLE_MAGIC: [u8; 3] = [0x2a, 0x4d, 0x18];

/// How something is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By the first bytes.
    pub(crate) fn of(start: &[u8]) -> Self {
        let skippable = start.first().is_some_and(|byte| byte & 0xf0 == 0x50)
            && start.get(1..4) == Some(ZSTD_SKIPPABLE_MAGIC.as_slice());
        if start.starts_with(&GZIP_MAGIC) {
            Self::Gzip
        } else if start.starts_with(&ZSTD_MAGIC) || skippable {
            Self::Zstd
        } else {
            Self::None
        }
    }
}

/// The uncompressed bytes of a source. Its buffer must hold at least four bytes, if there are so many.
///
/// # Errors
/// When the source cannot be read.
pub fn decompressed<R: BufRead + 'static>(mut source: R) -> io::Result<Box<dyn Read>> {
    Ok(match Compression::of(source.fill_buf()?) {
        Compression::None => Box::new(source),
        Compression::Gzip => Box::new(MultiGzDecoder::new(source)),
        Compression::Zstd => Box::new(Zstd::new(source)),
    })
}

/// Decodes frame after frame.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_ZSTD_WINDOW_BYTES);
        Self { source, decoder, in_frame: false }
    }

    /// Begins the next frame, unless it is one to skip.
    fn next_frame(&mut self) -> io::Result<()> {
        match self.decoder.reset(&mut self.source) {
            Ok(()) => self.in_frame = true,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                let mut skipped = Read::by_ref(&mut self.source).take(length.into());
                if io::copy(&mut skipped, &mut io::sink())? < u64::from(length) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Err(error) => return Err(io::Error::other(error)),
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            while self.in_frame && self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.source, one).map_err(io::Error::other)?;
            }
            if self.in_frame {
                let length = self.decoder.read(buffer)?;
                if length > 0 {
                    return Ok(length);
                }
                self.in_frame = false;
            }
            if self.source.fill_buf()?.is_empty() {
                return Ok(0);
            }
            self.next_frame()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor, Write};

    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn read(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        decompressed(BufReader::new(Cursor::new(bytes)))?.read_to_end(&mut all)?;
        Ok(all)
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    #[test]
    fn every_form_reads_the_same() {
        let text = b"a layer, again and again. ".repeat(20_000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let (first, second) = text.split_at(70_000);
        let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3], &[][..]].concat();
        let frames = [skippable.clone(), zstd(first), skippable.clone(), zstd(second), skippable];
        for form in [text.clone(), gzip.finish().unwrap(), zstd(&text), frames.concat()] {
            assert!(read(form).unwrap() == text);
        }
        assert_eq!(read(Vec::new()).unwrap(), b"");
    }

    #[test]
    fn a_cut_frame_is_an_error() {
        let whole = zstd(&b"something that is compressed ".repeat(1000));
        for length in [5, whole.len() / 2, whole.len() - 1] {
            assert!(read(whole[..length].to_vec()).is_err(), "cut at {length}");
        }
        assert!(read([&whole[..], b"no frame"].concat()).is_err());
        assert!(read(vec![0x5a, 0x2a, 0x4d, 0x18, 9, 0, 0, 0, 1]).is_err());
    }
}
