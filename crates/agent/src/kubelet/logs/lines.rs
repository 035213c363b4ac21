//! The lines of a log: how they are read, and what of them a client wants to see.
//!
//! A line of the file is `TIME stdout|stderr F|P TEXT`; `P` marks a part of a longer line.

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;

use super::super::query::Query;

/// How much of the file is read at once.
pub(super) const CHUNK: usize = 32 * 1024;
/// The longest line of the file. The keeper cuts long lines into parts of 16 KiB.
const MAX_LINE: usize = 1 << 20;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub(super) follow: bool,
    pub(super) timestamps: bool,
    pub(super) since: Option<Timestamp>,
    pub(super) tail: Option<u64>,
    pub(super) limit: Option<u64>,
    pub(super) stream: Option<&'static str>,
}

impl Wanted {
    pub(super) fn parse(query: &Query) -> Result<Self, String> {
        let since_seconds = query.number::<i64>("sinceSeconds")?;
        let since_time = query.first("sinceTime").map(|text| {
            text.parse::<Timestamp>().map_err(|_| format!("invalid sinceTime: {text:?}"))
        });
        let ago = |seconds: i64| Timestamp::now() - jiff::SignedDuration::from_secs(seconds);
        Ok(Self {
            follow: query.flag(&["follow"]),
            timestamps: query.flag(&["timestamps"]),
            since: since_time.transpose()?.or(since_seconds.map(ago)),
            tail: query.number("tailLines")?,
            limit: query.number("limitBytes")?,
            stream: match query.first("stream") {
                Some("Stdout") => Some("stdout"),
                Some("Stderr") => Some("stderr"),
                _ => None,
            },
        })
    }
}

/// Turns the file's lines into what the client wants to see.
pub(super) struct LogReader<R> {
    source: R,
    pub(super) wanted: Wanted,
    /// The start of a line whose rest is not written yet.
    pending: BytesMut,
    sent: u64,
    /// The last entry was a part, so the next one continues its line.
    continues: bool,
}

impl<R: Read> LogReader<R> {
    pub(super) fn new(source: R, wanted: Wanted) -> Self {
        Self { source, wanted, pending: BytesMut::new(), sent: 0, continues: false }
    }

    pub(super) fn is_full(&self) -> bool {
        self.wanted.limit.is_some_and(|limit| self.sent >= limit)
    }

    /// The next bytes for the client; none at the end of what is written so far.
    pub(super) fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut buffer = vec![0; CHUNK];
        while !self.is_full() {
            let length = self.source.read(&mut buffer)?;
            if length == 0 {
                return Ok(None);
            }
            self.pending.extend_from_slice(buffer.get(..length).unwrap_or_default());
            let mut out = BytesMut::new();
            while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line = self.pending.split_to(end + 1);
                self.render(&line, &mut out);
            }
            if self.pending.len() > MAX_LINE {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the log has an endless line",
                ));
            }
            let left = self.wanted.limit.map_or(u64::MAX, |limit| limit - self.sent);
            out.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            if !out.is_empty() {
                self.sent += out.len() as u64;
                return Ok(Some(out.freeze()));
            }
        }
        Ok(None)
    }

    fn render(&mut self, line: &[u8], out: &mut BytesMut) {
        let Some(entry) = Entry::parse(line) else { return };
        let continues = std::mem::replace(&mut self.continues, entry.partial);
        let early = self.wanted.since.is_some_and(|since| entry.at.is_none_or(|at| at < since));
        let other = self.wanted.stream.is_some_and(|stream| entry.stream != stream.as_bytes());
        if early || other {
            return;
        }
        if self.wanted.timestamps && !continues {
            out.extend_from_slice(entry.time);
            out.extend_from_slice(b" ");
        }
        out.extend_from_slice(entry.text);
        if !entry.partial {
            out.extend_from_slice(b"\n");
        }
    }
}

/// One line of the file.
pub(super) struct Entry<'a> {
    time: &'a [u8],
    at: Option<Timestamp>,
    stream: &'a [u8],
    pub(super) partial: bool,
    text: &'a [u8],
}

impl<'a> Entry<'a> {
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let (time, stream, tag) = (fields.next()?, fields.next()?, fields.next()?);
        let text = fields.next().unwrap_or_default();
        let at = std::str::from_utf8(time).ok().and_then(|text| text.parse().ok());
        Some(Self { time, at, stream, partial: tag.starts_with(b"P"), text })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Cursor;

    pub(crate) fn log(lines: &[&str]) -> Vec<u8> {
        let at = |second: usize| format!("2027-01-15T08:00:{second:02}.000000001Z");
        let line = |(index, line): (usize, &&str)| format!("{} {line}\n", at(index % 60));
        lines.iter().enumerate().map(line).collect::<String>().into_bytes()
    }

    pub(crate) fn read(bytes: &[u8], wanted: Wanted) -> String {
        let mut source = Cursor::new(bytes);
        if let Some(lines) = wanted.tail {
            let (start, _) = super::super::files::tail(&mut source, lines).unwrap();
            source.set_position(start);
        }
        let mut reader = LogReader::new(source, wanted);
        let mut out = Vec::new();
        while let Some(chunk) = reader.next().unwrap() {
            out.extend_from_slice(&chunk);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_parts_and_streams() {
        let bytes =
            log(&["stdout F one", "stderr F two", "stdout P thr", "stdout F ee", "stdout F "]);
        assert_eq!(read(&bytes, Wanted::default()), "one\ntwo\nthree\n\n");
        let only = Wanted { stream: Some("stderr"), ..Wanted::default() };
        assert_eq!(read(&bytes, only), "two\n");
        let stamped = Wanted { timestamps: true, tail: Some(2), ..Wanted::default() };
        let expected = "2027-01-15T08:00:02.000000001Z three\n2027-01-15T08:00:04.000000001Z \n";
        assert_eq!(read(&bytes, stamped), expected);
        let since = Some("2027-01-15T08:00:03.5Z".parse().unwrap());
        assert_eq!(read(&bytes, Wanted { since, ..Wanted::default() }), "\n");
        assert_eq!(read(&bytes, Wanted { limit: Some(5), ..Wanted::default() }), "one\nt");
    }

    #[test]
    fn what_is_written_later_is_read_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, log(&["stdout F one"])).unwrap();
        let mut reader = LogReader::new(std::fs::File::open(&path).unwrap(), Wanted::default());
        assert_eq!(reader.next().unwrap().unwrap(), "one\n");
        assert!(reader.next().unwrap().is_none());
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        io::Write::write_all(&mut file, b"2027-01-15T08:00:00Z stdout F tw").unwrap();
        assert!(reader.next().unwrap().is_none());
        io::Write::write_all(&mut file, b"o\n").unwrap();
        assert_eq!(reader.next().unwrap().unwrap(), "two\n");
    }
}
