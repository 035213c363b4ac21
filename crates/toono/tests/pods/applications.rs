//! The images of nginx and python that cases use, as people would build them: a base that both share, the
//! application, and what is set up on top.

use serde_json::{Value, json};

use crate::{
    case::{merge, pod},
    debian::Packages,
    registry::{Registry, architecture, archive},
    stage::Stage,
};

pub(crate) const NGINX: &str = "debian.test/nginx:1";
/// Its program may bind any port, whoever runs it.
pub(crate) const NGINX_BINDS: &str = "debian.test/nginx:binds";
const PYTHON: &str = "debian.test/python:1";

/// As in images that are in use: it logs to where containers log, and serves one directory.
const NGINX_CONF: &[u8] = b"user nginx; worker_processes 1; pid /run/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 64; }
http {
  include mime.types;
  access_log /dev/stdout;
  include conf.d/*.conf;
}
";
const DEFAULT_SITE: &[u8] =
    b"server { listen 80; location / { root /usr/share/nginx/html; index index.html; } }\n";
const USERS: &[u8] = b"root:x:0:0::/root:/bin/sh\nnginx:x:101:101::/nonexistent:/bin/false\n";
const GROUPS: &[u8] = b"root:x:0:\nnginx:x:101:\n";
/// `cap_net_bind_service=ep`, as `setcap` writes it (capabilities(7), "File capabilities", revision 2).
const MAY_BIND: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Puts them into the registry.
pub(crate) fn push(registry: &Registry) {
    let [base, nginx, python] = Packages::of("nginx").split(Packages::of("python3"));
    let (base, nginx, python) = (base.layer(), nginx.layer(), python.layer());
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static");
    let shell = archive(
        &[("bin/busybox", 0o755, &busybox)],
        &["sh", "cat", "echo", "grep", "id", "ls", "rm", "sleep", "touch", "wget"],
    );
    let top = archive(
        &[
            ("etc/passwd", 0o644, USERS),
            ("etc/group", 0o644, GROUPS),
            ("root/", 0o700, b""),
            ("run/", 0o755, b""),
            ("tmp/", 0o1777, b""),
            ("etc/nginx/nginx.conf", 0o644, NGINX_CONF),
            ("etc/nginx/conf.d/default.conf", 0o644, DEFAULT_SITE),
        ],
        &[],
    );
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let config = json!({"Entrypoint": ["nginx"], "Cmd": ["-g", "daemon off;"], "Env": [path],
        "StopSignal": "SIGQUIT", "ExposedPorts": {"80/tcp": {}}});
    let layers = [&shell, &base, &nginx, &top].map(Vec::as_slice);
    registry.push("nginx:1", &layers, &config, architecture());
    let binds = with_capability(&nginx);
    let layers = [&shell, &base, &nginx, &top, &binds].map(Vec::as_slice);
    registry.push("nginx:binds", &layers, &config, architecture());
    let config = json!({"Cmd": ["python3"], "Env": [path, "PYTHONUNBUFFERED=1"]});
    let layers = [&shell, &base, &python, &top].map(Vec::as_slice);
    registry.push("python:1", &layers, &config, architecture());
}

/// A layer with the program once more, as `RUN setcap ...` makes one.
fn with_capability(nginx: &[u8]) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(nginx).entries().unwrap() {
        let entry = entry.unwrap();
        if entry.path().unwrap().to_str() == Some("usr/sbin/nginx") {
            let mut header = entry.header().clone();
            let capability = ("SCHILY.xattr.security.capability", MAY_BIND.as_slice());
            layer.append_pax_extensions([capability]).unwrap();
            layer.append_data(&mut header, "usr/sbin/nginx", entry).unwrap();
        }
    }
    layer.into_inner().unwrap()
}

/// Has the node get them before the cases begin, which then need not wait for one another's pulls.
pub(crate) fn bring(stage: &Stage) {
    let namespace = stage.namespace("applications");
    let pods =
        [("nginx", NGINX), ("binds", NGINX_BINDS), ("python", PYTHON)].map(|(name, image)| {
            let mut pod = pod("true", json!({"image": image}), json!({}));
            pod["metadata"]["name"] = name.into();
            pod
        });
    let file = stage.write(&namespace, &pods);
    stage.kubectl(&namespace, &["apply", "-f", &file]);
    let ended = "--for=jsonpath={.status.phase}=Succeeded";
    let all = ["pod/nginx", "pod/binds", "pod/python"];
    stage.kubectl(&namespace, &[&["wait", "--timeout=180s", ended], all.as_slice()].concat());
    stage.drop_namespace(&namespace);
}

/// The pod `p`: nginx as its image starts it, in a container `c`.
pub(crate) fn nginx(container: Value, spec: Value) -> Value {
    let mut base = json!({"image": NGINX, "command": null});
    merge(&mut base, container);
    pod("", base, spec)
}

/// The pod `p`: a python program in a container `c`.
pub(crate) fn python(program: &str, container: Value, spec: Value) -> Value {
    pod("", python_container("c", program, container), spec)
}

/// A container with a python program, to be one of several.
pub(crate) fn python_container(name: &str, program: &str, more: Value) -> Value {
    let mut base = json!({"name": name, "image": PYTHON, "command": ["python3", "-c", program]});
    merge(&mut base, more);
    base
}
