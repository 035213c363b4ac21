//! What is known of a request while it is answered, for those who count and record requests. It must
//! not hold bodies: what a request says may be secret, what it is about is not.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use http::{Method, Request, header};
use jiff::Timestamp;
use toono_api::{Resource, UserInfo};
use toono_http::{Body, RemoteAddr};

use crate::{authenticate::InProcess, query::Query, request::ResourcePath};

/// What is known of one request.
#[derive(Debug)]
pub(crate) struct Trail {
    /// When it arrived.
    pub(crate) received: Timestamp,
    /// The same, for durations.
    pub(crate) started: Instant,
    pub(crate) method: Method,
    /// Path and query as they were sent.
    pub(crate) uri: String,
    pub(crate) user_agent: Option<String>,
    pub(crate) peer: Option<SocketAddr>,
    /// Whether it came from this process.
    pub(crate) in_process: bool,
    /// Who sent it; none before that is known.
    pub(crate) user: Option<UserInfo>,
    /// Who it acts as, if that is another.
    pub(crate) acts_as: Option<UserInfo>,
    /// The resource that it is about.
    pub(crate) target: Option<Target>,
    /// The API verb, or the method in lower case for other paths.
    pub(crate) verb: String,
    pub(crate) dry_run: bool,
    /// Why it is allowed, or is not.
    pub(crate) decision: Option<Decided>,
}

/// What a request is about.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) resource: Arc<Resource>,
    pub(crate) subresource: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// What access control said.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) allowed: bool,
    pub(crate) reason: String,
}

impl Trail {
    /// What a request says of itself.
    pub(crate) fn of(request: &Request<Body>, received: Timestamp) -> Self {
        let user_agent = request.headers().get(header::USER_AGENT);
        Self {
            received,
            started: Instant::now(),
            method: request.method().clone(),
            uri: request.uri().path_and_query().map_or_else(String::new, ToString::to_string),
            user_agent: user_agent.and_then(|value| value.to_str().ok()).map(str::to_owned),
            peer: request.extensions().get::<RemoteAddr>().map(|RemoteAddr(peer)| *peer),
            in_process: request.extensions().get::<InProcess>().is_some(),
            user: None,
            acts_as: None,
            target: None,
            verb: request.method().as_str().to_ascii_lowercase(),
            dry_run: false,
            decision: None,
        }
    }

    /// The resource and verb that the path turned out to name.
    pub(crate) fn leads_to(&mut self, at: &ResourcePath<'_>, query: &Query) {
        if let Ok(verb) = at.verb(&self.method, query.flag("watch")) {
            verb.clone_into(&mut self.verb);
        }
        self.dry_run = query.text("dryRun").is_some();
        self.target = Some(Target {
            resource: Arc::clone(&at.resource),
            subresource: at.subresource_name(),
            namespace: at.namespace.to_owned(),
            name: at.name.to_owned(),
        });
    }

    /// Whether it goes on for as long as its client likes.
    pub(crate) fn is_long_running(&self) -> bool {
        const STREAMS: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];
        self.verb == "watch"
            || self.target.as_ref().is_some_and(|target| STREAMS.contains(&target.subresource))
    }

    /// Whether it may change something.
    pub(crate) fn is_mutating(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch" | "head" | "options")
    }
}
