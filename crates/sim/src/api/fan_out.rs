//! One change, many watchers: how long until each of them has it.

use std::{
    fmt,
    time::{Duration, Instant},
};

use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    Failure,
    access::{Access, ask},
    percentiles::Percentiles,
};

/// Watches on one connection; the server grants 250.
const WATCHES_PER_CONNECTION: usize = 200;
/// Changes that are measured.
const CHANGES: usize = 10;
/// A change that has not reached everybody by then has failed.
const ARRIVAL_MAX: Duration = Duration::from_secs(30);

/// What came of it.
pub(crate) struct Figures {
    watchers: usize,
    latencies: Percentiles,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |percent: usize| self.latencies.at(percent).as_secs_f64() * 1000.0;
        write!(
            f,
            "a change reaches {} watchers: p50 {:.0} ms, p99 {:.0} ms, last {:.0} ms",
            self.watchers,
            millis(50),
            millis(99),
            millis(100)
        )
    }
}

pub(crate) async fn measure(access: &Access, watchers: usize) -> Result<Figures, Failure> {
    let namespace = "/api/v1/namespaces/kube-public/configmaps";
    let mut writer = access.connect().await?;
    let map = |number: usize| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "watched"},
            "data": {"number": number.to_string(), "payload": "x".repeat(512)}})
        .to_string()
    };
    ask(&mut writer, Method::POST, namespace, map(0).into()).await?;
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut tasks = tokio::task::JoinSet::new();
    for first in (0..watchers).step_by(WATCHES_PER_CONNECTION) {
        let connection = access.connect_http2().await?;
        for _ in first..watchers.min(first + WATCHES_PER_CONNECTION) {
            let (connection, tell) = (connection.clone(), tell.clone());
            let url = format!(
                "https://{}:{}{namespace}?watch=1",
                access.endpoint.host, access.endpoint.port
            );
            tasks.spawn(async move {
                let request = Request::get(url).body(toono_http::empty())?;
                let mut body = connection.send(request).await?.into_body();
                while let Some(frame) = body.frame().await {
                    if frame?.is_data() && tell.send(Instant::now()).is_err() {
                        break;
                    }
                }
                Ok::<(), Failure>(())
            });
        }
    }
    // The first event of each is the object as it is.
    arrivals(&mut told, watchers).await?;
    let mut latencies = Vec::with_capacity(CHANGES * watchers);
    for change in 1..=CHANGES {
        let written = Instant::now();
        ask(&mut writer, Method::PUT, &format!("{namespace}/watched"), map(change).into()).await?;
        let arrived = arrivals(&mut told, watchers).await?;
        latencies.extend(arrived.into_iter().map(|at| at.saturating_duration_since(written)));
    }
    tasks.shutdown().await;
    Ok(Figures { watchers, latencies: Percentiles::of(latencies) })
}

async fn arrivals(
    told: &mut mpsc::UnboundedReceiver<Instant>,
    watchers: usize,
) -> Result<Vec<Instant>, Failure> {
    let all = async {
        let mut arrived = Vec::with_capacity(watchers);
        while arrived.len() < watchers {
            arrived.extend(told.recv().await);
        }
        arrived
    };
    Ok(tokio::time::timeout(ARRIVAL_MAX, all).await.map_err(|_| "a watcher heard nothing")?)
}
