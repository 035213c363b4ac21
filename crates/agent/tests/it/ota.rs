//! Upgrades that are offered to pods of a node: seen, pulled and approved at it.

use std::{fs, path::Path};

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use toono_http::client::{Connection, Endpoint};
use toono_wire::upgrade::{self, Offer};

use crate::{
    cloud::Cloud,
    registry,
    site::{Site, in_own_namespace},
    statics::{manifest, saying, until},
};

const OFFERS: &str = "/openyurt.io/v1/upgrades";

fn offer(revision: &str, images: &[&str]) -> Offer {
    Offer {
        revision: revision.to_owned(),
        images: images.iter().map(|image| (*image).to_owned()).collect(),
        image_pull_secrets: vec![],
        manifest: None,
    }
}

fn pod(name: &str, offer: Option<&Offer>) -> Value {
    let annotations = offer.map(|offer| json!({upgrade::OFFER: offer.to_text()}));
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": name,
            "annotations": annotations},
        "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 0, "containers": [{
            "name": "main", "image": "images.test/busybox:1", "command": ["/bin/sleep", "1000"]}]},
    })
}

async fn ask(data: &Path, method: Method, path: &str) -> (StatusCode, String) {
    // An agent that starts listens a moment later.
    let socket = data.join(toono_agent::ota::SOCKET);
    until("the node to listen", async || UnixStream::connect(&socket).await.is_ok()).await;
    let stream = UnixStream::connect(&socket).await.unwrap();
    let endpoint = Endpoint { tls: false, host: "localhost".to_owned(), port: 80 };
    let mut connection = Connection::over(stream, &endpoint, None).await.unwrap();
    let request = Request::builder().method(method).uri(path).body(toono_http::empty()).unwrap();
    let response = connection.send(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn say(data: &Path, pod: &str, what: &str) -> (StatusCode, String) {
    let path = format!("/openyurt.io/v1/namespaces/default/pods/{pod}/{what}");
    ask(data, Method::POST, &path).await
}

/// The revision that is offered to the pod, and how far it is.
async fn state(data: &Path, pod: &str) -> Option<(String, String)> {
    let (status, body) = ask(data, Method::GET, OFFERS).await;
    assert_eq!(status, StatusCode::OK);
    let rows: Vec<Value> = serde_json::from_str(&body).unwrap();
    let row = rows.into_iter().find(|row| row["pod"] == pod)?;
    let text = |key: &str| row[key].as_str().unwrap().to_owned();
    Some((text("revision"), text("state")))
}

async fn until_state(data: &Path, pod: &str, revision: &str, wanted: &str) {
    let wanted = Some((revision.to_owned(), wanted.to_owned()));
    until("the state of the offer", async || state(data, pod).await == wanted).await;
}

fn condition(status: &PodStatus, type_: &str) -> Option<(String, String)> {
    let found = status.conditions.iter().flatten().find(|it| it.type_ == type_)?;
    Some((found.status.clone(), found.message.clone().unwrap_or_default()))
}

fn is_ready(status: &PodStatus) -> bool {
    status.container_statuses.as_ref().is_some_and(|list| list[0].ready)
}

#[test]
fn images_are_pulled_first_and_an_approval_is_told_and_kept() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let mut site = Site::new(&cloud).await;
        let address = registry::serve().await;
        site.config.registries.add(&format!("new.test=http://{address}")).unwrap();
        let data = site.config.data.clone();
        let agent = site.start();
        let new = offer("r2", &["new.test/busybox:1"]);
        cloud.want(vec![pod("web", Some(&new)), pod("other", None)]).await;
        cloud.until("web", |_, status| is_ready(status)).await;
        until_state(&data, "web", "r2", "waits").await;
        let mode = fs::metadata(data.join("ota.sock")).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);
        assert_eq!(say(&data, "other", "upgrade").await.0, StatusCode::FORBIDDEN);
        assert_eq!(say(&data, "none", "upgrade").await.0, StatusCode::NOT_FOUND);
        let (status, list) = ask(&data, Method::GET, "/pods").await;
        let list: Value = serde_json::from_str(&list).unwrap();
        assert_eq!((status, list["items"].as_array().unwrap().len()), (StatusCode::OK, 2));

        assert_eq!(say(&data, "web", "imagepull").await.0, StatusCode::OK);
        let pulled = cloud.until("web", |_, status| {
            condition(status, upgrade::IMAGE_READY).is_some_and(|it| it.0 == "True")
        });
        let pulled = pulled.await;
        assert_eq!(condition(&pulled, upgrade::APPROVED_HERE), None, "nobody said so");
        assert!(is_ready(&pulled), "the old one runs on");
        until_state(&data, "web", "r2", "pulled").await;

        let (status, said) = say(&data, "web", "upgrade").await;
        assert_eq!((status, said.trim()), (StatusCode::OK, "Start updating pod default/web"));
        let told = cloud.until("web", |_, status| {
            condition(status, upgrade::APPROVED_HERE).is_some_and(|it| it.0 == "True")
        });
        let told = condition(&told.await, upgrade::APPROVED_HERE).unwrap();
        assert_eq!(told, ("True".to_owned(), "r2".to_owned()));

        // Without a link it is known still, and may be said of others.
        agent.stop().await;
        let later = offer("r3", &["new.test/busybox:1"]);
        cloud.want(vec![pod("web", Some(&new)), pod("other", Some(&later))]).await;
        let agent = site.start();
        until_state(&data, "web", "r2", "approved").await;
        until_state(&data, "other", "r3", "waits").await;
        // Of another revision nothing was said.
        cloud.want(vec![pod("web", Some(&later)), pod("other", Some(&later))]).await;
        until_state(&data, "web", "r3", "waits").await;
        agent.stop().await;
        drop(cloud);
        let agent = site.start();
        assert_eq!(say(&data, "other", "upgrade").await.0, StatusCode::ACCEPTED, "kept");
        until_state(&data, "other", "r3", "approved").await;
        agent.stop().await;
        site.clear().await;
    });
}

