//! `toono server --attach`: the controllers of OpenYurt's kinds beside those of another Kubernetes.
//!
//! This process keeps nothing and listens nowhere. Several may run: one of them works, another one takes over.

mod connect;

use std::io::Write as _;

use toono_controllers::{BESIDE_LEASE, BESIDE_OTHERS, ControllersConfig, Signers, Switches};

use crate::{
    cloud::{cli::Cluster, crds, leader},
    failure::Failure,
    shutdown::Shutdown,
};

/// The account and its rights.
const RIGHTS: &str = include_str!("rights.yaml");

/// Prints them.
pub(crate) fn print_rights() -> Result<(), Failure> {
    // Whoever reads no further has what he wants.
    let _ = std::io::stdout().lock().write_all(RIGHTS.as_bytes());
    Ok(())
}

/// Until the end of the process is asked for.
pub(crate) async fn run(
    cluster: &Cluster,
    context: Option<&str>,
    controllers: &Switches,
) -> Result<(), Failure> {
    let controllers = controllers.beside_others().map_err(|error| {
        let hint = format!("give --controllers some of: {}", BESIDE_OTHERS.join(", "));
        Failure::caused("not-beside-others", &error, hint)
    })?;
    let shutdown = Shutdown::on_signal()?;
    let client = connect::client(cluster, context).await?;
    let ready = async {
        connect::await_answer(&client).await?;
        crds::install_or_wait(&client).await
    };
    tokio::select! {
        ready = ready => ready?,
        () = shutdown.clone().wait() => return Ok(()),
    }
    tracing::info!(%controllers, "attached");
    let config = ControllersConfig { controllers, ..ControllersConfig::default() };
    leader::run(client, BESIDE_LEASE, config, Signers::default(), shutdown).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;
    use serde_json::{Value, json};
    use toono_openyurt::{crd, keys};

    use super::*;

    fn documents() -> Vec<Value> {
        let documents = serde_yaml_ng::Deserializer::from_str(RIGHTS);
        documents.map(|document| Value::deserialize(document).unwrap()).collect()
    }

    fn rules() -> Vec<Value> {
        let of = |document: Value| document["rules"].as_array().cloned().unwrap_or_default();
        documents().into_iter().flat_map(of).collect()
    }

    #[test]
    fn rights_name_what_the_program_names() {
        let rules = rules();
        let names = |resource: &str| {
            let of = rules.iter().filter(|rule| rule["resources"] == json!([resource]));
            of.filter_map(|rule| rule.get("resourceNames").cloned()).collect::<Vec<_>>()
        };
        let definitions: Vec<&str> = crd::ALL.iter().map(|crd| crd.name).collect();
        assert_eq!(names("customresourcedefinitions"), [json!(definitions)]);
        assert_eq!(names("clusterroles"), [json!([keys::HUB_LEADER_ROLE])]);
        assert_eq!(names("leases"), [json!([BESIDE_LEASE])]);
    }

    #[test]
    fn rights_are_no_more_than_they_look() {
        for rule in rules() {
            let all = ["apiGroups", "resources", "verbs"].into_iter();
            let listed = all.flat_map(|field| rule[field].as_array().cloned().unwrap_or_default());
            assert!(listed.into_iter().all(|word| word != "*"), "{rule}");
            assert!(
                !rule.to_string().contains("escalate") && !rule.to_string().contains("secrets")
            );
        }
        for kind in ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"] {
            assert_eq!(documents().iter().filter(|it| it["kind"] == kind).count(), 1, "{kind}");
        }
    }
}
