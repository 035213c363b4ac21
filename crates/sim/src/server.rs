//! The server under test as a process, and what the kernel says of it.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::process::{Child, Command};

use crate::{Failure, access::Access};

/// A server that does not answer for so long has failed.
const START_MAX: Duration = Duration::from_secs(120);
/// How often a starting server is asked.
const POLL: Duration = Duration::from_millis(5);
/// Clock ticks a second in `/proc` (proc(5)): a constant of the kernel's interface.
const TICKS: f64 = 100.0;

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
            .spawn()?;
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

    /// Ends it as a power cut would.
    pub(crate) async fn kill(&mut self) -> Result<(), Failure> {
        Ok(self.child.kill().await?)
    }

    /// Waits until it uses no more than so many cores.
    pub(crate) async fn settle(&self, cores: f64) -> Result<(), Failure> {
        for _ in 0..120 {
            let before = self.cpu_seconds()?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            if self.cpu_seconds()? - before < cores {
                return Ok(());
            }
        }
        println!("(the server was still busy after two minutes)");
        Ok(())
    }

    pub(crate) fn rss_mb(&self) -> Result<f64, Failure> {
        self.status_mb("VmRSS:")
    }

    /// The largest RSS since [`Self::reset_peak`].
    pub(crate) fn peak_mb(&self) -> Result<f64, Failure> {
        self.status_mb("VmHWM:")
    }

    pub(crate) fn reset_peak(&self) -> Result<(), Failure> {
        Ok(fs::write(self.proc("clear_refs")?, "5")?)
    }

    /// User and system time.
    pub(crate) fn cpu_seconds(&self) -> Result<f64, Failure> {
        let stat = fs::read_to_string(self.proc("stat")?)?;
        let (_, fields) = stat.rsplit_once(')').ok_or("no name in stat")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |index: usize| -> f64 {
            fields.get(index).and_then(|field| field.parse().ok()).unwrap_or(0.0)
        };
        Ok((ticks(11) + ticks(12)) / TICKS)
    }

    fn status_mb(&self, name: &str) -> Result<f64, Failure> {
        let status = fs::read_to_string(self.proc("status")?)?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib: f64 = line.ok_or("no such line")?.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024.0 / 1e6)
    }

    fn proc(&self, file: &str) -> Result<PathBuf, Failure> {
        let pid = self.child.id().ok_or("the server has ended")?;
        Ok(Path::new("/proc").join(pid.to_string()).join(file))
    }
}

async fn is_ready(data: &Path, port: u16) -> bool {
    let Ok(access) = Access::read(data, port) else { return false };
    let Ok(mut connection) = access.connect().await else { return false };
    let Ok(request) = http::Request::get("/readyz").body(toono_http::empty()) else { return false };
    connection.send(request).await.is_ok_and(|response| response.status().is_success())
}
