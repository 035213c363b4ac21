//! Single expressions over named variables, such as the conditions of webhooks.

use std::sync::Arc;

use kube_cel::KubeCelExt as _;
use kube_cel::cel::Context;
use kube_cel::cel::objects::Value as Cel;
use serde_json::{Map, Value};

use crate::error::Errors;
use crate::path::Path;
use crate::rules::compile::program;
use crate::rules::meter::{Meter, register};
use crate::rules::values::convert;
use crate::rules::{RULE_STEPS, on_deep_stack};

/// Evaluates an expression that must be true or false, within the budget of one rule.
///
/// # Errors
/// What is wrong with the expression, or with what it came to.
pub fn evaluate_condition(source: &str, variables: &Map<String, Value>) -> Result<bool, String> {
    let mut errors = Errors::default();
    let names: Vec<&str> = variables.keys().map(String::as_str).collect();
    let Some(program) = program(source, &names, &Path::root(""), &mut errors) else {
        let texts: Vec<String> = errors.into_vec().into_iter().map(|error| error.message).collect();
        return Err(texts.join(", "));
    };
    let evaluated = on_deep_stack(|| {
        let meter = Arc::new(Meter::new(None));
        meter.refill(RULE_STEPS);
        let mut context = Context::default().with_all();
        register(&mut context, &meter);
        let too_dear = || "operation cancelled: actual cost limit exceeded".to_owned();
        for (name, value) in variables {
            let value = convert(value, None, &meter).ok_or_else(too_dear)?;
            context.add_variable_from_value(name.as_str(), value);
        }
        let result = context.resolve(&program.metered);
        if meter.is_exhausted() {
            return Err(too_dear());
        }
        match result {
            Ok(Cel::Bool(holds)) => Ok(holds),
            Ok(_) => Err("the expression must evaluate to a bool".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    });
    evaluated.unwrap_or_else(|| Err("the expression could not be evaluated".to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_see_their_variables_and_say_what_is_wrong() {
        let variables = json!({"object": {"metadata": {"name": "a", "labels": {"x": "y"}}},
            "oldObject": null, "request": {"operation": "CREATE", "userInfo": {"groups": ["g"]}}});
        let variables = variables.as_object().unwrap();
        for (source, expected) in [
            ("object.metadata.name == 'a'", Ok(true)),
            ("request.operation in ['UPDATE']", Ok(false)),
            ("!('system:nodes' in request.userInfo.groups)", Ok(true)),
            ("oldObject == null", Ok(true)),
            (
                "has(object.metadata.labels) && object.metadata.labels['x'].startsWith('y')",
                Ok(true),
            ),
            ("object.metadata.name", Err("the expression must evaluate to a bool")),
        ] {
            let found = evaluate_condition(source, variables);
            assert_eq!(found, expected.map_err(str::to_owned), "{source}");
        }
        for source in ["object.metadata.name ==", "object.spec.x == 1", "nobody.name == 'a'"] {
            assert!(evaluate_condition(source, variables).is_err(), "{source}");
        }
        let dear = "object.metadata.name.matches('(a+)+$') && [1,2,3,4,5,6,7,8].all(a, \
            [1,2,3,4,5,6,7,8].all(b, [1,2,3,4,5,6,7,8].all(c, [1,2,3,4,5,6,7,8].all(d, \
            [1,2,3,4,5,6,7,8].all(e, [1,2,3,4,5,6,7,8].all(f, [1,2,3,4,5,6,7,8].all(g, true)))))))";
        assert_eq!(
            evaluate_condition(dear, variables),
            Err("operation cancelled: actual cost limit exceeded".to_owned())
        );
    }
}
