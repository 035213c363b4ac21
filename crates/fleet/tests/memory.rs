//! What the fleet keeps of what pods reference: the difference that references make to its memory.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests fail by panicking, and a figure is of use even when it is within the bound"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use serde_json::{Value, json};
use tokio::{net::UdpSocket, sync::oneshot};
use toono_api::UserInfo;
use toono_fleet::{Change, ClusterSecret, Feed, Fleet, FleetConfig};
use toono_pki::ClusterCa;

/// Most bytes that a pod's reference may cost: a million pods have some millions of them.
const MOST_BYTES_PER_REFERENCE: usize = 16;
/// Pods, each on a node of its own: as tables with 1,000,000 are as full.
const PODS: usize = 1_000_000 / 16;
/// Deployments that they are of.
const TEMPLATES: usize = 50;
/// What each of them references.
const REFERENCES: usize = 3;
/// Pods told at once.
const PAGE: usize = 1_000;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// What an allocator takes for so many bytes, roughly: sizes in steps of sixteen.
fn taken(layout: Layout) -> usize {
    layout.size().next_multiple_of(16)
}

#[expect(unsafe_code, reason = "an allocator is unsafe; this one only counts for the system's")]
// SAFETY: each call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(taken(layout), Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(taken(layout), Ordering::Relaxed);
        // SAFETY: as above; the pointer came from there.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// All there ever is: pods of some templates, which reference something or not.
struct Fixed {
    references: bool,
}

fn all(pages: impl Iterator<Item = Vec<Value>> + Send + 'static) -> BoxStream<'static, Change> {
    let bytes = |objects: Vec<Value>| {
        Change::Page(objects.iter().map(|object| Bytes::from(object.to_string())).collect())
    };
    let told = stream::iter(std::iter::once(Change::List).chain(pages.map(bytes)));
    told.chain(stream::iter([Change::Listed { revision: 1 }])).chain(stream::pending()).boxed()
}

fn pod(number: usize, references: bool) -> Value {
    let template = number % TEMPLATES;
    let volumes = json!([
        {"name": "a", "configMap": {"name": format!("conf-{template}")}},
        {"name": "b", "secret": {"secretName": format!("key-{template}")}},
        {"name": "c", "projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}}]);
    json!({
        "metadata": {"name": format!("pod-{number}"), "namespace": "default", "resourceVersion": "1",
            "uid": format!("00000000-0000-0000-0000-{number:012}")},
        "spec": {"nodeName": format!("node-{number}"), "containers": [{"name": "c", "image": "i"}],
            "volumes": if references { volumes } else { Value::Null }}})
}

fn named(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default", "resourceVersion": "1"}, "data": {"k": "dg=="}})
}

impl Feed for Fixed {
    fn nodes(&self) -> BoxStream<'static, Change> {
        all(std::iter::empty())
    }

    fn pods(&self) -> BoxStream<'static, Change> {
        let references = self.references;
        let page = move |first: usize| {
            (first..PODS.min(first + PAGE)).map(|number| pod(number, references)).collect()
        };
        all((0..PODS).step_by(PAGE).map(page))
    }

    fn services(&self) -> BoxStream<'static, Change> {
        all(std::iter::empty())
    }

    fn endpoint_slices(&self) -> BoxStream<'static, Change> {
        all(std::iter::empty())
    }

    fn config_maps(&self) -> BoxStream<'static, Change> {
        let names = (0..TEMPLATES).map(|it| format!("conf-{it}"));
        let maps = names.chain(["kube-root-ca.crt".to_owned()]).map(|name| named(&name));
        all(std::iter::once(maps.collect()))
    }

    fn secrets(&self) -> BoxStream<'static, Change> {
        all(std::iter::once((0..TEMPLATES).map(|it| named(&format!("key-{it}"))).collect()))
    }

    fn node_pools(&self) -> BoxStream<'static, Change> {
        all(std::iter::empty())
    }

    fn grants(&self, _plural: &'static str) -> BoxStream<'static, Change> {
        all(std::iter::empty())
    }
}

/// What a fleet that has read all of it keeps, in bytes.
async fn kept(references: bool) -> usize {
    let before = LIVE.load(Ordering::Relaxed);
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        let response = http::Response::builder().status(404).body(toono_http::empty());
        response.map_err(toono_http::BoxError::from)
    });
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let secret = ClusterSecret::new(1, &[7; 32]);
    let config = FleetConfig::new(vec![secret], socket.local_addr().unwrap().port(), "test");
    let (client, ca) = (kube::Client::new(service, "default"), ClusterCa::generate().unwrap());
    let fleet =
        Fleet::with_feed(config, client, Arc::new(ca), Arc::new(Fixed { references })).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let runner = fleet.clone();
    let running = tokio::spawn(async move {
        runner.run(socket, async { stopped.await.unwrap_or(()) }).await;
    });
    loop {
        let mut request = http::Request::get("/fleet/v1/bundle").body(toono_http::empty()).unwrap();
        request.extensions_mut().insert(UserInfo::new("system:node:probe", ["system:nodes"]));
        if (fleet.handler())(request).await.status() != 503 {
            break;
        }
        tokio::task::yield_now().await;
    }
    let kept = LIVE.load(Ordering::Relaxed) - before;
    stop.send(()).unwrap();
    running.await.unwrap();
    kept
}

#[tokio::test]
async fn a_reference_costs_a_few_bytes() {
    let without = kept(false).await;
    let with = kept(true).await;
    eprintln!("a pod without references: {} bytes", without / PODS);
    let each = with.saturating_sub(without) / (PODS * REFERENCES);
    eprintln!("a reference of a pod: {each} bytes");
    assert!(each <= MOST_BYTES_PER_REFERENCE, "{each} bytes");
}
