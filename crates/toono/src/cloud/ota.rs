//! `toono ota`: upgrades that wait for an approval, seen and approved from the cloud's side.

use std::fmt::Write as _;

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use toono_wire::upgrade::{self, Offer};

use crate::{
    cli::Output,
    cloud::{
        cli::{OtaArgs, OtaCommand, OtaScope},
        kubeconfig::{self, unreachable},
    },
    failure::Failure,
    table::Table,
};

/// Pods of one page of a list, as kubectl has it.
const PAGE: u32 = 500;
/// Pods that are written at the same time.
const MAX_IN_FLIGHT: usize = 16;

/// A pod with an offer.
struct Offered {
    pod: Pod,
    offer: Offer,
}

pub(crate) async fn run(args: &OtaArgs) -> Result<(), Failure> {
    match &args.command {
        OtaCommand::Status { client, scope, output } => {
            let client = kubeconfig::client(client).await?;
            status(&find(&client, scope).await?, *output)
        }
        OtaCommand::Approve { client, scope, all, pull, pods } => {
            let client = kubeconfig::client(client).await?;
            let offered = chosen(find(&client, scope).await?, scope, *all, pods)?;
            write(&client, offered, &Notes { approve: true, pull: *pull }).await
        }
        OtaCommand::Pull { client, scope, all, pods } => {
            let client = kubeconfig::client(client).await?;
            let offered = chosen(find(&client, scope).await?, scope, *all, pods)?;
            write(&client, offered, &Notes { approve: false, pull: true }).await
        }
    }
}

async fn find(client: &Client, scope: &OtaScope) -> Result<Vec<Offered>, Failure> {
    let api: Api<Pod> = match scope.all_namespaces {
        true => Api::all(client.clone()),
        false => Api::namespaced(client.clone(), &scope.namespace),
    };
    let mut params = ListParams::default().limit(PAGE);
    if let Some(selector) = &scope.selector {
        params = params.labels(selector);
    }
    if let Some(node) = &scope.node {
        params = params.fields(&format!("spec.nodeName={node}"));
    }
    let mut found = Vec::new();
    loop {
        let page = api.list(&params).await.map_err(|error| unreachable(&error))?;
        found.extend(page.items.into_iter().filter_map(offered));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

fn offered(pod: Pod) -> Option<Offered> {
    let offer = Offer::parse(pod.metadata.annotations.as_ref()?.get(upgrade::OFFER)?)?;
    Some(Offered { pod, offer })
}

/// Those that were named, and all of them must be there.
fn chosen(
    offered: Vec<Offered>,
    scope: &OtaScope,
    all: bool,
    names: &[String],
) -> Result<Vec<Offered>, Failure> {
    let narrowed = scope.node.is_some() || scope.selector.is_some();
    if names.is_empty() && !all && !narrowed {
        return Err(Failure::new(
            "nothing-named",
            "which pods?",
            "name pods, or give --node, -l, or --all; `toono ota status` lists them",
        ));
    }
    let is = |it: &Offered, name: &String| it.pod.metadata.name.as_ref() == Some(name);
    if let Some(name) = names.iter().find(|name| !offered.iter().any(|it| is(it, name))) {
        return Err(Failure::new(
            "not-offered",
            format!("no upgrade is offered to pod {name} in {}", scope.namespace),
            "`toono ota status -A` lists what is offered",
        ));
    }
    let wanted = |it: &Offered| names.is_empty() || names.iter().any(|name| is(it, name));
    Ok(offered.into_iter().filter(wanted).collect())
}

/// What is written on pods.
struct Notes {
    approve: bool,
    pull: bool,
}

async fn write(client: &Client, offered: Vec<Offered>, notes: &Notes) -> Result<(), Failure> {
    let writes = offered.into_iter().map(|it| write_one(client, it, notes));
    let mut outcomes = stream::iter(writes).buffer_unordered(MAX_IN_FLIGHT);
    while let Some(line) = outcomes.next().await {
        println!("{}", line?);
    }
    Ok(())
}

async fn write_one(client: &Client, it: Offered, notes: &Notes) -> Result<String, Failure> {
    let Offered { pod, offer } = it;
    let mut annotations = serde_json::Map::new();
    let mut set = |name: &str| annotations.insert(name.to_owned(), json!(offer.revision));
    if notes.pull {
        set(upgrade::PULL);
    }
    if notes.approve {
        set(upgrade::APPROVED);
    }
    // Of this very pod: another one of its name was not looked at.
    let change = json!({"metadata": {"uid": pod.metadata.uid, "annotations": annotations}});
    let name = pod.metadata.name.unwrap_or_default();
    let namespace = pod.metadata.namespace.unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let written = api.patch(&name, &PatchParams::default(), &Patch::Merge(&change)).await;
    let mut line = format!("pod {namespace}/{name}: revision {}", offer.revision);
    match written {
        Ok(_) if notes.approve && notes.pull => {
            line.push_str(" approved, once its images are there")
        }
        Ok(_) if notes.approve => line.push_str(" approved"),
        Ok(_) => line.push_str(" is pulled"),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
            line.push_str(": the pod is another one by now, nothing was approved");
        }
        Err(error) => return Err(unreachable(&error)),
    }
    Ok(line)
}

/// How far it is: `waits`, `pulling`, `pulled` or `approved`.
fn state(pod: &Pod, revision: &str) -> &'static str {
    let note = |name: &str| {
        pod.metadata.annotations.as_ref().and_then(|all| all.get(name)).map(String::as_str)
            == Some(revision)
    };
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref());
    let find = |type_: &str| conditions.unwrap_or_default().iter().find(|it| it.type_ == type_);
    let here = find(upgrade::APPROVED_HERE).and_then(|it| it.message.as_deref()) == Some(revision);
    let image = find(upgrade::IMAGE_READY).filter(|it| {
        it.message.as_deref().is_some_and(|text| upgrade::is_of_revision(text, revision))
    });
    let ready = image.is_some_and(|it| it.status == "True");
    match (note(upgrade::APPROVED) || here, ready) {
        (_, false) if image.is_some() || note(upgrade::PULL) => "pulling",
        (true, _) => "approved",
        (false, true) => "pulled",
        (false, false) => "waits",
    }
}

