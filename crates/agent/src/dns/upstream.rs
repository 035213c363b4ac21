//! Asks the node's resolvers: one socket a question, so that its port is as hard to guess as its id (RFC 5452).

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};
use toono_names::{Ask, Judged, MAX_DATAGRAM, Said};

use crate::retry;

/// How long one resolver is given. Links by satellite take a second there and back.
const TRY: Duration = Duration::from_secs(2);
/// How often all of them are tried: a datagram may be lost.
const ROUNDS: usize = 2;

/// Why one resolver gave no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error(transparent)]
    Link(#[from] io::Error),
    #[error("no answer in time")]
    TimedOut,
    #[error("it answers with code {0}")]
    Code(u16),
    #[error("its answer cannot be read")]
    Unreadable,
}

/// The answer of the first of these that has one, and which that is.
pub(super) async fn ask(servers: &[SocketAddr], ask: &Ask) -> Option<(Said, SocketAddr)> {
    for _ in 0..ROUNDS {
        for server in servers {
            match timeout(TRY, one(*server, ask)).await.unwrap_or(Err(Unanswered::TimedOut)) {
                Ok(said) => return Some((said, *server)),
                Err(error) => {
                    tracing::debug!(%server, name = %ask.name(), %error, "a resolver has no answer");
                }
            }
        }
    }
    None
}

async fn one(server: SocketAddr, ask: &Ask) -> Result<Said, Unanswered> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    // Whatever comes from elsewhere is not even received, and a closed port is heard of.
    socket.connect(server).await?;
    let mut with_edns = true;
    let mut id = random_id();
    socket.send(&ask.message(id, with_edns)).await?;
    let mut room = [0; MAX_DATAGRAM];
    loop {
        let length = socket.recv(&mut room).await?;
        let message = room.get(..length).unwrap_or_default();
        match ask.judge(id, message, false, with_edns) {
            Judged::Other => {}
            Judged::Said(said) => return Ok(said),
            Judged::Failed(code) => return Err(Unanswered::Code(code)),
            Judged::Cut => return by_tcp(server, ask, with_edns).await,
            Judged::WithoutEdns => {
                (id, with_edns) = (random_id(), false);
                socket.send(&ask.message(id, with_edns)).await?;
            }
        }
    }
}

async fn by_tcp(server: SocketAddr, ask: &Ask, with_edns: bool) -> Result<Said, Unanswered> {
    let mut stream = TcpStream::connect(server).await?;
    let id = random_id();
    let question = ask.message(id, with_edns);
    let length = u16::try_from(question.len()).map_err(|_| Unanswered::Unreadable)?;
    stream.write_all(&[&length.to_be_bytes(), question.as_slice()].concat()).await?;
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    match ask.judge(id, &message, true, with_edns) {
        Judged::Said(said) => Ok(said),
        Judged::Failed(code) => Err(Unanswered::Code(code)),
        _ => Err(Unanswered::Unreadable),
    }
}

/// The standard library's hash under keys that nobody outside knows.
fn random_id() -> u16 {
    let [.., a, b] = retry::random_u32().to_be_bytes();
    u16::from_be_bytes([a, b])
}
