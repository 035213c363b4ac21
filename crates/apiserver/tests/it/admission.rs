//! What the cluster adds to writes and refuses of them, and webhooks that are asked as well.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot};
use toono_api::UserInfo;
use toono_http::Handler;
use toono_pki::ClusterCa;

use crate::cluster::Cluster;

async fn send(cluster: &Cluster, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
    let client = cluster.api.client(UserInfo::component("system:test"));
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(kube::client::Body::from(body.to_string().into_bytes()))
        .unwrap();
    let response = client.send(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap())
}

async fn create(cluster: &Cluster, path: &str, body: Value) -> Value {
    let (status, object) = send(cluster, Method::POST, path, body).await;
    assert_eq!(status, StatusCode::CREATED, "{path}: {object}");
    object
}

async fn refused(cluster: &Cluster, path: &str, body: Value) -> (u16, String) {
    let (status, object) = send(cluster, Method::POST, path, body).await;
    assert!(!status.is_success(), "{path}: {object}");
    (status.as_u16(), object["message"].as_str().unwrap().to_owned())
}

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "busybox"}]}});
    for (field, value) in spec.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    pod
}

#[tokio::test]
async fn pods_run_as_an_account_that_exists_with_its_token() {
    let cluster = Cluster::start().await;
    let made = create(&cluster, PODS, pod("a", json!({}))).await;
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    let volume = &made["spec"]["volumes"][0];
    assert!(volume["name"].as_str().unwrap().starts_with("kube-api-access-"));
    assert_eq!(volume["projected"]["sources"][0]["serviceAccountToken"]["path"], "token");
    let mount = &made["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(mount["name"], volume["name"]);

    let silent = pod("b", json!({"automountServiceAccountToken": false}));
    assert!(create(&cluster, PODS, silent).await["spec"].get("volumes").is_none());

    let (code, message) =
        refused(&cluster, PODS, pod("c", json!({"serviceAccountName": "robot"}))).await;
    assert_eq!(code, 403);
    assert_eq!(
        message,
        "pods \"c\" is forbidden: error looking up service account default/robot: serviceaccount \
         \"robot\" not found"
    );
    // A namespace and a pod in it right after, with nobody between them.
    create(&cluster, "/api/v1/namespaces", json!({"metadata": {"name": "fresh"}})).await;
    create(&cluster, "/api/v1/namespaces/fresh/pods", pod("first", json!({}))).await;
    cluster.stop().await;
}

#[tokio::test]
async fn priorities_come_from_classes_alone() {
    let cluster = Cluster::start().await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    create(&cluster, classes, json!({"metadata": {"name": "high"}, "value": 1000})).await;
    let made = create(&cluster, PODS, pod("a", json!({"priorityClassName": "high"}))).await;
    assert_eq!(made["spec"]["priority"], 1000);
    assert_eq!(made["spec"]["preemptionPolicy"], "PreemptLowerPriority");
    let made = create(&cluster, PODS, pod("b", json!({}))).await;
    assert_eq!(made["spec"]["priority"], 0);
    let (code, message) =
        refused(&cluster, PODS, pod("c", json!({"priorityClassName": "none"}))).await;
    assert_eq!(code, 403);
    assert_eq!(message, "pods \"c\" is forbidden: no PriorityClass with name none was found");
    let (_, message) = refused(&cluster, PODS, pod("d", json!({"priority": 7}))).await;
    assert!(
        message.contains("the integer value of priority (7) must not be provided"),
        "{message}"
    );

    let default = json!({"metadata": {"name": "usual"}, "value": 5, "globalDefault": true});
    create(&cluster, classes, default).await;
    let second = json!({"metadata": {"name": "other"}, "value": 6, "globalDefault": true});
    let (code, message) = refused(&cluster, classes, second).await;
    assert_eq!(code, 403);
    assert!(message.contains("PriorityClass usual is already marked as default"), "{message}");
    let made = create(&cluster, PODS, pod("e", json!({}))).await;
    assert_eq!(
        (&made["spec"]["priority"], &made["spec"]["priorityClassName"]),
        (&json!(5), &json!("usual"))
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_leaves_its_pool_before_it_joins_another() {
    let cluster = Cluster::start().await;
    let put = async |labels: Value, path: &str| {
        let node = json!({"metadata": {"name": "edge-1", "labels": labels}});
        send(&cluster, Method::PUT, &format!("/api/v1/nodes/edge-1{path}"), node).await
    };
    let inside = |pool: &str| json!({"apps.openyurt.io/nodepool": pool});
    create(&cluster, "/api/v1/nodes", json!({"metadata": {"name": "edge-1"}})).await;
    for labels in [inside("a"), inside("a"), json!({}), inside("b"), inside(""), inside("a")] {
        let (code, said) = put(labels.clone(), "").await;
        assert_eq!(code, StatusCode::OK, "{labels}: {said}");
    }
    for path in ["", "/status"] {
        let (code, said) = put(inside("b"), path).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{path:?} {said}");
        assert_eq!(
            said["message"],
            "Node \"edge-1\" is invalid: metadata.labels[apps.openyurt.io/nodepool]: Invalid value: \"b\": \
             the node is in pool \"a\" and leaves it before it joins another: take the label away first \
             (kubectl label node edge-1 apps.openyurt.io/nodepool-)"
        );
    }
    cluster.stop().await;
}

#[tokio::test]
async fn limit_ranges_fill_in_and_refuse() {
    let cluster = Cluster::start().await;
    let ranges = "/api/v1/namespaces/default/limitranges";
    create(
        &cluster,
        ranges,
        json!({"metadata": {"name": "r"}, "spec": {"limits": [{
        "type": "Container", "default": {"memory": "128Mi"}, "defaultRequest": {"memory": "64Mi"},
        "max": {"memory": "256Mi"}}]}}),
    )
    .await;
    let made = create(&cluster, PODS, pod("a", json!({}))).await;
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"requests": {"memory": "64Mi"}, "limits": {"memory": "128Mi"}})
    );
    let large = json!({"containers": [{"name": "main", "image": "busybox",
        "resources": {"limits": {"memory": "1Gi"}}}]});
    let (code, message) = refused(&cluster, PODS, pod("b", large)).await;
    assert_eq!(code, 403);
    assert_eq!(
        message,
        "pods \"b\" is forbidden: maximum memory usage per Container is 256Mi, but limit is 1Gi"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_quota_is_never_overdrawn_by_writes_that_come_at_once() {
    let cluster = Cluster::start().await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let made = create(
        &cluster,
        quotas,
        json!({"metadata": {"name": "q"},
        "spec": {"hard": {"count/configmaps": "10"}}}),
    )
    .await;
    // The recount is a controller's; it has not come by yet.
    let (code, message) = refused(&cluster, MAPS, json!({"metadata": {"name": "early"}})).await;
    assert_eq!(code, 403);
    assert!(message.contains("status unknown for quota: q"), "{message}");
    let mut counted = made;
    counted["status"] =
        json!({"hard": {"count/configmaps": "10"}, "used": {"count/configmaps": "0"}});
    let (status, _) = send(&cluster, Method::PUT, &format!("{quotas}/q/status"), counted).await;
    assert_eq!(status, StatusCode::OK);

    let attempts = (0..40).map(|number| {
        let map = json!({"metadata": {"name": format!("map-{number}")}});
        send(&cluster, Method::POST, MAPS, map)
    });
    let answers = futures::future::join_all(attempts).await;
    let made = answers.iter().filter(|(status, _)| *status == StatusCode::CREATED).count();
    assert_eq!(made, 10);
    let refusal = answers.iter().find(|(status, _)| *status == StatusCode::FORBIDDEN).unwrap();
    let message = refusal.1["message"].as_str().unwrap();
    assert!(
        message.ends_with(
            "exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=10, limited: \
             count/configmaps=10"
        ),
        "{message}"
    );
    let (_, quota) = send(&cluster, Method::GET, &format!("{quotas}/q"), json!({})).await;
    assert_eq!(quota["status"]["used"]["count/configmaps"], "10");
    cluster.stop().await;
}

#[tokio::test]
async fn namespaces_that_the_cluster_needs_stay() {
    let cluster = Cluster::start().await;
    for name in ["default", "kube-system"] {
        let path = format!("/api/v1/namespaces/{name}");
        let (status, refusal) = send(&cluster, Method::DELETE, &path, json!({})).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert_eq!(
            refusal["message"],
            format!("namespaces {name:?} is forbidden: this namespace may not be deleted")
        );
    }
    cluster.stop().await;
}

/// A webhook of the test's own: TLS on a free port, an answer for each question, and a memory of them.
struct Hook {
    address: SocketAddr,
    ca: ClusterCa,
    asked: Arc<Mutex<Vec<Value>>>,
    _stop: oneshot::Sender<()>,
}

type Reply = fn(&Value) -> Value;

impl Hook {
    /// `delay` passes before each answer.
    async fn start(reply: Reply, delay: Duration) -> Self {
        let ca = ClusterCa::generate().unwrap();
        let own = ca.issue_server(&["127.0.0.1".to_owned()]).unwrap();
        let tls = toono_pki::server_config(&ca, &own).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let handler: Handler = Arc::new(move |request| {
            let seen = Arc::clone(&seen);
            Box::pin(async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let review: Value = serde_json::from_slice(&body).unwrap();
                tokio::time::sleep(delay).await;
                let mut response = reply(&review["request"]);
                response["uid"] = review["request"]["uid"].clone();
                seen.lock().unwrap().push(review["request"].clone());
                let answer = json!({"kind": "AdmissionReview",
                    "apiVersion": "admission.k8s.io/v1", "response": response});
                Response::new(toono_http::full(answer.to_string()))
            })
        });
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let limits = toono_http::server::Limits::default();
            let end = async {
                let _ = stopped.await;
            };
            toono_http::server::serve(listener, Some(tls), handler, limits, end).await;
        });
        Self { address, ca, asked, _stop: stop }
    }

    fn webhook(&self, name: &str, more: Value) -> Value {
        let mut webhook = json!({
            "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {"url": format!("https://{}/ask", self.address),
                "caBundle": STANDARD.encode(self.ca.cert_pem())},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                "resources": ["configmaps"]}],
        });
        for (field, value) in more.as_object().unwrap() {
            webhook[field] = value.clone();
        }
        webhook
    }
}

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

