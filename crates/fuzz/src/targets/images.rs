//! What registries send, and what people bring: manifests, layers, archives, pull secrets.

use std::{
    fs,
    io::{BufReader, Cursor, Read, sink},
};

use toono_images::{
    ImageStore, Keyring, MAX_DOCUMENT_BYTES, RegistryConfig, decompressed, parse_manifest, unpack,
};

use super::joined;
use crate::{Grammar, Target};

/// A layer may be as large as a disk; its entries' heads are what is read here.
const LAYER_BYTES: usize = 256 * 1024;
/// A few bytes stand for a great many; so many of them are looked at.
const UNPACKED_BYTES: u64 = 64 * 1024;
/// The longest Secret.
const SECRET_BYTES: usize = 1 << 20;
/// How what is compressed begins; archives are looked at uncompressed, or each would be a bomb.
const COMPRESSED_STARTS: [&[u8]; 3] = [&[0x1f, 0x8b], &[0x28, 0xb5], &[0x2a, 0x4d]];

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

pub(super) const COMPRESSED: Target = Target {
    name: "compressed",
    grammar: Grammar::Bytes,
    tokens: &["\u{1f}", "(", "P*M\u{18}", "\0\0\0\0"],
    max_bytes: LAYER_BYTES,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: || {
        Box::new(|input| {
            let source = BufReader::new(Cursor::new(input.to_vec()));
            let Ok(reader) = decompressed(source) else { return };
            if let Err(error) = std::io::copy(&mut reader.take(UNPACKED_BYTES), &mut sink()) {
                drop(error.to_string());
            }
        })
    },
    giants: super::no_giants,
};

pub(super) const IMAGE_ARCHIVE: Target = Target {
    name: "image-archive",
    grammar: Grammar::Bytes,
    tokens: &[
        "manifest.json",
        "index.json",
        "oci-layout",
        "blobs/sha256/",
        "../",
        "layer.tar",
        "ustar\0",
        "[{\"Config\":\"",
        "\"RepoTags\":[\"a:1\"]",
        "\"Layers\":[\"",
        "\"manifests\":[",
        "2",
        "1",
        "77777777777",
    ],
    max_bytes: LAYER_BYTES,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: || {
        let place = tempfile::tempdir().ok().and_then(|dir| {
            let store = ImageStore::open(dir.path().join("store"), RegistryConfig::default());
            Some((store.ok()?, dir))
        });
        let name = "given:1".parse().ok();
        Box::new(move |input| {
            let Some((store, dir)) = &place else { return };
            if COMPRESSED_STARTS.iter().any(|start| input.starts_with(start)) {
                return;
            }
            let file = dir.path().join("archive");
            if fs::write(&file, input).is_err() {
                return;
            }
            if let Err(error) = store.import(&file, name.as_ref()) {
                drop((error.to_string(), error.hint()));
            }
        })
    },
    giants: super::no_giants,
};

pub(super) const PULL_SECRET: Target = Target {
    name: "pull-secret",
    grammar: Grammar::Json,
    tokens: &[
        "auths", "auth", "username", "password", "dTpw", "https://", "/v1/", "*", "?", ".", ":5000",
    ],
    max_bytes: SECRET_BYTES,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: || {
        let image = "aaaaaaaaaaaaaaaa.example.com:5000/team/app".parse().ok();
        Box::new(move |input| {
            let mut keyring = Keyring::default();
            for read in [keyring.add_docker_config(input), keyring.add_docker_cfg(input)] {
                if let Err(error) = read {
                    drop(error.to_string());
                }
            }
            if let Some(image) = &image {
                drop(keyring.lookup(image));
            }
        })
    },
    giants: |bytes| {
        let entry = |number: usize| {
            format!(r#""*{}.example.com:5000":{{"auth":"dTpw"}}"#, "*a".repeat(number % 8))
        };
        vec![format!(r#"{{"auths":{{{}}}}}"#, joined(bytes / 48, ",", entry)).into()]
    },
};
