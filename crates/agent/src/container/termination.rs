//! Termination messages: the file that a container may leave its last words in, and their end.
//!
//! The file is the agent's, one for each run, and is mounted into the container.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::Container;
use toono_sandbox::Mount;

use crate::{bundles, container, views::log_path};

/// The API's default of `terminationMessagePath`.
const DEFAULT_PATH: &str = "/dev/termination-log";
/// What a status may hold of a message, as in the kubelet.
const MAX_MESSAGE_BYTES: u64 = 4096;
/// What of a log stands in for a message, as in the kubelet.
const MAX_LOG_BYTES: usize = 2048;
const MAX_LOG_LINES: usize = 80;
/// So much of a log has that many bytes in it, with the time of each line.
const LOG_TAIL_BYTES: u64 = 16 * 1024;

/// Makes the file of a run, and says how it is mounted; none when the container wants none.
pub(super) fn prepare(
    dir: &Path,
    container: &Container,
    attempt: u32,
) -> io::Result<Option<Mount>> {
    let target = container.termination_message_path.as_deref().unwrap_or(DEFAULT_PATH);
    if target.is_empty() {
        return Ok(None);
    }
    let source = path(dir, &container.name, attempt);
    if let Some(folder) = source.parent() {
        fs::create_dir_all(folder)?;
    }
    File::create(&source)?;
    // Whoever the container runs as may write it.
    fs::set_permissions(&source, fs::Permissions::from_mode(0o666))?;
    Ok(Some(Mount::bind(source, target.into())))
}

/// What a run that ended with this code has left.
pub(crate) fn message(dir: &Path, name: &str, attempt: u32, code: i32) -> Option<String> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path(dir, name, attempt)) {
        file.take(MAX_MESSAGE_BYTES).read_to_end(&mut bytes).ok()?;
    }
    if bytes.is_empty() && code != 0 && falls_back(dir, name) {
        bytes = log_tail(&log_path(dir, name, attempt)).unwrap_or_default();
    }
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// Deletes the file of a run.
pub(crate) fn forget(dir: &Path, name: &str, attempt: u32) {
    // It may never have been made.
    let _ = fs::remove_file(path(dir, name, attempt));
}

fn path(dir: &Path, name: &str, attempt: u32) -> PathBuf {
    dir.join("termination").join(name).join(attempt.to_string())
}

fn falls_back(dir: &Path, name: &str) -> bool {
    let policy = || {
        let pod = bundles::read_pod(dir)?;
        container::find(pod.spec.as_ref()?, name)?.termination_message_policy.clone()
    };
    policy().as_deref() == Some("FallbackToLogsOnError")
}

/// The last lines of a log, without their times and tags.
fn log_tail(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    if length > LOG_TAIL_BYTES && !lines.is_empty() {
        // The first of them is cut.
        lines.remove(0);
    }
    let kept = lines.split_off(lines.len().saturating_sub(MAX_LOG_LINES));
    let texts = kept.iter().map(|line| line.splitn(4, |byte| *byte == b' ').nth(3).unwrap_or(line));
    let text = texts.collect::<Vec<_>>().concat();
    Ok(text.get(text.len().saturating_sub(MAX_LOG_BYTES)..).unwrap_or_default().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_stands_in_for_a_message() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        let line = |text: &str| format!("2027-01-15T08:00:00Z stdout F {text}\n");
        fs::write(&log, line("one") + &line("two words")).unwrap();
        assert_eq!(log_tail(&log).unwrap(), b"one\ntwo words\n");
        let many: String = (0..1000).map(|number| line(&format!("line {number}"))).collect();
        fs::write(&log, many).unwrap();
        let tail = String::from_utf8(log_tail(&log).unwrap()).unwrap();
        assert_eq!(tail.lines().count(), MAX_LOG_LINES);
        assert!(tail.starts_with("line 920\n") && tail.ends_with("line 999\n"), "{tail}");
        fs::write(&log, line(&"x".repeat(5000))).unwrap();
        assert_eq!(log_tail(&log).unwrap().len(), MAX_LOG_BYTES);
    }

    #[test]
    fn each_run_has_a_message_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let container = Container { name: "c".to_owned(), ..Container::default() };
        let mount = prepare(dir.path(), &container, 3).unwrap().unwrap();
        let Mount::Bind { source, target, .. } = mount else { panic!("no file") };
        assert_eq!(target, Path::new(DEFAULT_PATH));
        assert_eq!(message(dir.path(), "c", 3, 0), None);
        fs::write(&source, "x".repeat(5000)).unwrap();
        assert_eq!(message(dir.path(), "c", 3, 0).unwrap().len(), 4096);
        assert_eq!(message(dir.path(), "c", 2, 0), None);
        forget(dir.path(), "c", 3);
        assert_eq!(message(dir.path(), "c", 3, 0), None);
        let none = Container { termination_message_path: Some(String::new()), ..container };
        assert_eq!(prepare(dir.path(), &none, 0).unwrap(), None);
    }
}
