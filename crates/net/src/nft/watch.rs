//! Hearing of changes that anybody makes to the rulesets of a namespace. Only the end of each transaction is
//! listened to: the kernel drops everything else before it costs a wake-up. It does not tell what changed.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
};

use netlink_sys::protocols::NETLINK_NETFILTER;
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    NftError,
    message::{self, NFTABLES, Reader, Received},
};
use crate::netns::{self, NetNs};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// `NFT_MSG_NEWGEN`, and `NFTA_GEN_ID`.
const NEW_GENERATION: u16 = 15;
const GENERATION_ID: u16 = 1;
/// Where `nlmsg_type` lies in a message.
const TYPE_OFFSET: u32 = 4;

/// A socket that hears of the rulesets' generations.
#[derive(Debug)]
pub struct Watch {
    socket: AsyncFd<Socket>,
}

#[derive(Debug)]
struct Socket(netlink_sys::Socket);

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// What was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A transaction made this generation.
    Generation(u32),
    /// More happened than there was room to tell.
    Overrun,
}

impl Watch {
    /// Listens in the namespace of the calling thread. Must be called within a tokio runtime.
    pub fn current() -> Result<Self, NftError> {
        Self::in_namespace(&netns::current()?)
    }

    /// Listens in `netns`. Must be called within a tokio runtime.
    pub fn in_namespace(netns: &NetNs) -> Result<Self, NftError> {
        let failed = |source| NftError::Socket { netns: netns.label().into(), source };
        let socket = netns.run(open)?.map_err(failed)?;
        // SAFETY: the socket owns its descriptor, is owned by what is made here, and is never exchanged.
        #[expect(unsafe_code, reason = "the socket is of a type that does not promise that")]
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        let socket = socket.map_err(|error| failed(error.into_parts().1))?;
        Ok(Self { socket })
    }

    /// The next generation. Can be dropped at any time, and loses nothing by it.
    pub async fn changed(&self) -> io::Result<Heard> {
        loop {
            let mut ready = self.socket.readable().await?;
            let received = match ready.try_io(|socket| socket.get_ref().0.recv_from_full()) {
                Ok(received) => received,
                Err(_would_block) => continue,
            };
            match received {
                Ok((datagram, sender)) if sender.port_number() == 0 => {
                    if let Some(generation) = generation_of(&datagram) {
                        return Ok(Heard::Generation(generation));
                    }
                }
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Ok(Heard::Overrun);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn generation_of(datagram: &[u8]) -> Option<u32> {
    message::messages(datagram).into_iter().find_map(|message| match message {
        Received::Object { attributes, .. } => Reader::new(attributes).number(GENERATION_ID),
        _ => None,
    })
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket(netlink_sys::Socket::new(NETLINK_NETFILTER)?);
    socket.0.set_non_blocking(true)?;
    hear_generations_only(&socket)?;
    socket.0.bind_auto()?;
    socket.0.add_membership(GROUP)?;
    Ok(socket)
}

/// Attaches a filter (`linux/filter.h`) that lets messages of one type through.
fn hear_generations_only(socket: &Socket) -> io::Result<()> {
    // The type is in the machine's order, and the filter reads in the network's.
    let kind = u16::from_be_bytes((NFTABLES << 8 | NEW_GENERATION).to_ne_bytes());
    let instruction = |code: u32, jt, jf, k| libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt,
        jf,
        k,
    };
    let mut program = [
        instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, TYPE_OFFSET),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, u32::from(kind)),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    let length = u16::try_from(program.len()).unwrap_or_default();
    let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    let size = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).unwrap_or_default();
    // SAFETY: the option's value is a `sock_fprog` of that size; it and the program that it points to live
    // until the call has returned, and the kernel keeps a copy.
    #[expect(unsafe_code, reason = "no safe wrapper attaches a socket filter")]
    let attached = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size,
        )
    };
    if attached == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
