//! An admission webhook behind a Service, served by a pod at the edge: the server asks it through the link
//! that the pod's node opened, through the NAT between them.
//!
//! The pod's container passes bytes on to the test, which speaks TLS under the Service's name and judges.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime};
use toono_http::{Handler, server::Limits};
use toono_pki::ClusterCa;

use crate::{
    edge::{Edge, condition},
    wait::until,
};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_webhook_in_a_pod_behind_nat_judges_writes() {
    let edge = Edge::up_beside();
    let judge = Judge::start(&edge.subnet.replace(".0/24", ".1"));
    edge.apply(&pod(&edge, judge.address));
    edge.kubectl(&["expose", "pod", "judge", "--port=443", "--target-port=8443"]);
    until("an endpoint", SOON, || {
        let slice = ["get", "endpointslices", "-l", "kubernetes.io/service-name=judge"];
        let ready = ["-o", "jsonpath={.items[*].endpoints[*].conditions.ready}"];
        (edge.kubectl(&[&slice[..], &ready].concat()) == "true").then_some(())
    });
    edge.apply(&judge.configuration());

    edge.kubectl(&["create", "configmap", "good"]);
    let refused = refusal(&edge, &["create", "configmap", "bad"]);
    assert!(
        refused.contains("admission webhook \"judge.example.com\" denied the request: bad is bad"),
        "{refused}"
    );
    assert_eq!(*judge.asked.lock().unwrap(), ["good", "bad"]);

    // Without the pod there is nobody to ask, and the policy says that this refuses the write.
    edge.kubectl(&["delete", "pod", "judge", "--grace-period=0", "--force"]);
    let refused = until("no endpoint", SOON, || {
        let text = refusal(&edge, &["create", "configmap", "orphan"]);
        text.contains("no endpoints available for service \"judge\"").then_some(text)
    });
    assert!(refused.contains("failed calling webhook \"judge.example.com\""), "{refused}");
    edge.kubectl(&["delete", "validatingwebhookconfiguration", "judge"]);
    edge.kubectl(&["create", "configmap", "orphan"]);
}

/// What kubectl said of what was refused.
fn refusal(edge: &Edge, arguments: &[&str]) -> String {
    let output = edge.kubectl_command(arguments).output().unwrap();
    assert!(!output.status.success(), "kubectl {arguments:?} was not refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A pod that passes its port's connections on, from the image of `hello`.
fn pod(edge: &Edge, to: SocketAddr) -> Value {
    let pods = until("a pod of hello", SOON, || {
        let pods = edge.pods();
        pods.iter().any(|pod| condition(pod, "Ready") == "True").then_some(pods)
    });
    let image = &pods[0]["spec"]["containers"][0]["image"];
    let (host, port) = (to.ip().to_string(), to.port().to_string());
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "judge", "labels": {"run": "judge"}},
        "spec": {"containers": [{
            "name": "relay", "image": image,
            "command": ["nc", "-ll", "-p", "8443", "-e", "nc", host, port],
            "ports": [{"containerPort": 8443}],
        }]},
    })
}

/// An HTTPS server of the test's own that allows what is not called `bad`.
struct Judge {
    address: SocketAddr,
    ca: ClusterCa,
    asked: Arc<Mutex<Vec<String>>>,
    _runtime: Runtime,
}

impl Judge {
    fn start(address: &str) -> Self {
        let ca = ClusterCa::generate().unwrap();
        let own = ca.issue_server(&["judge.default.svc".to_owned()]).unwrap();
        let tls = toono_pki::server_config(&ca, &own).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let listener = runtime.block_on(TcpListener::bind((address, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let handler: Handler = Arc::new(move |request| {
            let seen = Arc::clone(&seen);
            Box::pin(async move {
                assert_eq!(request.uri().path(), "/judge");
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let review: Value = serde_json::from_slice(&body).unwrap();
                http::Response::new(toono_http::full(judge(&review["request"], &seen).to_string()))
            })
        });
        let serving = toono_http::server::serve(
            listener,
            Some(tls),
            handler,
            Limits::default(),
            std::future::pending(),
        );
        runtime.spawn(serving);
        Self { address, ca, asked, _runtime: runtime }
    }

    fn configuration(&self) -> Value {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "judge"},
            "webhooks": [{
                "name": "judge.example.com",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "clientConfig": {
                    "service": {"namespace": "default", "name": "judge", "path": "/judge"},
                    "caBundle": STANDARD.encode(self.ca.cert_pem()),
                },
                "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                    "resources": ["configmaps"], "scope": "Namespaced"}],
                // What the controllers make is not this test's.
                "matchConditions": [{"name": "by-hand",
                    "expression": "!request.userInfo.username.startsWith('system:')"}],
            }],
        })
    }
}

fn judge(request: &Value, seen: &Mutex<Vec<String>>) -> Value {
    let name = request["name"].as_str().unwrap();
    seen.lock().unwrap().push(name.to_owned());
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "response": {"uid": request["uid"], "allowed": name != "bad",
            "status": {"message": format!("{name} is bad")}},
    })
}
