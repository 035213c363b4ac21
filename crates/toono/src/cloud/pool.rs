//! `toono pool`: node pools as people ask for them.

use std::{collections::BTreeMap, fmt::Write as _};

use jiff::Timestamp;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde::Serialize;
use serde_json::{Value, json};
use toono_openyurt::{NodePool, node_pool::NodePoolStatus};

use crate::{
    cloud::{
        cli::{PoolCommand, PoolFormat, PoolKind, PoolView},
        kubeconfig::{self, unreachable},
    },
    failure::Failure,
    table::Table,
};

pub(crate) async fn run(command: &PoolCommand) -> Result<(), Failure> {
    match command {
        PoolCommand::Ls { view, selector } => list(view, selector.as_deref()).await,
        PoolCommand::Show { view, name } => show(view, name).await,
        PoolCommand::Create { client, name, r#type, host_network, interconnected, leaders } => {
            let mut spec = json!({"type": kind(*r#type), "hostNetwork": host_network,
                "interConnectivity": interconnected});
            if let Some(leaders) = leaders
                && let Some(fields) = spec.as_object_mut()
            {
                fields.insert("enableLeaderElection".to_owned(), true.into());
                fields.insert("leaderReplicas".to_owned(), (*leaders).into());
            }
            let api = Api::<NodePool>::all(kubeconfig::client(client).await?);
            let pool = json!({"metadata": {"name": name}, "spec": spec});
            let pool: NodePool = serde_json::from_value(pool).map_err(|error| defect(&error))?;
            let made = api.create(&PostParams::default(), &pool).await;
            made.map_err(|error| refused(name, &error))?;
            println!("pool {name} created");
            Ok(())
        }
        PoolCommand::Label { client, name, labels } => {
            let labels = changes(labels)?;
            let api = Api::<NodePool>::all(kubeconfig::client(client).await?);
            let change = json!({"spec": {"labels": labels}});
            let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(&change)).await;
            patched.map_err(|error| refused(name, &error))?;
            println!("pool {name} labels its nodes so");
            Ok(())
        }
    }
}

fn kind(kind: PoolKind) -> &'static str {
    match kind {
        PoolKind::Edge => "Edge",
        PoolKind::Cloud => "Cloud",
    }
}

/// `key=value` sets, `key-` takes away.
fn changes(labels: &[String]) -> Result<BTreeMap<String, Value>, Failure> {
    let parse = |text: &String| match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) if !key.is_empty() => Ok((key.to_owned(), json!(value))),
        (None, Some(key)) if !key.is_empty() => Ok((key.to_owned(), Value::Null)),
        _ => Err(Failure::new(
            "bad-label",
            format!("{text:?} is no label"),
            "give KEY=VALUE to set one, or KEY- to take it away",
        )),
    };
    labels.iter().map(parse).collect()
}

async fn list(view: &PoolView, selector: Option<&str>) -> Result<(), Failure> {
    let api = Api::<NodePool>::all(kubeconfig::client(&view.client).await?);
    let params = match selector {
        Some(selector) => ListParams::default().labels(selector),
        None => ListParams::default(),
    };
    let pools = api.list(&params).await.map_err(|error| unreachable(&error))?.items;
    if pools.is_empty() && view.output == PoolFormat::Table {
        eprintln!("There is no pool. Next: toono pool create NAME");
        return Ok(());
    }
    let text = match view.output {
        PoolFormat::Table => table(&pools),
        PoolFormat::Wide => wide(&pools),
        PoolFormat::Name => names(&pools),
        PoolFormat::Json | PoolFormat::Yaml => {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": pools});
            structured(&list, view.output)?
        }
    };
    print!("{text}");
    Ok(())
}

async fn show(view: &PoolView, name: &str) -> Result<(), Failure> {
    let api = Api::<NodePool>::all(kubeconfig::client(&view.client).await?);
    let pool = api.get(name).await.map_err(|error| refused(name, &error))?;
    let text = match view.output {
        PoolFormat::Table => described(&pool),
        PoolFormat::Wide => wide(&[pool]),
        PoolFormat::Name => names(&[pool]),
        PoolFormat::Json | PoolFormat::Yaml => structured(&pool, view.output)?,
    };
    print!("{text}");
    Ok(())
}

fn names(pools: &[NodePool]) -> String {
    pools.iter().map(|pool| format!("nodepool.apps.openyurt.io/{}\n", pool.name())).collect()
}

fn structured(value: &impl Serialize, format: PoolFormat) -> Result<String, Failure> {
    match format {
        PoolFormat::Yaml => serde_yaml_ng::to_string(value).map_err(|error| defect(&error)),
        _ => serde_json::to_string_pretty(value)
            .map(|text| text + "\n")
            .map_err(|error| defect(&error)),
    }
}

