//! What a container's processes may do: its own security context over its pod's.

use std::path::{Component, Path};

use k8s_openapi::api::core::v1::{Container, PodSpec, SeccompProfile};
use toono_sandbox::{Seccomp, Security};

use super::ConfigError;

/// Where the administrator's seccomp profiles are, in the node's directory.
const PROFILES: &str = "seccomp";

/// The permissions of a container.
pub(super) fn of(
    pod: &PodSpec,
    container: &Container,
    data: &Path,
) -> Result<Security, ConfigError> {
    let own = container.security_context.clone().unwrap_or_default();
    let capabilities = own.capabilities.unwrap_or_default();
    let of_pod = pod.security_context.as_ref().and_then(|it| it.seccomp_profile.as_ref());
    Ok(Security {
        privileged: own.privileged == Some(true),
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        read_only_root: own.read_only_root_filesystem == Some(true),
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
        seccomp: match own.seccomp_profile.as_ref().or(of_pod) {
            Some(profile) => seccomp(profile, data)?,
            None => Seccomp::Unconfined,
        },
    })
}

fn seccomp(profile: &SeccompProfile, data: &Path) -> Result<Seccomp, ConfigError> {
    Ok(match profile.type_.as_str() {
        "RuntimeDefault" => Seccomp::Default,
        "Unconfined" => Seccomp::Unconfined,
        "Localhost" => {
            let file = profile.localhost_profile.as_deref().unwrap_or_default();
            let mut parts = Path::new(file).components().peekable();
            let stays = parts.peek().is_some()
                && parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
            if !stays {
                let text = format!("localhostProfile {file:?} must be a path below {PROFILES}");
                return Err(ConfigError(text));
            }
            Seccomp::File(data.join(PROFILES).join(file))
        }
        other => return Err(ConfigError(format!("unknown seccomp profile type {other:?}"))),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_containers_profile_outranks_the_pods() {
        let data = Path::new("/data");
        let file = |name: &str| json!({"type": "Localhost", "localhostProfile": name});
        for (pod, own, expected) in [
            (json!(null), json!(null), Ok(Seccomp::Unconfined)),
            (json!({"type": "RuntimeDefault"}), json!(null), Ok(Seccomp::Default)),
            (
                json!({"type": "RuntimeDefault"}),
                json!({"type": "Unconfined"}),
                Ok(Seccomp::Unconfined),
            ),
            (json!(null), file("a/b.json"), Ok(Seccomp::File("/data/seccomp/a/b.json".into()))),
            (json!(null), file("../x"), Err("\"../x\"")),
            (json!(null), file("/etc/x"), Err("\"/etc/x\"")),
            (json!(null), file(""), Err("\"\"")),
        ] {
            let spec = json!({"securityContext": {"seccompProfile": pod},
                "containers": [{"name": "c", "securityContext": {"seccompProfile": own}}]});
            let spec: PodSpec = serde_json::from_value(spec).unwrap();
            match (of(&spec, &spec.containers[0], data), expected) {
                (Ok(security), Ok(expected)) => assert_eq!(security.seccomp, expected),
                (Err(error), Err(names)) => assert!(error.to_string().contains(names), "{error}"),
                other => panic!("{own}: {other:?}"),
            }
        }
    }
}
