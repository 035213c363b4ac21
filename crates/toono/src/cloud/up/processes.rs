//! The processes of an edge: what each is started with.

use std::{fs, net::TcpListener, path::PathBuf};

use toono_lab::{
    Daemon, DaemonError, Spawn,
    image::{self, BUSYBOX, ImageSpec},
};

use crate::{
    cloud::{
        lab,
        server::{PIN_FILE, TOKEN_FILE},
        up::plan::{NodePlan, Plan},
    },
    failure::Failure,
};

/// The host part of the image names that the lab's registry serves.
const REGISTRY_HOST: &str = "lab.toono.io";
/// The nodes share this machine's disk, and may not empty it of images, or end pods, because it is rather full.
const EVICTION_HARD: &str = "memory.available<100Mi";

/// Refuses a taken port before anything is made.
pub(crate) fn check_port(plan: &Plan) -> Result<(), Failure> {
    if plan.server().running().map_err(daemon_failure)?.is_some() {
        return Ok(());
    }
    TcpListener::bind(plan.listen).map(|_| ()).map_err(|error| {
        Failure::new(
            "port-taken",
            format!("cannot listen on {}: {error}", plan.listen),
            "another program holds this port: stop it, or choose another with --listen",
        )
    })
}

/// Builds the lab's image, and serves it on the cloud's address.
pub(crate) async fn registry(plan: &Plan) -> Result<(), Failure> {
    let daemon = plan.registry();
    if daemon.running().map_err(daemon_failure)?.is_some() {
        return Ok(());
    }
    let image = ImageSpec {
        busybox: BUSYBOX.into(),
        root: plan.image_dir(),
        repository: "busybox".to_owned(),
        tag: "1".to_owned(),
    };
    image::build(&image).map_err(|error| {
        let hint = error.hint().unwrap_or("is the data directory's disk full?");
        Failure::caused("lab-failed", &error, hint)
    })?;
    start(
        &daemon,
        &["lab", "registry"],
        &[
            ("--listen", plan.registry_address().to_string()),
            ("--root", plan.image_dir().display().to_string()),
        ],
    )
}

/// The cloud side.
pub(crate) fn server(plan: &Plan) -> Result<(), Failure> {
    let mut spawn = this_program(
        &["server"],
        &[("--data", plan.dir().display().to_string()), ("--listen", plan.listen.to_string())],
    )?;
    spawn.args.extend(plan.server_options.iter().cloned());
    plan.server().start(&spawn).map(|_| ()).map_err(daemon_failure)
}

/// Every node, in the network of its own host.
pub(crate) async fn nodes(plan: &Plan) -> Result<(), Failure> {
    let (token, pin) = (credential(plan, TOKEN_FILE)?, credential(plan, PIN_FILE)?);
    for node in plan.nodes() {
        start_node(plan, &node, &token, &pin)?;
    }
    Ok(())
}

fn start_node(plan: &Plan, node: &NodePlan, token: &str, pin: &str) -> Result<(), Failure> {
    let netns =
        toono_lab::namespace(&plan.lab.name, &node.name).map_err(|error| lab::explain(&error))?;
    let mut spawn = this_program(
        &["node"],
        &[
            ("--server", plan.server_url()),
            ("--ca-cert-hash", pin.to_owned()),
            ("--name", node.name.clone()),
            ("--pool", node.pool.clone()),
            ("--data", plan.node_dir(&node.name).display().to_string()),
            ("--cgroup-root", plan.cgroup_root(&node.name)),
            ("--resolv-conf", plan.resolv_conf.display().to_string()),
            ("--eviction-hard", EVICTION_HARD.to_owned()),
            ("--registry", format!("{REGISTRY_HOST}=http://{}", plan.registry_address())),
        ],
    )?;
    if let Some(program) = &plan.node_program {
        spawn.program.clone_from(program);
    }
    // Not an argument: those are for everyone to read.
    spawn.env = vec![("TOONO_TOKEN".to_owned(), token.to_owned())];
    spawn.netns = Some(netns);
    plan.node(&node.name).start(&spawn).map(|_| ()).map_err(daemon_failure)
}

fn start(daemon: &Daemon, command: &[&str], options: &[(&str, String)]) -> Result<(), Failure> {
    let spawn = this_program(command, options)?;
    daemon.start(&spawn).map(|_| ()).map_err(daemon_failure)
}

fn this_program(command: &[&str], options: &[(&str, String)]) -> Result<Spawn, Failure> {
    let program: PathBuf = std::env::current_exe().map_err(|error| {
        Failure::caused("lab-failed", &error, "was the program deleted while it runs?")
    })?;
    let mut args: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
    for (option, value) in options {
        args.extend([(*option).to_owned(), value.clone()]);
    }
    Ok(Spawn { program, args, env: Vec::new(), netns: None })
}

/// A file that the server writes before it is ready.
fn credential(plan: &Plan, name: &str) -> Result<String, Failure> {
    let path = plan.dir().join(name);
    fs::read_to_string(&path).map(|text| text.trim().to_owned()).map_err(|error| {
        Failure::new(
            "data-dir",
            format!("cannot read {}: {error}", path.display()),
            "toono down --purge, then toono up, makes everything anew",
        )
    })
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
pub(crate) fn daemon_failure(error: DaemonError) -> Failure {
    Failure::caused("lab-failed", &error, "toono down, then toono up, makes it anew")
}
