//! The node's images: which of them its pods use, what the cloud is told of them, and when some are deleted.
//!
//! How images are pulled, kept and deleted is the store's matter.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};
use toono_images::{Collected, Collector, Image, ImageRef, InUse, Space, StoreError};

use crate::{AgentError, bundles, disk, join::chain, ota, worker::Node};

/// How often the disk is looked at; the kubelet's period.
const COLLECT_PERIOD: Duration = Duration::from_secs(5 * 60);
/// Images come in numbers when a node gets its first pods; they are told together.
const SETTLE: Duration = Duration::from_secs(5);
/// The images that a Node's status has at most, the largest ones; the kubelet's default.
const MAX_TOLD: usize = 50;
/// The names that a Node's status has of one image at most, as with the kubelet.
const MAX_NAMES: usize = 5;

/// What the pods on a node's disk use, whether an agent runs, or ever ran, or not.
///
/// # Errors
/// [`AgentError::Disk`] when the directory of pods cannot be read. A pod that is damaged uses what its
/// containers have mounted.
pub fn in_use(data: &Path) -> Result<InUse, AgentError> {
    let pods = data.join("pods");
    let mut in_use = InUse::default();
    let entries = match fs::read_dir(&pods) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(in_use),
        entries => entries.map_err(disk::failed("read", &pods))?,
    };
    for entry in entries {
        let dir = entry.map_err(disk::failed("read", &pods))?.path();
        let layers = toono_sandbox::mounted_layers(&dir);
        in_use.layers.extend(layers.map_err(disk::failed("read", &dir))?);
        if dir.join("pod").exists()
            && let Some(pod) = bundles::read_pod(&dir)
        {
            in_use.images.extend(images_of(&pod));
        }
    }
    Ok(in_use)
}

/// Tells the cloud which images there are, and deletes some when the disk is nearly full, for as long as the
/// agent lives.
pub(crate) async fn keep(node: Arc<Node>) {
    let mut collector = Collector::default();
    let mut due = Instant::now() + COLLECT_PERIOD;
    loop {
        tell(&node);
        tokio::select! {
            () = node.images.changed() => {
                sleep(SETTLE).await;
                continue;
            }
            () = node.wants_room.notified() => {}
            () = sleep_until(due) => {}
        }
        due = Instant::now() + COLLECT_PERIOD;
        let node = node.clone();
        let work = move || {
            let result = collect(&mut collector, &node);
            (collector, result)
        };
        collector = match tokio::task::spawn_blocking(work).await {
            Ok((collector, result)) => {
                report(result);
                collector
            }
            Err(error) => {
                tracing::warn!(%error, "images are not collected");
                Collector::default()
            }
        };
    }
}

/// The status of a Node with its images.
pub(crate) fn with_images(mut status: Value, images: &[Image]) -> Value {
    if let Some(fields) = status.as_object_mut() {
        fields.insert("images".to_owned(), told(images).into());
    }
    status
}

fn tell(node: &Node) {
    match node.images.list() {
        Ok(images) => node.outbox.change_node(|status| {
            let (told, field) = (Value::from(told(&images)), status.get_mut("images"));
            match field {
                Some(field) if *field == told => false,
                Some(field) => {
                    *field = told;
                    true
                }
                None => false,
            }
        }),
        Err(error) => tracing::warn!(error = chain(&error), "the images are not told"),
    }
}

/// Deletes all images that no pod names.
pub(crate) fn delete_unused(node: &Node) -> Result<(), String> {
    let in_use = in_use(&node.data).map_err(|error| chain(&error))?;
    let delete = || -> Result<(), StoreError> {
        for image in node.images.list()?.iter().filter(|image| !in_use.has(image)) {
            node.images.remove(&image.reference)?;
        }
        node.images.prune(&in_use.layers, Duration::ZERO).map(drop)
    };
    delete().map_err(|error| chain(&error))
}

fn collect(collector: &mut Collector, node: &Node) -> Result<Collected, String> {
    let in_use = in_use(&node.data).map_err(|error| chain(&error))?;
    let now = std::time::Instant::now();
    let collected = collector.collect(&node.images, &in_use, now, Space::of);
    collected.map_err(|error: StoreError| chain(&error))
}

