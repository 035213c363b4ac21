//! A capture of what crosses the WAN, by a packet socket on the cloud's side.
#![expect(unsafe_code, reason = "packet sockets have no safe wrapper among our dependencies")]

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

/// IPv4 packets seen at an interface, counted by the address that is not the cloud's.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) packets: BTreeMap<Ipv4Addr, u32>,
    pub(crate) tcp: u32,
    /// TCP packets by each of their two ports.
    pub(crate) ports: BTreeMap<u16, u32>,
    pub(crate) bytes: u64,
}

/// Captures for `duration` on `interface`; `cloud` is the cloud's address there.
pub(crate) fn record(interface: &str, cloud: Ipv4Addr, duration: Duration) -> Seen {
    let end = Instant::now() + duration;
    record_while(&open(interface), cloud, || Instant::now() < end)
}

/// Captures for as long as it is to, which is asked a few times a second at least.
pub(crate) fn record_while(socket: &OwnedFd, cloud: Ipv4Addr, goes_on: impl Fn() -> bool) -> Seen {
    let mut seen = Seen::default();
    let mut frame = [0u8; 2048];
    while goes_on() {
        let read =
            unsafe { libc::recv(socket.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), 0) };
        let Ok(length) = usize::try_from(read) else { continue };
        let (ethernet, packet) = frame[..length].split_at(14.min(length));
        if ethernet.len() < 14 || ethernet[12..14] != [0x08, 0x00] || packet.len() < 20 {
            continue;
        }
        let address =
            |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
        let (from, to) = (address(12), address(16));
        let other = if from == cloud { to } else { from };
        *seen.packets.entry(other).or_default() += 1;
        seen.tcp += u32::from(packet[9] == 6);
        let header = usize::from(packet[0] & 0xf) * 4;
        if packet[9] == 6 && packet.len() >= header + 4 {
            for at in [header, header + 2] {
                let port = u16::from_be_bytes([packet[at], packet[at + 1]]);
                *seen.ports.entry(port).or_default() += 1;
            }
        }
        seen.bytes += u64::from(u16::from_be_bytes([packet[2], packet[3]]));
    }
    seen
}

/// What arrives at an interface of this thread's network namespace, from now on.
pub(crate) fn open(interface: &str) -> OwnedFd {
    // Protocol 0 receives nothing until the bind below names the interface.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "packet socket: {}", std::io::Error::last_os_error());
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let index = nix::net::if_::if_nametoindex(interface).unwrap();
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as i32;
    let timeout = libc::timeval { tv_sec: 0, tv_usec: 200_000 };
    let (bound, timed) = unsafe {
        (
            libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as u32),
            libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const timeout).cast(),
                size_of_val(&timeout) as u32,
            ),
        )
    };
    assert_eq!((bound, timed), (0, 0), "{}", std::io::Error::last_os_error());
    socket
}
