//! ConfigMaps as objects to write, when all that matters is that something is written.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

/// Runs `kubectl create -f -` with a ConfigMap of this name.
pub(crate) fn create(mut kubectl: Command, name: &str) -> Output {
    let mut child = kubectl
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl must be installed");
    let manifest = format!(
        r#"{{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {{"name": "{name}"}}, "data": {{"a": "b"}}}}"#
    );
    child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// The arguments that [`create`] expects of its kubectl.
pub(crate) const ARGUMENTS: [&str; 3] = ["create", "-f", "-"];
