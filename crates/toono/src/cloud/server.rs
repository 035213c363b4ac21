//! `toono server`: opens what the services need, wires them together, and waits for the end.
//!
//! The order is that of failing cleanly: first the port and the data directory are taken, then
//! anything is written.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{
    net::{TcpSocket, UdpSocket},
    task::JoinSet,
};
use toono_api::UserInfo;
use toono_apiserver::{ApiConfig, ApiServer, AuditConfig};
use toono_controllers::{CLUSTER_LEASE, ControllersConfig, Signers};
use toono_fleet::{ClusterCidr, Fleet, FleetConfig, RotateReply, RotateRequest};
use toono_http::server::Limits;
use toono_pki::{BootstrapToken, ClusterCa, TokenKey};
use toono_wire::path;

use crate::{
    cloud::{
        attach,
        cli::{ClientArgs, ServerArgs, ServerCommand, StoreKind},
        crds, kubeconfig, leader,
        node_link::{FleetLink, FleetLiveness},
        rotation::Rotation,
        secret,
        servers::Servers,
        store,
        store_feed::StoreFeed,
        token,
    },
    failure::Failure,
    shutdown::Shutdown,
};

/// The file of the data directory with the token that nodes may join with.
pub(crate) const TOKEN_FILE: &str = "node-token";
/// The file beside the CA's with the key of service accounts' tokens, named as kubeadm names it. Replicas
/// need the same one.
const TOKEN_KEY_FILE: &str = "sa.key";
/// Connections that wait to be accepted. The kernel grants `net.core.somaxconn` at most.
const BACKLOG: u32 = 4_096;
/// The file of the data directory with the CA's pin.
pub(crate) const PIN_FILE: &str = "ca-cert-hash";

pub(crate) async fn run(args: &ServerArgs) -> Result<(), Failure> {
    match &args.command {
        Some(ServerCommand::RotateSecret { client, revoke }) => {
            rotate_secret(client, RotateRequest { revoke: *revoke }).await
        }
        None => match &args.attach.attach {
            Some(cluster) => {
                attach::run(cluster, args.attach.context.as_deref(), &args.controllers).await
            }
            None => serve(args).await,
        },
    }
}

/// Asks the running server for a new epoch of the cluster secret.
async fn rotate_secret(args: &ClientArgs, request: RotateRequest) -> Result<(), Failure> {
    let defect = |error: &(dyn std::error::Error + 'static)| {
        Failure::caused("internal", error, "this is a defect: please report it")
    };
    let body = serde_json::to_vec(&request).map_err(|error| defect(&error))?;
    let request = http::Request::post(path::ROTATE)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(|error| defect(&error))?;
    let client = kubeconfig::client(args).await?;
    let reply: RotateReply =
        client.request(request).await.map_err(|error| kubeconfig::unreachable(&error))?;
    println!("epoch {}", reply.epoch);
    match reply.granted_in_s {
        0 => eprintln!("Nodes get keys of it from now on."),
        seconds => eprintln!("Nodes get keys of it in {seconds} s, when every server knows it."),
    }
    if reply.accepted.is_empty() {
        eprintln!("No other epoch is accepted: every node asks for a new key.");
    } else {
        let older: Vec<_> = reply.accepted.iter().map(u8::to_string).collect();
        eprintln!(
            "Keys of epoch {} are accepted until every node has moved, at most for {} h.",
            older.join(", "),
            reply.accepted_for_s / 3600
        );
    }
    Ok(())
}

