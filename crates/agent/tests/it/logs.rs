//! Logs of real containers that write a lot, while others want something of the node.

use std::time::{Duration, Instant};

use http::Request;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};

use crate::{
    cloud::Cloud,
    site::{Site, in_own_namespace},
};

/// Some 3 s at 10,000 lines a second.
const LINES: usize = 30_000;
/// Another pod's answer must not be noticed to take longer.
const SOON: Duration = Duration::from_secs(1);

fn pod(uid: &str, script: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": uid, "namespace": "default", "uid": uid},
        "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 0, "containers": [{
            "name": "main", "image": "images.test/busybox:1", "command": ["/bin/sh", "-c", script]}]},
    })
}

fn is_ready(status: &PodStatus) -> bool {
    status.container_statuses.as_ref().is_some_and(|list| list[0].ready)
}

#[test]
fn ten_thousand_lines_a_second_hold_up_nobody() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let site = Site::new(&cloud).await;
        // 1000 lines each tenth of a second; some 600 bytes each, so that the log is rotated on the way.
        let padding = "x".repeat(600);
        let script = format!(
            "n=0; while [ $n -lt {LINES} ]; do seq $n $((n+999)) | sed 's/$/ {padding}/'; n=$((n+1000)); usleep 90000; done; \
             echo the end; exec sleep 1000"
        );
        cloud.want(vec![pod("loud", &script), pod("quiet", "echo hello; exec sleep 1000")]).await;
        let agent = site.start();
        cloud.until("loud", |_, status| is_ready(status)).await;
        cloud.until("quiet", |_, status| is_ready(status)).await;
        let mut tunnel = cloud.dial_back().await;
        let follow = Request::get("http://node/containerLogs/default/loud/main?follow=true");
        let response =
            tunnel.send_request(follow.body(toono_http::empty()).unwrap()).await.unwrap();
        let mut body = response.into_body();
        let (mut text, mut slowest, mut asked) = (Vec::new(), Duration::ZERO, 0);
        while !text.ends_with(b"the end\n") {
            let frame = tokio::time::timeout(Duration::from_secs(20), body.frame()).await;
            let frame = frame.expect("the log goes on").unwrap().unwrap();
            text.extend_from_slice(&frame.into_data().unwrap());
            if text.len() / (2 << 20) > asked {
                asked += 1;
                let start = Instant::now();
                let other = Request::get("http://node/containerLogs/default/quiet/main");
                let other =
                    tunnel.send_request(other.body(toono_http::empty()).unwrap()).await.unwrap();
                let other = other.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(other, "hello\n");
                slowest = slowest.max(start.elapsed());
            }
        }
        assert!(slowest < SOON && asked > 5, "{slowest:?} of {asked} answers");
        let text = String::from_utf8(text).unwrap();
        let numbers = text.lines().map_while(|line| line.split(' ').next()?.parse::<usize>().ok());
        assert!(numbers.eq(0..LINES), "every line, once, in order, over rotated files");
        assert!(site.pod_dir("loud").join("logs/main/0.log.1").exists());
        let tail = cloud.ask_node("/containerLogs/default/loud/main?tailLines=20000").await;
        assert_eq!(tail.lines().count(), 20_000);
        cloud.want(vec![]).await;
        agent.stop().await;
        site.clear().await;
    });
}