fn report(result: Result<Collected, String>) {
    match result {
        Ok(collected) => {
            let (wanted, freed) = (collected.wanted, collected.freed);
            if wanted > freed {
                tracing::warn!(wanted, freed, "too few images could be deleted for the disk");
            }
            if !collected.images.is_empty() || collected.layers > 0 {
                let images: Vec<String> =
                    collected.images.iter().map(ToString::to_string).collect();
                tracing::info!(?images, layers = collected.layers, freed, "images deleted");
            }
        }
        Err(error) => tracing::warn!(error, "images are not collected"),
    }
}

fn images_of(pod: &Pod) -> BTreeSet<ImageRef> {
    let spec = pod.spec.iter();
    let names = spec.flat_map(|spec| {
        let init = spec.init_containers.iter().flatten();
        let short_lived = spec.ephemeral_containers.iter().flatten();
        let images = init.chain(&spec.containers).map(|it| &it.image);
        images.chain(short_lived.map(|it| &it.image)).flatten()
    });
    let offered = ota::images_offered(pod);
    names.chain(&offered).filter_map(|name| name.parse().ok()).collect()
}

/// As `status.images` has it: one entry an image, with its names by digest first.
fn told(images: &[Image]) -> Vec<Value> {
    let mut by_digest: BTreeMap<String, (u64, BTreeSet<String>, BTreeSet<String>)> =
        BTreeMap::new();
    for image in images {
        let reference = &image.reference;
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        let entry = by_digest.entry(image.digest.to_string()).or_default();
        entry.0 = entry.0.max(image.size);
        entry.1.insert(format!("{repository}@{}", image.digest));
        entry.2.extend(reference.tag().map(|tag| format!("{repository}:{tag}")));
    }
    let mut told: Vec<(u64, Vec<String>)> = by_digest
        .into_values()
        .map(|(size, digests, tags)| {
            (size, digests.into_iter().chain(tags).take(MAX_NAMES).collect())
        })
        .collect();
    told.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    told.truncate(MAX_TOLD);
    told.into_iter().map(|(size, names)| json!({"names": names, "sizeBytes": size})).collect()
}

#[cfg(test)]
mod tests {
    use toono_images::{Digest, ImageConfig};

    use super::*;

    fn image(name: &str, content: &str, size: u64) -> Image {
        Image {
            reference: name.parse().unwrap(),
            digest: Digest::of(content.as_bytes()),
            layers: vec![],
            config: ImageConfig::default(),
            size,
        }
    }

    #[test]
    fn images_are_told_as_the_kubelet_tells_them() {
        let digest = Digest::of(b"one");
        let images =
            [image("q.io/a:1", "one", 10), image("q.io/a:2", "one", 10), image("b", "two", 30)];
        let told = told(&images);
        assert_eq!(told[0]["sizeBytes"], 30);
        assert_eq!(
            told[1],
            json!({"names": [format!("q.io/a@{digest}"), "q.io/a:1", "q.io/a:2"], "sizeBytes": 10})
        );
        let many: Vec<Image> =
            (0..60).map(|n| image(&format!("q.io/i:{n}"), &n.to_string(), n)).collect();
        let told = super::told(&many);
        assert_eq!((told.len(), &told[0]["sizeBytes"]), (MAX_TOLD, &json!(59)));
    }

    #[test]
    fn what_pods_name_and_containers_mount_is_in_use() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(in_use(data.path()).unwrap(), InUse::default());
        let pod = data.path().join("pods/u1");
        let links = pod.join("containers/web-0/l");
        fs::create_dir_all(&links).unwrap();
        std::os::unix::fs::symlink("/images/layers/abc", links.join("0")).unwrap();
        let spec = json!({"spec": {"containers": [{"name": "web", "image": "web:1"}],
            "initContainers": [{"name": "first", "image": "q.io/first"}]}});
        let text = serde_json::to_vec(&spec).unwrap();
        disk::write_checked(&pod.join("pod"), &text, disk::Durability::Lazy).unwrap();
        let found = in_use(data.path()).unwrap();
        let names: Vec<String> = found.images.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["docker.io/library/web:1", "q.io/first:latest"]);
        assert_eq!(found.layers, BTreeSet::from(["/images/layers/abc".into()]));
    }
}
