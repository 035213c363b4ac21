//! Images brought by hand to a node that runs, seen by an unmodified kubectl.

use std::{path::Path, process::Command, time::Duration};

use serde_json::{Value, json};

use crate::{
    edge::{Edge, success},
    wait::until,
};

const NAME: &str = "by.hand.test/busybox:1";
const SOON: Duration = Duration::from_secs(60);

#[test]
fn an_image_is_imported_used_and_removed() {
    let edge = Edge::up();
    let node = edge.nodes_with_ready("True").remove(0);
    let data = edge.data().join("nodes").join(&node);
    let archive = archive(&edge);

    // A pod that must not pull waits until somebody brings the image.
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "by-hand"},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [{
            "name": "main", "image": NAME, "imagePullPolicy": "Never",
            "command": ["sleep", "1000"]}]}});
    let path = edge.data().join("pod.json");
    std::fs::write(&path, pod.to_string()).unwrap();
    edge.kubectl(&["apply", "-f", path.to_str().unwrap()]);
    let waiting =
        "--for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=ErrImageNeverPull";
    edge.kubectl(&["wait", "pod/by-hand", waiting, "--timeout=60s"]);
    let nameless = image(&edge, &data, &["import", archive.to_str().unwrap()]);
    assert!(!nameless.status.success());
    let text = String::from_utf8_lossy(&nameless.stderr).into_owned();
    assert!(text.contains("error[import-failed]") && text.contains("--name"), "{text}");
    let imported = image(&edge, &data, &["import", "--name", NAME, archive.to_str().unwrap()]);
    assert_eq!(success("import", imported), format!("image {NAME} imported\n"));
    edge.kubectl(&["wait", "pod/by-hand", "--for=condition=Ready", "--timeout=60s"]);

    // The scheduler hears of it by itself, within a look of the node at its disk or another image's arrival;
    // the image that every node has pulled is told soon.
    until("the node tells its images", SOON, || {
        let status = edge.kubectl_json(&["get", "node", &node]);
        let images = status["status"]["images"].as_array()?.clone();
        let names = |image: &Value| image["names"].to_string();
        images.iter().any(|image| names(image).contains("lab.toono.io/busybox:1")).then_some(())
    });

    let listed = success("ls", image(&edge, &data, &["ls", "-o", "json"]));
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let ours = listed.iter().find(|image| image["name"] == NAME).expect("it is listed");
    assert_eq!(ours["inUse"], true);
    let used = image(&edge, &data, &["rm", NAME]);
    let text = String::from_utf8_lossy(&used.stderr).into_owned();
    assert!(!used.status.success() && text.contains("error[image-in-use]"), "{text}");

    edge.kubectl(&["delete", "pod", "by-hand", "--wait=true"]);
    until("the node has removed the pod", SOON, || {
        let removed = image(&edge, &data, &["rm", NAME]);
        removed.status.success().then_some(())
    });
    let listed = success("ls", image(&edge, &data, &["ls"]));
    assert!(listed.starts_with("IMAGE") && !listed.contains(NAME), "{listed}");
    let gone = image(&edge, &data, &["rm", NAME]);
    let text = String::from_utf8_lossy(&gone.stderr).into_owned();
    assert!(text.contains("error[no-such-image]"), "{text}");
}

/// The lab's own image as an archive, which has a tag and no name.
fn archive(edge: &Edge) -> std::path::PathBuf {
    let archive = edge.data().join("archive.tar.gz");
    let layout = edge.data().join("images/busybox");
    let tar = Command::new("tar").arg("-C").arg(layout).arg("-czf").arg(&archive).arg(".").output();
    success("tar", tar.unwrap());
    archive
}

fn image(edge: &Edge, data: &Path, arguments: &[&str]) -> std::process::Output {
    let (first, rest) = arguments.split_first().unwrap();
    let data = data.to_str().unwrap();
    edge.toono(&[&["node", "image", first, "--data", data], rest].concat())
}
