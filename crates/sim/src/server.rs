//! The server under test: started, asked what it uses, ended.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::Path,
    time::{Duration, Instant},
};

use tokio::process::{Child, Command};

use crate::{Failure, access::Access, process::Process};

/// A server that does not answer for so long has failed.
const START_MAX: Duration = Duration::from_secs(120);
/// A server that has work left is looked at for so long.
const SETTLE_LOOK: Duration = Duration::from_secs(5);
/// No work takes longer.
const SETTLE_MAX: Duration = Duration::from_secs(900);
/// How often a starting server is asked.
const POLL: Duration = Duration::from_millis(5);

/// A running server. It is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    pub(crate) started_in: Duration,
}

impl Server {
    /// Starts the program on `data`, with more options, and waits until it is ready.
    pub(crate) async fn start(
        toono: &Path,
        data: &Path,
        options: &[&str],
    ) -> Result<Self, Failure> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Self::start_on(port, toono, data, options).await
    }

    /// The same on a port that others know already.
    pub(crate) async fn start_on(
        port: u16,
        toono: &Path,
        data: &Path,
        options: &[&str],
    ) -> Result<Self, Failure> {
        fs::create_dir_all(data)?;
        let log = File::create(data.join("server.log"))?;
        let began = Instant::now();
        let child = Command::new(toono)
            .arg("server")
            .arg("--data")
            .arg(data)
            .arg("--listen")
            .arg(format!("127.0.0.1:{port}"))
            .args(options)
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                format!("{}: {error}; name the program with --toono", toono.display())
            })?;
        let mut server = Self { child, port, started_in: Duration::ZERO };
        loop {
            if let Some(status) = server.child.try_wait()? {
                let log = fs::read_to_string(data.join("server.log"))?;
                return Err(format!("the server ended with {status}:\n{log}").into());
            }
            if is_ready(data, port).await {
                server.started_in = began.elapsed();
                return Ok(server);
            }
            if began.elapsed() > START_MAX {
                return Err(format!("the server was not ready within {START_MAX:?}").into());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Ends it as an operator would.
    pub(crate) async fn end(&mut self) -> Result<(), Failure> {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGTERM,
            )?;
        }
        self.child.wait().await?;
        Ok(())
    }

    /// Lets it run no further until [`Self::go_on`].
    pub(crate) fn pause(&self) -> Result<(), Failure> {
        self.signal(nix::sys::signal::Signal::SIGSTOP)
    }

    /// Lets it run again.
    pub(crate) fn go_on(&self) -> Result<(), Failure> {
        self.signal(nix::sys::signal::Signal::SIGCONT)
    }

    fn signal(&self, signal: nix::sys::signal::Signal) -> Result<(), Failure> {
        let pid = i32::try_from(self.child.id().ok_or("the server has ended")?)?;
        Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal)?)
    }

    /// Ends it as a power cut would.
    pub(crate) async fn kill(&mut self) -> Result<(), Failure> {
        Ok(self.child.kill().await?)
    }

    /// Waits until it uses no more than so many cores, for some seconds.
    pub(crate) async fn settle(&self, cores: f64) -> Result<(), Failure> {
        for _ in 0..SETTLE_MAX.as_secs().div_ceil(SETTLE_LOOK.as_secs()) {
            let before = self.cpu_seconds()?;
            tokio::time::sleep(SETTLE_LOOK).await;
            if self.cpu_seconds()? - before < cores * SETTLE_LOOK.as_secs_f64() {
                return Ok(());
            }
        }
        println!("(the server was still busy after {SETTLE_MAX:?})");
        Ok(())
    }

    pub(crate) fn rss_mb(&self) -> Result<f64, Failure> {
        self.process()?.rss_mb()
    }

    /// The largest RSS since [`Self::reset_peak`].
    pub(crate) fn peak_mb(&self) -> Result<f64, Failure> {
        self.process()?.peak_mb()
    }

    pub(crate) fn reset_peak(&self) -> Result<(), Failure> {
        self.process()?.reset_peak()
    }

    /// User and system time.
    pub(crate) fn cpu_seconds(&self) -> Result<f64, Failure> {
        self.process()?.cpu_seconds()
    }

    fn process(&self) -> Result<Process, Failure> {
        Ok(Process(self.child.id().ok_or("the server has ended")?))
    }
}

async fn is_ready(data: &Path, port: u16) -> bool {
    let Ok(access) = Access::read(data, port) else { return false };
    let Ok(mut connection) = access.connect().await else { return false };
    let Ok(request) = http::Request::get("/readyz").body(toono_http::empty()) else { return false };
    connection.send(request).await.is_ok_and(|response| response.status().is_success())
}
