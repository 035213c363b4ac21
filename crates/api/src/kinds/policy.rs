//! The row of PodDisruptionBudgets.

use serde_json::{Value, json};

use super::{
    ROW, SPEC_AND_STATUS,
    checks::{self, Errors},
    field::At,
    map_in, status_of,
};
use crate::{
    print::cluster as print,
    resource::{BuiltIn, Strategy},
};

/// PodDisruptionBudgets.
pub static POD_DISRUPTION_BUDGET: BuiltIn = BuiltIn {
    group: "policy",
    kind: "PodDisruptionBudget",
    list_kind: "PodDisruptionBudgetList",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    subresources: &[status_of("policy", "v1", "PodDisruptionBudget")],
    strategy: Strategy { initial_status: first_status, ..SPEC_AND_STATUS },
    columns: print::DISRUPTION_BUDGET,
    row: print::disruption_budget_row,
    message: "policy.PodDisruptionBudget",
    default: |object| {
        map_in(object, "spec");
    },
    validate: rules,
    ..ROW
};

fn first_status(_: &Value) -> Value {
    json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0})
}

fn rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let spec = root.get("spec");
    if spec.get("minAvailable").is_set() && spec.get("maxUnavailable").is_set() {
        errors.push(spec.invalid("minAvailable and maxUnavailable cannot be both set"));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        checks::number_or_percent(spec.get(field), &mut errors);
        checks::at_most_whole(spec.get(field), &mut errors);
    }
    checks::label_selector(spec.get("selector"), &mut errors);
    let known = ["AlwaysAllow", "IfHealthyBudget"];
    checks::choice(spec.get("unhealthyPodEvictionPolicy"), &known, &mut errors);
    let status = root.get("status");
    for count in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        checks::not_negative(status.get(count), &mut errors);
    }
    errors
}
