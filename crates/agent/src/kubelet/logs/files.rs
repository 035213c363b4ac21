//! The files of one run's log: from a place in them to their end, across rotation.

use std::{
    fs::{File, Metadata},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use toono_sandbox::{MAX_LOG_FILES, rotated};

use super::lines::{CHUNK, Entry};

/// Reads the files one after the other, the oldest first.
#[derive(Debug)]
pub(super) struct LogFiles {
    path: PathBuf,
    file: File,
    /// Nobody writes to the file any more, and it is read once more to its end.
    complete: bool,
}

impl LogFiles {
    /// Opens the log at its last `tail` lines, else at the first file that may have lines of `since`, else at
    /// its beginning.
    pub(super) fn open(
        path: &Path,
        tail: Option<u64>,
        since: Option<Timestamp>,
    ) -> io::Result<Self> {
        let mut found = File::open(path)?;
        let mut left = tail;
        for number in 0..MAX_LOG_FILES {
            let Some(mut file) = open_if_there(&rotated(path, number))? else { break };
            let metadata = file.metadata()?;
            let early = since.is_some_and(|since| written(&metadata).is_some_and(|at| at < since));
            if number > 0 && early {
                break;
            }
            if let Some(lines) = &mut left {
                let (start, counted) = self::tail(&mut file, *lines)?;
                *lines -= counted;
                file.seek(SeekFrom::Start(start))?;
            }
            found = file;
            if left == Some(0) {
                break;
            }
        }
        Ok(Self { path: path.to_owned(), file: found, complete: false })
    }

    /// The number of the file that is being read; none once it has gone.
    fn number(&self) -> io::Result<Option<u32>> {
        let own = self.file.metadata()?.ino();
        let is_own =
            |number: &u32| rotated(&self.path, *number).metadata().is_ok_and(|it| it.ino() == own);
        Ok((0..MAX_LOG_FILES).find(is_own))
    }

    /// The file that was begun when the one that is read was full.
    fn next(&self, number: Option<u32>) -> io::Result<Option<File>> {
        match number {
            Some(number) => open_if_there(&rotated(&self.path, number.saturating_sub(1))),
            // Others went with it: what is left begins with the oldest.
            None => {
                let all =
                    (0..MAX_LOG_FILES).rev().map(|it| open_if_there(&rotated(&self.path, it)));
                all.filter_map(Result::transpose).next().transpose()
            }
        }
    }
}

impl Read for LogFiles {
    /// 0 at the end of what is written so far.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let length = self.file.read(buffer)?;
            if length > 0 {
                return Ok(length);
            }
            let number = self.number()?;
            if number == Some(0) {
                return Ok(0);
            }
            // It may have been written to between the last look at its end and the rotation.
            if !std::mem::replace(&mut self.complete, true) {
                continue;
            }
            let Some(next) = self.next(number)? else { return Ok(0) };
            // A rotation in between has moved both.
            if self.number()? == number {
                (self.file, self.complete) = (next, false);
            }
        }
    }
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

fn written(metadata: &Metadata) -> Option<Timestamp> {
    Timestamp::try_from(metadata.modified().ok()?).ok()
}

/// Where the last `lines` lines of the file begin, and how many of them it has. Parts count with the line that they end in.
pub(super) fn tail<F: Read + Seek>(file: &mut F, lines: u64) -> io::Result<(u64, u64)> {
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
                return Ok((position + bytes.len() as u64, counted));
            }
            counted += 1;
        }
        bytes.truncate(begin);
        if bytes.is_empty() && position == 0 {
            return Ok((0, counted));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::{
        super::lines::{
            LogReader, Wanted,
            tests::{log, read},
        },
        *,
    };

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

    /// Three files of which the oldest begins with line 0.
    fn rotated_log() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        for (number, lines) in [(2, 0..10), (1, 10..20), (0, 20..25)] {
            let texts: Vec<String> = lines.map(|it| format!("stdout F {it}")).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            fs::write(rotated(&path, number), log(&texts)).unwrap();
        }
        (dir, path)
    }

    fn all(reader: &mut LogReader<LogFiles>) -> Vec<u32> {
        let mut text = String::new();
        while let Some(chunk) = reader.next().unwrap() {
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    #[test]
    fn the_whole_log_and_its_tail_are_read_over_files() {
        let (_dir, path) = rotated_log();
        let read = |tail: Option<u64>| {
            let files = LogFiles::open(&path, tail, None).unwrap();
            all(&mut LogReader::new(files, Wanted::default()))
        };
        assert!(read(None).into_iter().eq(0..25));
        for (tail, first) in
            [(0, 25), (1, 24), (5, 20), (6, 19), (15, 10), (16, 9), (25, 0), (99, 0)]
        {
            assert!(read(Some(tail)).into_iter().eq(first..25), "tail {tail}");
        }
    }

    #[test]
    fn files_of_before_are_passed_over() {
        let (_dir, path) = rotated_log();
        let since = Timestamp::now() + jiff::SignedDuration::from_secs(60);
        let files = LogFiles::open(&path, None, Some(since)).unwrap();
        // Whether lines of the newest one are too old their times say.
        assert!(all(&mut LogReader::new(files, Wanted::default())).into_iter().eq(20..25));
    }

    #[test]
    fn a_follower_goes_on_over_rotations_and_loses_nothing() {
        let (_dir, path) = rotated_log();
        let files = LogFiles::open(&path, Some(1), None).unwrap();
        let mut reader = LogReader::new(files, Wanted::default());
        assert_eq!(all(&mut reader), [24]);
        let append = |number: u32| {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
            file.write_all(&log(&[&format!("stdout F {number}")])).unwrap();
        };
        let rotate = || {
            for number in (1..MAX_LOG_FILES).rev() {
                let _ = fs::rename(rotated(&path, number - 1), rotated(&path, number));
            }
        };
        append(25);
        rotate();
        append(26);
        assert_eq!(all(&mut reader), [25, 26]);
        append(27);
        rotate();
        append(28);
        rotate();
        assert_eq!(all(&mut reader), [27, 28], "while there is no file to be written to");
        append(29);
        assert_eq!(all(&mut reader), [29]);
        // More than there are files: what is still there is read.
        for number in 30..37 {
            rotate();
            append(number);
        }
        assert_eq!(all(&mut reader), [32, 33, 34, 35, 36]);
    }
}
