//! Many datagrams in one system call: recvmmsg(2) and sendmmsg(2), without which most of the time of a busy
//! UDP socket goes into entering and leaving the kernel. It must not look into them.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, setsockopt,
    sockopt,
};

/// Room for datagrams that arrive, used again for each call.
#[derive(Debug)]
pub struct Inbox {
    longest: usize,
    bytes: Vec<u8>,
    arrived: Vec<(usize, SocketAddr)>,
}

impl Inbox {
    /// Room for `most` datagrams at once. What is longer than `longest` bytes is cut to that.
    #[must_use]
    pub fn new(most: usize, longest: usize) -> Self {
        Self { longest, bytes: vec![0; most * longest], arrived: Vec::with_capacity(most) }
    }

    /// Takes what has arrived in place of what was taken before, and says how much it is. Never waits.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing. Another error, such as that of an earlier send which an ICMP
    /// message brought back, says nothing about later datagrams.
    pub fn receive(&mut self, socket: &impl AsRawFd) -> io::Result<usize> {
        self.arrived.clear();
        let mut buffers: Vec<[IoSliceMut<'_>; 1]> =
            self.bytes.chunks_exact_mut(self.longest).map(|one| [IoSliceMut::new(one)]).collect();
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(buffers.len(), None);
        let flags = MsgFlags::MSG_DONTWAIT;
        let messages = recvmmsg(socket.as_raw_fd(), &mut headers, &mut buffers, flags, None)?;
        // One without an address has no bytes either: all of them keep their places.
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let place = |message: nix::sys::socket::RecvMsg<'_, '_, SockaddrStorage>| {
            let from = message.address.as_ref().and_then(standard);
            (message.bytes, from.unwrap_or(nowhere))
        };
        self.arrived.extend(messages.map(place));
        Ok(self.arrived.len())
    }

    /// What the last call took, and where each came from.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], SocketAddr)> {
        let places = self.bytes.chunks_exact(self.longest);
        let arrived = self.arrived.iter().zip(places);
        arrived.map(|((length, from), place)| (place.get(..*length).unwrap_or(place), *from))
    }
}

/// Datagrams that are to leave together.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// Where each ends, and where it goes.
    ends: Vec<(usize, SocketAddr)>,
}

