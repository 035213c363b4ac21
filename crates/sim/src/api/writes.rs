//! Durable writes over HTTPS: updates of leases, as leaders make them, and creations. (Those of nodes are
//! `http-lease`'s.)

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use toono_http::client::Connection;

use crate::{
    Failure,
    access::{Access, ask},
    percentiles::Percentiles,
};

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Each client updates a lease of its own.
    LeaseUpdates,
    /// Each client creates ConfigMaps of 1 KiB.
    ConfigMapCreates,
}

/// What came of it.
pub(crate) struct Figures {
    what: String,
    requests: usize,
    pub(crate) elapsed: Duration,
    latencies: Percentiles,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |percent: usize| self.latencies.at(percent).as_secs_f64() * 1000.0;
        let seconds = self.elapsed.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = self.requests as f64 / seconds;
        write!(
            f,
            "{}: {} in {seconds:.1} s, {rate:.0}/s, p50 {:.1} ms, p99 {:.1} ms, slowest {:.1} ms",
            self.what,
            self.requests,
            millis(50),
            millis(99),
            millis(100)
        )
    }
}

pub(crate) async fn measure(
    access: &Access,
    work: Work,
    clients: usize,
    duration: Duration,
) -> Result<Figures, Failure> {
    let began = Instant::now();
    let ends = began + duration;
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let access = access.clone();
        tasks.spawn(async move {
            let mut connection = access.connect().await?;
            match work {
                Work::LeaseUpdates => renew(&mut connection, client, ends).await,
                Work::ConfigMapCreates => create(&mut connection, client, ends).await,
            }
        });
    }
    let what = match work {
        Work::LeaseUpdates => format!("lease updates, {clients} clients"),
        Work::ConfigMapCreates => format!("ConfigMap creates (1 KiB), {clients} clients"),
    };
    gather(what, tasks, began).await
}

/// Creates pods; what each is to be besides [`pod`] is `more`'s to say, and `made` gets it as the server has it.
pub(crate) async fn create_pods(
    access: &Access,
    pods: usize,
    clients: usize,
    more: impl Fn(usize, &mut Value) + Send + Sync + 'static,
    made: impl Fn(usize, &[u8]) + Send + Sync + 'static,
) -> Result<Figures, Failure> {
    let began = Instant::now();
    let (next, more) = (Arc::new(AtomicUsize::new(0)), Arc::new((more, made)));
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (access, next, more) = (access.clone(), Arc::clone(&next), Arc::clone(&more));
        tasks.spawn(async move {
            let mut connection = access.connect().await?;
            let mut latencies = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= pods {
                    return Ok(latencies);
                }
                let mut pod = pod(number);
                (more.0)(number, &mut pod);
                let pod = pod.to_string().into();
                let path = "/api/v1/namespaces/default/pods";
                let (latency, answer) = answered(&mut connection, Method::POST, path, pod).await?;
                latencies.push(latency);
                (more.1)(number, &answer);
            }
        });
    }
    gather(format!("pod creates, {clients} clients"), tasks, began).await
}

async fn gather(
    what: String,
    mut tasks: JoinSet<Result<Vec<Duration>, Failure>>,
    began: Instant,
) -> Result<Figures, Failure> {
    let mut latencies = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done??);
    }
    let elapsed = began.elapsed();
    Ok(Figures { what, requests: latencies.len(), elapsed, latencies: Percentiles::of(latencies) })
}

async fn renew(
    connection: &mut Connection,
    client: usize,
    ends: Instant,
) -> Result<Vec<Duration>, Failure> {
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let name = format!("bench-{client}");
    let path = format!("{leases}/{name}");
    let lease = |micros: usize| {
        let renewed =
            format!("2026-01-01T00:00:{:02}.{:06}Z", micros / 1_000_000 % 60, micros % 1_000_000);
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": renewed}});
        Bytes::from(lease.to_string())
    };
    timed(connection, Method::POST, leases, lease(0)).await?;
    let mut latencies = Vec::new();
    while Instant::now() < ends {
        latencies.push(timed(connection, Method::PUT, &path, lease(latencies.len() + 1)).await?);
    }
    Ok(latencies)
}

async fn create(
    connection: &mut Connection,
    client: usize,
    ends: Instant,
) -> Result<Vec<Duration>, Failure> {
    let path = "/api/v1/namespaces/default/configmaps";
    let payload = "x".repeat(1024);
    let mut latencies = Vec::new();
    while Instant::now() < ends {
        let name = format!("bench-{client}-{}", latencies.len());
        // Put together as text: the client is not what is to be measured.
        let map = format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"payload":"{payload}"}}}}"#
        );
        latencies.push(timed(connection, Method::POST, path, map.into()).await?);
    }
    Ok(latencies)
}

async fn timed(
    connection: &mut Connection,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Duration, Failure> {
    Ok(answered(connection, method, path, body).await?.0)
}

async fn answered(
    connection: &mut Connection,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(Duration, Bytes), Failure> {
    let asked = Instant::now();
    let (status, answer) = ask(connection, method, path, body).await?;
    if matches!(status, StatusCode::OK | StatusCode::CREATED) {
        return Ok((asked.elapsed(), answer));
    }
    Err(format!("{path} answered {status}: {}", String::from_utf8_lossy(&answer)).into())
}

/// A pod as a Deployment makes them, for a scheduler that does not exist.
pub(crate) fn pod(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("bench-{number:06}"),
            "labels": {"app": "bench", "tier": "edge", "pod-template-hash": "5f6b7c8d9"},
            "annotations": {"bench.toono.io/note": "a pod among many"}},
        "spec": {
            "schedulerName": "nobody",
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "main", "image": "registry.example/shop/till:1.24.3",
                "args": ["--listen=:8080", "--log-level=info"],
                "ports": [{"name": "http", "containerPort": 8080}],
                "env": [{"name": "POOL", "value": "shop-7"}],
                "resources": {"requests": {"cpu": "50m", "memory": "64Mi"},
                    "limits": {"memory": "128Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
            }],
        },
    })
}
