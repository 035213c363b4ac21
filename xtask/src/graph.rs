//! The crate graph: every edge goes to a lower layer, and every new edge is a reviewed line.

use std::fs;

use crate::metadata::Workspace;

/// Lowest first. A crate depends on crates of the layers before its own.
const LAYERS: [&str; 5] = ["types", "logic", "adapters", "services", "binary"];
/// Crates that only tests and the laboratory use; they may depend on anything.
const FREE_LAYERS: [&str; 2] = ["test", "tool"];
/// Edges that the layers alone would forbid, each with its reason.
const EXCEPTIONS: [(&str, &str); 3] = [
    // Pulling an image is HTTP.
    ("toono-images", "toono-http"),
    // etcd is asked over HTTP/2.
    ("toono-store", "toono-http"),
    // `toono up` builds its edge on this machine in the laboratory.
    ("toono", "toono-lab"),
];
/// Packages that must never be linked, and why.
const BANNED: [(&str, &str); 6] = [
    ("aws-lc-sys", "twice the binary and idle memory of ring"),
    ("aws-lc-rs", "twice the binary and idle memory of ring"),
    ("openssl-sys", "TLS is rustls with ring everywhere"),
    ("libseccomp-sys", "a C library where pure Rust will do"),
    ("rustables", "GPL"),
    ("rumqttd", "no longer kept up"),
];
const GOLDEN_FILE: &str = "docs/crate-graph.txt";

pub(crate) fn check_layers(workspace: &Workspace) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, own) in &workspace.crates {
        let Some(layer) = own.layer.as_deref() else {
            findings.push(format!("{name}: no [package.metadata.toono] layer in its Cargo.toml"));
            continue;
        };
        if FREE_LAYERS.contains(&layer) {
            continue;
        }
        let Some(rank) = LAYERS.iter().position(|known| *known == layer) else {
            findings.push(format!("{name}: unknown layer `{layer}`"));
            continue;
        };
        for dependency in &own.dependencies {
            let below = workspace.crates.get(dependency).and_then(|to| to.layer.as_deref());
            let below_rank = LAYERS.iter().position(|known| Some(*known) == below);
            let allowed = below_rank.is_some_and(|below| below < rank)
                || EXCEPTIONS.contains(&(name.as_str(), dependency.as_str()));
            if !allowed {
                let below = below.unwrap_or("none");
                findings.push(format!("{name} ({layer}) may not depend on {dependency} ({below})"));
            }
        }
    }
    findings
}

pub(crate) fn check_golden_file(workspace: &Workspace, bless: bool) -> Result<Vec<String>, String> {
    let path = workspace.root.join(GOLDEN_FILE);
    let drawn = draw(workspace);
    if bless {
        fs::write(&path, drawn).map_err(|error| format!("{GOLDEN_FILE}: {error}"))?;
        return Ok(Vec::new());
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    let mut findings: Vec<String> = drawn
        .lines()
        .filter(|line| !golden.lines().any(|known| known == *line))
        .map(|line| format!("{GOLDEN_FILE} lacks: {line}"))
        .collect();
    findings.extend(
        golden
            .lines()
            .filter(|line| !drawn.lines().any(|known| known == *line))
            .map(|line| format!("{GOLDEN_FILE} still has: {line}")),
    );
    if !findings.is_empty() {
        findings.push("if each edge is meant: cargo xtask tidy --bless, and commit".to_owned());
    }
    Ok(findings)
}

fn draw(workspace: &Workspace) -> String {
    let mut text = String::from(
        "# Every edge between our crates: crate (layer) -> crate. Written by `cargo xtask tidy --bless`.\n",
    );
    for (name, own) in &workspace.crates {
        let layer = own.layer.as_deref().unwrap_or("none");
        text.push_str(&format!("{name} ({layer})\n"));
        for dependency in &own.dependencies {
            text.push_str(&format!("{name} ({layer}) -> {dependency}\n"));
        }
    }
    text
}

pub(crate) fn check_packages(workspace: &Workspace) -> Vec<String> {
    let mut findings = Vec::new();
    for package in &workspace.packages {
        if let Some((_, why)) = BANNED.iter().find(|(name, _)| *name == package.name) {
            findings.push(format!("{} is in the build: {why}", package.name));
        }
        if only_gpl(&package.licence) {
            findings.push(format!("{} is licensed {}", package.name, package.licence));
        }
    }
    findings
}

/// Whether every alternative of an SPDX expression is a GPL.
fn only_gpl(licence: &str) -> bool {
    !licence.is_empty()
        && licence
            .replace('/', " OR ")
            .split(" OR ")
            .all(|choice| choice.contains("GPL-") && !choice.contains("LGPL-"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::metadata::{Crate, Package};

    fn workspace(crates: &[(&str, &str, &[&str])], packages: &[(&str, &str)]) -> Workspace {
        let crates = crates
            .iter()
            .map(|(name, layer, dependencies)| {
                let dependencies = dependencies.iter().map(|d| (*d).to_owned()).collect();
                ((*name).to_owned(), Crate { layer: Some((*layer).to_owned()), dependencies })
            })
            .collect::<BTreeMap<_, _>>();
        let packages = packages
            .iter()
            .map(|(name, licence)| Package { name: (*name).into(), licence: (*licence).into() })
            .collect();
        Workspace { root: "/".into(), crates, packages }
    }

    #[test]
    fn an_upward_or_sideways_edge_is_found() {
        let planted = workspace(
            &[
                ("a", "types", &["b"]),
                ("b", "logic", &[]),
                ("c", "services", &["b", "d"]),
                ("d", "services", &[]),
                ("e", "test", &["c"]),
                ("f", "binary", &["e", "c"]),
                ("g", "cellar", &[]),
            ],
            &[],
        );
        assert_eq!(
            check_layers(&planted),
            [
                "a (types) may not depend on b (logic)",
                "c (services) may not depend on d (services)",
                "f (binary) may not depend on e (test)",
                "g: unknown layer `cellar`",
            ]
        );
    }

    #[test]
    fn banned_packages_and_gpl_are_found() {
        let planted = workspace(
            &[],
            &[
                ("aws-lc-sys", "ISC"),
                ("fine", "MIT OR GPL-3.0-only"),
                ("lesser", "LGPL-2.1"),
                ("tainted", "GPL-3.0-or-later"),
            ],
        );
        let findings = check_packages(&planted);
        assert_eq!(findings.len(), 2, "{findings:?}");
    }
}
