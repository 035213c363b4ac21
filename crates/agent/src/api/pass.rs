//! The way through to the server: bytes in, bytes out, until the link is gone.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::cloud::Cloud;

/// Connections at once; more wait until one ends.
const MAX_CONNECTIONS: usize = 256;
/// A server that does not take a connection in this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A failed accept is retried after this long, not in a busy loop.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Takes connections and passes them to the server that the node's session speaks to, until `gone` completes, which
/// ends them all: nobody is to wait for a server that cannot be reached.
pub(super) async fn through(listener: &TcpListener, cloud: &Cloud, gone: impl Future<Output = ()>) {
    let mut gone = std::pin::pin!(gone);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        tokio::select! {
            () = &mut gone => return,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = accept => match accepted {
                (Ok(slot), Ok((stream, _))) => {
                    let cloud = cloud.clone();
                    connections.spawn(async move {
                        pass(stream, &cloud).await;
                        drop(slot);
                    });
                }
                _ => sleep(ACCEPT_RETRY).await,
            },
        }
    }
}

async fn pass(mut pod: TcpStream, cloud: &Cloud) {
    let to = cloud.server();
    let connect = timeout(CONNECT_TIMEOUT, cloud.reach());
    match connect.await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
        Ok(mut server) => {
            let _ = pod.set_nodelay(true);
            // However it ends, both ends see it.
            let _ = copy_bidirectional(&mut pod, &mut server).await;
        }
        Err(error) => tracing::debug!(%to, %error, "a pod does not reach the server"),
    }
}
