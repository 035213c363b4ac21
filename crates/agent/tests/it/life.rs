//! From join to reset, with the link cut in between.

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use serde_json::{Value, json};
use toono_agent::AgentError;
use toono_pki::{BootstrapToken, CaPin};
use toono_sandbox::{ContainerId, ContainerStatus as Live, Keeper};
use toono_wire::remote::{self, Frame, FrameReader};

use crate::{
    cloud::Cloud,
    site::{Site, in_own_namespace},
};

const UID: &str = "0e984725-c51c-4bf4-9960-e1c80e27aba0";

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", "uid": UID, "labels": {"app": "web"}},
        "spec": {
            "nodeName": "n1", "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
            "containers": [{
                "name": "main", "image": "images.test/busybox:1",
                "command": ["/bin/sh", "-c", "echo hello from $POD at $(IP) $FROM; echo kept > /scratch/x; sleep 1000"],
                "env": [
                    {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "resources": {"limits": {"memory": "32Mi", "cpu": "500m"}},
                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}],
        },
    })
}

fn main_of(status: &PodStatus) -> &ContainerStatus {
    &status.container_statuses.as_ref().unwrap()[0]
}

fn is_ready(status: &PodStatus) -> bool {
    status.container_statuses.as_ref().is_some_and(|list| list[0].ready)
}

async fn container_pid(site: &Site) -> i32 {
    let keeper = Keeper::adopt(&site.pod_dir(UID)).await.unwrap().expect("a keeper lives");
    let running =
        keeper.state().await.unwrap().containers.into_iter().find_map(|it| match it.status {
            Live::Running { pid } => Some(pid),
            Live::Exited { .. } => None,
        });
    running.expect("a container runs")
}

#[test]
fn a_pod_lives_through_restarts_and_cuts() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let site = Site::new(&cloud).await;
        cloud.want(vec![pod()]).await;
        let agent = site.start();
        let status = cloud.until(UID, |_, status| is_ready(status)).await;
        assert_eq!(status.pod_ip.as_deref(), Some("10.244.7.2"));
        assert_eq!(main_of(&status).restart_count, 0);
        let node = cloud.node_status().unwrap();
        assert_eq!(node["nodeInfo"]["kubeletVersion"], "v1.35.0+toono");
        let events = cloud.events();
        for reason in ["Pulling", "Pulled", "Created", "Started"] {
            assert!(events.iter().any(|it| it == reason), "{reason} in {events:?}");
        }
        let log = site.pod_dir(UID).join("logs/main/0.log");
        let text = std::fs::read_to_string(&log).unwrap();
        assert!(text.contains("hello from web at 10.244.7.2 image"), "{text}");

        reach_through_a_tunnel(&cloud).await;

        // Another agent may not take the directory.
        let second = site.start().end().await;
        assert!(matches!(second, AgentError::Locked { .. }), "{second:?}");

        // A restarted agent without a cloud: the same process, the same count.
        let before = container_pid(&site).await;
        agent.stop().await;
        drop(cloud);
        let agent = site.start();
        assert_eq!(container_pid(&site).await, before);

        // Still without a cloud, a crash is answered by a restart.
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(before), nix::sys::signal::SIGKILL)
            .unwrap();
        let keeper = Keeper::adopt(&site.pod_dir(UID)).await.unwrap().unwrap();
        let next = ContainerId::new("main", 1);
        let restarted = async {
            let mut snapshot = keeper.state().await.unwrap();
            while !snapshot.containers.iter().any(|it| it.id == next) {
                snapshot = keeper.wait_change(snapshot.version).await.unwrap();
            }
        };
        tokio::time::timeout(crate::cloud::PATIENCE, restarted).await.expect("a restart offline");
        assert_ne!(container_pid(&site).await, before);
        agent.stop().await;
        site.clear().await;
    });
}

#[test]
fn a_deleted_pod_is_gone_without_a_trace() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let site = Site::new(&cloud).await;
        let agent = site.start();
        cloud.want(vec![pod()]).await;
        cloud.until(UID, |_, status| is_ready(status)).await;
        let mut deleted = pod();
        deleted["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z".into();
        deleted["metadata"]["deletionGracePeriodSeconds"] = 1.into();
        cloud.want(vec![deleted]).await;
        cloud.until(UID, |report, _| report.gone).await;
        assert!(!site.pod_dir(UID).exists());
        cloud.want(vec![]).await;
        agent.stop().await;
        site.clear().await;
    });
}

#[test]
fn a_refused_join_says_why_and_leaves_nothing() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let mut site = Site::new(&cloud).await;
        let right = site.config.bootstrap.clone().unwrap();
        let refused = async |site: &Site| {
            let error = site.start().end().await;
            assert!(!site.config.data.exists(), "{error}");
            error
        };

        site.config.bootstrap.as_mut().unwrap().token = BootstrapToken::generate().unwrap();
        let error = refused(&site).await;
        assert!(matches!(error, AgentError::TokenRefused { .. }), "{error:?}");

        site.config.bootstrap = Some(right.clone());
        site.config.bootstrap.as_mut().unwrap().ca_pin = CaPin::of_spki(b"another");
        let error = refused(&site).await;
        assert!(matches!(error, AgentError::WrongCa { .. }), "{error:?}");

        site.config.bootstrap = Some(right);
        site.config.name = "taken".to_owned();
        let error = refused(&site).await;
        assert!(matches!(error, AgentError::NameTaken { .. }), "{error:?}");

        site.config.bootstrap = None;
        let error = refused(&site).await;
        assert!(matches!(error, AgentError::NoBootstrap), "{error:?}");
    });
}

async fn reach_through_a_tunnel(cloud: &Cloud) {
    let mut tunnel = cloud.dial_back().await;
    let mut ask = async |method: &str, target: &str, body: Bytes| {
        let request = Request::builder().method(method).uri(format!("http://node{target}"));
        let response =
            tunnel.send_request(request.body(toono_http::full(body)).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.unwrap().to_bytes())
    };
    let (status, log) =
        ask("GET", "/containerLogs/default/web/main?tailLines=1", Bytes::new()).await;
    assert_eq!((status, log), (200, Bytes::from("hello from web at 10.244.7.2 image\n")));
    assert_eq!(ask("GET", "/containerLogs/default/web/nobody", Bytes::new()).await.0, 404);

    let input =
        [Frame::encode(remote::STDIN, b"typed\n"), Frame::encode(remote::CLOSE, &[remote::STDIN])];
    let target = "/exec/default/web/main?command=sh&command=-c&command=cat%3B%20echo%20oops%20%3E%262%3B%20exit%203&stdin=true&stdout=true&stderr=true";
    let (status, output) = ask("POST", target, input.concat().into()).await;
    assert_eq!(status, 200);
    let mut reader = FrameReader::default();
    reader.push(&output);
    let (mut out, mut err, mut end) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(frame) = reader.next_frame().unwrap() {
        match frame.channel {
            remote::STDOUT => out.extend_from_slice(&frame.payload),
            remote::STDERR => err.extend_from_slice(&frame.payload),
            remote::ERROR => end.extend_from_slice(&frame.payload),
            other => panic!("channel {other}"),
        }
    }
    assert_eq!((out.as_slice(), err.as_slice()), (&b"typed\n"[..], &b"oops\n"[..]));
    let end: Value = serde_json::from_slice(&end).unwrap();
    assert_eq!(end["reason"], "NonZeroExitCode");
    assert_eq!(end["details"]["causes"][0]["message"], "3");
}