async fn serve(args: &ServerArgs) -> Result<(), Failure> {
    let cluster_cidr = cluster_cidr(args)?;
    let shutdown = Shutdown::on_signal()?;
    let (tcp, udp) = bind(args.listen).await?;
    let port = tcp.local_addr().map_err(|error| port_failure(args.listen, &error))?.port();
    let dir = &args.data.dir;
    create_dir(dir)?;
    let store = store::open(&args.store, &dir.join("store")).await?;
    let shares = matches!(args.store.store, StoreKind::Etcd(_));
    let token = server_token(args)?.filter(|_| shares);
    if shares {
        store::shared::settle(&store, dir, token.as_deref(), || make_credentials(dir)).await?;
    }
    let shared = token.map(|token| (store.clone(), token));
    let ca = ClusterCa::load_or_create(&dir.join("pki")).map_err(pki_failure)?;
    let tls = ca
        .issue_server(&certificate_names(args))
        .and_then(|own| toono_pki::server_config(&ca, &own))
        .map_err(pki_failure)?;
    write_credentials(dir, &ca, args.listen, port)?;
    let ca = Arc::new(ca);
    let root_ca = ca.cert_pem().to_owned();

    let link = Arc::new(FleetLink::default());
    let audit = args.audit_log_path.clone().map(AuditConfig::new);
    let token_key = TokenKey::load_or_create(&dir.join("pki").join(TOKEN_KEY_FILE));
    let token_key = Arc::new(token_key.map_err(pki_failure)?);
    let advertise = pods_reach(args).map(|address| SocketAddr::new(address, port));
    let signers =
        Signers { certificates: Some(Arc::clone(&ca)), tokens: Some(Arc::clone(&token_key)) };
    let token_key = Some(token_key);
    let (service_range, node_ports) = (args.service_cidr, args.service_node_ports);
    let config = ApiConfig {
        audit,
        token_key,
        advertise,
        service_range,
        node_ports,
        shared_store: shares,
        ..ApiConfig::default()
    };
    let feed = Arc::new(StoreFeed(store.clone()));
    let api = ApiServer::start(store, config, link.clone())
        .await
        .map_err(|error| Failure::caused("store-failed", &error, "look at the store's disk"))?;
    crds::install(&api.client(component("kube-controller-manager"))).await?;
    let join_token = join_token(&dir.join(TOKEN_FILE))?;
    token::ensure(&api.client(component("kube-controller-manager")), &join_token, None)
        .await
        .map_err(|error| kubeconfig::unreachable(&error))?;
    let ring = secret::load_or_create(dir)?;
    let secrets = ring.secrets(secret::now());
    let mut config = FleetConfig::new(secrets, port, env!("CARGO_PKG_VERSION"));
    config.cluster_cidr = cluster_cidr;
    config.grace = args.grace.of_pools();
    config.certificate_lifetime = args.cluster_signing_duration;
    let client = api.client(component("toono:fleet"));
    let fleet = Fleet::with_feed(config, client, Arc::clone(&ca), feed)
        .map_err(|error| Failure::caused("fleet-failed", &error, "is /dev/urandom there?"))?;
    link.connect(fleet.clone());
    api.set_fleet(fleet.handler());
    api.set_liveness(Arc::new(FleetLiveness(fleet.clone())));
    let servers = match &shared {
        Some((store, _)) => {
            let dialled = (nodes_dial(args), port);
            Some(Servers::begin(store.clone(), fleet.clone(), dir, dialled).await?)
        }
        None => None,
    };
    let max_age = args.secret_max_age.0;
    let rotation = Rotation::new(dir.clone(), ring, fleet.clone(), shared, max_age);

    let switches = args.controllers.clone();
    let controllers =
        ControllersConfig { root_ca, controllers: switches, ..ControllersConfig::default() };
    let (draining, ending) = (api.clone(), shutdown.clone());
    tokio::spawn(async move {
        ending.wait().await;
        draining.drain();
    });
    let mut services = JoinSet::new();
    let client = api.client(component("kube-controller-manager"));
    services.spawn(run_controllers(client, controllers, signers, shares, shutdown.clone()));
    let (running, ending) = (fleet.clone(), shutdown.clone());
    services.spawn(async move { running.run(udp, ending.wait()).await });
    services.spawn(rotation.run(shutdown.clone()));
    if let Some(servers) = servers {
        services.spawn(servers.run(shutdown.clone()));
    }
    // Whoever connects before is refused and comes again. A node whose datagrams stay unanswered tries TLS where TCP
    // is accepted: a million nodes would, while the server cannot know them yet.
    tokio::select! {
        () = fleet.loaded() => {}
        () = shutdown.clone().wait() => return wait_for(services).await,
    }
    let tcp = tcp.listen(BACKLOG).map_err(|error| port_failure(args.listen, &error))?;
    services.spawn(toono_http::server::serve(
        tcp,
        Some(tls),
        api.handler(),
        Limits::default(),
        shutdown.wait(),
    ));
    tracing::info!(listen = %args.listen, data = %dir.display(), "serving");
    wait_for(services).await
}

