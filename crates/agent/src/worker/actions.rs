//! How each action of a pod machine is carried out with the node's adapters.

use std::{fs, net::IpAddr, path::Path, path::PathBuf, sync::Arc, time::Duration};

use futures::future::{BoxFuture, FutureExt};
use k8s_openapi::api::core::v1::Pod;
use toono_images::ImageRef;
use toono_podmachine::{
    Action, Hook, Observation, ProbeKind, ProbeOutcome, StartFailure, StopSignal,
};
use toono_sandbox::{
    ContainerId, ContainerStatus, Keeper, KeeperError, MAX_LOG_FILES, Processes, SandboxSpec,
    rotated,
};
use toono_wire::report::EventReport;

use super::{Node, Worker, pulls};
use crate::{
    bundles,
    container::{
        self, Surroundings, files, host_paths, resolver, service_links, termination, volumes,
    },
    dns::resolvers::ResolvConf,
    handlers::{Handlers, Place},
    join::chain,
    supervisor::clear_sandbox,
    tokens::Wants,
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
    /// There are tokens that were not there before.
    TokensRenewed,
    TornDown,
}

/// The pod of a worker, as its actions need it; they may outlast a change of the worker.
pub(super) struct Job {
    pub(super) node: Arc<Node>,
    pub(super) dir: PathBuf,
    pub(super) uid: String,
    /// `NAMESPACE/POD`.
    pub(super) title: String,
    pub(super) host_network: bool,
    pub(super) keeper: Option<Keeper>,
    pub(super) pod_ip: Option<IpAddr>,
    pub(super) handlers: Arc<Handlers>,
    wants: Arc<Wants>,
    /// The address may go to another pod once the sandbox is gone.
    pub(super) frees_address: bool,
}

fn job(worker: &Worker) -> Job {
    Job {
        node: worker.node.clone(),
        dir: worker.dir.clone(),
        uid: worker.machine.uid().to_owned(),
        title: format!("{}/{}", worker.machine.namespace(), worker.machine.name()),
        host_network: worker.host_network,
        keeper: worker.keeper.clone(),
        pod_ip: worker.pod_ip,
        handlers: worker.handlers.clone(),
        wants: worker.wants.clone(),
        frees_address: worker.machine.is_over(),
    }
}

/// Fills the pod's volumes anew.
pub(super) fn fill(worker: &Worker) -> BoxFuture<'static, Done> {
    let job = job(worker);
    async move { job.fill().await.map_or_else(Done::Saw, |()| Done::Nothing) }.boxed()
}

/// Waits until tokens of the pod are due, and renews them.
pub(super) fn renew_tokens(worker: &Worker) -> BoxFuture<'static, Done> {
    let Job { node, dir, wants, .. } = job(worker);
    async move {
        node.tokens.renew(&dir, &wants).await;
        Done::TokensRenewed
    }
    .boxed()
}

