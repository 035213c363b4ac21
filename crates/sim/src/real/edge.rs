//! The edge under test: a server, an image registry, and nodes in namespaces, brought up and taken down by the
//! program itself.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use tokio::process::Command;
use toono_lab::{Daemon, LabConfig, LabName, Loss};

use super::plan::{Place, Scene};
use crate::{Failure, ending::Asked, process::Process};

/// Where `toono up` has its registry, on the cloud's address.
const REGISTRY_PORT: u16 = 5000;

/// What `toono up` and `toono down` are told.
pub(crate) struct Edge {
    toono: PathBuf,
    /// What nodes run, where it is not `toono`.
    node_program: Option<PathBuf>,
    data: PathBuf,
    subnet: String,
    pub(crate) port: u16,
    lab: LabName,
    pub(crate) scene: Scene,
    /// Of pools, in the order of the sites.
    pools: Vec<String>,
    /// Of nodes, in their order.
    pub(crate) names: Vec<String>,
}

impl Edge {
    /// Nothing is made yet.
    pub(crate) fn plan(
        toono: &Path,
        data: &Path,
        subnet: &str,
        scene: Scene,
    ) -> Result<Self, Failure> {
        if data.exists() {
            return Err(format!("{} exists; it would be removed at the end", data.display()).into());
        }
        let data = std::path::absolute(data)?;
        let lab = LabName::of_directory(&data)?;
        let config = LabConfig::uniform(lab.clone(), scene.sites, scene.per_site);
        let pools: Vec<String> = config.pools.into_iter().map(|pool| pool.name).collect();
        let nodes =
            pools.iter().flat_map(|pool| (1..=scene.per_site).map(move |n| format!("{pool}-{n}")));
        let names = nodes.collect();
        Ok(Self {
            toono: toono.to_owned(),
            node_program: None,
            data,
            subnet: subnet.to_owned(),
            port: TcpListener::bind("0.0.0.0:0")?.local_addr()?.port(),
            lab,
            scene,
            pools,
            names,
        })
    }

    /// The same with another program for its nodes.
    pub(crate) fn with_nodes(self, program: Option<&Path>) -> Self {
        Self { node_program: program.map(Path::to_owned), ..self }
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Makes it, does the work, and removes it, also after a failure or when asked to end.
    pub(crate) async fn during(
        &self,
        work: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        let mut asked = Asked::listen()?;
        let outcome = match self.up().await {
            Ok(()) => tokio::select! {
                outcome = work => outcome,
                why = asked.next() => Err(why),
            },
            failed => failed,
        };
        let removed = self.down().await;
        outcome.and(removed)
    }

    /// What is half-made after a failure is for [`Self::down`].
    async fn up(&self) -> Result<(), Failure> {
        let (sites, per_site) = (self.scene.sites.to_string(), self.scene.per_site.to_string());
        let listen = format!("0.0.0.0:{}", self.port);
        let mut arguments = vec![
            "up",
            "--no-wait",
            "--pools",
            &sites,
            "--nodes-per-pool",
            &per_site,
            "--listen",
            &listen,
            "--lab-subnet",
            &self.subnet,
        ];
        let program = self.node_program.as_deref().and_then(Path::to_str);
        arguments.extend(program.into_iter().flat_map(|program| ["--node-program", program]));
        self.toono(&arguments).await.map(drop)
    }

    /// Removes it all.
    async fn down(&self) -> Result<(), Failure> {
        self.toono(&["down", "--purge"]).await?;
        match std::fs::remove_dir_all(&self.data) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Runs it to its end, whatever signals this program gets meanwhile: what it makes can be found then. What it
    /// printed.
    pub(crate) async fn toono(&self, arguments: &[&str]) -> Result<String, Failure> {
        let output = self.output(arguments, &self.data).await?;
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout)?);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("toono {}: {}\n{said}", arguments.join(" "), output.status).into())
    }

    /// The same on a node, whose data directory it gets; whether it succeeded.
    pub(crate) async fn toono_at(&self, node: &str, arguments: &[&str]) -> Result<bool, Failure> {
        let data = self.data.join("nodes").join(node);
        Ok(self.output(arguments, &data).await?.status.success())
    }

    async fn output(&self, arguments: &[&str], data: &Path) -> Result<Output, Failure> {
        let mut command = Command::new(&self.toono);
        command.args(arguments).arg("--data").arg(data).stdin(Stdio::null()).process_group(0);
        Ok(command.output().await?)
    }

    /// Where an image of the lab is, for who asks its registry by address.
    pub(crate) fn image(&self, name: &str) -> Result<String, Failure> {
        let (_, path) = name.split_once('/').ok_or("an image without a registry")?;
        let mut config =
            LabConfig::uniform(self.lab.clone(), self.scene.sites, self.scene.per_site);
        config.subnet.clone_from(&self.subnet);
        Ok(format!("{}:{REGISTRY_PORT}/{path}", config.cloud_address()?))
    }

    /// A daemon that `up` has started.
    pub(crate) fn process(&self, daemon: &str) -> Result<Process, Failure> {
        let running = Daemon::new(self.data.join("run"), daemon).running()?;
        let pid = running.ok_or_else(|| format!("{daemon} does not run"))?;
        Ok(Process(u32::try_from(pid)?))
    }

    pub(crate) fn cut(&self, place: Place, loss: Loss) -> Result<(), Failure> {
        Ok(toono_lab::cut(&self.lab, self.name(place)?, loss)?)
    }

    pub(crate) fn heal(&self, place: Place) -> Result<(), Failure> {
        Ok(toono_lab::heal(&self.lab, self.name(place)?)?)
    }

    pub(crate) fn name(&self, place: Place) -> Result<&str, Failure> {
        let name = match place {
            Place::Site(site) => self.pools.get(site),
            Place::Node(node) => self.names.get(node),
        };
        Ok(name.ok_or("no such place")?)
    }
}
