//! The same containers under Debian's containerd and runc, on this machine, in the same run.
//!
//! `ctr` starts them, one to a shim, without a pod's pause container and without a kubelet, so the peer is counted
//! for less than a node of Kubernetes takes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::process::{Child, Command};

use super::{IMAGE, LOOK, PODS, SETTLE, weight::Rest};
use crate::{
    Failure, fleet::Figures, footprint::Memory, percentiles::Percentiles, process::Process,
    real::Edge,
};

/// It answers by then.
const READY: Duration = Duration::from_secs(20);
/// The cgroup of its containers.
const CGROUP: &str = "/toono-peer";

/// Weighs and times it; what it made is removed, also after a failure.
pub(super) async fn measure(
    seconds: u64,
    edge: &Edge,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let mut peer = Peer::start(&edge.data().join("peer")).await?;
    let measured = peer.all(seconds, edge, figures).await;
    let ended = peer.end().await;
    measured.and(ended)
}

struct Peer {
    dir: PathBuf,
    daemon: Child,
    containers: usize,
}

impl Peer {
    /// A containerd with files of its own, which answers.
    async fn start(dir: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(dir)?;
        let at = |name: &str| dir.join(name).display().to_string();
        let config = dir.join("config.toml");
        fs::write(
            &config,
            format!(
                "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n",
                at("root"),
                at("state"),
                at("socket")
            ),
        )?;
        let log = fs::File::create(dir.join("log"))?;
        let daemon = Command::new("containerd")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                format!("containerd: {error}; install it (apt install containerd runc)")
            })?;
        let peer = Self { dir: dir.to_owned(), daemon, containers: 0 };
        let began = Instant::now();
        while peer.ctr(&["version"]).await.is_err() {
            if began.elapsed() > READY {
                return Err(format!(
                    "containerd does not answer, see {}",
                    dir.join("log").display()
                )
                .into());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(peer)
    }

    async fn all(
        &mut self,
        seconds: u64,
        edge: &Edge,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        tokio::time::sleep(SETTLE).await;
        self.tell("containerd alone", figures)?;
        let image = edge.image(IMAGE)?;
        self.ctr(&["images", "pull", "--plain-http", &image]).await?;
        let mut times = self.run(PODS, &image).await?;
        tokio::time::sleep(SETTLE).await;
        let ten = self.tell("containerd, 10 containers", figures)?;
        let processes = self.processes()?;
        let before = Rest::look(&processes)?;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        Rest::look(&processes)?
            .since(&before, seconds as f64)
            .tell("containerd at rest with 10 containers", figures);
        times.extend(self.run(PODS, &image).await?);
        tokio::time::sleep(SETTLE).await;
        let twenty = self.tell("containerd, 20 containers", figures)?;
        let one = (twenty - ten) / PODS as f64;
        figures.tell(
            "containerd, one more container",
            &format!("{one:.2} MB"),
            json!({"pss_mb": one}),
        );
        let times = Percentiles::of(times);
        let [p50, most] = [50, 100].map(|percent| times.at(percent).as_secs_f64() * 1e3);
        figures.tell(
            "containerd, a container started",
            &format!("ctr run p50 {p50:.0} ms, slowest {most:.0} ms"),
            json!({"p50_ms": p50, "max_ms": most}),
        );
        Ok(())
    }

    /// Starts so many more, one after the other; how long each took.
    async fn run(&mut self, count: usize, image: &str) -> Result<Vec<Duration>, Failure> {
        let mut times = Vec::new();
        for _ in 0..count {
            let name = format!("peer-{}", self.containers);
            let cgroup = format!("{CGROUP}/{name}");
            let began = Instant::now();
            self.ctr(&[
                "run",
                "--detach",
                "--cgroup",
                &cgroup,
                image,
                &name,
                "/bin/sleep",
                "100000",
            ])
            .await?;
            times.push(began.elapsed());
            self.containers += 1;
        }
        Ok(times)
    }

    fn tell(&self, name: &str, figures: &mut Figures) -> Result<f64, Failure> {
        let mut sum = Memory::default();
        for process in self.processes()? {
            sum += Memory::of(process).ok_or("a process of containerd has ended")?;
        }
        let mb = sum.pss as f64 / 1e3;
        figures.tell(
            name,
            &format!("{mb:.1} MB PSS in {} processes", sum.processes),
            json!({"pss_mb": mb, "processes": sum.processes}),
        );
        Ok(mb)
    }

    /// The daemon and its shims.
    fn processes(&self) -> Result<Vec<Process>, Failure> {
        let mut found = vec![Process(self.daemon.id().ok_or("containerd has ended")?)];
        let socket = self.dir.join("socket").display().to_string();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let process = Process(id);
            let line = fs::read(process.file("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            if line.split('\0').next().is_some_and(|program| program.contains("containerd-shim"))
                && line.contains(&socket)
            {
                found.push(process);
            }
        }
        Ok(found)
    }

    async fn ctr(&self, arguments: &[&str]) -> Result<(), Failure> {
        let output = Command::new("ctr")
            .arg("--address")
            .arg(self.dir.join("socket"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .await?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("ctr {}: {}\n{said}", arguments.join(" "), output.status).into())
    }

    /// Removes the containers, with them their shims, then ends the daemon.
    async fn end(&mut self) -> Result<(), Failure> {
        let mut outcome = Ok(());
        for number in 0..self.containers {
            let name = format!("peer-{number}");
            // It may have ended by itself.
            let _ = self.ctr(&["tasks", "kill", "--signal", "SIGKILL", &name]).await;
            let _ = self.ctr(&["tasks", "delete", "--force", &name]).await;
            outcome = outcome.and(self.ctr(&["containers", "delete", &name]).await);
        }
        if let Some(id) = self.daemon.id() {
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(id.try_into()?),
                nix::sys::signal::Signal::SIGTERM,
            )?;
        }
        self.daemon.wait().await?;
        remove_cgroups();
        outcome
    }
}

/// The directories of its containers' cgroups, of every hierarchy, which runc leaves the parents of.
fn remove_cgroups() {
    let hierarchies =
        fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
        let parent = hierarchy.join(CGROUP.trim_start_matches('/'));
        for entry in fs::read_dir(&parent).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(entry.path());
        }
        let _ = fs::remove_dir(&parent);
    }
}
