//! A measurement ends when it is done, or when a signal asks for it; either way what it started ends with it.

use std::{error::Error, io};

use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::Failure;

/// Runs it to its end. On a signal it is dropped, and its server with it.
pub(crate) fn run(
    runtime: &Runtime,
    measurement: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Box<dyn Error>> {
    let outcome = runtime.block_on(async {
        let mut asked = Asked::listen()?;
        tokio::select! {
            done = measurement => done,
            why = asked.next() => Err(why),
        }
    });
    outcome.map_err(|error| -> Box<dyn Error> { error })
}

/// The signals that ask for an end. From here on they do nothing else, so that cleaning up is not ended by them.
pub(crate) struct Asked {
    terminate: Signal,
    interrupt: Signal,
}

impl Asked {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for one; what to say of it.
    pub(crate) async fn next(&mut self) -> Failure {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        format!("ended by {name}").into()
    }
}
