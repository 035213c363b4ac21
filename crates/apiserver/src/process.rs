//! What the process takes of the machine, from `/proc/self`, as every exporter for Prometheus tells it.

use std::{fmt::Write as _, fs};

use nix::unistd::{SysconfVar, sysconf};

/// The fields of `/proc/self/stat` after the name in brackets, which may hold blanks itself: `utime` is
/// the 14th of all (proc(5)), that is the 12th of these.
const UTIME: usize = 11;
const STIME: usize = 12;
const STARTTIME: usize = 19;
const RSS_PAGES: usize = 21;

/// The metrics as text, without the end mark.
pub(crate) fn metrics() -> String {
    let mut text = String::new();
    let Some(stat) = stat() else { return text };
    let ticks = constant(SysconfVar::CLK_TCK, 100.0);
    let page = constant(SysconfVar::PAGE_SIZE, 4096.0);
    let field = |index: usize| stat.get(index).copied().unwrap_or(0.0);
    let cpu = (field(UTIME) + field(STIME)) / ticks;
    let started = boot_time().map(|boot| boot + field(STARTTIME) / ticks);
    let descriptors = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let mut push = |name: &str, kind: &str, suffix: &str, value: f64| {
        // Writing to a string cannot fail.
        let _ = write!(text, "# TYPE {name} {kind}\n{name}{suffix} {value}\n");
    };
    push("process_cpu_seconds", "counter", "_total", cpu);
    push("process_resident_memory_bytes", "gauge", "", field(RSS_PAGES) * page);
    push(
        "process_open_fds",
        "gauge",
        "",
        f64::from(u32::try_from(descriptors).unwrap_or(u32::MAX)),
    );
    if let Some(started) = started {
        push("process_start_time_seconds", "gauge", "", started);
    }
    text
}

fn stat() -> Option<Vec<f64>> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect())
}

/// When the machine started, in seconds since 1970.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn constant(which: SysconfVar, otherwise: f64) -> f64 {
    let value = sysconf(which).ok().flatten().and_then(|value| i32::try_from(value).ok());
    value.map_or(otherwise, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_files_and_a_beginning() {
        let text = metrics();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_start_time_seconds") > 1_600_000_000.0);
        assert!(value("process_cpu_seconds_total") >= 0.0);
    }
}
