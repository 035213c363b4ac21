//! A node's certificate is renewed in time, and also when its time was over long ago.

use std::time::Duration;

use serde_json::Value;

use crate::{chaos, edge::Edge, wait::until};

/// How long certificates are good here.
const LIFE: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_certificate_is_renewed_in_time_and_after_it() {
    let edge = Edge::up_with_one_node(&[], &["--cluster-signing-duration", "15s"]);
    let first = certificate(&edge);
    until("a certificate that is renewed in time", PATIENCE, || {
        (certificate(&edge) != first).then_some(())
    });
    chaos::create(&edge, "renewed");
    edge.kubectl(&["wait", "pod/renewed", "--for=condition=Ready", "--timeout=60s"]);

    // Away for longer than any certificate of it is good.
    edge.toono_here(&["lab", "cut"], &["pool-a"]);
    let before = certificate(&edge);
    std::thread::sleep(LIFE + Duration::from_secs(2));
    assert_eq!(certificate(&edge), before, "nobody is there to give it another one");
    assert_ne!(before, first);
    chaos::create(&edge, "expired");
    edge.toono_here(&["lab", "heal"], &["pool-a"]);
    edge.kubectl(&["wait", "pod/expired", "--for=condition=Ready", "--timeout=60s"]);
    assert_ne!(certificate(&edge), before);
}

/// The one that the node has on its disk.
fn certificate(edge: &Edge) -> String {
    let path = edge.data().join("nodes/pool-a-1/identity.json");
    let identity: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    identity["certificate_pem"].as_str().unwrap().to_owned()
}
