//! How each action of a pod machine is carried out with the node's adapters.

use std::{fs, net::IpAddr, path::Path, path::PathBuf, sync::Arc, time::Duration};

use futures::future::{BoxFuture, FutureExt};
use k8s_openapi::api::core::v1::Pod;
use toono_images::{Image, ImageRef, PullError};
use toono_podmachine::{Action, Observation, StartFailure, StopSignal};
use toono_sandbox::{ContainerId, Keeper, KeeperError, SandboxSpec};

use super::{Node, Worker};
use crate::{
    bundles,
    container::{self, Surroundings, files},
    join::chain,
    supervisor::clear_sandbox,
    views::log_path,
};

/// The pause before a keeper that failed otherwise than by ending is asked again.
pub(super) const KEEPER_PAUSE: Duration = Duration::from_secs(1);
/// Logs are kept of the run that is on and of the one before, for `kubectl logs --previous`.
const KEPT_LOGS: u32 = 2;

/// What an action came to.
pub(super) enum Done {
    /// Nothing that the machine waits for.
    Nothing,
    Saw(Observation),
    Sandbox {
        keeper: Keeper,
        ip: Option<IpAddr>,
    },
    TornDown,
}

/// The pod of a worker, as its actions need it; they may outlast a change of the worker.
struct Job {
    node: Arc<Node>,
    dir: PathBuf,
    uid: String,
    /// `NAMESPACE/POD`.
    title: String,
    host_network: bool,
    keeper: Option<Keeper>,
    pod_ip: Option<IpAddr>,
    /// The address may go to another pod once the sandbox is gone.
    frees_address: bool,
}

/// Starts an action; it does its work as the future is polled.
pub(super) fn carry_out(worker: &Worker, action: Action) -> BoxFuture<'static, Done> {
    let job = Job {
        node: worker.node.clone(),
        dir: worker.dir.clone(),
        uid: worker.machine.uid().to_owned(),
        title: format!("{}/{}", worker.machine.namespace(), worker.machine.name()),
        host_network: worker.host_network,
        keeper: worker.keeper.clone(),
        pod_ip: worker.pod_ip,
        frees_address: worker.machine.is_over(),
    };
    async move {
        match action {
            Action::LookUpImage { container, image } => Done::Saw(job.look_up(container, &image)),
            Action::PullImage { container, image } => Done::Saw(job.pull(container, &image).await),
            Action::CreateSandbox => match job.create_sandbox().await {
                Ok((keeper, ip)) => Done::Sandbox { keeper, ip },
                Err(message) => Done::Saw(Observation::SandboxFailed { message }),
            },
            Action::StartContainer { container, attempt, .. } => {
                Done::Saw(job.start(container, attempt).await)
            }
            Action::SignalContainer { container, attempt, signal } => {
                job.signal(&container, attempt, signal).await;
                Done::Nothing
            }
            Action::RemoveContainer { container, attempt } => {
                job.remove(&container, attempt).await;
                Done::Nothing
            }
            Action::TearDownSandbox => {
                job.tear_down().await;
                Done::TornDown
            }
        }
    }
    .boxed()
}

impl Job {
    fn look_up(&self, container: String, image: &str) -> Observation {
        let found = image.parse::<ImageRef>().ok().and_then(|it| self.node.images.lookup(&it));
        match found {
            Some(found) => Observation::ImagePresent { container, image_id: image_id(&found) },
            None => Observation::ImageAbsent { container },
        }
    }

    async fn pull(&self, container: String, image: &str) -> Observation {
        let reference: ImageRef = match image.parse() {
            Ok(reference) => reference,
            Err(error) => {
                let message = format!("InvalidImageName: {error}");
                return Observation::ImagePullFailed { container, unreachable: false, message };
            }
        };
        let began = std::time::Instant::now();
        match self.node.images.pull(&reference).await {
            Ok(pulled) => Observation::ImagePulled {
                container,
                image_id: image_id(&pulled),
                took: began.elapsed(),
                size: pulled.size,
            },
            Err(error) => {
                let unreachable =
                    matches!(error, PullError::Unreachable { .. } | PullError::Interrupted { .. });
                let message = chain(&error);
                Observation::ImagePullFailed { container, unreachable, message }
            }
        }
    }

    async fn create_sandbox(&self) -> Result<(Keeper, Option<IpAddr>), String> {
        let pod = self.pod()?;
        let spec = self.sandbox_spec(&pod);
        // One that could not be adopted has no one who watches it.
        clear_sandbox(&spec).await?;
        let keeper = Keeper::spawn(&spec).await.map_err(|error| chain(&error))?;
        match furnish(&self.node, &self.dir, &pod, &keeper).await {
            Ok(ip) => Ok((keeper, ip)),
            Err(error) => {
                if let Err(error) = keeper.shutdown().await {
                    tracing::warn!(uid = self.uid, %error, "a half-made sandbox is left");
                }
                self.unplug().await;
                Err(error)
            }
        }
    }

    fn sandbox_spec(&self, pod: &Pod) -> SandboxSpec {
        SandboxSpec {
            dir: self.dir.clone(),
            pod_uid: self.uid.clone(),
            hostname: files::hostname(pod),
            cgroup_parent: self.node.cgroup_parent.clone(),
            host_network: self.host_network,
            title: self.title.clone(),
            program: self.node.keeper.clone(),
        }
    }

    async fn start(&self, container: String, attempt: u32) -> Observation {
        match self.try_start(&container, attempt).await {
            Ok(at) => Observation::Started { container, attempt, at },
            Err((failure, message)) => {
                Observation::StartFailed { container, attempt, failure, message }
            }
        }
    }

