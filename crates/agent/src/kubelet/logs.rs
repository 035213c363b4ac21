//! `containerLogs`: the log file of a container's run, in the format of the container runtime interface.
//!
//! A line of the file is `TIME stdout|stderr F|P TEXT`; `P` marks a part of a longer line.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::stream;
use http::{Response, header};
use jiff::Timestamp;
use toono_http::Body;

use super::{Refusal, Target, query::Query};
use crate::views::Views;

/// How much of the file is read at once.
const CHUNK: usize = 32 * 1024;
/// How often a follower looks for more; only while somebody follows.
const FOLLOW_POLL: Duration = Duration::from_millis(200);
/// The longest line of the file. The keeper cuts long lines into parts of 16 KiB.
const MAX_LINE: usize = 1 << 20;

/// What is asked for.
#[derive(Debug, Clone, Default)]
struct Wanted {
    follow: bool,
    timestamps: bool,
    since: Option<Timestamp>,
    tail: Option<u64>,
    limit: Option<u64>,
    stream: Option<&'static str>,
}

/// `GET /containerLogs/NS/POD/CONTAINER?follow,previous,tailLines,sinceSeconds,sinceTime,timestamps,limitBytes`.
pub(super) fn answer(
    views: &Views,
    target: &Target,
    query: &Query,
) -> Result<Response<Body>, Refusal> {
    let wanted = Wanted::parse(query).map_err(Refusal::bad_request)?;
    let Target { view, container, pod, .. } = target;
    let newest = view.containers.get(container).and_then(|it| it.newest);
    let waiting = || {
        let text = format!(
            "container \"{container}\" in pod \"{pod}\" is waiting to start: ContainerCreating"
        );
        Refusal::bad_request(text)
    };
    let attempt = if query.flag(&["previous"]) {
        let missing = || {
            let text =
                format!("previous terminated container \"{container}\" in pod \"{pod}\" not found");
            Refusal::bad_request(text)
        };
        newest.and_then(|newest| newest.checked_sub(1)).ok_or_else(missing)?
    } else {
        newest.ok_or_else(waiting)?
    };
    let path = view.log(container, attempt);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Refusal::not_found(format!(
                "the log of container \"{container}\" in pod \"{pod}\" is gone"
            )));
        }
        Err(error) => {
            return Err(Refusal::internal(format!("cannot read {}: {error}", path.display())));
        }
    };
    let reader =
        LogReader::start(file, wanted).map_err(|error| Refusal::internal(error.to_string()))?;
    let follower = Follower { reader, views: views.clone(), target: target.clone(), attempt };
    let chunks = stream::unfold(follower, |mut follower| async move {
        let chunk = follower.next().await.transpose()?;
        Some((chunk, follower))
    });
    let mut response = Response::new(toono_http::stream(chunks));
    let plain = header::HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    Ok(response)
}

/// Reads on while the container runs, if that is asked for.
struct Follower {
    reader: LogReader<File>,
    views: Views,
    target: Target,
    attempt: u32,
}

impl Follower {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            // Whether it runs is asked before the file is read: what it wrote last is then there.
            let Target { namespace, pod, container, .. } = &self.target;
            let running = self.views.is_running(namespace, pod, container, self.attempt);
            if let Some(bytes) = self.reader.next()? {
                return Ok(Some(bytes));
            }
            if !(self.reader.wanted.follow && running) || self.reader.is_full() {
                return Ok(None);
            }
            tokio::time::sleep(FOLLOW_POLL).await;
        }
    }
}

