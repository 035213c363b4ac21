//! The end of the process, asked for by SIGTERM or SIGINT, told to every service.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::failure::Failure;

/// A clone for each service that must end.
#[derive(Clone)]
pub(crate) struct Shutdown {
    asked: watch::Receiver<bool>,
}

impl Shutdown {
    /// Begins to listen for the signals.
    pub(crate) fn on_signal() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::caused("no-signals", &error, "this is a defect: please report it")
            })
        };
        let (mut terminate, mut interrupt) =
            (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        let (tell, asked) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("ending");
            let _ = tell.send(true);
            // The sender lives as long as anyone listens, so a late listener still sees the value.
            tell.closed().await;
        });
        Ok(Self { asked })
    }

    /// Completes when the end was asked for.
    pub(crate) async fn wait(mut self) {
        // An error means that the sender is gone, which is an end as well.
        let _ = self.asked.wait_for(|asked| *asked).await;
    }
}
