//! What the server fills into pods and pod templates, as Kubernetes documents it per field.

use serde_json::{Map, Value, json};

use super::{limits::canonical, map_in, maps_in, set_default};

type Fields = Map<String, Value>;

/// Mode of files in volumes: 0644.
const FILE_MODE: i64 = 0o644;
/// A pod leaves a failed node after this long unless it says otherwise.
const NODE_FAILURE_TOLERATION_SECONDS: i64 = 300;

/// Fills a Pod.
pub fn pod(object: &mut Value) {
    let Some(spec) = map_in(object, "spec") else { return };
    for list in ["containers", "initContainers"] {
        maps_in(spec, list).for_each(requests_from_limits);
    }
    set_default(spec, "enableServiceLinks", true);
    pod_spec(spec);
    set_default(spec, "preemptionPolicy", "PreemptLowerPriority");
    tolerate_node_failures(spec);
}

/// Fills the pod template of a workload.
pub fn template(spec: &mut Fields) {
    if let Some(pod) = spec.get_mut("template") {
        map_in(pod, "metadata");
        if let Some(inner) = map_in(pod, "spec") {
            pod_spec(inner);
        }
    }
}

fn pod_spec(spec: &mut Fields) {
    set_default(spec, "restartPolicy", "Always");
    set_default(spec, "dnsPolicy", "ClusterFirst");
    set_default(spec, "terminationGracePeriodSeconds", 30);
    set_default(spec, "schedulerName", "default-scheduler");
    set_default(spec, "securityContext", json!({}));
    match (spec.get("serviceAccountName").cloned(), spec.get("serviceAccount").cloned()) {
        (Some(name), _) => {
            spec.insert("serviceAccount".to_owned(), name);
        }
        (None, Some(name)) => {
            spec.insert("serviceAccountName".to_owned(), name);
        }
        (None, None) => {}
    }
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        maps_in(spec, list).for_each(|fields| container(fields, host_network));
    }
    maps_in(spec, "volumes").for_each(volume);
}

fn container(fields: &mut Fields, host_network: bool) {
    let image = fields.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = pull_policy(image);
    set_default(fields, "imagePullPolicy", policy);
    set_default(fields, "terminationMessagePath", "/dev/termination-log");
    set_default(fields, "terminationMessagePolicy", "File");
    set_default(fields, "resources", json!({}));
    canonical_resources(fields);
    for port in maps_in(fields, "ports") {
        set_default(port, "protocol", "TCP");
        if host_network && let Some(number) = port.get("containerPort").cloned() {
            set_default(port, "hostPort", number);
        }
    }
    for variable in maps_in(fields, "env") {
        if let Some(reference) =
            variable.get_mut("valueFrom").and_then(|from| from.get_mut("fieldRef"))
            && let Some(reference) = reference.as_object_mut()
        {
            set_default(reference, "apiVersion", "v1");
        }
    }
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(fields) = fields.get_mut(field).and_then(Value::as_object_mut) {
            probe(fields);
        }
    }
    for hook in ["postStart", "preStop"] {
        let action = fields.get_mut("lifecycle").and_then(|lifecycle| lifecycle.get_mut(hook));
        if let Some(action) = action.and_then(Value::as_object_mut) {
            http_action(action);
        }
    }
}