    async fn try_start(
        &self,
        name: &str,
        attempt: u32,
    ) -> Result<jiff::Timestamp, (StartFailure, String)> {
        let config = |message: String| (StartFailure::Config, message);
        let create = |message: String| (StartFailure::Create, message);
        let pod = self.pod().map_err(config)?;
        let wanted = pod.spec.as_ref().and_then(|spec| container::find(spec, name)?.image.clone());
        let image = wanted.and_then(|it| self.node.images.lookup(&it.parse::<ImageRef>().ok()?));
        let image = image.ok_or_else(|| create("the image is no longer on the node".to_owned()))?;
        let around = Surroundings {
            dir: &self.dir,
            node_name: &self.node.name,
            host_ip: self.node.host_ip,
            pod_ip: self.pod_ip,
            memory_capacity: self.node.memory_capacity,
        };
        let spec = container::spec(&pod, name, attempt, &image, around)
            .map_err(|error| config(error.to_string()))?;
        drop_old_logs(&self.dir, name, attempt);
        let keeper =
            self.keeper.as_ref().ok_or_else(|| create("the sandbox is gone".to_owned()))?;
        match keeper.create_and_start(&spec).await {
            Ok(state) => Ok(state.started_at),
            // What the runtime says of a command that cannot be run starts like this.
            Err(KeeperError::Refused { reason }) if reason.starts_with("exec:") => {
                Err((StartFailure::Run, reason))
            }
            Err(error) => Err(create(chain(&error))),
        }
    }

    async fn signal(&self, name: &str, attempt: u32, signal: StopSignal) {
        let Some(keeper) = &self.keeper else { return };
        let number = match signal {
            StopSignal::Kill => nix::libc::SIGKILL,
            StopSignal::Terminate => self.stop_signal(name),
        };
        if let Err(error) = keeper.signal(&ContainerId::new(name, attempt), number).await {
            tracing::warn!(uid = self.uid, name, attempt, %error, "a signal is not delivered");
        }
    }

    /// The signal that the image wants to be ended by.
    fn stop_signal(&self, name: &str) -> i32 {
        let find = || {
            let pod = self.pod().ok()?;
            let wanted = container::find(pod.spec.as_ref()?, name)?.image.clone()?;
            let image = self.node.images.lookup(&wanted.parse().ok()?)?;
            signal_number(&image.config.stop_signal?)
        };
        find().unwrap_or(nix::libc::SIGTERM)
    }

    async fn remove(&self, name: &str, attempt: u32) {
        let Some(keeper) = &self.keeper else { return };
        if let Err(error) = keeper.remove(&ContainerId::new(name, attempt)).await {
            // After a power cut the keeper has never known it.
            tracing::debug!(uid = self.uid, name, attempt, %error, "nothing to remove");
        }
    }

    /// Ends the sandbox, however often that takes: a pod must not be called gone before it is.
    async fn tear_down(&self) {
        while let Err(error) = self.try_tear_down().await {
            tracing::warn!(uid = self.uid, error, "a sandbox does not end");
            tokio::time::sleep(KEEPER_PAUSE).await;
        }
    }

    async fn try_tear_down(&self) -> Result<(), String> {
        if let Some(keeper) = &self.keeper
            && let Err(error) = keeper.shutdown().await
        {
            tracing::warn!(uid = self.uid, %error, "a keeper does not end by itself");
        }
        let pod = self.pod().unwrap_or_default();
        // Also after an orderly end: it costs little, and nothing may be left.
        toono_sandbox::reclaim(&self.sandbox_spec(&pod))
            .await
            .map_err(|error| error.to_string())?;
        if !self.host_network && self.frees_address {
            self.node.network.detach(&self.uid).await.map_err(|error| chain(&error))?;
        } else if !self.host_network {
            self.unplug().await;
        }
        Ok(())
    }

    async fn unplug(&self) {
        if let Err(error) = self.node.network.unplug(&self.uid).await {
            tracing::warn!(uid = self.uid, %error, "a cable is left");
        }
    }

    fn pod(&self) -> Result<Pod, String> {
        bundles::read_pod(&self.dir)
            .ok_or_else(|| "the pod's file is missing or damaged".to_owned())
    }
}

/// Gives a sandbox what the node adds to it: network and files. For one that is adopted, too: the
/// agent that made it may have ended half-way.
pub(super) async fn furnish(
    node: &Node,
    dir: &Path,
    pod: &Pod,
    keeper: &Keeper,
) -> Result<Option<IpAddr>, String> {
    let spec = pod.spec.as_ref();
    let ip = if spec.and_then(|spec| spec.host_network) == Some(true) {
        node.host_ip
    } else {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let attached = node.network.attach(uid, keeper.pid().as_raw()).await;
        Some(attached.map_err(|error| chain(&error))?)
    };
    files::write(dir, pod, ip).map_err(|error| chain(&error))?;
    Ok(ip)
}

/// As `status.containerStatuses[].imageID` has it: `registry/repository@digest`.
fn image_id(image: &Image) -> String {
    let reference = &image.reference;
    format!("{}/{}@{}", reference.registry(), reference.repository(), image.digest)
}

fn drop_old_logs(dir: &Path, name: &str, attempt: u32) {
    if let Some(old) = attempt.checked_sub(KEPT_LOGS) {
        // Older ones went when their successors' successors started.
        let _ = fs::remove_file(log_path(dir, name, old));
    }
}

fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let name = if text.starts_with("SIG") { text.to_owned() } else { format!("SIG{text}") };
    name.parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_have_names_and_numbers() {
        for (text, number) in
            [("SIGQUIT", Some(3)), ("QUIT", Some(3)), ("9", Some(9)), ("SIGX", None)]
        {
            assert_eq!(signal_number(text), number, "{text}");
        }
    }
}
