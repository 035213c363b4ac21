//! `toono node`: looks at the machine, then hands over to the agent.

pub(crate) mod cli;
mod image;
mod ota;

use std::time::Duration;

use toono_agent::{Agent, AgentError, Bootstrap, Config, Reserve, Room, Rules, Soft};
use toono_images::RegistryConfig;
use toono_sandbox::KeeperProgram;

use self::cli::{NodeArgs, NodeCommand, RoomArgs};
use crate::{failure::Failure, preflight, shutdown::Shutdown};

/// The bridge of the pod network.
const BRIDGE: &str = "toono0";

pub(crate) async fn run(args: NodeArgs) -> Result<(), Failure> {
    match args.command {
        Some(NodeCommand::Image(args)) => return image::run(args.command),
        Some(NodeCommand::Ota(args)) => return ota::run(args.command).await,
        None => {}
    }
    preflight::node()?;
    let shutdown = Shutdown::on_signal()?;
    let config = configure(args)?;
    Agent::run(config, shutdown.wait()).await.map_err(|error| explain(&error))
}

fn configure(args: NodeArgs) -> Result<Config, Failure> {
    let name = match args.name {
        Some(name) => name,
        None => host_name()?,
    };
    let bridge = BRIDGE.parse().map_err(|error| {
        Failure::caused("internal", &error, "this is a defect: please report it")
    })?;
    let bootstrap = match (args.token, args.ca_cert_hash) {
        (Some(token), Some(ca_pin)) => Some(Bootstrap { token, ca_pin }),
        _ => None,
    };
    let manifests = args.room.pod_manifest_path.clone();
    let manifests = Some(manifests.unwrap_or_else(|| args.data.dir.join("manifests")));
    Ok(Config {
        server: args.server.ok_or_else(|| {
            Failure::new("no-server", "no server is given", "give one with --server")
        })?,
        name,
        pool: args.pool,
        data: args.data.dir,
        bootstrap,
        cgroup_parent: args.cgroup_root,
        bridge,
        resolv_conf: args.resolv_conf,
        registries: registries(&args.registry)?,
        neighbour_layers: !args.no_neighbour_layers,
        keeper: KeeperProgram::this(),
        room: room(&args.room)?,
        manifests,
        ota_listen: args.ota_listen,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

fn room(args: &RoomArgs) -> Result<Room, Failure> {
    let mut reserved = Reserve::default();
    for list in [&args.system_reserved, &args.kube_reserved].into_iter().flatten() {
        reserved.cpu_millis = reserved.cpu_millis.saturating_add(list.0.cpu_millis);
        reserved.memory = reserved.memory.saturating_add(list.0.memory);
        reserved.storage = reserved.storage.saturating_add(list.0.storage);
    }
    Ok(Room { reserved, eviction: rules(args)?, max_pods: args.max_pods })
}

fn rules(args: &RoomArgs) -> Result<Rules, Failure> {
    let soft = Soft::new(
        args.eviction_soft.clone().unwrap_or_default(),
        args.eviction_soft_grace_period.clone().unwrap_or_default(),
        Duration::from_secs(args.eviction_max_pod_grace_period.into()),
    );
    let soft = soft.map_err(|error| {
        let hint = "give one with --eviction-soft-grace-period SIGNAL=DURATION";
        Failure::caused("bad-eviction", &error, hint)
    })?;
    let rules = Rules::default();
    Ok(Rules {
        hard: args.eviction_hard.clone().unwrap_or(rules.hard),
        soft,
        transition: args.eviction_pressure_transition_period,
    })
}

fn host_name() -> Result<String, Failure> {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .map(|name| name.to_lowercase())
        .ok_or_else(|| Failure::new("node-failed", "this host has no name", "give one with --name"))
}

fn registries(mirrors: &[String]) -> Result<RegistryConfig, Failure> {
    let mut config = RegistryConfig::default();
    for mirror in mirrors {
        config.add(mirror).map_err(|error| {
            Failure::caused("bad-registry", &error, "as in lab.toono.io=http://10.0.0.1:5000")
        })?;
    }
    Ok(config)
}

fn explain(error: &AgentError) -> Failure {
    let code = match error {
        AgentError::NotRoot { .. } => "not-root",
        AgentError::Locked { .. } | AgentError::OtherNode { .. } => "data-taken",
        AgentError::Disk { .. } => "data-dir",
        AgentError::NoBootstrap => "no-token",
        AgentError::WrongCa { .. } => "ca-mismatch",
        AgentError::TokenRefused { .. } => "token-refused",
        AgentError::NameTaken { .. } => "name-taken",
        _ => "node-failed",
    };
    Failure::caused(code, error, error.hint())
}
