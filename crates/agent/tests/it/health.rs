//! Probes of real containers, over every protocol that there is for them.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Frame;
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use toono_http::{Body, Handler, server};
use toono_pki::ClusterCa;
use toono_sandbox::{ContainerId, ExecSpec, Keeper};

use crate::{
    cloud::Cloud,
    site::{Site, in_own_namespace},
};

const WEB: &str = "c1b4fb31-6b38-4d0a-8a2f-1f8f2b1f0001";
const HOST: &str = "c1b4fb31-6b38-4d0a-8a2f-1f8f2b1f0002";

pub fn pod(uid: &str, name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["nodeName"] = "n1".into();
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": uid}, "spec": spec})
}

pub fn main_of(status: &PodStatus) -> ContainerStatus {
    status.container_statuses.as_ref().unwrap()[0].clone()
}

fn condition(status: &PodStatus, kind: &str) -> bool {
    status.conditions.iter().flatten().any(|it| it.type_ == kind && it.status == "True")
}

/// Runs a command in a container to its end.
pub async fn exec(site: &Site, uid: &str, container: ContainerId, script: &str) -> i32 {
    let keeper = Keeper::adopt(&site.pod_dir(uid)).await.unwrap().expect("a keeper lives");
    let args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let spec = ExecSpec { container, args, tty: false, stdin: false, ends_with_client: false };
    keeper.exec(&spec).await.unwrap().exit.wait().await.unwrap().code
}

#[test]
fn probes_decide_about_traffic_and_restarts() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let site = Site::new(&cloud).await;
        let agent = site.start();
        cloud.want(vec![pod(WEB, "web", json!({
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main", "image": "images.test/busybox:1",
                "command": ["/bin/sh", "-c", "busybox mkdir -p /www /tmp; echo > /www/ok; echo > /tmp/live; \
                    exec busybox httpd -f -p 8080 -h /www"],
                "ports": [{"name": "web", "containerPort": 8080}],
                "startupProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                "livenessProbe": {"exec": {"command": ["busybox", "test", "-e", "/tmp/live"]},
                    "periodSeconds": 1, "failureThreshold": 2},
                "readinessProbe": {"httpGet": {"path": "/ok", "port": "web"},
                    "periodSeconds": 1, "failureThreshold": 1}}],
        }))]).await;
        cloud.until(WEB, |_, status| condition(status, "Ready")).await;
        let first = ContainerId::new("main", 0);

        // An agent that starts again does not take the readiness away.
        agent.stop().await;
        let agent = site.start();
        let status = cloud.until(WEB, |_, _| true).await;
        assert!(condition(&status, "Ready"));

        exec(&site, WEB, first.clone(), "busybox rm /www/ok").await;
        let status = cloud.until(WEB, |_, status| !condition(status, "Ready")).await;
        assert!(!main_of(&status).ready && main_of(&status).state.unwrap().running.is_some());
        exec(&site, WEB, first.clone(), "echo > /www/ok").await;
        let status = cloud.until(WEB, |_, status| condition(status, "Ready")).await;
        assert_eq!(main_of(&status).restart_count, 0);

        exec(&site, WEB, first, "busybox rm /tmp/live").await;
        let again = |status: &PodStatus| main_of(status).restart_count == 1;
        cloud.until(WEB, |_, status| again(status) && condition(status, "Ready")).await;
        let messages = cloud.messages();
        for text in [
            "Readiness probe failed: HTTP probe failed with statuscode: 404",
            "Liveness probe failed: ",
            "Container main failed liveness probe, will be restarted",
        ] {
            assert!(messages.iter().any(|it| it == text), "{text} in {messages:#?}");
        }
        agent.stop().await;
        site.clear().await;
    });
}

