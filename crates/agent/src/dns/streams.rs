//! Questions by TCP (RFC 7766), one after the other on each connection.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::PoisonError,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{sleep, timeout},
};
use toono_names::{MAX_DATAGRAM, Way, Whom};

use super::Inner;

/// Connections at once.
const MOST: usize = 64;
/// The same of one address, so that one pod cannot take all of them.
const MOST_OF_ONE: usize = 8;
/// A connection without a question, or with a slow one, is closed after this.
const IDLE: Duration = Duration::from_secs(10);
/// How long an answer by resolvers is waited for: longer than those are tried.
const ANSWER: Duration = Duration::from_secs(15);
/// No more answers than that wait for one who does not read.
const QUEUE: usize = 2;
/// After the process ran out of descriptors.
const PAUSE: Duration = Duration::from_millis(200);

impl Inner {
    pub(super) async fn serve_streams(&self, listener: &TcpListener) {
        let mut open = FuturesUnordered::new();
        let mut of_one = BTreeMap::<IpAddr, usize>::new();
        let mut next = 0_u64;
        loop {
            tokio::select! {
                accepted = listener.accept(), if open.len() < MOST => match accepted {
                    Ok((stream, address)) => {
                        let ip = address.ip();
                        let count = of_one.entry(ip).or_default();
                        if *count < MOST_OF_ONE && self.admits(ip) {
                            *count += 1;
                            next += 1;
                            let number = next;
                            open.push(async move {
                                let _ = self.serve_stream(stream, address, number).await;
                                ip
                            });
                        } else if *count == 0 {
                            of_one.remove(&ip);
                        }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a connection for DNS is not accepted");
                        sleep(PAUSE).await;
                    }
                },
                Some(ip) = open.next() => {
                    if let Some(count) = of_one.get_mut(&ip) {
                        *count -= 1;
                        if *count == 0 {
                            of_one.remove(&ip);
                        }
                    }
                }
            }
        }
    }

    /// Answers on one connection until it is closed.
    async fn serve_stream(
        &self,
        mut stream: TcpStream,
        address: SocketAddr,
        number: u64,
    ) -> io::Result<()> {
        let (sender, mut answers) = mpsc::channel(QUEUE);
        let lock = || self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        lock().insert(number, sender);
        let served = async {
            let whom = Whom { address, way: Way::Tcp(number) };
            let mut out = Vec::new();
            loop {
                let message = timeout(IDLE, read(&mut stream)).await??;
                let is_answered = self.pool.read(|it| self.take(it, &message, whom, &mut out));
                if !is_answered {
                    let Ok(Some(answer)) = timeout(ANSWER, answers.recv()).await else {
                        return Ok(());
                    };
                    out = answer;
                }
                timeout(IDLE, write(&mut stream, &out)).await??;
            }
        };
        let served: io::Result<()> = served.await;
        lock().remove(&number);
        served
    }
}

async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    // No question is longer.
    if length > MAX_DATAGRAM {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}
