//! What the server and the nodes' daemons use, read from the kernel.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::{
    Failure,
    process::{Process, Traffic},
};

/// A node's link to its site.
const LINK: &str = "eth0";
/// What Ethernet adds to each packet on a cable.
const ETHERNET_HEADER: u64 = 14;
/// The IPv4 neighbours of all namespaces, in one table of the kernel.
const NEIGHBOURS: &str = "/proc/net/stat/arp_cache";
/// How many there may be; only the host can change it.
const NEIGHBOURS_MOST: &str = "/proc/sys/net/ipv4/neigh/default/gc_thresh3";

/// Whom to look at.
pub(crate) struct Gauge {
    pub(crate) server: Process,
    pub(crate) nodes: Vec<Process>,
    pub(crate) began: Instant,
}

/// What all have used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    pub(crate) server_mb: f64,
    pub(crate) server_seconds: f64,
    /// PSS and time of all daemons together.
    pub(crate) nodes_mb: f64,
    pub(crate) nodes_seconds: f64,
    pub(crate) traffic: Traffic,
}

/// What was used between two samples.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    pub(crate) seconds: f64,
    pub(crate) server_cores: f64,
    /// Of one node, on average.
    pub(crate) node_cores: f64,
    /// From one node on average: IP packets with their headers, and the ARP of its LAN.
    pub(crate) up_bytes: f64,
    pub(crate) down_bytes: f64,
}

impl Gauge {
    /// An error when a process has ended.
    pub(crate) fn sample(&self) -> Result<Sample, Failure> {
        let mut sample = Sample {
            at: self.began.elapsed(),
            server_mb: self.server.rss_mb()?,
            server_seconds: self.server.cpu_seconds()?,
            ..Sample::default()
        };
        for node in &self.nodes {
            sample.nodes_mb += node.pss_mb()?;
            sample.nodes_seconds += node.cpu_seconds()?;
            let own = node.traffic(LINK)?;
            let sum = &mut sample.traffic;
            sum.received_bytes += own.received_bytes;
            sum.received_packets += own.received_packets;
            sum.sent_bytes += own.sent_bytes;
            sum.sent_packets += own.sent_packets;
        }
        Ok(sample)
    }

    /// What was used from one sample to a later one.
    pub(crate) fn between(&self, from: &Sample, to: &Sample) -> Use {
        let (seconds, nodes) = ((to.at - from.at).as_secs_f64(), self.nodes.len().max(1) as f64);
        let ip = |bytes: u64, packets: u64| (bytes - packets * ETHERNET_HEADER) as f64 / nodes;
        let (a, b) = (from.traffic, to.traffic);
        Use {
            seconds,
            server_cores: (to.server_seconds - from.server_seconds) / seconds,
            node_cores: (to.nodes_seconds - from.nodes_seconds) / seconds / nodes,
            up_bytes: ip(b.sent_bytes - a.sent_bytes, b.sent_packets - a.sent_packets),
            down_bytes: ip(
                b.received_bytes - a.received_bytes,
                b.received_packets - a.received_packets,
            ),
        }
    }
}

/// How many neighbours all namespaces of this machine know, and how many there may be.
pub(super) fn neighbours() -> Result<(u64, u64), Failure> {
    let table = fs::read_to_string(NEIGHBOURS)?;
    let first = table.lines().nth(1).and_then(|line| line.split_whitespace().next());
    let known = u64::from_str_radix(first.ok_or("no count of neighbours")?, 16)?;
    Ok((known, fs::read_to_string(NEIGHBOURS_MOST)?.trim().parse()?))
}
