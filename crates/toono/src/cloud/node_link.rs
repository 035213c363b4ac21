//! Ties the API server to the fleet, which knows the way to a node, and when it was last heard.

use std::{sync::OnceLock, time::Duration};

use futures::future::BoxFuture;
use http::{Request, Response};
use jiff::Timestamp;
use toono_apiserver::{LinkError, Liveness, NodeLink};
use toono_fleet::{DIAL_TIMEOUT, Fleet, FleetLinkError};
use toono_http::Body;

/// The API server is made before the fleet, which needs its client; so the fleet comes later.
#[derive(Default)]
pub(crate) struct FleetLink {
    fleet: OnceLock<Fleet>,
}

impl FleetLink {
    /// From now on requests go through this fleet. A second call changes nothing.
    pub(crate) fn connect(&self, fleet: Fleet) {
        let _ = self.fleet.set(fleet);
    }
}

impl NodeLink for FleetLink {
    fn send(
        &self,
        node: &str,
        request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, LinkError>> {
        let (fleet, node) = (self.fleet.get().cloned(), node.to_owned());
        Box::pin(async move {
            let Some(fleet) = fleet else { return Err(LinkError::Unknown { node }) };
            fleet.send(&node, request).await.map_err(|error| translate(node, error))
        })
    }
}

/// What the fleet knows of nodes' lives.
pub(crate) struct FleetLiveness(pub(crate) Fleet);

impl Liveness for FleetLiveness {
    fn heard(&self, nodes: &[&str]) -> Vec<Option<Timestamp>> {
        self.0.heard(nodes)
    }

    fn renewed(&self, node: &str, unseen: Duration) {
        self.0.renewed(node, unseen);
    }
}

fn translate(node: String, error: FleetLinkError) -> LinkError {
    match error {
        FleetLinkError::Unknown { node } => LinkError::Unknown { node },
        FleetLinkError::NoDialBack { node, heard } => {
            LinkError::NoDialBack { node, heard, waited: DIAL_TIMEOUT }
        }
        FleetLinkError::Broken { node, source } => {
            LinkError::Broken { node, source: Box::new(source) }
        }
        random @ FleetLinkError::Random => LinkError::Broken { node, source: random.into() },
    }
}
