//! The files that say which pods run here: from their text to pods as the kubelet makes them.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};
use toono_api::kinds;

/// A manifest's size at most; an etcd object's, as everywhere in Kubernetes.
const MAX_BYTES: u64 = 1_500_000;
/// Files of a directory at most; a node has no more pods than that.
const MAX_FILES: usize = 1000;

/// The digits of the uid that a file gives.
pub(super) const UID_DIGITS: usize = 32;

/// What is seen of a file without reading it.
pub(super) type Seen = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

/// The files of the directory. No directory is no files.
pub(super) fn look(dir: &Path) -> io::Result<Seen> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Seen::new()),
        entries => entries?,
    };
    let mut seen = Seen::new();
    for entry in entries.take(MAX_FILES) {
        let entry = entry?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        // Through links, which is how configuration is often put in place.
        let Ok(metadata) = fs::metadata(entry.path()) else { continue };
        if metadata.is_file() && !hidden && metadata.len() <= MAX_BYTES {
            seen.insert(entry.path(), (metadata.modified().ok(), metadata.len()));
        }
    }
    Ok(seen)
}

/// The pod that a file says.
pub(super) fn read(path: &Path, node: &str) -> Result<(String, Pod), String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let seen = fs::metadata(path).and_then(|it| it.modified()).ok();
    let seen = seen.and_then(|it| Timestamp::try_from(it).ok()).unwrap_or_default();
    parse(&text, path, node, seen)
}

/// As the kubelet makes it: bound to this node, which is part of its name, with a uid that its text gives it.
pub(super) fn parse(
    text: &str,
    path: &Path,
    node: &str,
    seen: Timestamp,
) -> Result<(String, Pod), String> {
    let mut object: Value = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    if kind != "Pod" || object.get("apiVersion").and_then(Value::as_str) != Some("v1") {
        return Err(format!("it is a {kind:?}, not a v1 Pod"));
    }
    let rules = kinds::find_kind("v1", "Pod").ok_or("there is no kind Pod")?;
    let uid = digest(&format!("{node}\0{}\0{object}", path.display()));
    let fields = object.as_object_mut().ok_or("it is no object")?;
    fields.remove("status");
    let meta = map(fields, "metadata")?;
    let name = meta.get("name").and_then(Value::as_str).unwrap_or_default();
    let named = format!("{name}-{}", node.to_lowercase());
    meta.insert("name".to_owned(), named.into());
    meta.entry("namespace").or_insert_with(|| "default".into());
    meta.insert("uid".to_owned(), uid.clone().into());
    let annotations = map(meta, "annotations")?;
    annotations.insert(super::HASH.to_owned(), uid.clone().into());
    annotations.insert(super::SOURCE.to_owned(), "file".into());
    annotations.insert(super::SEEN.to_owned(), seen.to_string().into());
    let spec = map(fields, "spec")?;
    spec.insert("nodeName".to_owned(), node.into());
    // What runs from a file runs whatever befalls the node.
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    if let Some(list) = tolerations.as_array_mut() {
        list.push(json!({"operator": "Exists", "effect": "NoExecute"}));
    }
    (rules.default)(&mut object);
    let wrong = (rules.validate)(&object).into_iter().next();
    if let Some(error) = wrong {
        return Err(format!("{}: {}", error.field, error.message));
    }
    let pod = serde_json::from_value(object).map_err(|error| error.to_string())?;
    Ok((uid, pod))
}

fn map<'a>(
    fields: &'a mut Map<String, Value>,
    name: &str,
) -> Result<&'a mut Map<String, Value>, String> {
    let value = fields.entry(name).or_insert_with(|| json!({}));
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut().ok_or_else(|| format!("{name} is no object"))
}

/// 128 bits that tell texts apart which nobody makes to collide (FNV-1a, the same in every version and on every
/// machine, so that an agent that starts finds its pods again).
fn digest(text: &str) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash =
        text.bytes().fold(OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    format!("{hash:0UID_DIGITS$x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  containers:
  - name: main
    image: busybox:1
";

    fn read(text: &str) -> Result<(String, Pod), String> {
        parse(text, Path::new("/m/web.yaml"), "n1", Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_file_becomes_a_pod_of_this_node() {
        let (uid, pod) = read(TEXT).unwrap();
        let meta = &pod.metadata;
        assert_eq!(
            (meta.name.as_deref(), meta.namespace.as_deref()),
            (Some("web-n1"), Some("default"))
        );
        assert_eq!(meta.uid.as_deref(), Some(uid.as_str()));
        assert!(super::super::is_static_uid(&uid));
        assert!(!super::super::is_static_uid("0e984725-c51c-4bf4-9960-e1c80e27aba0"));
        let annotations = meta.annotations.as_ref().unwrap();
        assert_eq!(annotations["kubernetes.io/config.hash"], uid);
        assert_eq!(annotations["kubernetes.io/config.source"], "file");
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!(spec.node_name.as_deref(), Some("n1"));
        assert_eq!(spec.restart_policy.as_deref(), Some("Always"), "defaults are set");
        assert!(super::super::is_static(&pod));
    }

    #[test]
    fn the_uid_is_that_of_the_text() {
        let uid = |text: &str| read(text).unwrap().0;
        assert_eq!(uid(TEXT), uid(&format!("# a comment\n{TEXT}")));
        assert_ne!(uid(TEXT), uid(&TEXT.replace("busybox:1", "busybox:2")));
        let json = serde_json::to_string(&serde_yaml_ng::from_str::<Value>(TEXT).unwrap()).unwrap();
        assert_eq!(uid(TEXT), uid(&json), "JSON is YAML");
    }

    #[test]
    fn what_is_no_pod_is_refused_with_a_reason() {
        assert!(read("kind: Service\napiVersion: v1\n").unwrap_err().contains("not a v1 Pod"));
        assert!(read("{").is_err());
        assert!(read("kind: Pod\napiVersion: v1\nmetadata: 3\n").is_err());
        let nameless = TEXT.replace("image: busybox:1", "image: ''");
        assert!(read(&nameless).is_err(), "{:?}", read(&nameless));
    }

    #[test]
    fn hidden_files_and_directories_are_no_manifests() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(look(&dir.path().join("none")).unwrap(), Seen::new());
        fs::create_dir(dir.path().join("sub")).unwrap();
        for name in [".a.yaml.swp", "a.yaml", "b.json"] {
            fs::write(dir.path().join(name), TEXT).unwrap();
        }
        let seen = look(dir.path()).unwrap();
        let names: Vec<_> =
            seen.keys().map(|it| it.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.yaml", "b.json"]);
    }
}
