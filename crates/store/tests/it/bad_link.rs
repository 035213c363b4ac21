//! A link to etcd that can be cut, or that lets requests through and no answers.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    /// Answers stay where they are.
    Deaf,
    /// There is no connection, and none can be made.
    Cut,
}

/// The link, for as long as it is kept.
pub(crate) struct BadLink {
    state: Arc<watch::Sender<State>>,
    port: u16,
    _tasks: JoinSet<()>,
}

impl BadLink {
    /// To a port of this machine.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let state = Arc::new(watch::Sender::new(State::Open));
        let mut tasks = JoinSet::new();
        let states = Arc::clone(&state);
        tasks.spawn(async move {
            let mut links = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                if *states.borrow() != State::Cut {
                    let far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    links.spawn(forward(near, far, states.subscribe()));
                }
            }
        });
        Self { state, port: own, _tasks: tasks }
    }

    pub(crate) fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

async fn forward(near: TcpStream, far: TcpStream, mut state: watch::Receiver<State>) {
    let mut hearing = state.clone();
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let asked = tokio::io::copy(&mut near_read, &mut far_write);
    let answered = async {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = far_read.read(&mut bytes).await {
            // The sender outlives this task.
            hearing.wait_for(|state| *state == State::Open).await.ok();
            if near_write.write_all(&bytes[..count]).await.is_err() {
                break;
            }
        }
    };
    // Whichever ends first ends the link.
    tokio::select! {
        _ = asked => {}
        () = answered => {}
        _ = state.wait_for(|state| *state == State::Cut) => {}
    }
}
