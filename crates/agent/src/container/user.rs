//! Whom a container's process runs as.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::ConfigError;

/// `user[:group]` for the sandbox, from the container's and the pod's security context and the image.
pub(super) fn of(pod: &Pod, container: &Container, image: &str) -> Result<String, ConfigError> {
    let own = container.security_context.as_ref();
    let shared = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let run_as = |own: Option<i64>, shared: Option<i64>| own.or(shared);
    let uid = run_as(own.and_then(|it| it.run_as_user), shared.and_then(|it| it.run_as_user));
    let gid = run_as(own.and_then(|it| it.run_as_group), shared.and_then(|it| it.run_as_group));
    let non_root =
        own.and_then(|it| it.run_as_non_root).or(shared.and_then(|it| it.run_as_non_root));
    let image_user = image.split(':').next().unwrap_or_default();
    if non_root == Some(true) {
        check_non_root(uid, image_user).map_err(|why| in_words(&why, pod, container))?;
    }
    Ok(match (uid, gid) {
        (None, None) => image.to_owned(),
        (Some(uid), None) => uid.to_string(),
        (None, Some(gid)) if image_user.is_empty() => format!("0:{gid}"),
        (None, Some(gid)) => format!("{image_user}:{gid}"),
        (Some(uid), Some(gid)) => format!("{uid}:{gid}"),
    })
}

fn in_words(why: &str, pod: &Pod, container: &Container) -> ConfigError {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    let meta = &pod.metadata;
    let pod = format!("{}_{}({})", part(&meta.name), part(&meta.namespace), part(&meta.uid));
    ConfigError(format!("{why} (pod: {pod:?}, container: {})", container.name))
}

fn check_non_root(uid: Option<i64>, image_user: &str) -> Result<(), String> {
    let number = if image_user.is_empty() { Some(0) } else { image_user.parse().ok() };
    match uid.or(number) {
        Some(0) if uid.is_some() => Err("container's runAsUser breaks non-root policy".to_owned()),
        Some(0) => Err("container has runAsNonRoot and image will run as root".to_owned()),
        Some(_) => Ok(()),
        None => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify user is non-root"
        )),
    }
}

/// The user that all containers of the pod run as, if the pod names one for all of them.
pub(super) fn of_all(pod: &PodSpec) -> Option<u32> {
    let shared = pod.security_context.as_ref().and_then(|it| it.run_as_user);
    let own = |it: &Container| it.security_context.as_ref().and_then(|it| it.run_as_user);
    let all = pod.init_containers.iter().flatten().chain(&pod.containers);
    let mut users = all.map(|it| own(it).or(shared));
    let first = users.next()??;
    if users.all(|user| user == Some(first)) { u32::try_from(first).ok() } else { None }
}

/// `supplementalGroups` of the pod, and the one that its volumes belong to.
pub(super) fn groups(pod: &PodSpec) -> Vec<u32> {
    let groups = pod.security_context.as_ref().and_then(|it| it.supplemental_groups.as_ref());
    let groups = groups.into_iter().flatten().filter_map(|group| u32::try_from(*group).ok());
    groups.chain(group_of_volumes(pod)).collect()
}

/// `fsGroup` of the pod.
pub(super) fn group_of_volumes(pod: &PodSpec) -> Option<u32> {
    u32::try_from(pod.security_context.as_ref()?.fs_group?).ok()
}

/// Whether only the groups that the pod names count.
pub(super) fn excludes_groups_of_image(pod: &PodSpec) -> bool {
    let security = pod.security_context.as_ref();
    security.is_some_and(|it| it.supplemental_groups_policy.as_deref() == Some("Strict"))
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
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            let container = &pod.spec.as_ref().unwrap().containers[0];
            assert_eq!(of(&pod, container, image).unwrap(), expected);
        }
    }

    #[test]
    fn a_user_of_all_is_that_of_each() {
        for (pod, first, second, expected) in [
            (json!({}), json!({}), json!({}), None),
            (json!({"runAsUser": 7}), json!({}), json!({}), Some(7)),
            (json!({"runAsUser": 7}), json!({}), json!({"runAsUser": 8}), None),
            (json!({}), json!({"runAsUser": 8}), json!({"runAsUser": 8}), Some(8)),
            (json!({}), json!({"runAsUser": 8}), json!({}), None),
        ] {
            let spec = json!({"securityContext": pod, "initContainers": [{"name": "a", "securityContext": first}],
                "containers": [{"name": "b", "securityContext": second}]});
            assert_eq!(of_all(&serde_json::from_value(spec).unwrap()), expected);
        }
    }

    #[test]
    fn non_root_is_checked() {
        for (uid, image) in [(Some(0), "1000"), (None, ""), (None, "0"), (None, "app")] {
            assert!(check_non_root(uid, image).is_err(), "{uid:?} {image}");
        }
        assert!(check_non_root(Some(1), "").is_ok());
        let pod = json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"},
            "spec": {"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c"}]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        assert_eq!(
            of(&pod, container, "").unwrap_err().to_string(),
            "container has runAsNonRoot and image will run as root (pod: \"p_d(u)\", container: c)"
        );
    }

    #[test]
    fn the_group_of_the_volumes_is_one_of_the_containers() {
        let spec = json!({"containers": [], "securityContext": {"fsGroup": 9,
            "supplementalGroups": [7, 8], "supplementalGroupsPolicy": "Strict"}});
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(groups(&spec), [7, 8, 9]);
        assert!(excludes_groups_of_image(&spec) && !excludes_groups_of_image(&PodSpec::default()));
    }
}