#[tokio::test]
async fn webhooks_change_warn_and_refuse() {
    let cluster = Cluster::start().await;
    let marks = Hook::start(
        |_| {
            let patch = r#"[{"op":"add","path":"/data","value":{"marked":"yes"}}]"#;
            json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch)})
        },
        Duration::ZERO,
    )
    .await;
    let judge = Hook::start(
        |request| {
            let bad = request["object"]["metadata"]["labels"]["bad"] == "true";
            json!({"allowed": !bad, "status": {"code": 422, "message": "labelled as bad"},
                "warnings": [format!("saw {}", request["object"]["data"]["marked"])]})
        },
        Duration::ZERO,
    )
    .await;
    create(
        &cluster,
        MUTATING,
        json!({"metadata": {"name": "marks"},
        "webhooks": [marks.webhook("marks.example.com", json!({}))]}),
    )
    .await;
    let conditions = json!({"matchConditions": [
        {"name": "not-skipped", "expression": "object.metadata.name != 'skipped'"}]});
    create(
        &cluster,
        VALIDATING,
        json!({"metadata": {"name": "judge"},
        "webhooks": [judge.webhook("judge.example.com", conditions)]}),
    )
    .await;

    let made = create(&cluster, MAPS, json!({"metadata": {"name": "good"}})).await;
    assert_eq!(made["data"]["marked"], "yes");
    let bad = json!({"metadata": {"name": "bad", "labels": {"bad": "true"}}});
    let (code, message) = refused(&cluster, MAPS, bad).await;
    assert_eq!(code, 422);
    assert_eq!(
        message,
        "admission webhook \"judge.example.com\" denied the request: labelled as bad"
    );
    let skipped = json!({"metadata": {"name": "skipped", "labels": {"bad": "true"}}});
    create(&cluster, MAPS, skipped).await;
    let asked = judge.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2, "the condition keeps one from being asked");
    assert_eq!(asked[0]["operation"], "CREATE");
    assert_eq!(asked[0]["userInfo"]["username"], "system:test");
    assert_eq!(asked[0]["resource"]["resource"], "configmaps");
    assert!(asked[0]["oldObject"].is_null());
    cluster.stop().await;
}