fn status(offered: &[Offered], output: Output) -> Result<(), Failure> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let node =
        |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let rows = offered.iter().map(|Offered { pod, offer }| {
        json!({"namespace": pod.metadata.namespace, "pod": pod.metadata.name, "node": node(pod),
            "revision": offer.revision, "images": offer.images,
            "state": state(pod, &offer.revision)})
    });
    match output {
        Output::Table => {
            let mut table = Table::new(["NAMESPACE", "POD", "NODE", "REVISION", "IMAGES", "STATE"]);
            for Offered { pod, offer } in offered {
                table.row([
                    text(&pod.metadata.namespace),
                    text(&pod.metadata.name),
                    node(pod),
                    offer.revision.clone(),
                    offer.images.join(","),
                    state(pod, &offer.revision).to_owned(),
                ]);
            }
            let mut shown = table.render();
            if offered.is_empty() {
                // Writing into a String cannot fail.
                let _ = writeln!(shown, "No upgrade waits for an approval.");
            }
            print!("{shown}");
        }
        Output::Json => println!("{}", json!(rows.collect::<Vec<_>>())),
        Output::Yaml => {
            let rows: Vec<_> = rows.collect();
            print!("{}", serde_yaml_ng::to_string(&rows).unwrap_or_default());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_of_the_offered_revision() {
        let state = |annotations: serde_json::Value, conditions: serde_json::Value| {
            let pod = json!({"metadata": {"annotations": annotations},
                "status": {"conditions": conditions}});
            super::state(&serde_json::from_value(pod).unwrap(), "b")
        };
        let image = |status: &str, message: &str| json!([{"type": upgrade::IMAGE_READY, "status": status, "message": message}]);
        assert_eq!(state(json!({}), json!([])), "waits");
        assert_eq!(state(json!({upgrade::APPROVED: "a"}), image("True", "a: x")), "waits");
        assert_eq!(state(json!({upgrade::APPROVED: "b"}), json!([])), "approved");
        assert_eq!(state(json!({upgrade::PULL: "b"}), json!([])), "pulling");
        assert_eq!(state(json!({upgrade::APPROVED: "b"}), image("False", "b: x")), "pulling");
        assert_eq!(state(json!({}), image("True", "b: x")), "pulled");
        let here = json!([{"type": upgrade::APPROVED_HERE, "status": "True", "message": "b"}]);
        assert_eq!(state(json!({}), here), "approved");
    }
}
