//! How the server reaches a node: a seam that the binary ties to `fleet`.

use futures::future::BoxFuture;
use toono_http::Body;

/// Sends HTTP requests into nodes.
pub trait NodeLink: Send + Sync + 'static {
    /// Sends a request with a kubelet path (`/containerLogs/NS/POD/CONTAINER?follow=true`, …) to
    /// the named node and returns its answer, headers first; bodies stream.
    fn send(
        &self,
        node: &str,
        request: http::Request<Body>,
    ) -> BoxFuture<'static, Result<http::Response<Body>, LinkError>>;
}

/// Why a node could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The node has no session now.
    #[error("node {node:?} is not connected")]
    NotConnected {
        /// Which node.
        node: String,
    },
    /// The node did not open a tunnel in time.
    #[error("node {node:?} did not dial back in time")]
    DialBackTimeout {
        /// Which node.
        node: String,
    },
    /// The tunnel broke.
    #[error("the tunnel to node {node:?} failed: {why}")]
    Broken {
        /// Which node.
        node: String,
        /// What happened.
        why: String,
    },
}