/// `Always` for `latest` and for no tag, else `IfNotPresent`.
fn pull_policy(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

fn probe(fields: &mut Fields) {
    set_default(fields, "timeoutSeconds", 1);
    set_default(fields, "periodSeconds", 10);
    set_default(fields, "successThreshold", 1);
    set_default(fields, "failureThreshold", 3);
    if let Some(grpc) = fields.get_mut("grpc").and_then(Value::as_object_mut) {
        set_default(grpc, "service", "");
    }
    http_action(fields);
}

fn http_action(action: &mut Fields) {
    if let Some(http) = action.get_mut("httpGet").and_then(Value::as_object_mut) {
        set_default(http, "path", "/");
        set_default(http, "scheme", "HTTP");
    }
}

/// Fills the spec of a claim of a volume, or of a template of one.
pub(super) fn claim_spec(spec: &mut Fields) {
    set_default(spec, "volumeMode", "Filesystem");
    let resources = spec.entry("resources").or_insert_with(|| json!({}));
    for list in ["limits", "requests"] {
        canonical(resources.get_mut(list));
    }
}

fn requests_from_limits(container: &mut Fields) {
    let Some(resources) = container.get_mut("resources") else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    if let Some(requests) = map_in(resources, "requests") {
        for (resource, limit) in limits {
            set_default(requests, &resource, limit);
        }
    }
}

fn canonical_resources(container: &mut Fields) {
    for list in ["limits", "requests"] {
        canonical(container.get_mut("resources").and_then(|resources| resources.get_mut(list)));
    }
}

fn volume(fields: &mut Fields) {
    let sources = fields.keys().filter(|key| *key != "name").count();
    if sources == 0 {
        fields.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = fields.get_mut(source).and_then(Value::as_object_mut) {
            set_default(source, "defaultMode", FILE_MODE);
            maps_in(source, "items").for_each(field_reference);
            for part in maps_in(source, "sources") {
                projected_part(part);
            }
        }
    }
    if let Some(path) = fields.get_mut("hostPath").and_then(Value::as_object_mut) {
        set_default(path, "type", "");
    }
}

fn projected_part(part: &mut Fields) {
    if let Some(token) = part.get_mut("serviceAccountToken").and_then(Value::as_object_mut) {
        set_default(token, "expirationSeconds", 3600);
    }
    if let Some(downward) = part.get_mut("downwardAPI").and_then(Value::as_object_mut) {
        maps_in(downward, "items").for_each(field_reference);
    }
}

fn field_reference(item: &mut Fields) {
    if let Some(reference) = item.get_mut("fieldRef").and_then(Value::as_object_mut) {
        set_default(reference, "apiVersion", "v1");
    }
}

fn tolerate_node_failures(spec: &mut Fields) {
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Some(tolerations) = tolerations.as_array_mut() else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = tolerations.iter().any(|toleration| {
            let text = |field: &str| toleration.get(field).and_then(Value::as_str).unwrap_or("");
            matches!(
                text("key"),
                "" | "node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable"
            ) && (text("key").is_empty() || text("key") == key)
                && matches!(text("effect"), "" | "NoExecute")
        });
        if !tolerated {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": NODE_FAILURE_TOLERATION_SECONDS,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_pod_is_filled() {
        let mut object = json!({"metadata": {"name": "a"}, "spec": {"containers": [
            {"name": "c", "image": "reg:5000/x", "ports": [{"containerPort": 80}],
             "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}},
             "livenessProbe": {"httpGet": {"port": 80}}}],
            "volumes": [{"name": "e"}, {"name": "s", "secret": {"secretName": "s"}}]}});
        pod(&mut object);
        let spec = &object["spec"];
        assert_eq!(spec["restartPolicy"], "Always");
        assert_eq!(spec["dnsPolicy"], "ClusterFirst");
        assert_eq!(spec["terminationGracePeriodSeconds"], 30);
        assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
        let container = &spec["containers"][0];
        assert_eq!(container["imagePullPolicy"], "Always");
        assert_eq!(container["ports"][0]["protocol"], "TCP");
        assert_eq!(container["resources"]["requests"], json!({"cpu": "500m", "memory": "1Gi"}));
        assert_eq!(container["livenessProbe"]["httpGet"]["scheme"], "HTTP");
        assert_eq!(spec["volumes"][0]["emptyDir"], json!({}));
        assert_eq!(spec["volumes"][1]["secret"]["defaultMode"], 420);
        let once = object.clone();
        pod(&mut object);
        assert_eq!(object, once, "filling twice changes nothing");
    }

    #[test]
    fn the_tag_decides_the_pull_policy() {
        for (image, policy) in [
            ("busybox", "Always"),
            ("busybox:latest", "Always"),
            ("busybox:1.36", "IfNotPresent"),
            ("r:5000/busybox", "Always"),
            ("r:5000/busybox:1", "IfNotPresent"),
            ("busybox@sha256:aa", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
