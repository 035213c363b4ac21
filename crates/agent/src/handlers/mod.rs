//! Probes and lifecycle hooks of a pod: what each asks, and asking it.
//!
//! It does not know when a probe is due nor what follows from an answer: that is the pod machine's.

mod dial;
mod exec;
mod get;
mod grpc;

use std::{net::IpAddr, time::Duration};

use k8s_openapi::{
    api::core::v1::{
        Container, ContainerPort, HTTPGetAction, LifecycleHandler, Pod, Probe, TCPSocketAction,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::time::timeout;
use toono_podmachine::{Hook, ProbeKind, ProbeOutcome};
use toono_sandbox::{ContainerId, Keeper};

use dial::Target;
use get::Get;

/// What a probe's `User-Agent` says after its name, as the kubelet's do.
const VERSION: &str = "1.35";
/// What answers a probe is read this far, as by the kubelet.
const MAX_ANSWER_BYTES: usize = 10 * 1024;
/// A probe that could not be run, as opposed to one that failed, is tried so often at once.
const TRIES: u32 = 3;

/// All probes and hooks of a pod.
#[derive(Debug, Default)]
pub(crate) struct Handlers {
    probes: Vec<(String, ProbeKind, Probing)>,
    hooks: Vec<(String, Hook, Result<Handler, String>)>,
}

/// A probe as it is run.
#[derive(Debug, Clone)]
struct Probing {
    handler: Result<Handler, String>,
    timeout: Duration,
}

/// What is asked of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Handler {
    Exec(Vec<String>),
    Get(Get),
    Tcp { host: Option<String>, port: u16 },
    Grpc { port: u16, service: String },
    Sleep(Duration),
}

/// Where the container is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) keeper: Keeper,
    pub(crate) container: ContainerId,
    pub(crate) pod_ip: Option<IpAddr>,
}

/// What one question came to.
type Answer = ProbeOutcome;

impl Handlers {
    pub(crate) fn read(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let mut all = Self::default();
        for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
            all.read_container(container);
        }
        all
    }

    fn read_container(&mut self, container: &Container) {
        let name = &container.name;
        for (kind, probe) in [
            (ProbeKind::Startup, &container.startup_probe),
            (ProbeKind::Liveness, &container.liveness_probe),
            (ProbeKind::Readiness, &container.readiness_probe),
        ] {
            if let Some(probe) = probe {
                self.probes.push((name.clone(), kind, Probing::read(probe, container)));
            }
        }
        let Some(lifecycle) = &container.lifecycle else { return };
        for (hook, handler) in
            [(Hook::PostStart, &lifecycle.post_start), (Hook::PreStop, &lifecycle.pre_stop)]
        {
            if let Some(handler) = handler {
                self.hooks.push((name.clone(), hook, of_hook(handler, container)));
            }
        }
    }

    /// Runs a probe once.
    pub(crate) async fn probe(&self, place: Place, name: &str, kind: ProbeKind) -> ProbeOutcome {
        let mut probes = self.probes.iter();
        let Some((.., probe)) = probes.find(|(of, which, _)| of == name && *which == kind) else {
            return ProbeOutcome::Error("the pod has no such probe".to_owned());
        };
        let Probing { handler, timeout } = probe.clone();
        let handler = match handler {
            Ok(handler) => handler,
            Err(error) => return ProbeOutcome::Error(error),
        };
        let mut answer = handler.ask(&place, timeout).await;
        for _ in 1..TRIES {
            if !matches!(answer, ProbeOutcome::Error(_)) {
                break;
            }
            answer = handler.ask(&place, timeout).await;
        }
        answer
    }

    /// Runs a hook.
    ///
    /// # Errors
    /// What the container's status says of a hook that failed. `pod` is how its text names the pod.
    pub(crate) async fn hook(
        &self,
        place: Place,
        (pod, name): (&str, &str),
        hook: Hook,
    ) -> Result<(), String> {
        let mut hooks = self.hooks.iter();
        let found = hooks.find(|(of, which, _)| of == name && *which == hook);
        let handler =
            found.map_or_else(|| Err("the pod has no such hook".to_owned()), |it| it.2.clone());
        let of = format!("for Container {name:?} in Pod {pod:?} failed");
        match handler? {
            Handler::Exec(args) => exec::run(&place, &args)
                .await
                .and_then(|ended| ended.succeeded(&args))
                .map_err(|(error, output)| {
                    let args = args.join(" ");
                    format!(
                        "Exec lifecycle hook ([{args}]) {of} - error: {error}, message: {output:?}"
                    )
                }),
            Handler::Get(get) => get.call(&place).await.map_err(|error| {
                format!("HTTP lifecycle hook ({}) {of} - error: {error}", get.path)
            }),
            Handler::Sleep(pause) => {
                tokio::time::sleep(pause).await;
                Ok(())
            }
            other => Err(format!("Cannot run handler: invalid handler: {other:?}")),
        }
    }
}