impl Outbox {
    /// Adds one.
    pub fn push(&mut self, datagram: &[u8], to: SocketAddr) {
        self.bytes.extend_from_slice(datagram);
        self.ends.push((self.bytes.len(), to));
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Sends them all and says how many left. Loss is part of UDP: those for which the socket has no room are
    /// dropped, and so is one that the kernel refuses, such as for want of a route.
    pub fn send(&mut self, socket: &impl AsRawFd) -> usize {
        let (mut begin, mut sent) = (0, 0);
        let mut parts: Vec<[IoSlice<'_>; 1]> = Vec::with_capacity(self.ends.len());
        for (end, _) in &self.ends {
            parts.push([IoSlice::new(self.bytes.get(begin..*end).unwrap_or_default())]);
            begin = *end;
        }
        let to: Vec<Option<SockaddrStorage>> =
            self.ends.iter().map(|(_, to)| Some(SockaddrStorage::from(*to))).collect();
        let mut done = 0;
        while let (Some(parts), Some(to)) = (parts.get(done..), to.get(done..))
            && !parts.is_empty()
        {
            let mut headers = MultiHeaders::preallocate(parts.len(), None);
            let none: [ControlMessage<'_>; 0] = [];
            let flags = MsgFlags::MSG_DONTWAIT;
            match sendmmsg(socket.as_raw_fd(), &mut headers, parts, to, none, flags) {
                Ok(left) => {
                    let left = left.count();
                    sent += left;
                    done += left;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                // The first of them.
                Err(_) => done += 1,
            }
        }
        self.bytes.clear();
        self.ends.clear();
        sent
    }
}

/// Asks for room for `bytes` of datagrams that wait to be received, beyond the system's limit where this
/// process may. The kernel counts its own bookkeeping too, some 700 bytes for a small datagram.
///
/// # Errors
/// When the socket is none.
pub fn set_receive_buffer(socket: &impl std::os::fd::AsFd, bytes: usize) -> io::Result<()> {
    // Only the privileged may exceed net.core.rmem_max; for others that is what there is.
    setsockopt(socket, sockopt::RcvBufForce, &bytes)
        .or_else(|_| setsockopt(socket, sockopt::RcvBuf, &bytes))
        .map_err(io::Error::from)
}

/// Has the kernel run the calling thread rather than this process' others where there are more that could run than
/// processors: what waits in a socket's buffer too long is dropped. `nice` is that of setpriority(2), -20 to 19.
///
/// # Errors
/// When this process may not, for want of CAP_SYS_NICE or of room in RLIMIT_NICE.
pub fn hurry_this_thread(nice: i32) -> io::Result<()> {
    // On Linux this is a thread's and not the process' (setpriority(2), "C library/kernel differences").
    Ok(rustix::process::setpriority_process(None, nice)?)
}

fn standard(address: &SockaddrStorage) -> Option<SocketAddr> {
    let four = address.as_sockaddr_in().map(|four| SocketAddrV4::from(*four).into());
    four.or_else(|| address.as_sockaddr_in6().map(|six| SocketAddrV6::from(*six).into()))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn what_leaves_together_arrives_with_its_bytes_and_address() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let (here, there) = (UdpSocket::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
            let mut outbox = Outbox::default();
            for length in 0..20 {
                outbox.push(&vec![length; usize::from(length)], there.local_addr().unwrap());
            }
            assert_eq!(outbox.len(), 20);
            assert_eq!(outbox.send(&here), 20);
            assert!(outbox.is_empty());
            let mut inbox = Inbox::new(8, 16);
            let mut taken = Vec::new();
            for expected in [8, 8, 4] {
                assert_eq!(inbox.receive(&there).unwrap(), expected);
                for (bytes, from) in inbox.iter() {
                    assert_eq!(from, here.local_addr().unwrap());
                    taken.push(bytes.to_vec());
                }
            }
            let sent = (0..20).map(|length| vec![length; usize::from(length.min(16))]);
            assert!(taken.into_iter().eq(sent));
            let nothing = inbox.receive(&there).unwrap_err();
            assert_eq!((nothing.kind(), inbox.iter().count()), (io::ErrorKind::WouldBlock, 0));
        }
    }

    #[test]
    fn one_that_cannot_leave_holds_up_no_other() {
        let (here, there) = (UdpSocket::bind("127.0.0.1:0"), UdpSocket::bind("127.0.0.1:0"));
        let (here, there) = (here.unwrap(), there.unwrap());
        let mut outbox = Outbox::default();
        outbox.push(b"a", there.local_addr().unwrap());
        // No datagram has this address' family on such a socket.
        outbox.push(b"b", "[::1]:9".parse().unwrap());
        outbox.push(b"c", there.local_addr().unwrap());
        assert_eq!(outbox.send(&here), 2);
        let mut inbox = Inbox::new(4, 4);
        inbox.receive(&there).unwrap();
        let taken: Vec<&[u8]> = inbox.iter().map(|(bytes, _)| bytes).collect();
        assert_eq!(taken, [b"a", b"c"]);
    }

    #[test]
    fn a_large_buffer_holds_a_burst() {
        let (here, there) = (UdpSocket::bind("127.0.0.1:0"), UdpSocket::bind("127.0.0.1:0"));
        let (here, there) = (here.unwrap(), there.unwrap());
        set_receive_buffer(&there, 8 << 20).unwrap();
        let mut outbox = Outbox::default();
        for _ in 0..5_000 {
            outbox.push(&[7; 64], there.local_addr().unwrap());
        }
        assert_eq!(outbox.send(&here), 5_000);
        let (mut inbox, mut taken) = (Inbox::new(64, 64), 0);
        while let Ok(count) = inbox.receive(&there) {
            taken += count;
        }
        assert_eq!(taken, 5_000);
    }
}
