//! What registries send: manifests and layers.

use toono_images::{MAX_DOCUMENT_BYTES, parse_manifest, unpack};

use super::joined;
use crate::{Grammar, Target};

/// A layer may be as large as a disk; its entries' heads are what is read here.
const LAYER_BYTES: usize = 256 * 1024;

pub(super) const LAYER: Target = Target {
    name: "layer",
    grammar: Grammar::Bytes,
    tokens: &[
        "../",
        "/",
        "./",
        ".wh.",
        ".wh..wh..opq",
        "ustar\0",
        "ustar  \0",
        "L",
        "x",
        "5",
        "2",
        "1",
        "././@LongLink",
        "30 path=a/b/c/d/e/f/g/h/i/j\n",
        "SCHILY.xattr.user.a=b\n",
        "0000644\0",
        "77777777777",
        "\u{7f}",
        "GNU.sparse.major=1\n",
        "99999999999999999999 path=a\n",
    ],
    max_bytes: LAYER_BYTES,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: || {
        Box::new(|input| {
            let Ok(dir) = tempfile::tempdir() else { return };
            if let Err(error) = unpack(input, dir.path()) {
                drop(error.to_string());
            }
        })
    },
    giants: |bytes| {
        let entry = |path: &str, kind: tar::EntryType, content: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            let _ = header.set_path(path);
            header.set_cksum();
            let padding = vec![0; content.len().next_multiple_of(512) - content.len()];
            [header.as_bytes().as_slice(), content, &padding].concat()
        };
        let deep = "a/".repeat(100);
        let long = vec![b'a'; bytes / 2];
        vec![
            entry(&deep, tar::EntryType::Directory, &[]).repeat(bytes / 512),
            [
                entry("././@LongLink", tar::EntryType::GNULongName, &long),
                entry("x", tar::EntryType::Regular, b""),
            ]
            .concat(),
            [
                entry("pax", tar::EntryType::XHeader, "9 a=bcde\n".repeat(bytes / 18).as_bytes()),
                entry("x", tar::EntryType::Regular, b""),
            ]
            .concat(),
        ]
    },
};

pub(super) const MANIFEST: Target = Target {
    name: "manifest",
    grammar: Grammar::Json,
    tokens: &[
        "manifests",
        "digest",
        "platform",
        "architecture",
        "amd64",
        "os",
        "linux",
        "config",
        "layers",
        "mediaType",
        "size",
        "rootfs",
        "diff_ids",
        "Entrypoint",
        "Cmd",
        "Env",
        "WorkingDir",
        "User",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ],
    max_bytes: MAX_DOCUMENT_BYTES,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: || {
        Box::new(|input| {
            if let Err(error) = parse_manifest(input) {
                drop(error.to_string());
            }
        })
    },
    giants: |bytes| {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let layer = format!(r#"{{"digest":"{digest}","size":1}}"#);
        let layers = joined(bytes / 96, ",", |_| layer.clone());
        vec![
            format!(r#"{{"config":{layer},"layers":[{layers}]}}"#).into(),
            format!(r#"{{"manifests":[{layers}]}}"#).into(),
        ]
    },
};
