//! Whom a container's process runs as.

use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::ConfigError;

/// `user[:group]` for the sandbox, from the container's and the pod's security context and the image.
pub(super) fn of(pod: &PodSpec, container: &Container, image: &str) -> Result<String, ConfigError> {
    let own = container.security_context.as_ref();
    let shared = pod.security_context.as_ref();
    let run_as = |own: Option<i64>, shared: Option<i64>| own.or(shared);
    let uid = run_as(own.and_then(|it| it.run_as_user), shared.and_then(|it| it.run_as_user));
    let gid = run_as(own.and_then(|it| it.run_as_group), shared.and_then(|it| it.run_as_group));
    let non_root =
        own.and_then(|it| it.run_as_non_root).or(shared.and_then(|it| it.run_as_non_root));
    let image_user = image.split(':').next().unwrap_or_default();
    if non_root == Some(true) {
        check_non_root(uid, image_user)?;
    }
    Ok(match (uid, gid) {
        (None, None) => image.to_owned(),
        (Some(uid), None) => uid.to_string(),
        (None, Some(gid)) if image_user.is_empty() => format!("0:{gid}"),
        (None, Some(gid)) => format!("{image_user}:{gid}"),
        (Some(uid), Some(gid)) => format!("{uid}:{gid}"),
    })
}

fn check_non_root(uid: Option<i64>, image_user: &str) -> Result<(), ConfigError> {
    let number = if image_user.is_empty() { Some(0) } else { image_user.parse().ok() };
    match uid.or(number) {
        Some(0) if uid.is_some() => {
            Err(ConfigError("container's runAsUser breaks non-root policy".to_owned()))
        }
        Some(0) => {
            Err(ConfigError("container has runAsNonRoot and image will run as root".to_owned()))
        }
        Some(_) => Ok(()),
        None => Err(ConfigError(format!(
            "container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify user is non-root"
        ))),
    }
}

/// `supplementalGroups` of the pod.
pub(super) fn groups(pod: &PodSpec) -> Vec<u32> {
    let groups = pod.security_context.as_ref().and_then(|it| it.supplemental_groups.as_ref());
    groups.into_iter().flatten().filter_map(|group| u32::try_from(*group).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_outranks_the_pod_and_the_pod_the_image() {
        for (pod, own, image, expected) in [
            (json!({}), json!({}), "app:app", "app:app"),
            (json!({"runAsUser": 7}), json!({}), "app", "7"),
            (json!({"runAsUser": 7}), json!({"runAsUser": 8, "runAsGroup": 9}), "app", "8:9"),
            (json!({"runAsGroup": 9}), json!({}), "app:x", "app:9"),
            (json!({"runAsGroup": 9}), json!({}), "", "0:9"),
            (json!({"runAsNonRoot": true}), json!({}), "1000", "1000"),
        ] {
            let spec = json!({"securityContext": pod, "containers": [{"name": "c", "securityContext": own}]});
            let spec: PodSpec = serde_json::from_value(spec).unwrap();
            assert_eq!(of(&spec, &spec.containers[0], image).unwrap(), expected);
        }
    }

    #[test]
    fn non_root_is_checked() {
        for (uid, image) in [(Some(0), "1000"), (None, ""), (None, "0"), (None, "app")] {
            assert!(check_non_root(uid, image).is_err(), "{uid:?} {image}");
        }
        assert!(check_non_root(Some(1), "").is_ok());
    }
}
