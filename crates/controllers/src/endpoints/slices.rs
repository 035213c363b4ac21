//! The slices of services with a selector.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use super::{
    kinds::{
        Endpoint, EndpointConditions, EndpointHints, EndpointSlice, HEADLESS_LABEL, IPV4, IPV6,
        MANAGED_BY_LABEL, Named, SERVICE_NAME_LABEL, labels,
    },
    members,
    plan::{Frame, group, plan},
    write::{self, Writer},
};
use crate::{
    claim::controller_reference,
    context::Context,
    error::SyncError,
    informer::{Index, Informer},
    key::Key,
    kinds::{Service, pod::Pod},
    object::Metadata,
    pods::{is_ready, node_name},
    queue::WorkQueue,
    worker::{self, Again},
};

const COMPONENT: &str = "endpointslice-controller";
/// What the label says of who keeps these slices.
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Most endpoints in one slice: Kubernetes' default.
const MAX_ENDPOINTS: usize = 100;
/// The label with a node's zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// When a pod on a node that is not known yet is looked at again.
const UNKNOWN_NODE_RETRY: Duration = Duration::from_secs(5);

/// Keeps the slices. The queue holds services.
pub(super) struct Controller {
    queue: Arc<WorkQueue<Key>>,
    writer: Writer,
}

impl Controller {
    pub(super) fn new(context: &mut Context, slices: &mut Informer<EndpointSlice>) -> Self {
        let queue = Arc::new(WorkQueue::new());
        context.services.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                if let Some(service) = &change.new {
                    queue.add(Key::of(&service.metadata));
                }
            }
        });
        context.pods.on_change({
            let (queue, services) = (Arc::clone(&queue), context.services.reader());
            move |change| members::enqueue_services(change, &services, &queue)
        });
        slices.on_change({
            let queue = Arc::clone(&queue);
            move |change| write::enqueue_owner(change, MANAGER, &queue)
        });
        Self { queue, writer: Writer::default() }
    }

    pub(super) async fn run(&self, context: &Context, slices: &Informer<EndpointSlice>) {
        context.services.wait_synced().await;
        context.pods.wait_synced().await;
        context.nodes.wait_synced().await;
        slices.wait_synced().await;
        let sync = |key: Key| async move { self.sync(context, slices, &key).await };
        let workers = context.config.concurrent_syncs;
        worker::run(COMPONENT, workers, Arc::clone(&self.queue), sync).await;
    }

    async fn sync(
        &self,
        context: &Context,
        slices: &Informer<EndpointSlice>,
        key: &Key,
    ) -> Result<Again, SyncError> {
        // What a service leaves behind its owner references collect.
        let Some(service) = context.services.get(key) else { return Ok(None) };
        if service.spec.selector.is_empty() || members::is_external_name(&service) {
            return Ok(None);
        }
        if !self.writer.is_fresh(slices, key) {
            // The created slice's arrival comes back here.
            return Ok(Some(UNKNOWN_NODE_RETRY));
        }
        let mut pods = context.pods.by(Index::Namespace, &key.namespace);
        pods.retain(|pod| members::selects(&service, pod) && members::is_candidate(pod));
        let mut again = None;
        let types = address_types(&service);
        let mut found = Vec::new();
        for pod in &pods {
            let node = context.nodes.get(&Key::new("", node_name(pod).unwrap_or_default()));
            if node.is_none() && !service.spec.publish_not_ready_addresses {
                again = Some(UNKNOWN_NODE_RETRY);
                continue;
            }
            let zone = node.as_ref().and_then(|node| node.label(ZONE_LABEL));
            for address_type in &types {
                if let Some(endpoint) = endpoint(&service, pod, zone, address_type) {
                    found.push((*address_type, members::ports(&service, pod), endpoint));
                }
            }
        }
        let existing = write::slices_of(slices, key, MANAGER);
        let plan = plan(&frame(&service, key), group(&types, found), &existing);
        let may_create = service.metadata.deletion_timestamp.is_none();
        self.writer.write(context, key, plan, may_create).await?;
        Ok(again)
    }
}

/// The address types of a service's families; a headless one without families has both.
fn address_types(service: &Service) -> BTreeSet<&'static str> {
    let families = service.spec.ip_families.iter();
    let named: BTreeSet<_> = families
        .filter_map(|family| [IPV4, IPV6].into_iter().find(|known| known == family))
        .collect();
    if !named.is_empty() {
        return named;
    }
    match service.spec.cluster_ip.parse() {
        Ok(IpAddr::V4(_)) => [IPV4].into(),
        Ok(IpAddr::V6(_)) => [IPV6].into(),
        Err(_) => [IPV4, IPV6].into(),
    }
}

/// The pod as an endpoint of this type; `None` when it has no such address.
fn endpoint(
    service: &Service,
    pod: &Pod,
    zone: Option<&str>,
    address_type: &str,
) -> Option<Endpoint> {
    let addresses = members::addresses(pod).iter().copied();
    let addresses: Vec<_> = addresses
        .filter(|ip| ip.is_ipv6() == (address_type == IPV6))
        .map(|ip| ip.to_string())
        .collect();
    if addresses.is_empty() {
        return None;
    }
    let serving = is_ready(pod);
    let terminating = pod.metadata.is_leaving();
    let ready = service.spec.publish_not_ready_addresses || (serving && !terminating);
    let node_name = node_name(pod).map(str::to_owned);
    Some(Endpoint {
        addresses,
        conditions: EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        },
        hostname: members::hostname(service, pod),
        target_ref: Some(members::reference(pod)),
        hints: hints(service, ready, zone, node_name.as_deref()),
        node_name,
        zone: zone.map(str::to_owned),
    })
}

/// Who should prefer the endpoint, by what the service says of its traffic.
fn hints(
    service: &Service,
    ready: bool,
    zone: Option<&str>,
    node: Option<&str>,
) -> Option<EndpointHints> {
    let same_node = match service.spec.traffic_distribution.as_deref()? {
        "PreferSameNode" => true,
        "PreferClose" | "PreferSameZone" => false,
        _ => return None,
    };
    let named = |name: Option<&str>| name.map(|name| Named { name: name.to_owned() });
    let for_zones: Vec<_> = named(zone).into_iter().collect();
    let for_nodes: Vec<_> = named(node).filter(|_| same_node).into_iter().collect();
    let any = ready && !(for_zones.is_empty() && for_nodes.is_empty());
    any.then_some(EndpointHints { for_zones, for_nodes })
}

fn frame(service: &Service, key: &Key) -> Frame {
    let mut labels: BTreeMap<_, _> = labels(&service.metadata);
    labels.remove(HEADLESS_LABEL);
    if members::is_headless(service) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME_LABEL.to_owned(), key.name.to_string());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGER.to_owned());
    Frame {
        namespace: key.namespace.to_string(),
        prefix: format!("{}-", key.name),
        owner: controller_reference(service),
        labels,
        annotations: BTreeMap::new(),
        max: MAX_ENDPOINTS,
    }
}
