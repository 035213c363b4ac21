//! The pods that a job makes.

use k8s_openapi::api::{
    batch::v1::{Job, JobSpec},
    core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod as WholePod},
};

use super::{
    facts::{FINALIZER, INDEX, INDEX_FAILURES, INDEX_IGNORED_FAILURES, index_failures},
    policy::{self, Failure},
};
use crate::{kinds::pod::Pod, names, podcontrol::pod_from_template};

/// Tells a container its pod's completion index.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// A pod of the job, of an index if it has one; `before` is the failed pod that it takes the place
/// of.
pub(super) fn pod(job: &Job, spec: &JobSpec, index: Option<i32>, before: Option<&Pod>) -> WholePod {
    let mut pod = pod_from_template(job, &spec.template);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = index else { return pod };
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let prefix = names::with_suffix(name, &format!("-{index}-"));
    pod.metadata.name = Some(names::generate(&prefix));
    pod.metadata.generate_name = Some(prefix);
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if spec.backoff_limit_per_index.is_some() {
        let (counted, ignored) = before.map_or((0, 0), |before| failures_after(spec, before));
        annotations.insert(INDEX_FAILURES.to_owned(), counted.to_string());
        if ignored > 0 {
            annotations.insert(INDEX_IGNORED_FAILURES.to_owned(), ignored.to_string());
        }
    }
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(format!("{name}-{index}"));
        spec.init_containers.iter_mut().flatten().for_each(add_variable);
        spec.containers.iter_mut().for_each(add_variable);
    }
    pod
}

fn failures_after(spec: &JobSpec, failed: &Pod) -> (i32, i32) {
    let (counted, ignored) = index_failures(failed);
    match policy::judge(spec, failed) {
        Failure::Ignored => (counted, ignored.saturating_add(1)),
        _ => (counted.saturating_add(1), ignored),
    }
}

fn add_variable(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.labels['{INDEX}']"),
            }),
            ..EnvVarSource::default()
        }),
    });
}
