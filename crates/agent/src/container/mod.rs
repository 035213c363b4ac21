//! From a `v1.Container`, its image and its node to what the sandbox is asked to run.
//!
//! It decides what the pod means; it makes files and directories only through `volumes` and `files`.

mod environment;
pub(crate) mod files;
mod resources;
mod user;
pub(crate) mod volumes;

use std::{net::IpAddr, path::Path};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use toono_images::Image;
use toono_sandbox::{ContainerSpec, Security};

use crate::views::log_path;

/// Why a container cannot be configured; the text names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigError(pub(crate) String);

/// What the node contributes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) node_name: &'a str,
    pub(crate) host_ip: Option<IpAddr>,
    pub(crate) pod_ip: Option<IpAddr>,
    pub(crate) memory_capacity: u64,
}

/// The specification of one attempt to run a container of the pod.
pub(crate) fn spec(
    pod: &Pod,
    name: &str,
    attempt: u32,
    image: &Image,
    around: Surroundings<'_>,
) -> Result<ContainerSpec, ConfigError> {
    let missing = || ConfigError(format!("the pod has no container {name}"));
    let pod_spec = pod.spec.as_ref().ok_or_else(missing)?;
    let container = find(pod_spec, name).ok_or_else(missing)?;
    let variables = environment::of_pod(pod, container, around)?;
    let args = environment::command(container, &variables, image);
    if args.is_empty() {
        return Err(ConfigError("no command specified".to_owned()));
    }
    let user = user::of(pod_spec, container, &image.config.user)?;
    let mut mounts = files::mounts(around.dir, container);
    mounts.extend(volumes::mounts(around.dir, pod_spec, container)?);
    let log = log_path(around.dir, name, attempt);
    let security = container.security_context.clone().unwrap_or_default();
    let capabilities = security.capabilities.unwrap_or_default();
    let mut spec = ContainerSpec::new(name, image.layers.clone(), args, log);
    spec.attempt = attempt;
    spec.env = environment::merged(&image.config.env, variables);
    spec.cwd = container.working_dir.clone().unwrap_or_else(|| image.config.working_dir.clone());
    spec.user = user;
    spec.supplementary_groups = user::groups(pod_spec);
    spec.mounts = mounts;
    spec.resources = resources::of(pod, container, around.memory_capacity)?;
    spec.security = Security {
        privileged: security.privileged == Some(true),
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        no_new_privileges: security.allow_privilege_escalation == Some(false),
        read_only_root: security.read_only_root_filesystem == Some(true),
    };
    spec.tty = container.tty == Some(true);
    spec.stdin = container.stdin == Some(true);
    spec.stdin_once = spec.stdin && container.stdin_once == Some(true);
    Ok(spec)
}

/// The container of that name, of either list.
pub(crate) fn find<'a>(spec: &'a PodSpec, name: &str) -> Option<&'a Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers).find(|it| it.name == name)
}