/// Starts an action; it does its work as the future is polled.
pub(super) fn carry_out(worker: &Worker, action: Action) -> BoxFuture<'static, Done> {
    let job = job(worker);
    async move {
        match action {
            Action::LookUpImage { container, image } => Done::Saw(job.look_up(container, &image)),
            Action::PullImage { container, image } => Done::Saw(job.pull(container, &image).await),
            Action::CreateSandbox => match job.fill().await.and_then(|()| job.check_host()) {
                Err(unfilled) => Done::Saw(unfilled),
                Ok(()) => match job.create_sandbox().await {
                    Ok((keeper, ip)) => Done::Sandbox { keeper, ip },
                    Err(message) => Done::Saw(Observation::SandboxFailed { message }),
                },
            },
            Action::StartContainer { container, attempt, .. } => {
                Done::Saw(job.start(container, attempt).await)
            }
            Action::SignalContainer { container, attempt, signal } => {
                job.signal(&container, attempt, signal).await;
                Done::Nothing
            }
            Action::RunHook { container, attempt, hook } => {
                Done::Saw(job.hook(container, attempt, hook).await)
            }
            Action::Probe { container, attempt, kind } => {
                Done::Saw(job.probe(container, attempt, kind).await)
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
    async fn fill(&self) -> Result<(), Observation> {
        let failed = |failures| Observation::VolumesFailed { failures };
        let token_failure = self.node.tokens.complete(&self.dir, &self.wants).await.err();
        let token_failure = token_failure.as_deref().unwrap_or_default();
        let pod = self.pod().map_err(|error| failed(vec![error]))?;
        volumes::fill(&pod, Surroundings { token_failure, ..self.surroundings() }).map_err(failed)
    }

    /// What the pod mounts of the host must be there, and of the right kind.
    fn check_host(&self) -> Result<(), Observation> {
        let failed = |failures| Observation::VolumesFailed { failures };
        let pod = self.pod().map_err(|error| failed(vec![error]))?;
        host_paths::check_all(&pod).map_err(failed)
    }

    fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            data: &self.node.data,
            dir: &self.dir,
            node_name: &self.node.name,
            host_ip: self.node.host_ip,
            pod_ip: self.pod_ip,
            memory_capacity: self.node.memory_capacity,
            allocatable: self.node.allocatable,
            referents: &self.node.referents,
            services: &[],
            token_failure: "",
            certificate: &self.node.certificate,
        }
    }

    async fn create_sandbox(&self) -> Result<(Keeper, Option<IpAddr>), String> {
        let pod = self.pod()?;
        files::Names::of(&pod, &self.node.cluster_dns().domain)?;
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
        let spec = pod.spec.as_ref();
        SandboxSpec {
            dir: self.dir.clone(),
            pod_uid: self.uid.clone(),
            // A pod whose names are refused gets no sandbox.
            hostname: files::Names::of(pod, &self.node.cluster_dns().domain)
                .map_or_else(|_| String::new(), |names| names.kernel),
            cgroup_parent: self.node.cgroup_parent.clone(),
            host_network: self.host_network,
            host_ipc: spec.and_then(|spec| spec.host_ipc) == Some(true),
            processes: match spec {
                Some(spec) if spec.host_pid == Some(true) => Processes::Host,
                Some(spec) if spec.share_process_namespace == Some(true) => Processes::Pod,
                _ => Processes::Own,
            },
            sysctls: spec.map(toono_podmachine::sysctls).unwrap_or_default(),
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
        self.node.pool.known().await;
        let services = self.node.pool.read(|records| service_links::of_pod(&pod, records));
        let around = Surroundings { services: &services, ..self.surroundings() };
        let mut spec = container::spec(&pod, name, attempt, &image, around)
            .map_err(|error| config(error.to_string()))?;
        drop_old_logs(&self.dir, name, attempt);
        let keeper =
            self.keeper.as_ref().ok_or_else(|| create("the sandbox is gone".to_owned()))?;
        spec.beside = beside(keeper, &pod, name).await.map_err(create)?;
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

    async fn probe(&self, container: String, attempt: u32, kind: ProbeKind) -> Observation {
        let outcome = match self.place(&container, attempt) {
            Some(place) => self.handlers.probe(place, &container, kind).await,
            None => ProbeOutcome::Error("the sandbox is gone".to_owned()),
        };
        Observation::Probed { container, attempt, kind, outcome }
    }

    async fn hook(&self, container: String, attempt: u32, hook: Hook) -> Observation {
        let done = match self.place(&container, attempt) {
            Some(place) => self.handlers.hook(place, (&self.title, &container), hook).await,
            None => Err("the sandbox is gone".to_owned()),
        };
        if let Err(error) = &done {
            tracing::warn!(uid = self.uid, container, ?hook, error, "a hook failed");
        }
        Observation::HookDone { container, attempt, hook, error: done.err() }
    }

    fn place(&self, container: &str, attempt: u32) -> Option<Place> {
        let keeper = self.keeper.clone()?;
        let container = ContainerId::new(container, attempt);
        Some(Place { keeper, container, pod_ip: self.pod_ip })
    }

    /// The signal that the container, or else its image, wants to be ended by.
    fn stop_signal(&self, name: &str) -> i32 {
        let find = || {
            let pod = self.pod().ok()?;
            let container = container::find(pod.spec.as_ref()?, name)?;
            if let Some(own) = container.lifecycle.as_ref().and_then(|it| it.stop_signal.as_ref()) {
                return signal_number(own);
            }
            let image = self.node.images.lookup(&container.image.as_ref()?.parse().ok()?)?;
            signal_number(&image.config.stop_signal?)
        };
        find().unwrap_or(nix::libc::SIGTERM)
    }

    async fn remove(&self, name: &str, attempt: u32) {
        termination::forget(&self.dir, name, attempt);
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
        self.node.services.release(&self.uid);
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

    pub(super) fn pod(&self) -> Result<Pod, String> {
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
        let ip = attached.map_err(|error| chain(&error))?;
        node.services.set_host_ports(uid, container::ports::of(pod, ip));
        Some(ip)
    };
    let cluster = node.cluster_dns();
    let names = files::Names::of(pod, &cluster.domain)?;
    let resolver = resolver::of_pod(pod, ResolvConf::read(&node.resolv_conf), &cluster);
    let is_new = files::write(dir, pod, ip, &names, &resolver.text);
    if is_new.map_err(|error| chain(&error))? {
        let at = node.clock.now().wall;
        node.outbox.events(resolver.warnings.into_iter().map(|it| warning(at, pod, it)).collect());
    }
    Ok(ip)
}

/// An event about a pod: reason and message.
fn warning(
    at: jiff::Timestamp,
    pod: &Pod,
    (reason, message): (&'static str, String),
) -> EventReport {
    EventReport {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        pod: pod.metadata.name.clone().unwrap_or_default(),
        pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
        field_path: String::new(),
        kind: "Warning".to_owned(),
        reason: reason.to_owned(),
        message,
        at: pulls::whole_seconds(at),
    }
}

/// The container whose processes an ephemeral one is to see, if it names one.
async fn beside(keeper: &Keeper, pod: &Pod, name: &str) -> Result<Option<ContainerId>, String> {
    let ephemeral = pod.spec.as_ref().and_then(|spec| container::ephemeral(spec, name));
    let target = ephemeral.and_then(|it| it.target_container_name.as_deref());
    let Some(target) = target.filter(|target| !target.is_empty()) else { return Ok(None) };
    let runs = keeper.state().await.map_err(|error| chain(&error))?.containers.into_iter();
    let mut runs = runs.filter(|it| matches!(it.status, ContainerStatus::Running { .. }));
    let found = runs.find(|it| it.name == target);
    let missing = || format!("target container \"{target}\" is not running");
    found.map(|it| Some(it.id)).ok_or_else(missing)
}

fn drop_old_logs(dir: &Path, name: &str, attempt: u32) {
    if let Some(old) = attempt.checked_sub(KEPT_LOGS) {
        // Older ones went when their successors' successors started.
        for number in 0..MAX_LOG_FILES {
            let _ = fs::remove_file(rotated(&log_path(dir, name, old), number));
        }
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
