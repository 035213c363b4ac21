//! What the kernel says of a running process: its memory, its processor time, what went through its network.

use std::{fs, path::PathBuf};

use crate::Failure;

/// Clock ticks a second in `/proc` (proc(5)): a constant of the kernel's interface.
const TICKS: f64 = 100.0;

/// A process, by its id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

/// What went through a link, as its own end counts: with Ethernet headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) received_bytes: u64,
    pub(crate) received_packets: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) sent_packets: u64,
}

impl Process {
    pub(crate) fn rss_mb(self) -> Result<f64, Failure> {
        self.line_mb("status", "VmRSS:")
    }

    /// Its memory with each page that others share counted in parts, so that sums are true.
    pub(crate) fn pss_mb(self) -> Result<f64, Failure> {
        self.line_mb("smaps_rollup", "Pss:")
    }

    /// The largest RSS since [`Self::reset_peak`].
    pub(crate) fn peak_mb(self) -> Result<f64, Failure> {
        self.line_mb("status", "VmHWM:")
    }

    pub(crate) fn reset_peak(self) -> Result<(), Failure> {
        Ok(fs::write(self.file("clear_refs"), "5")?)
    }

    /// User and system time.
    pub(crate) fn cpu_seconds(self) -> Result<f64, Failure> {
        let stat = fs::read_to_string(self.file("stat"))?;
        let (_, fields) = stat.rsplit_once(')').ok_or("no name in stat")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |index: usize| -> f64 {
            fields.get(index).and_then(|field| field.parse().ok()).unwrap_or(0.0)
        };
        Ok((ticks(11) + ticks(12)) / TICKS)
    }

    /// What went through a link of the process's network namespace.
    pub(crate) fn traffic(self, link: &str) -> Result<Traffic, Failure> {
        let table = fs::read_to_string(self.file("net/dev"))?;
        traffic(&table, link).ok_or_else(|| format!("no link {link}").into())
    }

    fn line_mb(self, file: &str, name: &str) -> Result<f64, Failure> {
        let text = fs::read_to_string(self.file(file))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib: f64 = line.ok_or("no such line")?.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024.0 / 1e6)
    }

    /// A file of `/proc`.
    pub(crate) fn file(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }
}

/// A line of `/proc/net/dev`: eight counters of what came in, eight of what went out, each bytes and packets first.
fn traffic(table: &str, link: &str) -> Option<Traffic> {
    let fields = table.lines().find_map(|line| {
        let (name, fields) = line.split_once(':')?;
        (name.trim() == link).then_some(fields)
    })?;
    let fields: Vec<u64> =
        fields.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    Some(Traffic {
        received_bytes: *fields.first()?,
        received_packets: *fields.get(1)?,
        sent_bytes: *fields.get(8)?,
        sent_packets: *fields.get(9)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_its_counters() {
        let table = "Inter-|   Receive   |  Transmit\n face |bytes packets\n    lo: 1 2 3 4 5 6 7 8 9 10 11\n  \
                     eth0: 120 2 0 0 0 0 0 0 340 4 0 0 0 0 0 0\n";
        let expected =
            Traffic { received_bytes: 120, received_packets: 2, sent_bytes: 340, sent_packets: 4 };
        assert_eq!(traffic(table, "eth0"), Some(expected));
        assert_eq!(traffic(table, "eth1"), None);
    }
}
