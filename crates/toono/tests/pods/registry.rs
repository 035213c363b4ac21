//! Debian's docker-registry with a user and images made on the spot, and a proxy before it that breaks
//! connections.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// `u` with the password `secret`, as `htpasswd -B` writes it.
const USERS: &str = "u:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";
/// A connection through the proxy ends after so many bytes.
const CUT_AFTER: usize = 300_000;

pub(crate) struct Registry {
    child: Child,
    dir: TempDir,
    address: SocketAddr,
    /// Where the proxy listens.
    broken: SocketAddr,
    /// A mirror that carries all, and lets the node in without a pull secret.
    mirror: SocketAddr,
}

impl Registry {
    /// One that listens at this address of the machine.
    pub(crate) fn start(ip: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        fs::write(file("users"), USERS).unwrap();
        fs::create_dir(file("data")).unwrap();
        let config = json!({
            "version": 0.1,
            "log": {"level": "info", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": file("data")}},
            "http": {"addr": format!("{ip}:0"), "secret": "test"},
            "auth": {"htpasswd": {"realm": "test", "path": file("users")}},
        });
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
        let address = lines.by_ref().find_map(|line| {
            line.split("listening on ").nth(1)?.split([',', '"', ' ']).next()?.parse().ok()
        });
        // It must not block on a full pipe.
        thread::spawn(move || lines.for_each(drop));
        let address = address.expect("the registry listens");
        let broken = relay(ip, address, CUT_AFTER);
        let mirror = relay(ip, address, usize::MAX);
        let registry = Self { child, dir, address, broken, mirror };
        registry.fill();
        registry
    }

    /// An image's name at the registry.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// An image's name behind the connections that break.
    pub(crate) fn broken_image(&self, name: &str) -> String {
        format!("{}/{name}", self.broken)
    }

    /// The node's file of registries: plain HTTP, a mirror, and the node's own credentials for some.
    pub(crate) fn settings(&self) -> String {
        let mirror =
            |name: String, at: &SocketAddr| (name, json!({"endpoint": [format!("http://{at}")]}));
        let mirrors: serde_json::Map<String, Value> = [
            mirror(self.address.to_string(), &self.address),
            mirror(self.broken.to_string(), &self.broken),
            mirror("debian.test".to_owned(), &self.mirror),
        ]
        .into_iter()
        .collect();
        let own = json!({"auth": {"username": "u", "password": "secret"}});
        let own = json!({self.broken.to_string(): own, self.mirror.to_string(): own});
        json!({"mirrors": mirrors, "configs": own}).to_string()
    }

    /// A pull secret with this password.
    pub(crate) fn pull_secret(&self, name: &str, password: &str) -> Value {
        let config =
            json!({"auths": {self.address.to_string(): {"username": "u", "password": password}}});
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": config.to_string()}})
    }

    fn fill(&self) {
        let busybox = fs::read("/bin/busybox").expect("busybox-static");
        let program =
            archive(&[("bin/busybox", 0o755, &busybox)], &["sh", "cat", "id", "sleep", "echo"]);
        let passwd = archive(
            &[
                ("etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n"),
                ("etc/group", 0o644, b"root:x:0:\napp:x:1001:\nweb:x:33:app\n"),
            ],
            &[],
        );
        let layers = [&program, &passwd].map(Vec::as_slice);
        let shell = json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo from the image"]});
        self.push("app:1", &layers, &shell, architecture());
        self.push("app:2", &layers, &shell, architecture());
        let named = json!({"User": "app", "WorkingDir": "/srv", "Env": ["A=image", "PATH=/bin"],
            "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["id; echo $A; pwd"]});
        self.push("named:1", &layers, &named, architecture());
        self.push("other-cpu:1", &layers, &shell, "s390x");
        self.push("empty:1", &layers, &json!({}), architecture());
        // Bytes that differ from those of any other image, so that none has this layer already.
        let marked = archive(&[("mark", 0o644, b"a layer that is damaged later")], &[]);
        self.push("damaged:1", &[&program, &marked], &shell, architecture());
        self.damage(&digest(&marked));
        let own = archive(&[("own", 0o644, &busybox)], &[]);
        self.push("slow:1", &[&program, &own], &shell, architecture());
        crate::applications::push(self);
    }

    /// Pushes as any client does: each blob, then the manifest.
    pub(crate) fn push(&self, name: &str, layers: &[&[u8]], config: &Value, architecture: &str) {
        let (repository, tag) = name.split_once(':').unwrap();
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let config = json!({"architecture": architecture, "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = self.push_blob(
            repository,
            config.to_string().as_bytes(),
            "application/vnd.oci.image.config.v1+json",
        );
        let layers: Vec<Value> = layers
            .iter()
            .map(|layer| {
                self.push_blob(repository, layer, "application/vnd.oci.image.layer.v1.tar")
            })
            .collect();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers});
        let header = format!("Content-Type: {kind}");
        let path = format!("/v2/{repository}/manifests/{tag}");
        self.curl(&["-X", "PUT", "-H", &header], &path, manifest.to_string().as_bytes());
    }

    fn push_blob(&self, repository: &str, bytes: &[u8], kind: &str) -> Value {
        let digest = digest(bytes);
        let begin = ["-X", "POST", "-o", "/dev/null", "-w", "%header{location}"];
        let location = self.curl(&begin, &format!("/v2/{repository}/blobs/uploads/"), b"");
        let path = location.split_once(&self.address.to_string()).unwrap().1.to_owned();
        let header = "Content-Type: application/octet-stream";
        self.curl(&["-X", "PUT", "-H", header], &format!("{path}&digest={digest}"), bytes);
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    }

    fn curl(&self, arguments: &[&str], path: &str, body: &[u8]) -> String {
        let mut child = Command::new("curl")
            .args(["-sS", "--fail-with-body", "-u", "u:secret", "--data-binary", "@-"])
            .args(arguments)
            .arg(format!("http://{}{path}", self.address))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("curl");
        child.stdin.take().unwrap().write_all(body).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "curl {path}: {text}");
        text
    }

    /// Changes one byte of a blob where the registry keeps it.
    fn damage(&self, digest: &str) {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let blobs = self.dir.path().join("data/docker/registry/v2/blobs/sha256");
        let path: PathBuf = blobs.join(&hex[..2]).join(hex).join("data");
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Carries connections to the registry, each of which ends after so many bytes.
fn relay(ip: &str, to: SocketAddr, cut_after: usize) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || carry(client, to, cut_after));
        }
    });
    address
}

