//! What the agent and a keeper say to each other over the keeper's socket, and how it is carried.
//!
//! One connection carries one call: the client sends a [`Envelope`], the keeper answers with one
//! [`Reply`] (two for `Exec` and `Attach`: started, then exited). Each is one `SOCK_SEQPACKET` message of JSON,
//! with file descriptors attached where the reply says so. A keeper may be older than the agent
//! that adopts it, so every call names the protocol's version and a keeper refuses those it does
//! not speak. Nothing here waits.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
};

use nix::sys::socket::{
    self, AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
    UnixAddr, sockopt,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::spec::{ContainerId, ContainerSpec, ContainerState, ExecSpec, ExitStatus, Snapshot};

/// The version that this program speaks. It grows when an old keeper could misunderstand a call.
pub(crate) const VERSION: u32 = 1;
/// What whoever started a keeper writes after its specification, to say that it knows of it.
pub(crate) const KEEP: u8 = b'k';
/// The socket's name in the sandbox's directory.
pub(crate) const SOCKET_NAME: &str = "keeper.sock";
/// The largest message. An environment of 1 MiB is more than `execve` takes for most stacks.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// The most descriptors in one message: standard input, output and error.
pub(crate) const MAX_FDS: usize = 3;
/// Connections that wait to be accepted; the agent makes a handful per pod at once.
pub(crate) const BACKLOG: i32 = 64;

/// What a client sends.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) version: u32,
    pub(crate) call: Call,
}

/// The part of an [`Envelope`] that every version has.
#[derive(Debug, Deserialize)]
pub(crate) struct AnyEnvelope {
    pub(crate) version: u32,
}

/// What a client asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Call {
    /// The containers, now.
    State,
    /// The containers, as soon as their version is another than this one.
    Watch { since: u64 },
    /// Create a container and start it.
    Create(Box<ContainerSpec>),
    /// Run a command in a container.
    Exec(ExecSpec),
    /// See what a container writes from now on, and write to its input.
    Attach { container: ContainerId, stdin: bool },
    /// Signal a container's first process.
    Signal { container: ContainerId, signal: i32 },
    /// Forget a container that has ended, and delete what it wrote.
    Remove { container: ContainerId },
    /// Kill everything, clean up, end.
    Shutdown,
}

/// What the keeper answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Reply {
    Snapshot(Snapshot),
    Created(ContainerState),
    /// A command runs. Attached: the terminal's master, or output, error and (if asked) input.
    ExecStarted,
    /// The container's streams. Attached: for a terminal its output and its master, else output,
    /// error and (if asked for and open) input.
    Attached {
        terminal: bool,
    },
    /// The command, or the container's first process, has ended.
    ExecExited(ExitStatus),
    Done,
    Refused {
        reason: String,
    },
}

/// What a keeper writes to the pipe of whoever started it, once.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Readiness {
    Ready,
    Failed { reason: String },
}

/// A received message.
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// Sends one message. Fails with `WouldBlock` on a non-blocking socket that is full.
pub(crate) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[RawFd],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a message of {} bytes is over {MAX_MESSAGE_BYTES}", bytes.len()),
        ));
    }
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    socket::sendmsg::<UnixAddr>(
        socket.as_raw_fd(),
        &[IoSlice::new(&bytes)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Receives one message; `None` when the peer has closed.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Received>> {
    let fd = socket.as_raw_fd();
    // With MSG_TRUNC the kernel tells the message's real length, so an idle keeper holds no buffer.
    let length = socket::recv(fd, &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC)?;
    if length == 0 {
        return Ok(None);
    }
    if length > MAX_MESSAGE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    let mut bytes = vec![0; length];
    let fds = receive_into(fd, &mut bytes)?;
    Ok(Some(Received { bytes, fds }))
}

/// Receives the descriptors of one message on a stream socket; its few bytes are of no interest.
pub(crate) fn receive_descriptors(socket: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut bytes = [0; 256];
    receive_into(socket.as_raw_fd(), &mut bytes)
}

#[expect(unsafe_code, reason = "received descriptors become owned ones")]
fn receive_into(socket: RawFd, bytes: &mut [u8]) -> io::Result<Vec<OwnedFd>> {
    let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut slices = [IoSliceMut::new(bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = socket::recvmsg::<UnixAddr>(socket, &mut slices, Some(&mut control), flags)?;
    let mut fds = Vec::new();
    for item in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = item {
            // SAFETY: the kernel has just installed these descriptors for this process; nobody
            // else knows their numbers.
            fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok(fds)
}

/// Reads a message's JSON.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(Into::into)
}

/// A socket of the kind that both ends use.
pub(crate) fn new_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    allow_large_messages(&fd)?;
    Ok(fd)
}

/// A message must fit into the socket's buffer; root may ask for more than the system's limit.
pub(crate) fn allow_large_messages(fd: &OwnedFd) -> io::Result<()> {
    socket::setsockopt(fd, sockopt::SndBufForce, &(2 * MAX_MESSAGE_BYTES))?;
    Ok(())
}

/// The address of the socket in `dir`. A socket's path may have 107 bytes, a directory's more, so
/// the directory is opened and named by its descriptor, which must stay open while it is used.
pub(crate) fn address(dir: &Path) -> io::Result<(std::fs::File, UnixAddr)> {
    let dir = std::fs::File::open(dir)?;
    let path = format!("/proc/self/fd/{}/{SOCKET_NAME}", dir.as_raw_fd());
    Ok((dir, UnixAddr::new(path.as_str())?))
}