impl Wanted {
    fn parse(query: &Query) -> Result<Self, String> {
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
struct LogReader<F> {
    file: F,
    wanted: Wanted,
    /// The start of a line whose rest is not written yet.
    pending: BytesMut,
    sent: u64,
    /// The last entry was a part, so the next one continues its line.
    continues: bool,
}

impl<F: Read + Seek> LogReader<F> {
    fn start(mut file: F, wanted: Wanted) -> io::Result<Self> {
        let start = match wanted.tail {
            Some(lines) => tail(&mut file, lines)?,
            None => 0,
        };
        file.seek(SeekFrom::Start(start))?;
        Ok(Self { file, wanted, pending: BytesMut::new(), sent: 0, continues: false })
    }

    fn is_full(&self) -> bool {
        self.wanted.limit.is_some_and(|limit| self.sent >= limit)
    }

    /// The next bytes for the client; none at the end of what is written so far.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut buffer = vec![0; CHUNK];
        while !self.is_full() {
            let length = self.file.read(&mut buffer)?;
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
struct Entry<'a> {
    time: &'a [u8],
    at: Option<Timestamp>,
    stream: &'a [u8],
    partial: bool,
    text: &'a [u8],
}

impl<'a> Entry<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let (time, stream, tag) = (fields.next()?, fields.next()?, fields.next()?);
        let text = fields.next().unwrap_or_default();
        let at = std::str::from_utf8(time).ok().and_then(|text| text.parse().ok());
        Some(Self { time, at, stream, partial: tag.starts_with(b"P"), text })
    }
}

/// Where the last `lines` lines of the file begin. Parts count with the line that they end in.
fn tail<F: Read + Seek>(file: &mut F, lines: u64) -> io::Result<u64> {
    let mut position = file.seek(SeekFrom::End(0))?;
    // The bytes from `position` on, up to the first line that is already counted.
    let mut bytes: Vec<u8> = Vec::new();
    let mut trimmed = false;
    let mut counted = 0;
    loop {
        if !trimmed && let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') {
            // An unfinished last line is no line yet.
            bytes.truncate(last + 1);
            trimmed = true;
        }
        let before = bytes.len().saturating_sub(1);
        let newline = bytes.get(..before).and_then(|it| it.iter().rposition(|b| *b == b'\n'));
        let begin = match newline {
            Some(newline) if trimmed => newline + 1,
            _ if position == 0 => 0,
            _ => {
                let length = position.min(CHUNK as u64);
                position -= length;
                file.seek(SeekFrom::Start(position))?;
                let mut block = vec![0; usize::try_from(length).unwrap_or(0)];
                file.read_exact(&mut block)?;
                block.append(&mut bytes);
                bytes = block;
                continue;
            }
        };
        let line = bytes.get(begin..).unwrap_or_default();
        if Entry::parse(line).is_some_and(|entry| !entry.partial) {
            if counted == lines {
                return Ok(position + bytes.len() as u64);
            }
            counted += 1;
        }
        bytes.truncate(begin);
        if bytes.is_empty() && position == 0 {
            return Ok(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn log(lines: &[&str]) -> Vec<u8> {
        let at = |second: usize| format!("2027-01-15T08:00:{second:02}.000000001Z");
        let line = |(index, line): (usize, &&str)| format!("{} {line}\n", at(index % 60));
        lines.iter().enumerate().map(line).collect::<String>().into_bytes()
    }

    fn read(bytes: &[u8], wanted: Wanted) -> String {
        let mut reader = LogReader::start(Cursor::new(bytes), wanted).unwrap();
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
    fn a_tail_is_the_same_wherever_blocks_end() {
        let texts: Vec<String> = (0..3000)
            .map(|n| {
                format!("stdout {} {}", if n % 5 == 3 { "P" } else { "F" }, "x".repeat(n % 40))
            })
            .collect();
        let bytes = log(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let all = read(&bytes, Wanted::default());
        let lines: Vec<&str> = all.split_inclusive('\n').collect();
        for tail in [0, 1, 2, 7, 1000, lines.len() - 1, lines.len(), 9999] {
            let expected = lines[lines.len().saturating_sub(tail)..].concat();
            let wanted = Wanted { tail: Some(tail as u64), ..Wanted::default() };
            assert_eq!(read(&bytes, wanted), expected, "tail {tail}");
        }
        let mut unfinished = bytes.clone();
        unfinished.extend_from_slice(b"2027-01-15T08:00:00Z stdout F unfin");
        let last = Wanted { tail: Some(1), ..Wanted::default() };
        assert_eq!(read(&unfinished, last), *lines.last().unwrap());
        assert_eq!(read(b"", Wanted { tail: Some(3), ..Wanted::default() }), "");
    }

    #[test]
    fn what_is_written_later_is_read_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, log(&["stdout F one"])).unwrap();
        let mut reader = LogReader::start(File::open(&path).unwrap(), Wanted::default()).unwrap();
        assert_eq!(reader.next().unwrap().unwrap(), "one\n");
        assert!(reader.next().unwrap().is_none());
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        io::Write::write_all(&mut file, b"2027-01-15T08:00:00Z stdout F tw").unwrap();
        assert!(reader.next().unwrap().is_none());
        io::Write::write_all(&mut file, b"o\n").unwrap();
        assert_eq!(reader.next().unwrap().unwrap(), "two\n");
    }
}