#[tokio::test]
async fn a_webhook_that_hangs_or_is_gone_fails_as_its_policy_says() {
    let cluster = Cluster::start().await;
    let slow = Hook::start(|_| json!({"allowed": true}), Duration::from_secs(30)).await;
    let hanging = slow.webhook("slow.example.com", json!({"timeoutSeconds": 1}));
    create(&cluster, VALIDATING, json!({"metadata": {"name": "w"}, "webhooks": [hanging]})).await;
    let began = std::time::Instant::now();
    let (code, message) = refused(&cluster, MAPS, json!({"metadata": {"name": "a"}})).await;
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(code, 500);
    let expected = format!(
        "Internal error occurred: failed calling webhook \"slow.example.com\": failed to call \
         webhook: Post \"https://{}/ask\": context deadline exceeded",
        slow.address
    );
    assert_eq!(message, expected);

    let path = format!("{VALIDATING}/w");
    let (_, mut stored) = send(&cluster, Method::GET, &path, json!({})).await;
    stored["webhooks"][0]["failurePolicy"] = "Ignore".into();
    let (status, _) = send(&cluster, Method::PUT, &path, stored).await;
    assert_eq!(status, StatusCode::OK);
    create(&cluster, MAPS, json!({"metadata": {"name": "a"}})).await;

    // Other resources and dry runs of webhooks with side effects.
    let effects = slow.webhook(
        "effects.example.com",
        json!({"sideEffects": "Some",
        "failurePolicy": "Ignore", "timeoutSeconds": 1}),
    );
    let (code, _) =
        refused(&cluster, VALIDATING, json!({"metadata": {"name": "e"}, "webhooks": [effects]}))
            .await;
    assert_eq!(code, 422, "v1 has no webhooks with unknown side effects");
    create(&cluster, PODS, pod("unasked", json!({}))).await;
    cluster.stop().await;
}
