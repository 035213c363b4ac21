//! `x-kubernetes-validations`.

use serde_json::json;
use toono_schema::{Budget, MAX_RULE_BYTES, Schema};

use crate::{compile, faults, faults_since, schema, texts, yaml};

fn with_rules(rules: &str) -> Schema {
    schema(&format!("{{{FIELDS}, x-kubernetes-validations: {rules}}}"))
}

const FIELDS: &str = "type: object, properties: {
    a: {type: integer}, b: {type: integer}, s: {type: string}, t: {type: string, format: date-time},
    d: {type: string, format: duration}, p: {x-kubernetes-int-or-string: true},
    list: {type: array, items: {type: integer}},
    map: {type: object, additionalProperties: {type: string}},
    namespace: {type: string}, x-y: {type: string}}";

/// A rule, a spec, and what is wrong with it.
type Case = (&'static str, &'static str, &'static [&'static str]);

#[test]
fn rules_hold_or_not() {
    let cases: &[Case] = &[
        ("self.a <= self.b", "{a: 1, b: 2}", &[]),
        (
            "self.a <= self.b",
            "{a: 3, b: 2}",
            &[r#"spec: Invalid value: "object": failed rule: self.a <= self.b"#],
        ),
        ("!has(self.a) || self.a > 1", "{}", &[]),
        (
            "self.a > 1",
            "{}",
            &[r#"spec: Invalid value: "object": no such key: a evaluating rule: self.a > 1"#],
        ),
        (
            "self.list[5] > 1",
            "{list: [1]}",
            &[
                r#"spec: Invalid value: "object": index out of bounds: 5 evaluating rule: self.list[5] > 1"#,
            ],
        ),
        (
            "self.a / 0 == 1",
            "{a: 1}",
            &[
                r#"spec: Invalid value: "object": division by zero evaluating rule: self.a / 0 == 1"#,
            ],
        ),
        ("self.list.all(x, x > 0)", "{list: [1, 2]}", &[]),
        ("self.list.exists(x, x == 2) && size(self.list) == 2", "{list: [1, 2]}", &[]),
        ("self.map.all(k, self.map[k].startsWith(k))", "{map: {x: xy}}", &[]),
        ("'x' in self.map", "{map: {x: y}}", &[]),
        ("self.s.matches('^[a-z]+$')", "{s: abc}", &[]),
        ("self.s.lowerAscii() == 'abc' && self.s.split('B').size() == 2", "{s: aBc}", &[]),
        ("self.t > timestamp('2020-01-01T00:00:00Z')", "{t: '2024-01-01T00:00:00Z'}", &[]),
        ("self.d < duration('2h')", "{d: 90m}", &[]),
        ("type(self.p) == string ? self.p == '5%' : self.p == 5", "{p: 5}", &[]),
        ("type(self.p) == string ? self.p == '5%' : self.p == 5", "{p: 5%}", &[]),
        ("self.list.isSorted() && self.list.sum() == 6", "{list: [1, 2, 3]}", &[]),
        ("isURL(self.s) && url(self.s).getHost() == 'e.org'", "{s: 'https://e.org/x'}", &[]),
        ("quantity(self.s).isGreaterThan(quantity('1Gi'))", "{s: 2Gi}", &[]),
        ("isIP(self.s) && ip(self.s).family() == 4", "{s: 10.0.0.1}", &[]),
        ("cidr('10.0.0.0/8').containsIP(self.s)", "{s: 10.0.0.1}", &[]),
        ("self.__namespace__ == 'x' && self.x__dash__y == 'z'", "{namespace: x, x-y: z}", &[]),
    ];
    for (rule, spec, expected) in cases {
        let schema = with_rules(&format!("[{{rule: {rule:?}}}]"));
        assert_eq!(faults(&schema, spec), *expected, "{rule} on {spec}");
    }
}

#[test]
fn messages_reasons_and_fields() {
    let cases: &[Case] = &[
        (
            "[{rule: self.a > 1, message: a is too small}]",
            "{a: 1}",
            &[r#"spec: Invalid value: "object": a is too small"#],
        ),
        (
            "[{rule: self.a > 1, message: fixed, messageExpression: \"'a is ' + string(self.a)\"}]",
            "{a: 1}",
            &[r#"spec: Invalid value: "object": a is 1"#],
        ),
        (
            "[{rule: self.a > 1, message: fixed, messageExpression: 'self.s'}]",
            "{a: 1}",
            &[r#"spec: Invalid value: "object": fixed"#],
        ),
        (
            "[{rule: self.a > 1, messageExpression: \"' '\"}]",
            "{a: 1}",
            &[r#"spec: Invalid value: "object": failed rule: self.a > 1"#],
        ),
        (
            "[{rule: self.a > 1, message: no, reason: FieldValueForbidden, fieldPath: .a}]",
            "{a: 1}",
            &["spec.a: Forbidden: no"],
        ),
        (
            "[{rule: self.a > 1, message: no, reason: FieldValueRequired, fieldPath: .s}]",
            "{a: 1}",
            &["spec.s: Required value: no"],
        ),
        (
            "[{rule: self.a > 1, message: no, reason: FieldValueDuplicate}]",
            "{a: 1}",
            &[r#"spec: Duplicate value: "object""#],
        ),
        (
            "[{rule: 'self.a / 0 == 1', message: no zero}]",
            "{a: 1}",
            &[r#"spec: Invalid value: "object": division by zero evaluating rule: no zero"#],
        ),
    ];
    for (rules, spec, expected) in cases {
        assert_eq!(faults(&with_rules(rules), spec), *expected, "{rules}");
    }
}

#[test]
fn transition_rules() {
    let immutable = with_rules("[{rule: self.a == oldSelf.a, message: a is immutable}]");
    assert_eq!(faults(&immutable, "{a: 1}"), [""; 0]);
    assert_eq!(faults_since(&immutable, "{a: 1, b: 2}", Some("{a: 1}")), [""; 0]);
    assert_eq!(
        faults_since(&immutable, "{a: 2}", Some("{a: 1}")),
        [r#"spec: Invalid value: "object": a is immutable"#]
    );
    let optional = with_rules(
        "[{rule: 'oldSelf.hasValue() ? oldSelf.value().a <= self.a : self.a == 0', optionalOldSelf: true}]",
    );
    assert_eq!(faults(&optional, "{a: 0}"), [""; 0]);
    assert_eq!(faults(&optional, "{a: 1}").len(), 1);
    assert_eq!(faults_since(&optional, "{a: 2}", Some("{a: 1}")), [""; 0]);
    assert_eq!(faults_since(&optional, "{a: 0}", Some("{a: 1}")).len(), 1);
}

#[test]
fn transition_rules_follow_the_keys_of_lists() {
    let schema = schema(
        "{type: object, properties: {list: {type: array, x-kubernetes-list-type: map,
          x-kubernetes-list-map-keys: [name], items: {type: object, required: [name], properties: {
            name: {type: string},
            size: {type: integer, x-kubernetes-validations: [{rule: self >= oldSelf, message: may not shrink}]}}}}}}",
    );
    let old = "{list: [{name: x, size: 5}, {name: y, size: 1}]}";
    assert_eq!(
        faults_since(&schema, "{list: [{name: y, size: 1}, {name: x, size: 4}]}", Some(old)),
        [r#"spec.list[1].size: Invalid value: "integer": may not shrink"#]
    );
    assert_eq!(faults_since(&schema, "{list: [{name: z, size: 0}]}", Some(old)), [""; 0]);
}

#[test]
fn rules_of_what_did_not_change_are_not_run_again() {
    let schema = schema(
        "{type: object, properties: {a: {type: integer, x-kubernetes-validations: [{rule: self > 5}]},
          b: {type: integer}}}",
    );
    assert_eq!(faults_since(&schema, "{a: 1, b: 2}", Some("{a: 1}")), [""; 0]);
    assert_eq!(faults_since(&schema, "{a: 2}", Some("{a: 1}")).len(), 1);
}

#[test]
fn rules_wait_for_a_sound_object() {
    let schema = with_rules("[{rule: self.a > 1}]");
    assert_eq!(
        faults(&schema, "{a: x}"),
        [
            r#"spec.a: Invalid value: "string": spec.a in body must be of type integer: "string""#,
            "<nil>: Invalid value: null: some validation rules were not checked because the object \
             was invalid; correct the existing errors to complete validation",
        ]
    );
}

#[test]
fn rules_of_the_root_see_the_name() {
    // Whether the schema names metadata or not.
    for metadata in ["", "metadata: {type: object}, "] {
        let raw = yaml(&format!(
            "{{type: object, properties: {{{metadata}spec: {{type: object, properties: {{a: {{type: string}}}}}}}},
              x-kubernetes-validations: [{{rule: \"self.metadata.name.startsWith(self.spec.a)\"}}]}}"
        ));
        let schema = Schema::compile(&raw, "schema").expect("sound");
        let object = json!({"kind": "K", "metadata": {"name": "x1"}, "spec": {"a": "x"}});
        assert_eq!(texts(&schema.validate(&object, None, &Budget::default())), [""; 0]);
        let object = json!({"kind": "K", "metadata": {"name": "y1"}, "spec": {"a": "x"}});
        assert_eq!(
            texts(&schema.validate(&object, None, &Budget::default())),
            [
                r#"<nil>: Invalid value: "object": failed rule: self.metadata.name.startsWith(self.spec.a)"#
            ]
        );
    }
}

#[test]
fn rules_that_cannot_be_compiled() {
    let cases: [(&str, &[&str]); 12] = [
        ("[{rule: ''}]", &["rule: Required value: rule is not specified"]),
        (
            "[{rule: self.zz > 1}]",
            &[r#"rule: Invalid value: "self.zz > 1": compilation failed: undefined field 'zz'"#],
        ),
        (
            "[{rule: other > 1}]",
            &[
                r#"rule: Invalid value: "other > 1": compilation failed: undeclared reference to 'other'"#,
            ],
        ),
        (
            "[{rule: nothing(self.a)}]",
            &[
                r#"rule: Invalid value: "nothing(self.a)": compilation failed: undeclared reference to 'nothing'"#,
            ],
        ),
        (
            "[{rule: self.a > 1, message: ' '}]",
            &[r#"message: Invalid value: " ": message must be non-empty if specified"#],
        ),
        (
            "[{rule: self.a > 1, message: \"a\\nb\"}]",
            &[r#"message: Invalid value: "a\nb": message must not contain line breaks"#],
        ),
        (
            "[{rule: \"self.a >\\n 1\"}]",
            &["message: Required value: message must be specified if rule contains line breaks"],
        ),
        (
            "[{rule: self.a > 1, messageExpression: ' '}]",
            &[
                "messageExpression: Required value: messageExpression must be non-empty if specified",
            ],
        ),
        (
            "[{rule: self.a > 1, reason: Odd}]",
            &[
                r#"reason: Unsupported value: "Odd": supported values: "FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired""#,
            ],
        ),
        (
            "[{rule: self.a > 1, fieldPath: .zz}]",
            &[r#"fieldPath: Invalid value: ".zz": fieldPath must be a valid path"#],
        ),
        (
            "[{rule: self.a > 1, optionalOldSelf: true}]",
            &[
                "optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule",
            ],
        ),
        ("[{rule: 'true'}]", &[]),
    ];
    for (rules, expected) in cases {
        let found = compile(&format!("{{{FIELDS}, x-kubernetes-validations: {rules}}}"));
        let found = found.err().map(|errors| texts(&errors)).unwrap_or_default();
        let prefix = "schema.properties[spec].x-kubernetes-validations[0].";
        let found: Vec<String> = found.iter().map(|text| text.replace(prefix, "")).collect();
        assert_eq!(found, expected, "{rules}");
    }
}

#[test]
fn a_rule_that_does_not_parse_is_refused() {
    let errors = compile("{type: object, x-kubernetes-validations: [{rule: 'self. >'}]}").err();
    let errors = texts(&errors.expect("no expression"));
    assert!(
        errors[0].starts_with(
            "schema.properties[spec].x-kubernetes-validations[0].rule: Invalid value: \"self. >\": \
             compilation failed: "
        ),
        "{errors:?}"
    );
}

#[test]
fn transition_rules_need_what_can_be_followed() {
    let within = |shape: &str| {
        let errors = compile(&format!("{{type: object, properties: {{a: {shape}}}}}")).err();
        texts(&errors.unwrap_or_default())
    };
    let rule = "x-kubernetes-validations: [{rule: self == oldSelf}]";
    assert_eq!(
        within(&format!("{{type: array, items: {{type: string, {rule}}}}}")),
        ["schema.properties[spec].properties[a].items.x-kubernetes-validations[0].rule: Invalid \
             value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of \
             the schema within schema.properties[spec].properties[a]"]
    );
    assert_eq!(
        within(&format!(
            "{{type: object, x-kubernetes-map-type: atomic, properties: {{b: {{type: string, {rule}}}}}}}"
        ))
        .len(),
        1
    );
    assert_eq!(within(&format!("{{type: array, items: {{type: string}}, {rule}}}")), [""; 0]);
}

#[test]
fn a_costly_rule_is_stopped() {
    let schema = with_rules(
        "[{rule: 'self.list.all(x, self.list.all(y, self.list.all(z, x + y + z >= 0)))'}]",
    );
    let list: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let started = std::time::Instant::now();
    let found = faults(&schema, &format!("{{list: [{}]}}", list.join(", ")));
    assert_eq!(
        found,
        ["spec: Invalid value: \"object\": 'operation cancelled: actual cost limit exceeded': no \
             further validation rules will be run due to call cost exceeds limit for rule: \
             self.list.all(x, self.list.all(y, self.list.all(z, x + y + z >= 0)))"]
    );
    assert!(
        started.elapsed().as_secs() < 20,
        "the budget bounds the time: {:?}",
        started.elapsed()
    );
}

/// Lists compared with lists, and expressions of repeated repetitions, pay for what they become.
#[test]
fn functions_without_loops_are_stopped_too() {
    let list: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    let spec = format!("{{list: [{}], s: {}}}", list.join(", "), "a".repeat(500));
    for rule in [
        "self.list.all(x, !sets.intersects(self.list, self.list.map(y, y - 1000)))",
        "self.list.all(x, sets.equivalent(self.list, self.list))",
        "self.list.all(x, self.list.distinct().size() == 1000)",
        "self.list.all(x, !self.s.matches(\"^((a{1,50}){1,50}\" + string(x) + \")*b\"))",
        "self.list.all(x, self.s.findAll(\"(([a-z]{1,30}){1,30}){1,2}b\").size() == 0)",
    ] {
        let schema = with_rules(&format!("[{{rule: '{rule}', message: m}}]"));
        let started = std::time::Instant::now();
        let found = faults(&schema, &spec);
        assert!(found[0].contains("actual cost limit exceeded"), "{rule}: {found:?}");
        // Seconds in a build without optimizations; without a budget it would be minutes and hours.
        assert!(started.elapsed().as_secs() < 60, "{rule}: {:?}", started.elapsed());
    }
    // One of each is no more than a rule may cost.
    for rule in [
        "sets.contains(self.list, [7, 999]) && !sets.intersects(self.list, [-1, -2])",
        "self.list.all(x, string(x).matches(\"^[0-9]{1,4}$\"))",
        "self.s.find(\"a{3}\") == \"aaa\" && self.s.findAll(\"a{4}\", 2).size() == 2",
        "[1, 2, 1].distinct() == [1, 2] && sets.equivalent([1, 2], [2, 1, 1])",
    ] {
        assert_eq!(faults(&with_rules(&format!("[{{rule: '{rule}'}}]")), &spec), [""; 0], "{rule}");
    }
}

#[test]
fn all_rules_of_an_object_share_a_budget() {
    let schema = schema(
        "{type: object, properties: {list: {type: array, items: {type: array, items: {type: integer},
          x-kubernetes-validations: [{rule: 'self.all(x, x >= 0)'}]}}}}",
    );
    let object = json!({"spec": {"list": vec![vec![1; 100]; 100]}});
    let budget = Budget { object_steps: 20_000, ..Budget::default() };
    let found = texts(&schema.validate(&object, None, &budget));
    assert_eq!(found.len(), 1);
    assert!(
        found[0].ends_with(
            "Invalid value: \"array\": validation failed due to running out of cost budget, no \
             further validation rules will be run"
        ),
        "{found:?}"
    );
}

#[test]
fn evaluation_ends_when_the_caller_says_so() {
    let schema = with_rules("[{rule: 'self.list.all(x, x >= 0)'}]");
    let object = json!({"spec": {"list": [1, 2, 3]}});
    let budget = Budget { stop: Some(std::sync::Arc::new(|| true)), ..Budget::default() };
    assert_eq!(schema.validate(&object, None, &budget).len(), 1);
}

#[test]
fn a_long_or_deep_rule_is_refused() {
    let long = format!("self.a == {}", "1 + ".repeat(MAX_RULE_BYTES / 4) + "1");
    let deep = format!("{}self.a{} == 1", "(".repeat(100), ")".repeat(100));
    for rule in [long, deep] {
        assert!(
            compile(&format!("{{{FIELDS}, x-kubernetes-validations: [{{rule: '{rule}'}}]}}"))
                .is_err()
        );
    }
}

#[test]
fn a_rule_of_unbounded_cost_is_warned_of() {
    let schema = with_rules("[{rule: 'self.list.all(x, self.list.all(y, x == y))'}]");
    assert!(!schema.rule_warnings().is_empty());
    assert!(with_rules("[{rule: self.a > 1}]").rule_warnings().is_empty());
}

/// Rules as the Gateway API and others ship them.
#[test]
fn rules_of_the_field() {
    let fields = "type: object, properties: {
        type: {type: string}, group: {type: string}, kind: {type: string}, port: {type: integer},
        namespace: {type: string}, timeout: {type: string, format: duration},
        requestRedirect: {type: object, properties: {scheme: {type: string}}},
        filters: {type: array, items: {type: object, properties: {type: {type: string}}}},
        listeners: {type: array, items: {type: object, properties: {name: {type: string}, port: {type: integer}, hostname: {type: string}}}},
        hostnames: {type: array, items: {type: string}},
        limits: {type: object, additionalProperties: {x-kubernetes-int-or-string: true}}}";
    let cases: &[(&str, &str, bool)] = &[
        (
            "!(has(self.requestRedirect) && self.type != 'RequestRedirect')",
            "{type: Other, requestRedirect: {scheme: https}}",
            false,
        ),
        ("!(!has(self.requestRedirect) && self.type == 'RequestRedirect')", "{type: Other}", true),
        (
            "(size(self.group) == 0 && self.kind == 'Service') ? has(self.port) : true",
            "{group: '', kind: Service}",
            false,
        ),
        (
            "self.filters.filter(f, f.type == 'RequestRedirect').size() <= 1",
            "{filters: [{type: RequestRedirect}, {type: RequestRedirect}]}",
            false,
        ),
        (
            "!(self.filters.exists(f, f.type == 'A') && self.filters.exists(f, f.type == 'B'))",
            "{filters: [{type: A}, {type: C}]}",
            true,
        ),
        (
            "self.listeners.all(l1, self.listeners.exists_one(l2, l1.port == l2.port && (has(l1.hostname) && has(l2.hostname) ? l1.hostname == l2.hostname : !has(l1.hostname) && !has(l2.hostname))))",
            "{listeners: [{name: a, port: 80}, {name: b, port: 80, hostname: x}]}",
            true,
        ),
        (
            "self.listeners.all(l1, self.listeners.exists_one(l2, l1.name == l2.name))",
            "{listeners: [{name: a}, {name: a}]}",
            false,
        ),
        ("self.hostnames.map(h, h.lowerAscii()) == self.hostnames", "{hostnames: [a, b]}", true),
        (
            "self.hostnames.all(h, h.matches('^[a-z.]+$') && !h.startsWith('.') && h.size() < 64)",
            "{hostnames: [a.b]}",
            true,
        ),
        (
            "self.timeout == duration('0s') || self.timeout >= duration('1ms')",
            "{timeout: 500us}",
            false,
        ),
        ("has(self.__namespace__) == has(self.type)", "{namespace: a, type: b}", true),
        ("self.hostnames.size() == 0 || self.hostnames[0] in ['a', 'b']", "{hostnames: [b]}", true),
        (
            "self.limits.all(k, type(self.limits[k]) == int ? self.limits[k] > 0 : string(self.limits[k]).endsWith('%'))",
            "{limits: {a: 5, b: 10%}}",
            true,
        ),
        ("(has(self.port) ? 1 : 0) + (has(self.type) ? 1 : 0) == 1", "{port: 5}", true),
        ("self.?requestRedirect.?scheme.orValue('x') == 'x'", "{}", true),
        (
            "self.?requestRedirect.?scheme.orValue('x') == 'y'",
            "{requestRedirect: {scheme: y}}",
            true,
        ),
        ("self.?requestRedirect.scheme.orValue('x') == 'x'", "{}", true),
        (
            "self.?requestRedirect.scheme.orValue('x') == 'y'",
            "{requestRedirect: {scheme: y}}",
            true,
        ),
        ("self.hostnames[?3].orValue('none') == 'none'", "{hostnames: [a]}", true),
        ("self.?limits['a'].hasValue()", "{limits: {a: 1}}", true),
        ("self.?port.orValue(80) == 80 && !self.?type.hasValue()", "{}", true),
        (
            "self.hostnames.exists(h, h.contains('x')) == false && !('y' in self.limits)",
            "{hostnames: [a], limits: {}}",
            true,
        ),
        ("self.kind.replace('a', 'b').split('b').join('-') == 'x-y'", "{kind: xay}", true),
        ("self.kind == 'a' ? self.port in [1, 2] : self.port > 2", "{kind: b, port: 3}", true),
        ("format.dns1123Label().validate(self.kind).hasValue()", "{kind: A_b}", true),
        (
            "quantity('1.5Gi').isLessThan(quantity('2Gi')) && semver('1.2.3').isLessThan(semver('1.3.0'))",
            "{}",
            true,
        ),
    ];
    for (rule, spec, holds) in cases {
        let text = format!("{{{fields}, x-kubernetes-validations: [{{rule: {rule:?}}}]}}");
        match compile(&text) {
            Ok(schema) => {
                let found = faults(&schema, spec);
                assert_eq!(found.is_empty(), *holds, "{rule} on {spec}: {found:?}");
                assert!(found.iter().all(|text| text.contains("failed rule")), "{rule}: {found:?}");
            }
            Err(errors) => panic!("{rule}: {:?}", texts(&errors)),
        }
    }
}
