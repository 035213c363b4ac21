//! A bad link before a registry: connections that break, or are not let through at all.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

#[derive(Default)]
pub struct State {
    /// Break a connection after so many bytes to the client; 0 is never.
    pub cut_after: AtomicU64,
    /// After the first break nothing is let through.
    pub dies: AtomicBool,
    /// All bytes that went to the client.
    pub carried: AtomicU64,
    /// Connections that were broken.
    pub cuts: AtomicU64,
    dead: AtomicBool,
    pub cut: Notify,
}

pub struct Proxy {
    pub state: Arc<State>,
    pub address: SocketAddr,
}

impl Proxy {
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = state.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let state = shared.clone();
                if state.dead.load(Ordering::SeqCst) {
                    continue;
                }
                // A connection that ends early is what this is for.
                tokio::spawn(async move { drop(carry(&state, client, to).await) });
            }
        });
        Self { state, address }
    }

    /// The link is whole again, and counts from 0.
    pub fn heal(&self) {
        self.state.cut_after.store(0, Ordering::SeqCst);
        self.state.dead.store(false, Ordering::SeqCst);
        self.state.carried.store(0, Ordering::SeqCst);
    }
}

async fn carry(state: &State, client: TcpStream, to: SocketAddr) -> std::io::Result<()> {
    let registry = TcpStream::connect(to).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_registry, mut to_registry) = registry.into_split();
    let requests =
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_registry).await });
    let mut carried = 0;
    let mut buffer = vec![0; 16 << 10];
    loop {
        let length = from_registry.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        to_client.write_all(&buffer[..length]).await?;
        carried += length as u64;
        state.carried.fetch_add(length as u64, Ordering::SeqCst);
        let limit = state.cut_after.load(Ordering::SeqCst);
        if limit > 0 && carried >= limit {
            state.cuts.fetch_add(1, Ordering::SeqCst);
            state.dead.store(state.dies.load(Ordering::SeqCst), Ordering::SeqCst);
            state.cut.notify_one();
            break;
        }
    }
    requests.abort();
    Ok(())
}