fn cells(pool: &NodePool) -> [String; 6] {
    let status = status(pool);
    [
        pool.name().to_owned(),
        pool.spec.type_.clone().unwrap_or_default(),
        status.ready_node_num.to_string(),
        status.unready_node_num.to_string(),
        leaders(&status),
        age(pool),
    ]
}

fn table(pools: &[NodePool]) -> String {
    let mut table = Table::new(["NAME", "TYPE", "READY", "NOT READY", "LEADERS", "AGE"]);
    pools.iter().for_each(|pool| table.row(cells(pool)));
    table.render()
}

fn wide(pools: &[NodePool]) -> String {
    let header = ["NAME", "TYPE", "READY", "NOT READY", "LEADERS", "AGE", "HOST NETWORK", "NODES"];
    let mut table = Table::new(header);
    for pool in pools {
        let [name, kind, ready, unready, leaders, age] = cells(pool);
        let host_network = pool.spec.host_network.to_string();
        let nodes = status(pool).nodes.join(",");
        table.row([name, kind, ready, unready, leaders, age, host_network, nodes]);
    }
    table.render()
}

fn status(pool: &NodePool) -> NodePoolStatus {
    pool.status.clone().unwrap_or_default()
}

fn leaders(status: &NodePoolStatus) -> String {
    let names: Vec<&str> =
        status.leader_endpoints.iter().map(|leader| leader.node_name.as_str()).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(",") }
}

fn age(pool: &NodePool) -> String {
    let Some(created) = &pool.metadata.creation_timestamp else { return "-".to_owned() };
    let seconds = Timestamp::now().duration_since(created.0).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A pool for people, all of it.
fn described(pool: &NodePool) -> String {
    let (spec, status) = (&pool.spec, status(pool));
    let mut text = String::new();
    // Writing into a String cannot fail.
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "{key:<18}{value}");
    };
    line("Pool", pool.name());
    line("Type", spec.type_.as_deref().unwrap_or("-"));
    line("Host network", &spec.host_network.to_string());
    line("Interconnected", &spec.inter_connectivity.to_string());
    line(
        "Nodes",
        &format!("{} ready, {} not ready", status.ready_node_num, status.unready_node_num),
    );
    for (key, value) in &spec.labels {
        line("Label of nodes", &format!("{key}={value}"));
    }
    for taint in &spec.taints {
        let value = taint.value.as_deref().unwrap_or_default();
        line("Taint of nodes", &format!("{}={value}:{}", taint.key, taint.effect));
    }
    for leader in &status.leader_endpoints {
        line("Leader", &format!("{} at {}", leader.node_name, leader.address));
    }
    for condition in &status.conditions {
        let why = condition.message.as_deref().unwrap_or_default();
        line(&condition.type_, &format!("{}: {why}", condition.status));
    }
    for node in &status.nodes {
        line("Node", node);
    }
    text
}

fn refused(name: &str, error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) if status.is_not_found() => Failure::new(
            "no-such-pool",
            format!("there is no pool {name}"),
            "toono pool ls shows those that exist",
        ),
        kube::Error::Api(status) if status.is_already_exists() => Failure::new(
            "pool-exists",
            format!("there is a pool {name} already"),
            "toono pool show tells what it is like",
        ),
        kube::Error::Api(status) if status.code == 422 => Failure::new(
            "bad-pool",
            status.message.clone(),
            "names are of small letters, digits, `-` and `.`; kubectl explain nodepool.spec tells of fields",
        ),
        _ => unreachable(error),
    }
}

fn defect(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::caused("internal", error, "this is a defect: please report it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_told_in_a_line_each() {
        let pool: NodePool = serde_json::from_value(json!({"metadata": {"name": "shop"},
            "spec": {"type": "Edge", "labels": {"region": "north"}},
            "status": {"readyNodeNum": 1, "unreadyNodeNum": 2, "nodes": ["a", "b", "c"],
                "leaderEndpoints": [{"nodeName": "a", "address": "10.0.0.1"}]}}))
        .unwrap();
        let line = wide(std::slice::from_ref(&pool));
        let line: Vec<&str> = line.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(line, ["shop", "Edge", "1", "2", "a", "-", "false", "a,b,c"]);
        assert!(described(&pool).contains("Leader            a at 10.0.0.1"));
    }

    #[test]
    fn labels_are_set_and_taken_away() {
        let given = ["region=north", "old-"].map(str::to_owned);
        let expected = json!({"region": "north", "old": null});
        assert_eq!(json!(changes(&given).unwrap()), expected);
        assert!(changes(&["nonsense".to_owned()]).is_err() && changes(&["=x".to_owned()]).is_err());
    }
}