#[test]
fn the_file_of_a_static_pod_is_replaced_once_that_is_approved() {
    in_own_namespace(async {
        let cloud = Cloud::start().await;
        let mut site = Site::new(&cloud).await;
        let dir = tempfile::tempdir().unwrap();
        site.config.manifests = Some(dir.path().to_owned());
        let data = site.config.data.clone();
        let file = dir.path().join("by-hand.yaml");
        fs::write(&file, manifest("first")).unwrap();
        let agent = site.start();
        until("the pod runs", async || saying(&site, "first").await.len() == 1).await;
        let mirror = |word: &str, revision: &str, approved: bool| {
            let manifest = Some(manifest(word));
            let offer = Offer { manifest, ..offer(revision, &["images.test/busybox:1"]) };
            let mut annotations = json!({"kubernetes.io/config.mirror": "x",
                upgrade::OFFER: offer.to_text()});
            if approved {
                annotations[upgrade::APPROVED] = revision.into();
            }
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "fixed-n1", "namespace": "default", "uid": "mirror",
                    "annotations": annotations},
                "spec": {"nodeName": "n1", "containers": [{"name": "main"}]}})
        };
        cloud.want(vec![mirror("second", "r2", false)]).await;
        until_state(&data, "fixed-n1", "r2", "waits").await;
        assert_eq!(fs::read_to_string(&file).unwrap(), manifest("first"), "nobody said yes");
        assert_eq!(say(&data, "fixed-n1", "upgrade").await.0, StatusCode::OK);
        until("the pod is replaced", async || saying(&site, "second").await.len() == 1).await;
        assert_eq!(fs::read_to_string(&file).unwrap(), manifest("second"));

        // The cloud's side may approve as well.
        cloud.want(vec![mirror("third", "r3", true)]).await;
        until("the pod is replaced again", async || saying(&site, "third").await.len() == 1).await;
        agent.stop().await;
        site.clear().await;
    });
}
