//! A small container image, made on the spot from the system's static busybox, as an OCI image layout. The
//! same busybox gives the same bytes, so the image's digest says what is in it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tar::{EntryType, Header};

/// Where Debian's `busybox-static` puts the program.
pub const BUSYBOX: &str = "/bin/busybox";

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSpec {
    /// A statically linked busybox.
    pub busybox: PathBuf,
    /// The root of a registry's files; the layout is made in the folder of the repository below it.
    pub root: PathBuf,
    /// The repository, such as `toono/busybox`.
    pub repository: String,
    /// The tag, such as `1`.
    pub tag: String,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `repository:tag`.
    pub name: String,
    /// The digest of the manifest, `sha256:…`.
    pub digest: String,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The program is not there.
    #[error("there is no busybox at {}", path.display())]
    NoBusybox {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The program needs libraries that an image would have to bring.
    #[error("the busybox at {} is not statically linked", path.display())]
    NotStatic {
        /// The program.
        path: PathBuf,
    },
    /// The program does not say what it can do.
    #[error("cannot ask {} for its applets", path.display())]
    Applets {
        /// The program.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file of the image.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl ImageError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoBusybox { .. } | Self::NotStatic { .. } => {
                Some("apt-get install busybox-static")
            }
            _ => None,
        }
    }
}

/// Makes the image. The layout's index names this tag alone.
pub fn build(spec: &ImageSpec) -> Result<Image, ImageError> {
    let program = read_busybox(&spec.busybox)?;
    let applets = applets(&spec.busybox)?;
    let layout = Layout { dir: spec.root.join(&spec.repository) };
    let failed = |action| layout.failed(action);

    let plain = layer(&program, &applets).map_err(failed("pack the layer of"))?;
    // The modification time and the operating system in the header stay unset: the same input, the same bytes.
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    let packed =
        gzip.write_all(&plain).and_then(|()| gzip.finish()).map_err(failed("pack the layer of"))?;

    fs::create_dir_all(layout.blobs()).map_err(failed("make the folder of"))?;
    let layer = layout.blob("application/vnd.oci.image.layer.v1.tar+gzip", &packed)?;
    let config =
        layout.json("application/vnd.oci.image.config.v1+json", &config(&sha256(&plain)))?;
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let mut manifest = layout.json(
        manifest_type,
        &json!({"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [layer]}),
    )?;
    let digest = manifest.get("digest").and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Value::Object(fields) = &mut manifest {
        fields.insert("annotations".into(), json!({"org.opencontainers.image.ref.name": spec.tag}));
        fields.insert("platform".into(), json!({"architecture": architecture(), "os": "linux"}));
    }
    layout.write(&layout.dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let index_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": index_type, "manifests": [manifest]});
    // Last, so that a tag never names what is not there yet.
    layout.write(&layout.dir.join("index.json"), index.to_string().as_bytes())?;
    Ok(Image { name: format!("{}:{}", spec.repository, spec.tag), digest })
}

fn read_busybox(path: &Path) -> Result<Vec<u8>, ImageError> {
    let program = fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ImageError::NoBusybox { path: path.to_owned() },
        _ => ImageError::File { action: "read", path: path.to_owned(), source },
    })?;
    // A dynamically linked program names its loader in a segment of its own; all that Debian ships begin so.
    let loader = b"/lib64/ld-linux";
    if program.windows(loader.len()).take(4096).any(|window| window == loader) {
        return Err(ImageError::NotStatic { path: path.to_owned() });
    }
    Ok(program)
}

fn applets(path: &Path) -> Result<Vec<String>, ImageError> {
    let failed = |source| ImageError::Applets { path: path.to_owned(), source };
    let output = Command::new(path).arg("--list").output().map_err(failed)?;
    let text = String::from_utf8(output.stdout).map_err(|error| failed(io::Error::other(error)))?;
    let mut applets = text.lines().map(str::to_owned).collect::<Vec<_>>();
    applets.retain(|applet| !applet.is_empty() && !applet.contains('/') && applet != "busybox");
    applets.sort();
    if applets.iter().any(|applet| applet == "sh") {
        Ok(applets)
    } else {
        Err(failed(io::Error::other("it has no shell")))
    }
}

/// The layer's files, in a fixed order, of no time and of root.
fn layer(program: &[u8], applets: &[String]) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (folder, mode) in [
        ("bin/", 0o755),
        ("dev/", 0o755),
        ("etc/", 0o755),
        ("proc/", 0o555),
        ("root/", 0o700),
        ("sys/", 0o555),
        ("tmp/", 0o1777),
        ("var/", 0o755),
        ("www/", 0o755),
    ] {
        entry(&mut tar, EntryType::Directory, folder, mode, &[])?;
    }
    entry(&mut tar, EntryType::Regular, "bin/busybox", 0o755, program)?;
    for applet in applets {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    entry(&mut tar, EntryType::Regular, "etc/passwd", 0o644, passwd.as_bytes())?;
    let group = "root:x:0:\nnogroup:x:65534:\n";
    entry(&mut tar, EntryType::Regular, "etc/group", 0o644, group.as_bytes())?;
    let page = "<!doctype html>\n<title>Toono</title>\n<p>Hello from the edge.</p>\n";
    entry(&mut tar, EntryType::Regular, "www/index.html", 0o644, page.as_bytes())?;
    tar.into_inner()
}

fn entry(
    tar: &mut tar::Builder<Vec<u8>>,
    kind: EntryType,
    path: &str,
    mode: u32,
    data: &[u8],
) -> io::Result<()> {
    let mut header = header(kind, mode, u64::try_from(data.len()).map_err(io::Error::other)?);
    tar.append_data(&mut header, path, data)
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn config(layer: &str) -> Value {
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Env": ["PATH=/bin"],
            "Entrypoint": ["/bin/sh"],
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [layer]},
    })
}

/// This machine's architecture in the words of Go, which OCI took over.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(digest(&SHA256, bytes)))
}

/// The folder of one repository.
struct Layout {
    dir: PathBuf,
}

impl Layout {
    fn blobs(&self) -> PathBuf {
        self.dir.join("blobs/sha256")
    }

    /// Writes a blob under its digest; its descriptor.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Result<Value, ImageError> {
        let digest = sha256(bytes);
        let name = digest.strip_prefix("sha256:").unwrap_or(&digest);
        self.write(&self.blobs().join(name), bytes)?;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
    }

    fn json(&self, media_type: &str, value: &Value) -> Result<Value, ImageError> {
        self.blob(media_type, value.to_string().as_bytes())
    }

    /// Writes a file, whole or not at all; leaves it when it is the same.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
        if fs::read(path).is_ok_and(|there| there == bytes) {
            return Ok(());
        }
        let failed = |source| ImageError::File { action: "write", path: path.to_owned(), source };
        let new = path.with_extension("new");
        let mut file = File::create(&new).map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        fs::rename(&new, path).map_err(failed)
    }

    fn failed(&self, action: &'static str) -> impl Fn(io::Error) -> ImageError + use<> {
        let path = self.dir.clone();
        move |source| ImageError::File { action, path: path.clone(), source }
    }
}
