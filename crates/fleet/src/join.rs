//! A bootstrap token buys a Node, a certificate and a session key.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use toono_api::{ApiError, GroupResource, UserInfo, names, user::GROUP_BOOTSTRAPPERS};
use toono_openyurt::keys;
use toono_session::{NodeIndex, NodeUid};
use toono_wire::join::{JoinRequest, JoinResponse, SessionGrant};

use crate::{
    arrival::Arrival,
    bundles::BundleIndex,
    calls::{Refusal, code, modify, timestamp},
    certificates,
    fleet::Inner,
    objects::{
        ANNOTATION_CERTIFICATE, ANNOTATION_GENERATION, ANNOTATION_INDEX, NodeObject, at, set,
        set_condition,
    },
    parts, readiness,
    table::Taken,
};

pub(crate) const NODES: &str = "/api/v1/nodes";
/// Times that a Node is created anew because another server gave its index to another one at the same moment.
const INDEX_ATTEMPTS: usize = 8;

/// What the Node of this join must carry.
struct Identity {
    certificate: u64,
    index: NodeIndex,
    generation: u16,
    pod_cidr: String,
}

/// Ends the reservation of a name and index however the join ends.
struct Reservation<'a> {
    inner: &'a Inner,
    name: &'a str,
    index: NodeIndex,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.inner.state().table.release(self.name, self.index);
    }
}

pub(crate) fn written(node: &Value) -> Result<NodeObject, ApiError> {
    serde_json::to_vec(node)
        .and_then(|bytes| NodeObject::parse(&bytes))
        .map_err(|error| ApiError::Internal(format!("the Node just written: {error}")))
}

/// `POST /fleet/v1/join`.
pub(crate) async fn join(
    inner: &Arc<Inner>,
    user: &UserInfo,
    request: JoinRequest,
) -> Result<JoinResponse, Refusal> {
    if !user.is_in(GROUP_BOOTSTRAPPERS) {
        let why = format!("user {:?} may not join nodes; hint: use a bootstrap token", user.name);
        return Err(ApiError::ForbiddenPath(why).into());
    }
    validate(&request)?;
    if !inner.state().table.loaded {
        return Err(ApiError::Unavailable(
            "the server has not read its Nodes yet; try again".into(),
        )
        .into());
    }
    // Signed first: a bad request must leave no Node behind.
    let certificate_pem = inner
        .ca
        .sign_node_csr(&request.csr_pem, &request.node_name, inner.config.certificate_lifetime)
        .map_err(|error| ApiError::BadRequest(format!("csr_pem: {error}")))?;

    let certificate = toono_pki::fingerprint_of_pem(&certificate_pem)
        .map_err(|error| ApiError::Internal(error.to_string()))?;

    let name = request.node_name.as_str();
    let now = inner.now();
    for _ in 0..INDEX_ATTEMPTS {
        let reserved = inner.state().table.reserve(name, now, &inner.config.grace);
        let (index, known) = reserved.map_err(|taken| refuse(name, &taken))?;
        let _reservation = Reservation { inner, name, index };
        let node = match known {
            None => {
                let mut arrival = Arrival::new(inner, name);
                let node = create(inner, &request, (index, certificate)).await?;
                if !arrival.keeps_its_index(&node).await? {
                    continue;
                }
                node
            }
            Some(_) => renew(inner, &request, (index, certificate)).await?,
        };
        return respond(inner, &node, certificate_pem, known.is_none());
    }
    Err(ApiError::Unavailable("nodes join at too many servers at once; try again".into()).into())
}

/// What a node is told whose Node is written.
fn respond(
    inner: &Inner,
    node: &Value,
    certificate_pem: String,
    is_new: bool,
) -> Result<JoinResponse, Refusal> {
    let now = inner.now();
    let object = written(node)?;
    let index = NodeIndex(object.session_index().unwrap_or(u32::MAX));
    let name = object.metadata.name.as_str();
    let generation = object.session_generation().unwrap_or(1);
    let bundle_revision = {
        let mut state = inner.state();
        state.admit(&object, now);
        let made = is_new.then(|| state.table.member(index)).flatten();
        let place = made.map_or(BundleIndex::NONE, |member| member.bundle);
        state.bundles.nothing_for(place)
    };
    let session = grant(inner, &object.metadata.uid, &object)?;
    tracing::info!(node = name, index = index.0, generation, "node joined");
    Ok(JoinResponse {
        node_uid: object.metadata.uid.clone(),
        certificate_pem,
        ca_pem: inner.ca.cert_pem().to_owned(),
        session,
        pod_cidr: object.pod_cidr().to_owned(),
        bundle_revision,
        pool: parts::news(inner, name),
        dns: parts::cluster_dns(inner),
    })
}

