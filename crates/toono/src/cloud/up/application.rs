//! The application that `up` runs, and how it is shown.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{DynamicObject, PostParams},
    core::GroupVersionKind,
    discovery,
};
use serde::Deserialize as _;

use crate::{
    cloud::{
        kubeconfig::unreachable,
        up::{plan::Plan, ready},
    },
    failure::Failure,
    table::Table,
};

/// What `examples/hello.yaml` names its Deployment.
pub(crate) const NAME: &str = "hello";
/// Selects its pods.
pub(crate) const SELECTOR: &str = "app=hello";
const MANIFEST: &str = include_str!("../../../../../examples/hello.yaml");

/// Creates what the manifest holds and does not exist yet. What a user has changed since stays.
pub(crate) async fn apply(client: &Client) -> Result<(), Failure> {
    for document in serde_yaml_ng::Deserializer::from_str(MANIFEST) {
        let object = DynamicObject::deserialize(document).map_err(|error| {
            Failure::caused("internal", &error, "this is a defect: please report it")
        })?;
        create(client, &object).await.map_err(|error| unreachable(&error))?;
    }
    Ok(())
}

async fn create(client: &Client, object: &DynamicObject) -> Result<(), kube::Error> {
    let types = object.types.clone().unwrap_or_default();
    let kind =
        GroupVersionKind::try_from(&types).map_err(|error| kube::Error::Service(error.into()))?;
    let (resource, _) = discovery::pinned_kind(client, &kind).await?;
    let api: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &resource);
    match api.create(&PostParams::default(), object).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        created => created.map(|_| ()),
    }
}

/// What exists now, and three commands to try.
pub(crate) async fn show(plan: &Plan, client: &Client) -> Result<String, Failure> {
    let mut table = Table::new(["POD", "NODE", "POOL", "IP", "STATUS"]);
    for pod in ready::pods(client).await? {
        table.row(row(plan, &pod));
    }
    let program =
        std::env::current_exe().map_or_else(|_| "toono".into(), |p| p.display().to_string());
    let data = if plan.dir() == std::path::Path::new(crate::cli::DEFAULT_DATA_DIR) {
        String::new()
    } else {
        format!(" --data {}", plan.dir().display())
    };
    Ok(format!(
        "
{table}
Each pool is a site behind a NAT router; the cloud cannot reach in. Try:

  export KUBECONFIG={kubeconfig}
  kubectl exec -it deployment/{NAME} -- sh
  {program} lab cut pool-a{data}       # then watch: kubectl get nodes -w
  {program} status{data}

toono down stops everything.
",
        table = table.render(),
        kubeconfig = plan.kubeconfig().display(),
    ))
}

fn row(plan: &Plan, pod: &Pod) -> [String; 5] {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let pool = plan.nodes().find(|planned| planned.name == node).map(|planned| planned.pool);
    let status = pod.status.as_ref();
    [
        pod.metadata.name.clone().unwrap_or_default(),
        node,
        pool.unwrap_or_default(),
        status.and_then(|s| s.pod_ip.clone()).unwrap_or_default(),
        status.and_then(|s| s.phase.clone()).unwrap_or_default(),
    ]
}