impl Probing {
    fn read(probe: &Probe, container: &Container) -> Self {
        let ports = container.ports.as_deref().unwrap_or_default();
        let seconds = u64::try_from(probe.timeout_seconds.unwrap_or(1)).unwrap_or(1).max(1);
        let handler = if let Some(exec) = &probe.exec {
            Ok(Handler::Exec(exec.command.clone().unwrap_or_default()))
        } else if let Some(get) = &probe.http_get {
            of_get(get, ports, "kube-probe")
        } else if let Some(TCPSocketAction { host, port }) = &probe.tcp_socket {
            let host = host.clone().filter(|host| !host.is_empty());
            number(port, ports).map(|port| Handler::Tcp { host, port })
        } else if let Some(grpc) = &probe.grpc {
            let service = grpc.service.clone().unwrap_or_default();
            number(&IntOrString::Int(grpc.port), ports).map(|port| Handler::Grpc { port, service })
        } else {
            Err("missing probe handler".to_owned())
        };
        Self { handler, timeout: Duration::from_secs(seconds) }
    }
}

fn of_hook(handler: &LifecycleHandler, container: &Container) -> Result<Handler, String> {
    let ports = container.ports.as_deref().unwrap_or_default();
    if let Some(exec) = &handler.exec {
        Ok(Handler::Exec(exec.command.clone().unwrap_or_default()))
    } else if let Some(get) = &handler.http_get {
        of_get(get, ports, "kube-lifecycle")
    } else if let Some(sleep) = &handler.sleep {
        Ok(Handler::Sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))))
    } else {
        Err("Cannot run handler: invalid handler".to_owned())
    }
}

fn of_get(action: &HTTPGetAction, ports: &[ContainerPort], agent: &str) -> Result<Handler, String> {
    let port = number(&action.port, ports)?;
    let headers = action.http_headers.iter().flatten();
    Ok(Handler::Get(Get {
        tls: action.scheme.as_deref() == Some("HTTPS"),
        host: action.host.clone().filter(|host| !host.is_empty()),
        port,
        path: action.path.clone().unwrap_or_default(),
        headers: headers.map(|it| (it.name.clone(), it.value.clone())).collect(),
        agent: format!("{agent}/{}", VERSION),
    }))
}

/// A port by its number, or by its name among the container's.
fn number(port: &IntOrString, ports: &[ContainerPort]) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = ports.iter().find(|it| it.name.as_ref() == Some(name));
            let number = named.map(|it| it.container_port).or_else(|| name.parse().ok());
            number.ok_or_else(|| format!("port {name} not found"))?
        }
    };
    let valid = u16::try_from(number).ok().filter(|number| *number > 0);
    valid.ok_or_else(|| format!("invalid port number: {number}"))
}

impl Handler {
    async fn ask(&self, place: &Place, limit: Duration) -> Answer {
        match self {
            Self::Exec(args) => exec::probe(place, args, limit).await,
            Self::Get(get) => get.probe(place, limit).await,
            Self::Tcp { host, port } => {
                let target = Target::new(place, host.as_deref(), *port);
                match timeout(limit, target.connect()).await {
                    Ok(Ok(_)) => ProbeOutcome::Success,
                    Ok(Err(error)) => ProbeOutcome::Failure(error),
                    Err(_) => ProbeOutcome::Failure(target.timed_out()),
                }
            }
            Self::Grpc { port, service } => {
                grpc::probe(&Target::new(place, None, *port), service, limit).await
            }
            Self::Sleep(_) => ProbeOutcome::Error("missing probe handler".to_owned()),
        }
    }
}

/// Whole seconds as Go writes them: `5s`, `1m30s`.
fn go_seconds(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_have_numbers_and_names() {
        let ports: Vec<ContainerPort> =
            serde_json::from_value(json!([{"name": "web", "containerPort": 8080}])).unwrap();
        let name = |text: &str| IntOrString::String(text.to_owned());
        for (port, number_or_error) in [
            (IntOrString::Int(80), Ok(80)),
            (IntOrString::Int(0), Err("invalid port number: 0".to_owned())),
            (name("web"), Ok(8080)),
            (name("81"), Ok(81)),
            (name("none"), Err("port none not found".to_owned())),
        ] {
            assert_eq!(number(&port, &ports), number_or_error);
        }
    }

    #[test]
    fn durations_are_written_as_by_go() {
        let texts = [1, 60, 90, 3600].map(|seconds| go_seconds(Duration::from_secs(seconds)));
        assert_eq!(texts, ["1s", "1m0s", "1m30s", "1h0m0s"]);
    }
}