/// `GET /fleet/v1/session`: the key of today for a node that has its certificate already.
pub(crate) fn session(inner: &Inner, node: &str) -> Result<SessionGrant, Refusal> {
    let mut state = inner.state();
    let Some((index, member)) = state.table.named(node) else {
        if !state.table.loaded {
            return Err(
                ApiError::Unavailable("the server has not read its Nodes yet".into()).into()
            );
        }
        return Err(ApiError::NotFound { resource: resource(), name: node.to_owned() }.into());
    };
    let (uid, generation) = (member.uid, member.generation);
    if let Some(member) = state.table.member_mut(index) {
        member.old_list = false;
    }
    drop(state);
    make_grant(inner, index, uid, generation)
}

fn grant(inner: &Inner, uid: &str, node: &NodeObject) -> Result<SessionGrant, Refusal> {
    let (Some(index), Some(generation)) = (node.session_index(), node.session_generation()) else {
        return Err(ApiError::Internal("the Node lost its session annotations".into()).into());
    };
    make_grant(inner, NodeIndex(index), NodeUid::new(uid), generation)
}

fn make_grant(
    inner: &Inner,
    index: NodeIndex,
    uid: NodeUid,
    generation: u16,
) -> Result<SessionGrant, Refusal> {
    let state = inner.state();
    let (epoch, key) = state
        .table
        .sessions
        .grant(&uid, generation)
        .ok_or_else(|| ApiError::Internal("no cluster secret".into()))?;
    let boot_floor = state.table.fresh(index).map_or(0, |fresh| fresh.counter >> 32);
    Ok(SessionGrant {
        index: index.0,
        generation,
        epoch,
        key_hex: key.to_hex(),
        udp_port: inner.config.udp_port,
        interval_ms: u32::try_from(inner.config.heartbeat.as_millis()).unwrap_or(u32::MAX),
        boot_floor: u32::try_from(boot_floor).unwrap_or(u32::MAX),
        servers: state.table.servers.list().to_vec(),
    })
}

fn validate(request: &JoinRequest) -> Result<(), ApiError> {
    let name = names::dns_subdomain(&request.node_name);
    if let Some(why) = name.first() {
        return Err(ApiError::BadRequest(format!("node_name {:?}: {why}", request.node_name)));
    }
    let pool = request.pool.as_deref().map(names::label_value).unwrap_or_default();
    if let Some(why) = pool.first() {
        return Err(ApiError::BadRequest(format!("pool {:?}: {why}", request.pool)));
    }
    if !request.status.is_object() {
        return Err(ApiError::BadRequest("status: must be a v1.NodeStatus object".into()));
    }
    Ok(())
}

fn refuse(name: &str, taken: &Taken) -> ApiError {
    let why = match taken {
        Taken::Joining => "another node of this name is joining at this moment".to_owned(),
        Taken::Alive(heard) => {
            let ago = heard.map_or("before the server's start".to_owned(), |ago| {
                format!("{} s ago", Duration::as_secs(&ago))
            });
            format!(
                "a node of this name is alive, last heard {ago}; hint: choose another name, or \
                 stop that node and wait until it is NotReady"
            )
        }
    };
    ApiError::Conflict { resource: resource(), name: name.to_owned(), why }
}

fn resource() -> GroupResource {
    GroupResource { group: String::new(), resource: "nodes".to_owned() }
}

/// A Node that is not there yet; when it turns out to be, it is renewed.
async fn create(
    inner: &Inner,
    request: &JoinRequest,
    place: (NodeIndex, u64),
) -> Result<Value, Refusal> {
    let identity = identity(inner, place, 1)?;
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": request.node_name, "labels": {}, "annotations": {}},
        "spec": {"taints": silent_taints()},
        "status": status(&request.status),
    });
    dress(&mut node, request, &identity);
    let capacity = ["status", "capacity"];
    match inner.calls.post(NODES, &node).await {
        Ok(created) if at(&created, &capacity) == at(&node, &capacity) => Ok(created),
        // A server may drop the status of a new object: it has a subresource of its own.
        Ok(_) => write_status(inner, request).await,
        Err(error) if code(&error) == Some(409) => renew(inner, request, place).await,
        Err(error) => Err(error.into()),
    }
}

