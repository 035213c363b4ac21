//! The documents that define the kinds, as any Kubernetes takes them.

/// The document of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crd {
    /// The CustomResourceDefinition's name, `plural.group`.
    pub name: &'static str,
    /// The CustomResourceDefinition in YAML.
    pub yaml: &'static str,
}

/// All of them.
pub const ALL: [Crd; 6] = [
    Crd { name: "nodepools.apps.openyurt.io", yaml: include_str!("../crds/nodepools.yaml") },
    Crd { name: "yurtappsets.apps.openyurt.io", yaml: include_str!("../crds/yurtappsets.yaml") },
    Crd {
        name: "yurtstaticsets.apps.openyurt.io",
        yaml: include_str!("../crds/yurtstaticsets.yaml"),
    },
    Crd { name: "nodebuckets.apps.openyurt.io", yaml: include_str!("../crds/nodebuckets.yaml") },
    Crd { name: "gateways.raven.openyurt.io", yaml: include_str!("../crds/gateways.yaml") },
    Crd {
        name: "poolservices.network.openyurt.io",
        yaml: include_str!("../crds/poolservices.yaml"),
    },
];

/// Whoever installs a definition says by this annotation of which release it is, so that an older program does not
/// put its own over a newer one.
pub const RELEASE: &str = "toono.io/crd-release";

/// Counts up with each change of a document above.
pub const RELEASE_NOW: u32 = 1;

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn documents() -> Vec<(Crd, Value)> {
        ALL.iter().map(|crd| (*crd, serde_yaml_ng::from_str(crd.yaml).unwrap())).collect()
    }

    #[test]
    fn each_is_named_after_its_kind_and_group() {
        for (crd, document) in documents() {
            assert_eq!(document["metadata"]["name"], crd.name);
            let spec = &document["spec"];
            let name =
                [&spec["names"]["plural"], &spec["group"]].map(|part| part.as_str().unwrap());
            assert_eq!(name.join("."), crd.name);
            let versions = spec["versions"].as_array().unwrap();
            let stored = versions.iter().filter(|version| version["storage"] == true).count();
            assert_eq!(stored, 1, "{}", crd.name);
        }
    }

    #[test]
    fn versions_of_a_kind_have_one_schema_so_conversion_loses_nothing() {
        for (crd, document) in documents() {
            let versions = document["spec"]["versions"].as_array().unwrap();
            assert!(
                versions.iter().all(|version| version["schema"] == versions[0]["schema"]),
                "{}",
                crd.name
            );
        }
    }
}
