//! The kernel's word that processes wait for memory, so that a shortage is seen before the next heartbeat.
//!
//! Where the kernel has no pressure stall information (<https://docs.kernel.org/accounting/psi.html>), nothing
//! is ever told, and the heartbeats have to do.

use std::{
    fs::File,
    future,
    io::{self, Write},
};

use tokio::io::{Interest, unix::AsyncFd};

/// Waits of 200 ms in all within 2 s: a busy machine has none such, one that swaps or reclaims has.
const TRIGGER: &[u8] = b"some 200000 2000000\0";

/// Told once in each two seconds at most.
#[derive(Debug)]
pub struct Stalls(Option<AsyncFd<File>>);

impl Stalls {
    /// Begins to listen, within a runtime with I/O.
    #[must_use]
    pub fn listen() -> Self {
        let open = || -> io::Result<AsyncFd<File>> {
            let mut file = File::options().read(true).write(true).open("/proc/pressure/memory")?;
            file.write_all(TRIGGER)?;
            register(file)
        };
        // Old kernels and some settings have it not.
        Self(open().ok())
    }

    /// Waits for the next word of it.
    pub async fn next(&mut self) {
        let Some(listening) = &self.0 else { return future::pending().await };
        match listening.ready(Interest::PRIORITY).await {
            Ok(mut ready) => ready.clear_ready(),
            // The runtime ends.
            Err(_) => self.0 = None,
        }
    }
}

#[expect(unsafe_code, reason = "a descriptor is given to the runtime")]
fn register(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: the file owns its open descriptor, nothing closes or exchanges that before the file is dropped, and
    // it is dropped with the registration.
    let registered = unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) };
    registered.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_idle_machine_is_quiet_about_it() {
        let mut stalls = Stalls::listen();
        let soon = std::time::Duration::from_millis(50);
        // Whether or not this kernel tells: listening is neither an error nor a busy loop.
        for _ in 0..2 {
            let _ = tokio::time::timeout(soon, stalls.next()).await;
        }
    }
}
