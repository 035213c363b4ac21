//! The counters of network interfaces, as the kernel shows them of any process.

use std::fs;

/// One interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) received: Counters,
    pub(crate) sent: Counters,
}

/// One direction, since the interface was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    pub(crate) errors: u64,
    pub(crate) dropped: u64,
}

/// Those of the network namespace that a process is in, without the loopback.
pub(super) fn of_process(pid: i32) -> Vec<Interface> {
    read(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default())
}

/// Those of the node.
pub(super) fn own() -> Vec<Interface> {
    read(&fs::read_to_string("/proc/self/net/dev").unwrap_or_default())
}

fn read(text: &str) -> Vec<Interface> {
    let interface = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let mut numbers = rest.split_whitespace().map(|it| it.parse::<u64>().unwrap_or(0));
        let mut direction = |others: usize| {
            let counters = Counters {
                bytes: numbers.next()?,
                packets: numbers.next()?,
                errors: numbers.next()?,
                dropped: numbers.next()?,
            };
            // What else the kernel counts in that direction.
            for _ in 0..others {
                numbers.next();
            }
            Some(counters)
        };
        let (received, sent) = (direction(4)?, direction(0)?);
        Some(Interface { name: name.trim().to_owned(), received, sent })
    };
    text.lines().filter_map(interface).filter(|it| it.name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0: 1486        11    1    2    0     0          0         0     796      10    3    4    0     0       0          0
";
        let eth0 = Interface {
            name: "eth0".to_owned(),
            received: Counters { bytes: 1486, packets: 11, errors: 1, dropped: 2 },
            sent: Counters { bytes: 796, packets: 10, errors: 3, dropped: 4 },
        };
        assert_eq!(read(text), [eth0]);
    }
}
