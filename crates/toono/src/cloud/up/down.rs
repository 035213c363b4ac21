//! `toono down`: everything that `up` made, in the reverse order; each step does what is left to do.

use std::{collections::BTreeSet, fs, path::Path};

use toono_lab::{Daemon, LabName};

use crate::{
    cloud::{
        lab,
        up::{
            cli::DownArgs,
            plan::{self, STOP_GRACE},
            processes::daemon_failure,
            progress::Progress,
        },
    },
    failure::Failure,
    preflight,
};

/// Stops the edge of a data directory. No error when there is none.
pub(crate) async fn down(args: &DownArgs) -> Result<(), Failure> {
    preflight::root()?;
    let dir = plan::absolute(&args.data.dir)?;
    let name = lab::name(&dir)?;
    let progress = Progress;
    let nodes = node_names(&dir);

    progress
        .step("nodes", async {
            for node in &nodes {
                plan::node(&dir, node).stop(STOP_GRACE).map_err(daemon_failure)?;
            }
            Ok(())
        })
        .await?;
    progress
        .step("pods", async {
            for node in &nodes {
                stop_pods(&dir, &name, node).await?;
            }
            // What is above the nodes' own cgroups; a cgroup that someone uses stays.
            toono_sandbox::prune_cgroups(&plan::cgroup_parent(&name)).map_err(|error| {
                Failure::caused("lab-failed", &error, "is something running in these cgroups?")
            })
        })
        .await?;
    progress
        .step("server and registry", async {
            plan::server(&dir).stop(STOP_GRACE).map_err(daemon_failure)?;
            plan::registry(&dir).stop(STOP_GRACE).map_err(daemon_failure)?;
            Ok(())
        })
        .await?;
    progress
        .step("networks of the sites", async {
            toono_lab::down(&name).await.map_err(|error| lab::explain(&error))
        })
        .await?;
    if args.purge {
        progress.step("data", async { purge(&dir) }).await?;
    }
    Ok(())
}

async fn stop_pods(dir: &Path, lab: &LabName, node: &str) -> Result<(), Failure> {
    let data = plan::nodes_dir(dir).join(node);
    let stopped = toono_agent::reset::stop_pods(&data, &plan::cgroup_root(lab, node))
        .await
        .map_err(|error| Failure::caused("node-failed", &error, error.hint()))?;
    if stopped.failures.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        "node-failed",
        format!("{node}: {}", stopped.failures.join("; ")),
        "run toono down again; it goes on where it stopped",
    ))
}

/// What a server and `up` keep in a data directory. A purge removes these and nothing else: the
/// directory may have been named by mistake.
const OURS: [&str; 9] = [
    "admin.kubeconfig",
    "ca-cert-hash",
    "cluster-secret",
    "images",
    "node-token",
    "nodes",
    "pki",
    "run",
    "store",
];

fn purge(dir: &Path) -> Result<(), Failure> {
    for path in OURS.map(|name| dir.join(name)) {
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::new(
                    "data-dir",
                    format!("cannot remove {}: {error}", path.display()),
                    "remove it by hand",
                ));
            }
            _ => {}
        }
    }
    // Someone's own files may be in it, or it may be a mount point: then it stays.
    let _ = fs::remove_dir(dir);
    Ok(())
}

/// Those with a directory, and those that were started a moment ago and have none yet.
fn node_names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(plan::nodes_dir(dir)).into_iter().flatten().flatten();
    let kept = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let others = [plan::server(dir), plan::registry(dir)];
    let started = Daemon::all(&plan::run_dir(dir)).into_iter();
    let started = started.filter(|daemon| !others.contains(daemon));
    kept.chain(started.map(|daemon| daemon.name().to_owned())).collect()
}
