//! How the lists of each kind are merged by a strategic merge patch: the merge-key schema.
//!
//! The keys are Kubernetes' `patchMergeKey` and `patchStrategy` tags. A field that is not named
//! here merges as a map if it is one, and is replaced as a whole otherwise.

/// The fields of an object that are merged in a special way.
#[derive(Debug, PartialEq, Eq)]
pub struct MergeSchema {
    /// Field name and how it is merged.
    pub fields: &'static [(&'static str, Merge)],
    /// Whether `$retainKeys` may clear this object's other fields.
    pub retain_keys: bool,
}

/// How one field is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// A map with rules of its own.
    Object(&'static MergeSchema),
    /// A list of maps, items matched by a field.
    ListByKey(&'static str, &'static MergeSchema),
    /// A list of scalars that is a set.
    Set,
}

impl MergeSchema {
    /// How a field is merged, if in a special way.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<Merge> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, merge)| *merge)
    }
}

use Merge::{ListByKey, Object, Set};

const fn schema(fields: &'static [(&'static str, Merge)]) -> MergeSchema {
    MergeSchema { fields, retain_keys: false }
}

/// No special rule.
pub static PLAIN: MergeSchema = schema(&[]);
static RETAIN: MergeSchema = MergeSchema { fields: &[], retain_keys: true };
static METADATA: MergeSchema =
    schema(&[("ownerReferences", ListByKey("uid", &PLAIN)), ("finalizers", Set)]);
static CONTAINER: MergeSchema = schema(&[
    ("ports", ListByKey("containerPort", &PLAIN)),
    ("env", ListByKey("name", &PLAIN)),
    ("volumeMounts", ListByKey("mountPath", &PLAIN)),
    ("volumeDevices", ListByKey("devicePath", &PLAIN)),
]);
static POD_SPEC: MergeSchema = schema(&[
    ("containers", ListByKey("name", &CONTAINER)),
    ("initContainers", ListByKey("name", &CONTAINER)),
    ("ephemeralContainers", ListByKey("name", &CONTAINER)),
    ("volumes", ListByKey("name", &RETAIN)),
    ("imagePullSecrets", ListByKey("name", &PLAIN)),
    ("hostAliases", ListByKey("ip", &PLAIN)),
    ("topologySpreadConstraints", ListByKey("topologyKey", &PLAIN)),
    ("resourceClaims", ListByKey("name", &RETAIN)),
    ("schedulingGates", ListByKey("name", &PLAIN)),
]);
static CONDITIONS: MergeSchema = schema(&[("conditions", ListByKey("type", &PLAIN))]);
static POD_STATUS: MergeSchema = schema(&[
    ("conditions", ListByKey("type", &PLAIN)),
    ("podIPs", ListByKey("ip", &PLAIN)),
    ("hostIPs", ListByKey("ip", &PLAIN)),
    ("resourceClaimStatuses", ListByKey("name", &PLAIN)),
]);
static TEMPLATE: MergeSchema =
    schema(&[("metadata", Object(&METADATA)), ("spec", Object(&POD_SPEC))]);
static WORKLOAD_SPEC: MergeSchema =
    schema(&[("template", Object(&TEMPLATE)), ("strategy", Object(&RETAIN))]);
static NODE_SPEC: MergeSchema = schema(&[("podCIDRs", Set)]);
static NODE_STATUS: MergeSchema =
    schema(&[("conditions", ListByKey("type", &PLAIN)), ("addresses", ListByKey("type", &PLAIN))]);
static SERVICE_SPEC: MergeSchema = schema(&[("ports", ListByKey("port", &PLAIN))]);

/// Kinds without merged lists of their own.
pub static GENERIC: MergeSchema = schema(&[("metadata", Object(&METADATA))]);
/// Pods.
pub static POD: MergeSchema = schema(&[
    ("metadata", Object(&METADATA)),
    ("spec", Object(&POD_SPEC)),
    ("status", Object(&POD_STATUS)),
]);
/// Deployments, ReplicaSets, DaemonSets.
pub static WORKLOAD: MergeSchema = schema(&[
    ("metadata", Object(&METADATA)),
    ("spec", Object(&WORKLOAD_SPEC)),
    ("status", Object(&CONDITIONS)),
]);
/// Nodes.
pub static NODE: MergeSchema = schema(&[
    ("metadata", Object(&METADATA)),
    ("spec", Object(&NODE_SPEC)),
    ("status", Object(&NODE_STATUS)),
]);
/// Services.
pub static SERVICE: MergeSchema = schema(&[
    ("metadata", Object(&METADATA)),
    ("spec", Object(&SERVICE_SPEC)),
    ("status", Object(&CONDITIONS)),
]);
/// ServiceAccounts.
pub static SERVICE_ACCOUNT: MergeSchema =
    schema(&[("metadata", Object(&METADATA)), ("secrets", ListByKey("name", &PLAIN))]);
/// Kinds whose status has conditions, such as Namespaces.
pub static CONDITIONED: MergeSchema =
    schema(&[("metadata", Object(&METADATA)), ("status", Object(&CONDITIONS))]);