/// Where pods' addresses come from.
fn cluster_cidr(args: &ServerArgs) -> Result<ClusterCidr, Failure> {
    let Some(mask) = args.node_cidr_mask_size else { return Ok(args.cluster_cidr) };
    args.cluster_cidr.with_node_mask(mask).map_err(|error| {
        let hint = "choose another --node-cidr-mask-size, or a larger --cluster-cidr";
        Failure::caused("node-cidr-mask-size", &error, hint)
    })
}

/// Controllers run in one server at a time. The only one of its store need not ask others.
async fn run_controllers(
    client: kube::Client,
    config: ControllersConfig,
    signers: Signers,
    shares: bool,
    shutdown: Shutdown,
) {
    if !shares {
        return toono_controllers::run(client, config, signers, shutdown.wait()).await;
    }
    leader::run(client, CLUSTER_LEASE, config, signers, shutdown).await;
}

/// The token that this server shares with the others of its cluster, if it was given one.
fn server_token(args: &ServerArgs) -> Result<Option<String>, Failure> {
    let Some(path) = &args.token_file else { return Ok(args.token.clone()) };
    let unusable = |why: &dyn std::fmt::Display| {
        let what = format!("cannot use the token in {}: {why}", path.display());
        Failure::new("token-file", what, "give a file that this user may read")
    };
    let text = fs::read_to_string(path).map_err(|error| unusable(&error))?;
    crate::cloud::cli::server_token(&text).map(Some).map_err(|why| unusable(&why))
}

/// Makes all files of credentials that are not there.
fn make_credentials(dir: &Path) -> Result<(), Failure> {
    ClusterCa::load_or_create(&dir.join("pki")).map_err(pki_failure)?;
    TokenKey::load_or_create(&dir.join("pki").join(TOKEN_KEY_FILE)).map_err(pki_failure)?;
    join_token(&dir.join(TOKEN_FILE))?;
    secret::load_or_create(dir).map(drop)
}

async fn wait_for(mut services: JoinSet<()>) -> Result<(), Failure> {
    while services.join_next().await.is_some() {}
    Ok(())
}

/// Services inside the server act as the users that Kubernetes' own components are.
fn component(name: &str) -> UserInfo {
    UserInfo::component(&format!("system:{name}"))
}

/// Takes the port, and does not listen yet: nobody else can have it, and who connects is refused.
async fn bind(listen: SocketAddr) -> Result<(TcpSocket, UdpSocket), Failure> {
    let failed = |error| port_failure(listen, &error);
    let tcp = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let tcp = tcp.map_err(failed)?;
    // Connections of an earlier server may not have ended yet.
    tcp.set_reuseaddr(true).map_err(failed)?;
    tcp.bind(listen).map_err(failed)?;
    let address = tcp.local_addr().map_err(failed)?;
    let udp = UdpSocket::bind(address).await.map_err(|error| port_failure(address, &error))?;
    Ok((tcp, udp))
}

fn port_failure(listen: SocketAddr, error: &std::io::Error) -> Failure {
    let hint = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "another program holds this port: stop it, or choose another with --listen"
        }
        std::io::ErrorKind::AddrNotAvailable => {
            "no interface of this machine has this address: choose another with --listen"
        }
        _ => "choose another address with --listen",
    };
    Failure::new("port-taken", format!("cannot listen on {listen}: {error}"), hint)
}

