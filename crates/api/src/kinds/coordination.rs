//! The row of Leases.

use serde_json::Value;

use super::{
    ROW,
    checks::{self, Errors},
    field::At,
    map_in,
};
use crate::{print::core as print, resource::BuiltIn};

/// Leases.
pub static LEASE: BuiltIn = BuiltIn {
    group: "coordination.k8s.io",
    kind: "Lease",
    list_kind: "LeaseList",
    plural: "leases",
    singular: "lease",
    columns: print::LEASE,
    row: print::lease_row,
    message: "coordination.Lease",
    default: |object| {
        map_in(object, "spec");
    },
    validate: rules,
    ..ROW
};

fn rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    let duration = spec.get("leaseDurationSeconds");
    if duration.number().is_some_and(|seconds| seconds <= 0) {
        errors.push(duration.invalid("must be greater than 0"));
    }
    checks::not_negative(spec.get("leaseTransitions"), &mut errors);
    if !spec.get("preferredHolder").text().is_empty() && spec.get("strategy").text().is_empty() {
        let why = "may only be specified if `strategy` is defined";
        errors.push(spec.get("preferredHolder").forbidden(why));
    }
    errors
}
