//! Archives of images: OCI layouts and what `docker save` writes.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tar::EntryType;
use toono_images::{ImageRef, ImageStore, ImportError, PullError, RegistryConfig};

use crate::{
    archive::Tar,
    registry::{Contents, digest_of, gzip},
};

fn layer(name: &str) -> Vec<u8> {
    Tar::new().file(name, name).finish()
}

fn config(layers: &[&[u8]]) -> Vec<u8> {
    let architecture = Contents::of(vec![]).architecture;
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest_of(layer)).collect();
    serde_json::to_vec(&json!({"architecture": architecture, "os": "linux",
        "config": {"Cmd": ["/bin/hello"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}))
    .unwrap()
}

struct Archive(Tar);

impl Archive {
    fn new() -> Self {
        Self(Tar::new())
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        Self(self.0.entry(name, EntryType::Regular, 0o644, (0, 0), "", content))
    }

    fn blob(self, content: &[u8]) -> (Self, Value) {
        let digest = digest_of(content);
        let name = digest.replace("sha256:", "blobs/sha256/");
        (self.file(&name, content), json!({"digest": digest, "size": content.len()}))
    }

    fn import(self, dir: &Path, name: Option<&str>) -> Result<Vec<String>, ImportError> {
        import(dir, &self.0.finish(), name)
    }
}

fn import(dir: &Path, archive: &[u8], name: Option<&str>) -> Result<Vec<String>, ImportError> {
    let file = dir.join("archive");
    fs::write(&file, archive).unwrap();
    let store = ImageStore::open(dir.join("store"), RegistryConfig::default()).unwrap();
    let name: Option<ImageRef> = name.map(|name| name.parse().unwrap());
    let images = store.import(&file, name.as_ref())?;
    for image in &images {
        assert_eq!(store.lookup(&image.reference).as_ref(), Some(image));
    }
    assert_eq!(fs::read_dir(dir.join("store/tmp")).unwrap().count(), 0);
    Ok(images.iter().map(|image| image.reference.to_string()).collect())
}

/// As Docker before version 25 writes it: a folder a layer, and a link where one occurs again.
fn docker_save(tags: &Value) -> Archive {
    let (one, two) = (layer("one"), layer("two"));
    let config = config(&[&one, &two, &one]);
    let manifest = json!([{"Config": "abc.json", "RepoTags": tags,
        "Layers": ["x/layer.tar", "y/layer.tar", "z/layer.tar"]}]);
    let archive = Archive::new()
        .file("abc.json", &config)
        .file("x/layer.tar", &one)
        .file("y/layer.tar", &two);
    Archive(archive.0.symlink("z/layer.tar", "../x/layer.tar"))
        .file("manifest.json", &serde_json::to_vec(&manifest).unwrap())
}

#[test]
fn what_docker_saves_is_imported_by_all_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let names = docker_save(&json!(["app:1", "q.io/app:2"])).import(dir.path(), None).unwrap();
    assert_eq!(names, ["docker.io/library/app:1", "q.io/app:2"]);
    let store = ImageStore::open(dir.path().join("store"), RegistryConfig::default()).unwrap();
    let image = store.lookup(&"q.io/app:2".parse().unwrap()).unwrap();
    assert_eq!(image.config.cmd, ["/bin/hello"]);
    let has = |layer: usize, file: &str| image.layers[layer].join(file).exists();
    assert_eq!((image.layers.len(), has(0, "two"), has(1, "one")), (2, true, true));
    // Again, and compressed: the same.
    let again = gzip(&docker_save(&json!(["app:1"])).0.finish());
    import(dir.path(), &again, None).unwrap();
    assert_eq!(store.lookup(&"app:1".parse().unwrap()).unwrap().digest, image.digest);
}

#[test]
fn an_image_without_a_name_needs_one() {
    let dir = tempfile::tempdir().unwrap();
    let error = docker_save(&Value::Null).import(dir.path(), None).unwrap_err();
    assert!(matches!(error, ImportError::Nameless { .. }) && error.hint().contains("--name"));
    let names = docker_save(&Value::Null).import(dir.path(), Some("app:3")).unwrap();
    assert_eq!(names, ["docker.io/library/app:3"]);
}

fn oci_layout(annotations: &Value, damage: bool) -> Archive {
    let one = layer("one");
    let archive = Archive::new().file("oci-layout", b"{\"imageLayoutVersion\":\"1.0.0\"}");
    let (archive, config) = archive.blob(&config(&[&one]));
    let packed = gzip(if damage { b"not the layer" } else { &one });
    let (archive, layer) = archive.blob(&packed);
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    let (archive, mut entry) = archive.blob(&serde_json::to_vec(&manifest).unwrap());
    let architecture = Contents::of(vec![]).architecture;
    entry["platform"] = json!({"os": "linux", "architecture": architecture});
    let other = json!({"digest": digest_of(b"other"), "size": 1,
        "platform": {"os": "linux", "architecture": "s390x"}});
    let inner = serde_json::to_vec(&json!({"manifests": [other, entry]})).unwrap();
    let (archive, mut entry) = archive.blob(&inner);
    entry["annotations"] = annotations.clone();
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    archive.file("./index.json", &serde_json::to_vec(&index).unwrap())
}

#[test]
fn oci_layouts_are_imported_for_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let named = json!({"org.opencontainers.image.ref.name": "1",
        "io.containerd.image.name": "q.io/team/app:1"});
    assert_eq!(oci_layout(&named, false).import(dir.path(), None).unwrap(), ["q.io/team/app:1"]);
    let tag = json!({"org.opencontainers.image.ref.name": "1"});
    let error = oci_layout(&tag, false).import(dir.path(), None).unwrap_err();
    assert!(matches!(error, ImportError::Nameless { .. }), "a tag alone names nothing: {error}");
    assert_eq!(oci_layout(&tag, false).import(dir.path(), Some("b")).unwrap().len(), 1);
}

#[test]
fn archives_are_checked_like_pulls() {
    let dir = tempfile::tempdir().unwrap();
    let named = json!({"io.containerd.image.name": "q.io/team/app:1"});
    let error = oci_layout(&named, true).import(dir.path(), None).unwrap_err();
    let told =
        matches!(error, ImportError::Image(PullError::Corrupted { .. } | PullError::Layer { .. }));
    assert!(told, "{error}");
    assert_eq!(fs::read_dir(dir.path().join("store/layers")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path().join("store/tmp")).unwrap().count(), 0);
    let error = Archive::new().file("readme", b"hello").import(dir.path(), None).unwrap_err();
    assert!(matches!(error, ImportError::Unknown { .. }), "{error}");
    let error = import(dir.path(), b"no archive at all, whatever its name says", None).unwrap_err();
    assert!(matches!(error, ImportError::Archive { .. } | ImportError::Unknown { .. }), "{error}");
}
