//! A real registry: Debian's `docker-registry`, one process a test, with images put into its storage.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::registry::{Contents, digest_of};

/// `u` with the password `secret`, as `htpasswd -B` writes it.
const USERS: &str = "u:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";

pub struct Distribution {
    child: Child,
    dir: TempDir,
    pub address: SocketAddr,
}

/// What a registry is started with.
#[derive(Default)]
pub struct Options {
    /// Lets in the user `u` with the password `secret` only.
    pub users: bool,
    /// PEM texts of a certificate and its key.
    pub tls: Option<(String, String)>,
}

/// Media types of one of the two families.
pub struct Family {
    manifest: &'static str,
    index: &'static str,
    config: &'static str,
    pub layer: &'static str,
}

pub const OCI: Family = Family {
    manifest: "application/vnd.oci.image.manifest.v1+json",
    index: "application/vnd.oci.image.index.v1+json",
    config: "application/vnd.oci.image.config.v1+json",
    layer: "application/vnd.oci.image.layer.v1.tar",
};
pub const DOCKER: Family = Family {
    manifest: "application/vnd.docker.distribution.manifest.v2+json",
    index: "application/vnd.docker.distribution.manifest.list.v2+json",
    config: "application/vnd.docker.container.image.v1+json",
    layer: "application/vnd.docker.image.rootfs.diff.tar.gzip",
};

impl Distribution {
    pub fn start(options: &Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let mut http = json!({"addr": "127.0.0.1:0", "secret": "test"});
        if let Some((certificate, key)) = &options.tls {
            fs::write(file("cert.pem"), certificate).unwrap();
            fs::write(file("key.pem"), key).unwrap();
            http["tls"] = json!({"certificate": file("cert.pem"), "key": file("key.pem")});
        }
        let mut config = json!({
            "version": 0.1,
            "log": {"level": "info", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": file("data")}},
            "http": http,
        });
        if options.users {
            fs::write(file("users"), USERS).unwrap();
            config["auth"] = json!({"htpasswd": {"realm": "test", "path": file("users")}});
        }
        fs::create_dir(file("data")).unwrap();
        fs::write(file("config.yml"), config.to_string()).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(file("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("docker-registry: {error}; `make test-packages` installs it")
            });
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let address = lines.by_ref().find_map(|line| {
            let found = line
                .split("listening on ")
                .nth(1)
                .and_then(|rest| rest.split([',', '"', ' ']).next()?.parse().ok());
            said.push(line);
            found
        });
        // It must not block on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let address = address.unwrap_or_else(|| panic!("it does not listen: {said:#?}"));
        Self { child, dir, address }
    }

    /// Puts a manifest with its configuration and layers in; each layer is its archive and what it is
    /// transferred as. Returns its digest.
    pub fn put(
        &self,
        name: &str,
        tag: &str,
        family: &Family,
        layers: &[(Vec<u8>, Vec<u8>)],
    ) -> String {
        let diff_ids: Vec<String> = layers.iter().map(|(archive, _)| digest_of(archive)).collect();
        let config = json!({
            "architecture": Contents::of(vec![]).architecture, "os": "linux",
            "config": {"Cmd": ["/bin/hello"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = self.blob(name, &serde_json::to_vec(&config).unwrap(), family.config);
        let layers: Vec<Value> =
            layers.iter().map(|(_, blob)| self.blob(name, blob, family.layer)).collect();
        self.manifest(
            name,
            tag,
            &json!({"schemaVersion": 2, "mediaType": family.manifest,
            "config": config, "layers": layers}),
        )
    }

    /// Puts an index in: a platform and a manifest's digest each.
    pub fn put_index(&self, name: &str, tag: &str, family: &Family, entries: &[(Value, String)]) {
        let entry = |(platform, digest): &(Value, String)| json!({"mediaType": family.manifest, "digest": digest, "size": 1, "platform": platform});
        let manifests: Vec<Value> = entries.iter().map(entry).collect();
        self.manifest(
            name,
            tag,
            &json!({"schemaVersion": 2, "mediaType": family.index,
            "manifests": manifests}),
        );
    }

    /// Where a blob's content is.
    pub fn blob_path(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.root().join("blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }

    fn blob(&self, name: &str, content: &[u8], media_type: &str) -> Value {
        let digest = digest_of(content);
        write(&self.blob_path(&digest), content);
        let link = self.repository(name).join("_layers").join(digest.replace(':', "/"));
        write(&link.join("link"), digest.as_bytes());
        json!({"mediaType": media_type, "digest": digest, "size": content.len()})
    }

    fn manifest(&self, name: &str, tag: &str, manifest: &Value) -> String {
        let content = serde_json::to_vec(manifest).unwrap();
        let digest = digest_of(&content);
        write(&self.blob_path(&digest), &content);
        let manifests = self.repository(name).join("_manifests");
        let by_digest = digest.replace(':', "/");
        let tag = manifests.join("tags").join(tag);
        for link in [
            manifests.join("revisions").join(&by_digest),
            tag.join("current"),
            tag.join("index").join(&by_digest),
        ] {
            write(&link.join("link"), digest.as_bytes());
        }
        digest
    }

    fn repository(&self, name: &str) -> PathBuf {
        self.root().join("repositories").join(name)
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("data/docker/registry/v2")
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}
