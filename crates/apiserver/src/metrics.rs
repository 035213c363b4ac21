//! What the server counts, under Kubernetes' names where the meaning is the same, and `/metrics`.
//!
//! <https://kubernetes.io/docs/reference/instrumentation/metrics/>

use std::fmt;

use http::{HeaderValue, Response, StatusCode};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use toono_http::Body;

use crate::{process, respond, trail::Trail};

/// The shortest request that is told apart, in seconds.
const SHORTEST_SECONDS: f64 = 0.0005;
/// Doubling from there reaches a minute.
const BUCKETS: u16 = 17;
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Counters of the API server.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    durations: Family<Asked, Histogram>,
    in_flight: Family<Kind, Gauge>,
    long_running: Family<Asked, Gauge>,
    /// Events that were sent to watchers.
    watch_events: Family<Watched, Counter>,
    /// Requests that waited too long for their turn, or found no place to wait.
    rejected: Family<Lane, Counter>,
    waiting: Family<Lane, Gauge>,
}

/// What a request asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Asked {
    verb: String,
    dry_run: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: &'static str,
    scope: &'static str,
    component: &'static str,
}

/// The same, and what was answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    #[prometheus(flatten)]
    asked: Asked,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    request_kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Watched {
    group: String,
    version: String,
    resource: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Lane {
    priority_level: &'static str,
}

/// Counts a request for as long as it is under way.
#[derive(Debug)]
pub(crate) struct UnderWay(Gauge);

impl UnderWay {
    fn begin(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let histogram = || Histogram::new(exponential_buckets(SHORTEST_SECONDS, 2.0, BUCKETS));
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(histogram),
            in_flight: Family::default(),
            long_running: Family::default(),
            watch_events: Family::default(),
            rejected: Family::default(),
            waiting: Family::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "apiserver_request",
            "Requests that were answered, by what was asked and the HTTP code",
            self.requests.clone(),
        );
        registry.register(
            "apiserver_request_duration_seconds",
            "Time to answer, long-running requests left out",
            self.durations.clone(),
        );
        registry.register(
            "apiserver_current_inflight_requests",
            "Requests under way, long-running ones left out",
            self.in_flight.clone(),
        );
        registry.register(
            "apiserver_longrunning_requests",
            "Long-running requests under way",
            self.long_running.clone(),
        );
        registry.register(
            "apiserver_watch_events",
            "Events sent to watchers",
            self.watch_events.clone(),
        );
        registry.register(
            "apiserver_flowcontrol_rejected_requests",
            "Requests refused since their lane was full",
            self.rejected.clone(),
        );
        registry.register(
            "apiserver_flowcontrol_current_inqueue_requests",
            "Requests that wait for their turn",
            self.waiting.clone(),
        );
    }

    /// A request that has been understood and now is under way.
    pub(crate) fn begin(&self, trail: &Trail) -> UnderWay {
        let gauge = if trail.is_long_running() {
            self.long_running.get_or_create_owned(&Asked::of(trail))
        } else {
            let request_kind = if trail.is_mutating() { "mutating" } else { "readOnly" };
            self.in_flight.get_or_create_owned(&Kind { request_kind })
        };
        UnderWay::begin(gauge)
    }

    /// A request that has been answered.
    pub(crate) fn answered(&self, trail: &Trail, status: StatusCode) {
        let asked = Asked::of(trail);
        if !trail.is_long_running() {
            let seconds = trail.started.elapsed().as_secs_f64();
            self.durations.get_or_create(&asked).observe(seconds);
        }
        self.requests.get_or_create(&Answered { asked, code: status.as_u16() }).inc();
    }

    /// Where the events of watches of a resource are counted.
    pub(crate) fn watch_events(&self, resource: &toono_api::Resource) -> Counter {
        let watched = Watched {
            group: resource.group.to_string(),
            version: resource.version.to_string(),
            resource: resource.plural.to_string(),
        };
        self.watch_events.get_or_create_owned(&watched)
    }

    /// A request that its lane refused.
    pub(crate) fn rejected(&self, priority_level: &'static str) {
        self.rejected.get_or_create(&Lane { priority_level }).inc();
    }

    /// A request that waits for its turn, until this is dropped.
    pub(crate) fn waits(&self, priority_level: &'static str) -> UnderWay {
        UnderWay::begin(self.waiting.get_or_create_owned(&Lane { priority_level }))
    }

    /// What `/metrics` answers.
    pub(crate) fn response(&self) -> Response<Body> {
        let mut text = process::metrics();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        respond::typed(StatusCode::OK, HeaderValue::from_static(OPEN_METRICS), text)
    }
}

impl Asked {
    fn of(trail: &Trail) -> Self {
        let target = trail.target.as_ref();
        let text = |part: fn(&toono_api::Resource) -> &str| {
            target.map_or_else(String::new, |target| part(&target.resource).to_owned())
        };
        Self {
            verb: verb(trail),
            dry_run: if trail.dry_run { "All" } else { "" },
            group: text(|resource| &resource.group),
            version: text(|resource| &resource.version),
            resource: text(|resource| &resource.plural),
            subresource: target.map_or("", |target| target.subresource),
            scope: match target {
                None => "",
                Some(target) if !target.name.is_empty() => "resource",
                Some(target) if !target.namespace.is_empty() => "namespace",
                Some(_) => "cluster",
            },
            component: "apiserver",
        }
    }
}

/// The verb as Kubernetes' metrics name it: that of HTTP, but for those that HTTP does not tell apart.
/// A method that is none of HTTP's is not repeated: labels must not grow by what clients make up.
fn verb(trail: &Trail) -> String {
    match trail.verb.as_str() {
        "list" | "watch" | "deletecollection" => trail.verb.to_ascii_uppercase(),
        _ if trail.is_long_running() => "CONNECT".to_owned(),
        _ => match trail.method.as_str() {
            known @ ("GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "HEAD" | "OPTIONS") => {
                known.to_owned()
            }
            _ => "other".to_owned(),
        },
    }
}