fn create_dir(dir: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| {
        Failure::new(
            "data-dir",
            format!("cannot create {}: {error}", dir.display()),
            "choose a directory that you may write with --data",
        )
    })
}

fn pki_failure(error: toono_pki::PkiError) -> Failure {
    Failure::caused("pki-failed", &error, "look at the files in the data directory's pki folder")
}

/// The address that the `kubernetes` Service leads to: the one advertised, else that of the port, else the
/// machine's first that is not its own alone.
fn pods_reach(args: &ServerArgs) -> Option<IpAddr> {
    let listen = args.listen.ip();
    let advertised = args.advertise.iter().filter_map(|name| name.parse().ok());
    advertised.chain((!listen.is_unspecified()).then_some(listen)).chain(local_addresses()).find(
        |address: &IpAddr| {
            let link_local = match address {
                IpAddr::V4(v4) => v4.is_link_local(),
                IpAddr::V6(v6) => v6.is_unicast_link_local(),
            };
            !address.is_loopback() && !address.is_unspecified() && !link_local
        },
    )
}

/// What nodes and other servers dial, where there are several: the first that is advertised, else the address of
/// the port, else the machine's.
fn nodes_dial(args: &ServerArgs) -> String {
    let listen = args.listen.ip();
    let given = args.advertise.first().cloned();
    let given = given.or_else(|| (!listen.is_unspecified()).then(|| listen.to_string()));
    let found = given.or_else(|| pods_reach(args).map(|address| address.to_string()));
    found.unwrap_or_else(|| "localhost".to_owned())
}

/// Everything by which this machine may be dialled: its names, its addresses, and what the
/// administrator adds.
fn certificate_names(args: &ServerArgs) -> Vec<String> {
    let mut names: Vec<String> = [
        "localhost",
        "127.0.0.1",
        "::1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    .map(str::to_owned)
    .into();
    names.push(args.service_cidr.first().to_string());
    names.extend(nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()));
    names.extend(local_addresses().into_iter().map(|address| address.to_string()));
    if !args.listen.ip().is_unspecified() {
        names.push(args.listen.ip().to_string());
    }
    names.extend(args.advertise.iter().cloned());
    names.sort();
    names.dedup();
    names
}

fn local_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        })
        .collect()
}

/// The kubeconfig names an address that works on this machine.
fn write_credentials(
    dir: &Path,
    ca: &ClusterCa,
    listen: SocketAddr,
    port: u16,
) -> Result<(), Failure> {
    let host = match listen.ip() {
        ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V6(ip) => format!("[{ip}]"),
        ip => ip.to_string(),
    };
    let admin = ca.issue_client("kubernetes-admin", &["system:masters"]).map_err(pki_failure)?;
    let config = kubeconfig::render(&format!("https://{host}:{port}"), ca.cert_pem(), &admin);
    let write = |name: &str, text: &str| {
        let path: PathBuf = dir.join(name);
        kubeconfig::write(&path, text).map_err(|error| {
            Failure::new(
                "data-dir",
                format!("cannot write {}: {error}", path.display()),
                "check the directory's permissions and free space",
            )
        })
    };
    write(PIN_FILE, &format!("{}\n", ca.pin()))?;
    write(kubeconfig::FILE_NAME, &config)
}

/// The token of the first start is kept, so that scripts can read it at any time.
fn join_token(path: &Path) -> Result<BootstrapToken, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(
            "data-dir",
            format!("cannot use {}: {error}", path.display()),
            "delete the file; a new token is made at the next start",
        )
    };
    match fs::read_to_string(path) {
        Ok(text) => text.parse().map_err(|error: toono_pki::BadToken| failed(&error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let made = BootstrapToken::generate().ok_or_else(token::no_randomness)?;
            kubeconfig::write(path, &format!("{made}\n")).map_err(|error| failed(&error))?;
            Ok(made)
        }
        Err(error) => Err(failed(&error)),
    }
}
