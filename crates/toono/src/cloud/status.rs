//! `toono status`: the fleet at a glance.

use std::{collections::BTreeMap, fmt::Write as _};

use toono_wire::{
    path,
    report::{NodeOverview, Overview},
};

use crate::{
    cli::Output,
    cloud::{cli::StatusArgs, kubeconfig},
    failure::Failure,
    table::Table,
};

pub(crate) async fn run(args: &StatusArgs) -> Result<(), Failure> {
    let client = kubeconfig::client(&args.client).await?;
    let overview = fetch(&client).await?;
    let text = match args.output {
        Output::Table => render(&overview),
        Output::Json => serde_json::to_string_pretty(&overview).map_err(unprintable)? + "\n",
        Output::Yaml => serde_yaml_ng::to_string(&overview).map_err(unprintable)?,
    };
    print!("{text}");
    Ok(())
}

pub(crate) async fn fetch(client: &kube::Client) -> Result<Overview, Failure> {
    let request = http::Request::get(path::OVERVIEW).body(Vec::new()).map_err(unprintable)?;
    client.request(request).await.map_err(|error| kubeconfig::unreachable(&error))
}

fn unprintable(error: impl std::error::Error + 'static) -> Failure {
    Failure::caused("internal", &error, "this is a defect: please report it")
}

fn render(overview: &Overview) -> String {
    let ready = overview.nodes.iter().filter(|node| node.ready == "True").count();
    let mut text = format!(
        "Server    {}, up {}, revision {}\nNodes     {ready} of {} ready\n",
        overview.version,
        duration(overview.uptime_s * 1000),
        overview.revision,
        overview.nodes.len(),
    );
    let mut pools: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for node in &overview.nodes {
        let pool = pools.entry(pool_name(node)).or_default();
        pool.0 += usize::from(node.ready == "True");
        pool.1 += 1;
    }
    for (pool, (ready, all)) in &pools {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "Pool      {pool}: {ready} of {all} ready");
    }
    if overview.nodes.is_empty() {
        text.push_str("\nNo node has joined. Next: toono token create\n");
        return text;
    }
    let mut table = Table::new([
        "NODE",
        "POOL",
        "READY",
        "HEARTBEAT",
        "SESSION",
        "ADDRESS",
        "PODS",
        "BUNDLE",
        "TUNNELS",
    ]);
    for node in &overview.nodes {
        table.row([
            node.name.clone(),
            pool_name(node).to_owned(),
            node.ready.clone(),
            node.heartbeat_age_ms.map_or_else(|| "-".into(), |ms| format!("{} ago", duration(ms))),
            node.session.clone(),
            node.address.clone().unwrap_or_else(|| "-".into()),
            node.pods.to_string(),
            bundle(node),
            node.tunnels.to_string(),
        ]);
    }
    text.push('\n');
    text.push_str(&table.render());
    text
}

fn pool_name(node: &NodeOverview) -> &str {
    if node.pool.is_empty() { "-" } else { &node.pool }
}

fn bundle(node: &NodeOverview) -> String {
    if node.bundle_observed >= node.bundle_desired {
        "current".into()
    } else {
        format!("{} of {}", node.bundle_observed, node.bundle_desired)
    }
}

/// Milliseconds as people say them: `850ms`, `12s`, `5m`, `3h`, `2d`.
fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..120_000 => format!("{}s", ms / 1_000),
        120_000..7_200_000 => format!("{}m", ms / 60_000),
        7_200_000..172_800_000 => format!("{}h", ms / 3_600_000),
        _ => format!("{}d", ms / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let cases =
            [(7, "7ms"), (9_999, "9s"), (119_999, "119s"), (120_000, "2m"), (90_000_000, "25h")];
        for (ms, text) in cases {
            assert_eq!(duration(ms), text);
        }
    }
}
