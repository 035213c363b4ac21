//! From a `v1.Container`, its image and its node to what the sandbox is asked to run.
//!
//! It decides what the pod means; it makes files and directories only through `volumes` and `files`.

mod downward;
mod environment;
pub(crate) mod files;
pub(crate) mod host_paths;
pub(crate) mod ports;
mod projection;
mod published;
pub(crate) mod resolver;
mod resources;
mod security;
pub(crate) mod service_links;
pub(crate) mod termination;
mod user;
pub(crate) mod volumes;

use std::{borrow::Cow, net::IpAddr, path::Path};

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};
use toono_images::Image;
use toono_sandbox::ContainerSpec;
use toono_wire::referent::{ReferentKind, ReferentName};

use crate::{
    api::Certificate,
    node_status::Allocatable,
    referents::{Content, Referents},
    views::log_path,
};

/// The ConfigMap that tells pods whom to trust for the API, and its key. The node adds itself, and only here: its own
/// pods are the only ones that it ever answers.
const ROOTS: &str = "kube-root-ca.crt";
const ROOTS_KEY: &str = "ca.crt";

/// Why a container cannot be configured; the text names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigError(pub(crate) String);

/// What the node contributes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    /// The node's directory, and the pod's in it.
    pub(crate) data: &'a Path,
    pub(crate) dir: &'a Path,
    pub(crate) node_name: &'a str,
    pub(crate) host_ip: Option<IpAddr>,
    pub(crate) pod_ip: Option<IpAddr>,
    pub(crate) memory_capacity: u64,
    pub(crate) allocatable: Allocatable,
    pub(crate) referents: &'a Referents,
    /// The variables that tell of Services.
    pub(crate) services: &'a [(String, String)],
    /// Whom the pod trusts besides the cluster.
    pub(crate) certificate: &'a Certificate,
    /// Why a token that is not there could not be had.
    pub(crate) token_failure: &'a str,
}

impl Surroundings<'_> {
    /// What a ConfigMap or Secret of the pod's namespace says; none if it may be missing, and is.
    fn find(
        &self,
        pod: &Pod,
        kind: ReferentKind,
        name: &str,
        optional: bool,
    ) -> Result<Option<Content>, ConfigError> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let wanted = ReferentName { kind, namespace: namespace.into(), name: name.into() };
        let mut found = self.referents.find(&wanted).map_err(ConfigError)?;
        if (kind, name) == (ReferentKind::ConfigMap, ROOTS)
            && let Some(roots) = found.as_mut().and_then(|it| it.data.get_mut(ROOTS_KEY))
        {
            self.certificate.with_ca(|own| roots.extend_from_slice(own.as_bytes()));
        }
        if found.is_none() && !optional {
            return Err(ConfigError(format!("{} \"{name}\" not found", kind.singular())));
        }
        Ok(found)
    }
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
    let container = container.as_ref();
    let variables = environment::of_pod(pod, container, around)?;
    let args = environment::command(container, &variables, image);
    if args.is_empty() {
        return Err(ConfigError("no command specified".to_owned()));
    }
    let user = user::of(pod, container, &image.config.user)?;
    let mut mounts = files::mounts(around.dir, container);
    mounts.extend(volumes::mounts(pod, container, &variables, around)?);
    let last_words = termination::prepare(around.dir, container, attempt)
        .map_err(|error| ConfigError(format!("the termination message's file: {error}")))?;
    mounts.extend(last_words);
    let log = log_path(around.dir, name, attempt);
    let mut spec = ContainerSpec::new(name, image.layers.clone(), args, log);
    spec.attempt = attempt;
    spec.env = environment::merged(&image.config.env, variables);
    spec.cwd = container.working_dir.clone().unwrap_or_else(|| image.config.working_dir.clone());
    spec.user = user;
    spec.supplementary_groups = user::groups(pod_spec);
    spec.only_these_groups = user::excludes_groups_of_image(pod_spec);
    spec.mounts = mounts;
    spec.resources = resources::of(pod, container, around.memory_capacity)?;
    spec.security = security::of(pod_spec, container, around.data)?;
    spec.tty = container.tty == Some(true);
    spec.stdin = container.stdin == Some(true);
    spec.stdin_once = spec.stdin && container.stdin_once == Some(true);
    Ok(spec)
}

/// The container of that name, of any list.
pub(crate) fn find<'a>(spec: &'a PodSpec, name: &str) -> Option<Cow<'a, Container>> {
    let mut lasting = spec.init_containers.iter().flatten().chain(&spec.containers);
    let found = lasting.find(|it| it.name == name).map(Cow::Borrowed);
    found.or_else(|| ephemeral(spec, name).and_then(of_ephemeral).map(Cow::Owned))
}

/// The ephemeral container of that name.
pub(crate) fn ephemeral<'a>(spec: &'a PodSpec, name: &str) -> Option<&'a EphemeralContainer> {
    spec.ephemeral_containers.iter().flatten().find(|it| it.name == name)
}

/// The fields that it has in common with others, which are nearly all.
fn of_ephemeral(container: &EphemeralContainer) -> Option<Container> {
    serde_json::from_value(serde_json::to_value(container).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::BTreeMap};

    use super::*;
    use crate::referents;

    /// A node's directory, for tests of what containers get.
    pub(super) struct Home {
        dir: tempfile::TempDir,
        referents: Referents,
        digests: RefCell<BTreeMap<ReferentName, u64>>,
        certificate: Certificate,
    }

    impl Home {
        pub(super) fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let referents = Referents::open(dir.path()).unwrap();
            let certificate = Certificate::load(dir.path(), "n1").unwrap();
            Self { dir, referents, digests: RefCell::default(), certificate }
        }

        /// This ConfigMap or Secret is known.
        pub(super) fn put(&self, text: &str) {
            let (name, digest) = referents::told(text).unwrap();
            self.referents.write(text).unwrap();
            self.digests.borrow_mut().insert(name, digest.0);
            self.referents.set(self.digests.borrow().clone());
        }

        pub(super) fn around(&self) -> Surroundings<'_> {
            Surroundings {
                data: self.dir.path(),
                dir: self.dir.path(),
                node_name: "n1",
                host_ip: Some([192, 0, 2, 1].into()),
                pod_ip: Some([10, 244, 0, 2].into()),
                memory_capacity: 1,
                allocatable: Allocatable { cpu_millis: 4000, memory: 512 << 20, storage: 1 << 30 },
                referents: &self.referents,
                services: &[],
                token_failure: "no link",
                certificate: &self.certificate,
            }
        }
    }
}