fn carry(mut client: TcpStream, to: SocketAddr, cut_after: usize) -> std::io::Result<()> {
    let mut registry = TcpStream::connect(to)?;
    let (mut from_client, mut to_registry) = (client.try_clone()?, registry.try_clone()?);
    thread::spawn(move || std::io::copy(&mut from_client, &mut to_registry));
    let (mut carried, mut buffer) = (0, [0; 16 << 10]);
    while carried < cut_after {
        let length = registry.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        client.write_all(&buffer[..length])?;
        carried += length;
    }
    registry.shutdown(std::net::Shutdown::Both)?;
    client.shutdown(std::net::Shutdown::Both)
}

/// A layer of these files, and links to busybox by these names. A path that ends with `/` is a directory.
pub(crate) fn archive(files: &[(&str, u32, &[u8])], applets: &[&str]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let header = |kind, mode, size| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header
    };
    for (path, mode, bytes) in files {
        let is_dir = path.ends_with('/');
        let kind = if is_dir { tar::EntryType::Directory } else { tar::EntryType::Regular };
        let mut header = header(kind, *mode, bytes.len() as u64);
        tar.append_data(&mut header, path, *bytes).unwrap();
    }
    for applet in applets {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    tar.into_inner().unwrap()
}

fn digest(bytes: &[u8]) -> String {
    toono_images::Digest::of(bytes).to_string()
}

pub(crate) fn architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}
