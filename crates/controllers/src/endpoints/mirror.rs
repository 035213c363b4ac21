//! Slices for the `Endpoints` that somebody else keeps for a service without a selector.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use super::{
    kinds::{
        Endpoint, EndpointAddress, EndpointConditions, EndpointPort, EndpointSlice, EndpointSubset,
        Endpoints, IPV4, IPV6, MANAGED_BY_LABEL, SERVICE_NAME_LABEL, labels,
    },
    legacy::LEADER_ANNOTATION,
    plan::{Frame, Plan, group, plan},
    write::{self, Writer},
};
use crate::{
    claim::controller_reference,
    context::Context,
    error::SyncError,
    informer::Informer,
    key::Key,
    queue::WorkQueue,
    recorder::Severity,
    worker::{self, Again},
};

const COMPONENT: &str = "endpointslicemirroring-controller";
/// What the label says of who keeps these slices.
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// Most addresses of a subset that are mirrored, in one slice: Kubernetes' default.
const MAX_ENDPOINTS: usize = 1000;
/// With this label the one who writes the endpoints writes slices too.
const SKIP_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Annotations that say nothing about the mirrored endpoints.
const NOT_MIRRORED: [&str; 2] = [
    "endpoints.kubernetes.io/last-change-trigger-time",
    "kubectl.kubernetes.io/last-applied-configuration",
];
/// When a cache that is behind is looked at again, should its news get lost.
const STALE_RETRY: Duration = Duration::from_secs(5);

/// Mirrors. The queue holds services.
pub(super) struct Controller {
    queue: Arc<WorkQueue<Key>>,
    writer: Writer,
}

impl Controller {
    pub(super) fn new(
        context: &mut Context,
        slices: &mut Informer<EndpointSlice>,
        endpoints: &mut Informer<Endpoints>,
    ) -> Self {
        let queue = Arc::new(WorkQueue::new());
        context.services.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                if let Some(service) = change.latest() {
                    queue.add(Key::of(&service.metadata));
                }
            }
        });
        endpoints.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                if let Some(endpoints) = change.latest() {
                    queue.add(Key::of(&endpoints.metadata));
                }
            }
        });
        slices.on_change({
            let queue = Arc::clone(&queue);
            move |change| write::enqueue_owner(change, MANAGER, &queue)
        });
        Self { queue, writer: Writer::default() }
    }

    pub(super) async fn run(
        &self,
        context: &Context,
        slices: &Informer<EndpointSlice>,
        endpoints: &Informer<Endpoints>,
    ) {
        context.services.wait_synced().await;
        endpoints.wait_synced().await;
        slices.wait_synced().await;
        let sync = |key: Key| async move { self.sync(context, slices, endpoints, &key).await };
        let workers = context.config.concurrent_syncs;
        worker::run(COMPONENT, workers, Arc::clone(&self.queue), sync).await;
    }

    async fn sync(
        &self,
        context: &Context,
        slices: &Informer<EndpointSlice>,
        endpoints: &Informer<Endpoints>,
        key: &Key,
    ) -> Result<Again, SyncError> {
        if !self.writer.is_fresh(slices, key) {
            return Ok(Some(STALE_RETRY));
        }
        let existing = write::slices_of(slices, key, MANAGER);
        let mirrored = endpoints.get(key).filter(|found| is_mirrored(found));
        let service = context.services.get(key).filter(|one| one.spec.selector.is_empty());
        let (Some(endpoints), Some(_)) = (mirrored, service) else {
            let plan = Plan { delete: existing, ..Plan::default() };
            self.writer.write(context, key, plan, false).await?;
            return Ok(None);
        };
        let mut members = Vec::new();
        let (mut invalid, mut skipped) = (0, 0);
        for subset in &endpoints.subsets {
            let (found, wrong, more) = mirror(subset);
            members.extend(found);
            invalid += wrong;
            skipped += more;
        }
        tell(context, &endpoints, invalid, skipped);
        let plan = plan(&frame(&endpoints, key), group(&BTreeSet::new(), members), &existing);
        let may_create = endpoints.metadata.deletion_timestamp.is_none();
        self.writer.write(context, key, plan, may_create).await?;
        Ok(None)
    }
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    let skipped = labels.and_then(|labels| labels.get(SKIP_LABEL)).is_some_and(|v| v == "true");
    let annotations = endpoints.metadata.annotations.as_ref();
    !skipped && !annotations.is_some_and(|all| all.contains_key(LEADER_ANNOTATION))
}

type Member = (&'static str, Vec<EndpointPort>, Endpoint);

/// A subset's endpoints, how many of its addresses are none, and how many are too many.
fn mirror(subset: &EndpointSubset) -> (Vec<Member>, usize, usize) {
    let ports: Vec<_> = subset
        .ports
        .iter()
        .map(|port| EndpointPort {
            name: port.name.clone(),
            port: Some(port.port),
            protocol: port.protocol.clone(),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    let ready = subset.addresses.iter().map(|address| (address, true));
    let all = ready.chain(subset.not_ready_addresses.iter().map(|address| (address, false)));
    let (mut found, mut invalid, mut skipped) = (Vec::new(), 0, 0);
    for (address, ready) in all {
        if found.len() >= MAX_ENDPOINTS {
            skipped += 1;
            continue;
        }
        match address.ip.parse::<IpAddr>() {
            Ok(ip) => {
                let address_type = if ip.is_ipv6() { IPV6 } else { IPV4 };
                found.push((address_type, ports.clone(), endpoint(address, ip, ready)));
            }
            Err(_) => invalid += 1,
        }
    }
    (found, invalid, skipped)
}

fn endpoint(address: &EndpointAddress, ip: IpAddr, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: EndpointConditions { ready: Some(ready), ..EndpointConditions::default() },
        hostname: Some(address.hostname.clone()).filter(|name| !name.is_empty()),
        target_ref: address.target_ref.clone(),
        node_name: address.node_name.clone(),
        ..Endpoint::default()
    }
}

fn tell(context: &Context, endpoints: &Endpoints, invalid: usize, skipped: usize) {
    let warn = |reason, message| {
        context.recorder.record(COMPONENT, endpoints, Severity::Warning, reason, message);
    };
    if invalid > 0 {
        warn(
            "InvalidIPAddress",
            format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices"),
        );
    }
    if skipped > 0 {
        warn(
            "TooManyAddressesToMirror",
            format!(
                "A max of {MAX_ENDPOINTS} addresses can be mirrored to EndpointSlices per Endpoints subset. {skipped} addresses were skipped"
            ),
        );
    }
}

fn frame(endpoints: &Endpoints, key: &Key) -> Frame {
    let mut labels = labels(&endpoints.metadata);
    labels.insert(SERVICE_NAME_LABEL.to_owned(), key.name.to_string());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !NOT_MIRRORED.contains(&name.as_str()));
    Frame {
        namespace: key.namespace.to_string(),
        prefix: format!("{}-", key.name),
        owner: controller_reference(endpoints),
        labels,
        annotations,
        max: MAX_ENDPOINTS,
    }
}
