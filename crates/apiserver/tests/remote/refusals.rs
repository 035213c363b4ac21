//! What a client is told when there is no way into a pod.

use std::time::Duration;

use crate::host::Host;
use crate::kubectl::{Protocol, text};
use crate::site::Site;

#[tokio::test]
async fn errors_are_kubernetes() {
    let table: [(&[&str], &str); 4] = [
        (&["exec", "web", "-c", "nope", "--", "true"], "container nope is not valid for pod web"),
        (&["exec", "pending", "--", "true"], "pod pending does not have a host assigned"),
        (&["exec", "web", "--", "refuse"], "container \"app\" is not running"),
        (&["logs", "web", "-c", "nope"], "container nope is not valid for pod web"),
    ];
    for protocol in Protocol::BOTH {
        let site = Site::start(Host::new()).await;
        for (args, message) in table {
            let (code, _, err) = text(protocol, &site, args).await;
            assert_eq!(code, Some(1), "{protocol:?} {args:?}");
            assert!(err.contains(message), "{protocol:?} {args:?}: {err}");
        }
    }
}

#[tokio::test]
async fn a_silent_node_is_named_with_a_hint() {
    for protocol in Protocol::BOTH {
        let host = Host { silent_for: Some(Duration::from_secs(42)), ..Host::new() };
        let site = Site::start(host).await;
        for args in [&["logs", "web"][..], &["exec", "web", "--", "true"]] {
            let (code, _, err) = text(protocol, &site, args).await;
            assert_eq!(code, Some(1));
            let message = "node edge-1 has not been heard for 42s (hint: ";
            assert!(err.contains(message), "{protocol:?} {args:?}: {err}");
        }
    }
}
