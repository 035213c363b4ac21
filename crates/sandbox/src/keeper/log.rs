//! A container's log file, in the format of Kubernetes' container runtime interface.
//!
//! A line is `TIME STREAM TAG TEXT`, the tag `F` for a whole line and `P` for a part of a long one
//! (kubernetes, "pkg/kubelet/kuberuntime/logs"). The file is rotated by size. A log that cannot be
//! written loses lines: it must never stop the container that writes them.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
};

use jiff::Timestamp;

use crate::layout::{MAX_LOG_FILES, ignore_missing, rotated};

/// The longest line that is kept in one piece; what containerd uses.
pub(super) const MAX_LINE_BYTES: usize = 16 * 1024;
/// A log is rotated when it would grow over this; the kubelet's default of `containerLogMaxSize`.
pub(super) const MAX_LOG_BYTES: u64 = 10 << 20;

/// An open log.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
}

/// Cuts one stream into lines.
#[derive(Debug)]
pub(super) struct Lines {
    name: &'static str,
    pending: Vec<u8>,
}

impl Log {
    /// Opens a log to append to it, and creates its folder.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = File::options().create(true).append(true).open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes })
    }

    fn write(&mut self, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        if self.bytes > 0 && self.bytes + text.len() as u64 > MAX_LOG_BYTES {
            self.rotate();
        }
        match self.file.write_all(text) {
            Ok(()) => self.bytes += text.len() as u64,
            Err(error) => eprintln!("{}: {error}", self.path.display()),
        }
    }

    /// Moves each file to the next higher number, over the oldest one, and begins a new one.
    fn rotate(&mut self) {
        let reopen = || {
            for number in (1..MAX_LOG_FILES).rev() {
                let (from, to) = (rotated(&self.path, number - 1), rotated(&self.path, number));
                ignore_missing(fs::rename(from, to))?;
            }
            File::options().create(true).append(true).open(&self.path)
        };
        match reopen() {
            Ok(file) => (self.file, self.bytes) = (file, 0),
            Err(error) => eprintln!("{}: {error}", self.path.display()),
        }
    }
}

impl Lines {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, pending: Vec::new() }
    }

    /// Takes what was read; whole lines go to the log.
    pub(super) fn feed(&mut self, bytes: &[u8], log: &mut Log) {
        let now = Timestamp::now();
        let mut text = Vec::with_capacity(bytes.len() + 64);
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = MAX_LINE_BYTES.saturating_sub(self.pending.len());
            let newline = rest.iter().take(room + 1).position(|byte| *byte == b'\n');
            let (end, skip, tag) = match newline {
                Some(at) => (at, at + 1, Some("F")),
                None if rest.len() > room => (room, room, Some("P")),
                None => (rest.len(), rest.len(), None),
            };
            self.pending.extend_from_slice(rest.get(..end).unwrap_or_default());
            rest = rest.get(skip..).unwrap_or_default();
            if let Some(tag) = tag {
                self.end_line(now, tag, &mut text);
            }
        }
        log.write(&text);
        if self.pending.is_empty() {
            // There is a keeper per pod, and most streams are silent most of the time.
            self.pending = Vec::new();
        }
    }

    /// Writes what came after the last newline; for when the stream has ended.
    pub(super) fn finish(&mut self, log: &mut Log) {
        if !self.pending.is_empty() {
            let mut text = Vec::new();
            self.end_line(Timestamp::now(), "F", &mut text);
            log.write(&text);
        }
    }

    fn end_line(&mut self, now: Timestamp, tag: &str, text: &mut Vec<u8>) {
        // Writing to a vector cannot fail.
        let _ = write!(text, "{now:.9} {} {tag} ", self.name);
        text.append(&mut self.pending);
        text.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn logged(chunks: &[&[u8]]) -> Vec<(String, String)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/0.log");
        let mut log = Log::open(path.clone()).unwrap();
        let mut lines = Lines::new("stdout");
        for chunk in chunks {
            lines.feed(chunk, &mut log);
        }
        lines.finish(&mut log);
        let text = String::from_utf8(fs::read(path).unwrap()).unwrap();
        text.lines()
            .map(|line| {
                let mut fields = line.splitn(4, ' ');
                let time = fields.next().unwrap();
                assert_eq!(time.len(), "2024-01-01T00:00:00.000000000Z".len(), "{time}");
                assert!(time.parse::<Timestamp>().is_ok());
                assert_eq!(fields.next(), Some("stdout"));
                (fields.next().unwrap().to_owned(), fields.next().unwrap().to_owned())
            })
            .collect()
    }

    fn full(text: &str) -> (String, String) {
        ("F".to_owned(), text.to_owned())
    }

    #[test]
    fn lines_are_cut_at_newlines() {
        assert_eq!(logged(&[b"a\nb", b"c\n\nd"]), [full("a"), full("bc"), full(""), full("d")]);
        assert_eq!(logged(&[b""]), []);
    }

    #[test]
    fn long_lines_come_in_parts() {
        let whole = "x".repeat(MAX_LINE_BYTES);
        let long = format!("{whole}y\n");
        assert_eq!(logged(&[long.as_bytes()]), [("P".to_owned(), whole.clone()), full("y")]);
        // A line of exactly the limit is one line.
        assert_eq!(logged(&[whole.as_bytes(), b"\n"]), [full(&whole)]);
    }

    #[test]
    fn a_log_is_rotated_and_its_oldest_file_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = Log::open(path.clone()).unwrap();
        let mut lines = Lines::new("stderr");
        let padding = "z".repeat(16_000);
        // Some 7 files' worth.
        for number in 0..4600 {
            lines.feed(format!("{number:06}{padding}\n").as_bytes(), &mut log);
        }
        let read = |number: u32| fs::read_to_string(rotated(&path, number)).unwrap();
        let mut all: Vec<u32> = Vec::new();
        for number in (0..MAX_LOG_FILES).rev() {
            let text = read(number);
            assert!(text.len() as u64 <= MAX_LOG_BYTES && text.ends_with('\n'), "file {number}");
            let told = |line: &str| line.split(' ').nth(3).unwrap()[..6].parse::<u32>().unwrap();
            all.extend(text.lines().map(told));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), MAX_LOG_FILES as usize);
        let first = all[0];
        assert!(first > 600, "the oldest went: {first}");
        assert!(all.into_iter().eq(first..4600), "nothing is missing in between");
    }

    proptest! {
        #[test]
        fn no_byte_is_lost(text in "[a\n]{0,200}", cuts in prop::collection::vec(0usize..200, 0..5)) {
            let mut chunks = vec![];
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (chunk, after) = rest.split_at(cut.min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
            chunks.push(rest);
            let lines: Vec<String> = logged(&chunks).into_iter().map(|(_, text)| text).collect();
            let expected: Vec<&str> = text.lines().collect();
            prop_assert_eq!(lines, expected);
        }
    }
}