#[test]
fn probes_speak_tls_and_grpc_and_name_what_failed() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let site = Site::new(&cloud).await;
        let agent = site.start();
        let (secure, health) = (secure().await, health().await);
        let probed = |name: &str, liveness: Value, readiness: Value| {
            let mut container = json!({"name": name, "image": "images.test/busybox:1",
                "command": ["/bin/sleep", "1000"], "livenessProbe": liveness, "readinessProbe": readiness});
            container["livenessProbe"]["failureThreshold"] = 1000.into();
            container
        };
        let grpc = |service: &str| json!({"grpc": {"port": health.port(), "service": service}});
        let https = |path: &str| {
            json!({"httpGet": {"scheme": "HTTPS", "host": "127.0.0.1",
            "port": secure.port(), "path": path, "httpHeaders": [{"name": "X-Probe", "value": "yes"}]}})
        };
        let closed = json!({"tcpSocket": {"port": 1}});
        let slow = json!({"exec": {"command": ["/bin/sleep", "100"]}});
        let missing = json!({"exec": {"command": ["nope"]}});
        cloud
            .want(vec![pod(
                HOST,
                "host",
                json!({
                    "hostNetwork": true, "terminationGracePeriodSeconds": 1,
                    "containers": [
                        probed("good", https("/redirect"), grpc("good")),
                        probed("bad", https("/away"), grpc("bad")),
                        probed("none", closed, grpc("none")),
                        probed("slow", slow, missing),
                    ],
                }),
            )])
            .await;
        let ready = |status: &PodStatus, name: &str| {
            status.container_statuses.iter().flatten().any(|it| it.name == name && it.ready)
        };
        let status = cloud.until(HOST, |_, status| ready(status, "good")).await;
        let ip = status.host_ip.unwrap();
        let expected = [
            "Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")".to_owned(),
            "Readiness probe failed: error: health rpc probe failed: rpc error: code = NotFound desc = unknown service".to_owned(),
            format!("Liveness probe failed: dial tcp {ip}:1: connect: connection refused"),
            "Liveness probe warning: Probe terminated redirects, Response body: elsewhere".to_owned(),
            "Liveness probe failed: command timed out: \"/bin/sleep 100\" timed out after 1s".to_owned(),
            "Readiness probe errored and resulted in unknown state: exec: \"nope\": executable file not found in $PATH".to_owned(),
        ];
        let told = async {
            while !expected.iter().all(|text| cloud.messages().contains(text)) {
                cloud.news().await;
            }
        };
        let told = tokio::time::timeout(crate::cloud::PATIENCE, told).await;
        let messages = cloud.messages();
        assert!(told.is_ok(), "{expected:#?}\nin {messages:#?}");
        let none = exec(
            &site,
            HOST,
            ContainerId::new("slow", 0),
            "busybox ps | busybox grep -c '[s]leep 100$'",
        )
        .await;
        assert_eq!(none, 1, "a command that timed out does not go on");
        agent.stop().await;
        site.clear().await;
    });
}

async fn serve(
    tls: Option<Arc<rustls::ServerConfig>>,
    answer: impl Fn(Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handler: Handler = Arc::new(answer);
    let limits = server::Limits::default();
    tokio::spawn(server::serve(listener, tls, handler, limits, std::future::pending()));
    address
}

/// A web server whose certificate nobody knows.
async fn secure() -> SocketAddr {
    let ca = ClusterCa::generate().unwrap();
    let own = ca.issue_server(&["elsewhere.example".to_owned()]).unwrap();
    let answer = |request: Request<Body>| {
        assert_eq!(request.headers()["x-probe"], "yes");
        assert_eq!(request.headers()["user-agent"], "kube-probe/1.35");
        let (status, location) = match request.uri().path() {
            "/redirect" => (302, "ok"),
            "/away" => (302, "https://elsewhere.example/"),
            "/ok" => (200, ""),
            other => panic!("{other}"),
        };
        let builder = Response::builder().status(status).header("location", location);
        builder.body(toono_http::full("elsewhere")).unwrap()
    };
    let tls = toono_pki::server_config(&ca, &own).unwrap();
    serve(Some(tls), move |request| async move { answer(request) }.boxed()).await
}

/// A server of `grpc.health.v1`.
async fn health() -> SocketAddr {
    serve(None, |request| async { check(request).await }.boxed()).await
}

async fn check(request: Request<Body>) -> Response<Body> {
    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
    let asked = request.into_body().collect().await.unwrap().to_bytes();
    let message: &'static [u8] = match asked.get(7..) {
        Some(b"good") => &[0, 0, 0, 0, 2, 8, 1],
        Some(b"bad") => &[0, 0, 0, 0, 2, 8, 2],
        _ => &[],
    };
    let mut trailers = HeaderMap::new();
    let code = if message.is_empty() { "5" } else { "0" };
    trailers.insert("grpc-status", code.parse().unwrap());
    trailers.insert("grpc-message", "unknown service".parse().unwrap());
    let frames = [Ok(Frame::data(Bytes::from_static(message))), Ok(Frame::trailers(trailers))];
    let body = http_body_util::StreamBody::new(futures::stream::iter(frames));
    let builder = Response::builder().header("content-type", "application/grpc");
    builder.body(body.boxed_unsync()).unwrap()
}
