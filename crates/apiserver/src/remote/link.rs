//! The way to a node, as this module needs it; the binary ties it to the fleet.

use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use toono_api::ApiError;
use toono_http::{Body, BoxError};

/// Sends a request to a node through a connection that the node opened.
pub trait NodeLink: Send + Sync + 'static {
    /// Sends the request and returns the head of the node's answer. The request's path is a
    /// kubelet's; both bodies may stream for hours. Dropping the future or the response's body
    /// gives the request up.
    ///
    /// # Errors
    /// When the node cannot be reached or does not answer.
    fn send(
        &self,
        node: &str,
        request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, LinkError>>;
}

/// Why a node did not get a request.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The fleet knows no node of this name.
    #[error("node {node} has not joined")]
    Unknown {
        /// The node.
        node: String,
    },
    /// No fresh heartbeat: nothing can tell the node to dial back.
    #[error("node {node} has not been heard for {}s", silent_for.as_secs())]
    Silent {
        /// The node.
        node: String,
        /// Since its last heartbeat.
        silent_for: Duration,
    },
    /// It was told to dial back and did not in time.
    #[error("node {node} did not dial back within {}s; it was {heard}", waited.as_secs())]
    NoDialBack {
        /// The node.
        node: String,
        /// When its last heartbeat came, as `last heard 12 s ago`.
        heard: String,
        /// For how long.
        waited: Duration,
    },
    /// Its connection carries as many requests as it may.
    #[error("node {node} already serves {limit} streams")]
    Busy {
        /// The node.
        node: String,
        /// As many as it may.
        limit: usize,
    },
    /// The connection failed under the request.
    #[error("the connection to node {node} broke")]
    Broken {
        /// The node.
        node: String,
        /// How.
        source: BoxError,
    },
    /// The node took the request and gave no answer.
    #[error("node {node} did not answer within {}s", waited.as_secs())]
    NoAnswer {
        /// The node.
        node: String,
        /// For how long.
        waited: Duration,
    },
}

/// How soon a client should try a busy node again.
const BUSY_RETRY_SECONDS: u32 = 5;

impl LinkError {
    fn hint(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "the pod is bound to a node that never joined or was removed",
            Self::Silent { .. } => {
                "its site may have lost its uplink; the pod itself may be running"
            }
            Self::NoDialBack { .. } => {
                "a node that is heard may be kept by its site from opening TCP connections to the \
                 server; one that is not has lost its uplink, and the pod itself may be running"
            }
            Self::Busy { .. } => "end some logs -f, exec or port-forward sessions of this node",
            Self::Broken { .. } | Self::NoAnswer { .. } => "the link may be weak: try again",
        }
    }
}

impl From<&LinkError> for ApiError {
    fn from(error: &LinkError) -> Self {
        let message = format!("{error} (hint: {})", error.hint());
        match error {
            LinkError::Unknown { .. } | LinkError::Silent { .. } | LinkError::Broken { .. } => {
                Self::Unavailable(message)
            }
            LinkError::NoDialBack { .. } | LinkError::NoAnswer { .. } => Self::Timeout(message),
            LinkError::Busy { .. } => {
                Self::TooManyRequests { message, retry_after_seconds: BUSY_RETRY_SECONDS }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_node_is_unavailable_and_a_mute_one_times_out() {
        let (node, wait) = ("edge-1".to_owned(), Duration::from_secs(42));
        let silent = ApiError::from(&LinkError::Silent { node: node.clone(), silent_for: wait });
        assert_eq!(silent.code(), 503);
        assert!(silent.to_string().starts_with("node edge-1 has not been heard for 42s (hint: "));
        let heard = "last heard 3 s ago".to_owned();
        let mute = ApiError::from(&LinkError::NoDialBack { node, heard, waited: wait });
        assert_eq!((mute.code(), mute.reason()), (504, "Timeout"));
        let text = "node edge-1 did not dial back within 42s; it was last heard 3 s ago (hint: ";
        assert!(mute.to_string().starts_with(text), "{mute}");
    }
}
