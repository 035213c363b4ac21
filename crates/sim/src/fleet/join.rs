//! Nodes become members, as `toono node` does: a request with the token over HTTPS buys a session.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use toono_http::client::Connection;
use toono_pki::{Issued, NodeKey};
use toono_wire::{
    join::{JoinRequest, JoinResponse},
    path,
};

use crate::{Failure, access::Access};

/// Nodes of one pool.
const POOL: usize = 100;

/// The name of a node.
pub(crate) fn name(number: usize) -> String {
    format!("sim-{number:07}")
}

/// The number of a node of this name.
pub(super) fn number(name: &str) -> Option<usize> {
    name.strip_prefix("sim-")?.parse().ok()
}

/// All members.
pub(crate) struct Joined {
    /// What each was given, in the order of their numbers, without its certificate.
    pub(crate) nodes: Vec<JoinResponse>,
    /// By number, what some of them show when they connect.
    pub(crate) identities: HashMap<usize, Issued>,
}

/// Lets all nodes join, over so many connections at once. So many of them, evenly chosen, keep their identities:
/// a million of them would be gigabytes.
pub(crate) async fn all(
    access: &Access,
    token: &str,
    nodes: usize,
    connections: usize,
    keep: usize,
) -> Result<Joined, Failure> {
    let next = Arc::new(AtomicUsize::new(0));
    let key = NodeKey::generate("sim")?;
    let stride = nodes.checked_div(keep).unwrap_or(usize::MAX).max(1);
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (next, access, csr) = (Arc::clone(&next), access.clone(), key.csr_pem.clone());
        let token = token.to_owned();
        tasks.spawn(async move {
            let mut connection = access.connect_anonymously().await?;
            let mut joined = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= nodes {
                    return Ok::<_, Failure>(joined);
                }
                let mut response = one(&mut connection, &token, number, &csr).await?;
                let certificate = std::mem::take(&mut response.certificate_pem);
                response.ca_pem = String::new();
                response.pool.iter_mut().for_each(|pool| pool.name = String::new());
                let kept = number.is_multiple_of(stride) && number / stride < keep;
                joined.push((number, response, kept.then_some(certificate)));
            }
        });
    }
    let mut all: Vec<Option<JoinResponse>> = vec![None; nodes];
    let mut identities = HashMap::new();
    while let Some(joined) = tasks.join_next().await {
        for (number, response, certificate) in joined?? {
            if let Some(place) = all.get_mut(number) {
                *place = Some(response);
            }
            let own = |cert_pem| Issued { cert_pem, key_pem: key.key_pem.clone() };
            identities.extend(certificate.map(|certificate| (number, own(certificate))));
        }
    }
    Ok(Joined { nodes: all.into_iter().flatten().collect(), identities })
}

/// Lets one node join.
pub(crate) async fn one(
    connection: &mut Connection,
    token: &str,
    number: usize,
    csr: &str,
) -> Result<JoinResponse, Failure> {
    one_of(connection, token, number, POOL, csr).await
}

/// Lets one node join, with so many nodes to a pool.
pub(crate) async fn one_of(
    connection: &mut Connection,
    token: &str,
    number: usize,
    pool: usize,
    csr: &str,
) -> Result<JoinResponse, Failure> {
    let request = Request::post(path::JOIN)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(toono_http::full(serde_json::to_vec(&request(number, pool, csr))?))?;
    let response = connection.send(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if status != StatusCode::OK {
        let said = String::from_utf8_lossy(&body);
        return Err(format!("{} may not join: {status}: {said}", name(number)).into());
    }
    Ok(serde_json::from_slice(&body)?)
}

fn request(number: usize, pool: usize, csr: &str) -> JoinRequest {
    JoinRequest {
        node_name: name(number),
        pool: Some(format!("pool-{:05}", number / pool.max(1))),
        csr_pem: csr.to_owned(),
        status: status(number),
    }
}

/// What `toono node` says of a small box, with identifiers that differ from node to node.
fn status(number: usize) -> Value {
    let unlike = |salt: u64| {
        // SplitMix64's finisher: no two numbers have the same.
        let mut z = (number as u64).wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let uuid = |salt| {
        let (a, b) = (unlike(salt), unlike(salt + 1));
        let [p, q, r, s] = [a >> 32, (a >> 16) & 0xffff, a & 0xffff, b >> 48];
        format!("{p:08x}-{q:04x}-{r:04x}-{s:04x}-{:012x}", b & 0xffff_ffff_ffff)
    };
    let address = std::net::Ipv4Addr::from(0xc0a8_0000 | (number as u32 & 0xffff));
    let resources = |memory: &str, disk: &str| json!({"cpu": "4", "memory": memory, "ephemeral-storage": disk, "pods": "110"});
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "False", "reason": reason, "message": message});
    json!({
        "addresses": [
            {"type": "InternalIP", "address": address.to_string()},
            {"type": "Hostname", "address": name(number)},
        ],
        "capacity": resources("3884280Ki", "31147819008"),
        "allocatable": resources("3781880Ki", "28033037100"),
        "conditions": [
            condition("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "toono node is posting ready status"},
        ],
        "nodeInfo": {
            "architecture": "arm64",
            "bootID": uuid(1),
            "containerRuntimeVersion": "toono://0.1.0",
            "kernelVersion": "6.1.0-18-arm64",
            "kubeProxyVersion": "",
            "kubeletVersion": "v1.35.0+toono",
            "machineID": format!("{:016x}{:016x}", unlike(3), unlike(4)),
            "operatingSystem": "linux",
            "osImage": "Debian GNU/Linux 12 (bookworm)",
            "systemUUID": uuid(5),
        },
    })
}
