//! The workspace as cargo resolves it: our crates with their layers and edges, and all packages.

use std::{collections::BTreeMap, path::PathBuf, process::Command};

use serde_json::Value;

/// One of our crates.
#[derive(Debug)]
pub(crate) struct Crate {
    /// What `[package.metadata.toono] layer` says, if anything.
    pub(crate) layer: Option<String>,
    /// Our crates that it depends on, development dependencies left out.
    pub(crate) dependencies: Vec<String>,
}

/// A package of anyone's that the build resolves.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) licence: String,
}

/// What `cargo metadata` says.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) crates: BTreeMap<String, Crate>,
    pub(crate) packages: Vec<Package>,
}

impl Workspace {
    pub(crate) fn load() -> Result<Self, String> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version=1", "--locked"])
            .output()
            .map_err(|error| format!("cargo metadata: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let metadata: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("cargo metadata: {error}"))?;
        Ok(Self::from_metadata(&metadata))
    }

    fn from_metadata(metadata: &Value) -> Self {
        let resolved: Vec<&str> = list(metadata.pointer("/resolve/nodes"))
            .filter_map(|node| node.get("id")?.as_str())
            .collect();
        let members: Vec<&str> =
            list(metadata.get("workspace_members")).filter_map(Value::as_str).collect();
        let is_member = |package: &Value| package.get("source").is_none_or(Value::is_null);
        let packages = list(metadata.get("packages"));
        let ours: Vec<&Value> = packages
            .clone()
            .filter(|p| {
                is_member(p)
                    && p.get("id").and_then(Value::as_str).is_some_and(|id| members.contains(&id))
            })
            .collect();
        let names: Vec<&str> =
            ours.iter().filter_map(|p| p.get("name").and_then(Value::as_str)).collect();
        let crates = ours
            .iter()
            .map(|package| {
                let mut dependencies: Vec<String> = list(package.get("dependencies"))
                    .filter(|edge| edge.get("kind").and_then(Value::as_str) != Some("dev"))
                    .filter_map(|edge| edge.get("name").and_then(Value::as_str))
                    .filter(|name| names.contains(name))
                    .map(str::to_owned)
                    .collect();
                dependencies.sort();
                dependencies.dedup();
                let layer = package
                    .pointer("/metadata/toono/layer")
                    .and_then(Value::as_str)
                    .map(str::to_owned);
                (text(package.get("name")), Crate { layer, dependencies })
            })
            .collect();
        let packages = packages
            .filter(|package| {
                package.get("id").and_then(Value::as_str).is_some_and(|id| resolved.contains(&id))
            })
            .map(|p| Package { name: text(p.get("name")), licence: text(p.get("license")) })
            .collect();
        Self { root: text(metadata.get("workspace_root")).into(), crates, packages }
    }
}

fn list(value: Option<&Value>) -> std::slice::Iter<'_, Value> {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default().iter()
}

fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}