/// A Node of this name exists: it keeps its index and addresses, and its generation grows, so that
/// the earlier identity's session ends.
async fn renew(
    inner: &Inner,
    request: &JoinRequest,
    place: (NodeIndex, u64),
) -> Result<Value, Refusal> {
    let path = format!("{NODES}/{}", request.node_name);
    let mut failed = None;
    modify(&inner.calls, &path, "", |node| {
        let old = serde_json::to_vec(&*node).and_then(|bytes| NodeObject::parse(&bytes));
        let next = old.ok().and_then(|old| old.session_generation()).unwrap_or(0).checked_add(1);
        match next {
            None => {
                failed = Some(ApiError::Conflict {
                    resource: resource(),
                    name: request.node_name.clone(),
                    why: "it has used up its 65,535 identities; hint: delete the Node first".into(),
                });
                false
            }
            Some(generation) => match identity(inner, place, generation) {
                Ok(identity) => {
                    dress(node, request, &identity);
                    true
                }
                Err(error) => {
                    failed = Some(error);
                    false
                }
            },
        }
    })
    .await?;
    match failed {
        Some(error) => Err(error.into()),
        None => write_status(inner, request).await,
    }
}

async fn write_status(inner: &Inner, request: &JoinRequest) -> Result<Value, Refusal> {
    let path = format!("{NODES}/{}", request.node_name);
    let node = modify(&inner.calls, &path, "/status", |node| {
        set(node, &["status"], status(&request.status));
        true
    });
    Ok(node.await?)
}

fn identity(
    inner: &Inner,
    (index, certificate): (NodeIndex, u64),
    generation: u16,
) -> Result<Identity, ApiError> {
    let cidr = inner.config.cluster_cidr;
    let pod_cidr = cidr.subnet(index.0).ok_or_else(|| {
        ApiError::Unavailable(format!(
            "the pod network {cidr} has room for {} nodes; hint: start the server \
             with a larger one, or with smaller shares",
            cidr.subnets()
        ))
    })?;
    Ok(Identity { certificate, index, generation, pod_cidr })
}

/// Labels, annotations and addresses of a member. What others put on the Node stays.
fn dress(node: &mut Value, request: &JoinRequest, identity: &Identity) {
    let mut label = |key: &str, value: &str| set(node, &["metadata", "labels", key], value);
    label("kubernetes.io/hostname", &request.node_name);
    label("kubernetes.io/os", "linux");
    label("kubernetes.io/arch", architecture(&request.status));
    label(keys::IS_EDGE_WORKER, "true");
    let is_free =
        at(node, &["metadata", "labels", keys::NODE_POOL]).as_str().is_none_or(str::is_empty);
    if let Some(pool) = request.pool.as_ref().filter(|_| is_free) {
        // Who is in a pool stays there: its owner may have moved it since the node was told.
        set(node, &["metadata", "labels", keys::NODE_POOL], pool.as_str());
    }
    let mut annotate =
        |key: &str, value: String| set(node, &["metadata", "annotations", key], value);
    annotate(ANNOTATION_INDEX, identity.index.0.to_string());
    annotate(ANNOTATION_GENERATION, identity.generation.to_string());
    annotate(ANNOTATION_CERTIFICATE, certificates::annotation(None, identity.certificate));
    if at(node, &["spec", "podCIDR"]).as_str().is_none_or(str::is_empty) {
        set(node, &["spec", "podCIDR"], identity.pod_cidr.as_str());
        set(node, &["spec", "podCIDRs"], json!([identity.pod_cidr]));
    }
}

/// The taints of a node that is not heard, which node lifecycle would add to it otherwise: a write less for
/// each that joins, and no moment in which pods are placed there.
fn silent_taints() -> Value {
    let key = "node.kubernetes.io/unreachable";
    let now = timestamp();
    json!([
        {"key": key, "effect": "NoSchedule", "timeAdded": now},
        {"key": key, "effect": "NoExecute", "timeAdded": now},
    ])
}

fn architecture(status: &Value) -> &str {
    let named = at(status, &["nodeInfo", "architecture"]).as_str();
    named.filter(|text| !text.is_empty()).unwrap_or("amd64")
}

/// The node's status, not yet ready: the first heartbeat makes it so.
fn status(of_node: &Value) -> Value {
    let mut status = of_node.clone();
    let now = timestamp();
    let mut ready = readiness::condition(false, &now, Some(&now));
    set(&mut ready, &["reason"], "NodeStatusNeverUpdated");
    set(&mut ready, &["message"], "The node has not sent a heartbeat yet.");
    set_condition(&mut status, ready, &now);
    status
}
