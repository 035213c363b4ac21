//! Rules that fields of many kinds share: names, numbers, choices, selectors, references.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::Value;

use super::field::At;
use crate::{error::FieldError, names, quantity::Quantity};

/// What is wrong, as far as it was seen.
pub(super) type Errors = Vec<FieldError>;

/// What is not negative says this of itself.
pub(super) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
/// What a port says of itself.
pub(super) const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";
pub(super) const IMMUTABLE: &str = "field is immutable";
const BAD_OPERATOR: &str = "not a valid selector operator";
const NOT_WITH_EXISTS: &str = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";

/// A text that must be there.
pub(super) fn required(place: At<'_, '_>, errors: &mut Errors) -> bool {
    let given = !place.text().is_empty();
    if !given {
        errors.push(place.required(""));
    }
    given
}

/// A text that must follow a rule of [`names`].
pub(super) fn named(place: At<'_, '_>, rule: fn(&str) -> Vec<String>, errors: &mut Errors) {
    errors.extend(rule(place.text()).iter().map(|why| place.invalid(why)));
}

/// A text that must be there and follow a rule of [`names`].
pub(super) fn required_name(place: At<'_, '_>, rule: fn(&str) -> Vec<String>, errors: &mut Errors) {
    if required(place, errors) {
        named(place, rule, errors);
    }
}

/// A text that, when given, is one of those known.
pub(super) fn choice(place: At<'_, '_>, known: &[&str], errors: &mut Errors) {
    if !place.text().is_empty() && !known.contains(&place.text()) {
        errors.push(place.unsupported(known));
    }
}

/// A text that must be given, and be one of those known.
pub(super) fn required_choice(place: At<'_, '_>, known: &[&str], errors: &mut Errors) {
    if required(place, errors) {
        choice(place, known, errors);
    }
}

/// A number that, when given, is not negative.
pub(super) fn not_negative(place: At<'_, '_>, errors: &mut Errors) {
    if place.number() < Some(0) && place.number().is_some() {
        errors.push(place.invalid(NOT_NEGATIVE));
    }
}

/// A number that, when given, lies between bounds.
pub(super) fn between(place: At<'_, '_>, low: i64, high: i64, errors: &mut Errors) {
    if place.number().is_some_and(|number| !(low..=high).contains(&number)) {
        errors.push(place.invalid(&format!("must be between {low} and {high}, inclusive")));
    }
}

/// A port: a number, or where `named` the name of one.
pub(super) fn port(place: At<'_, '_>, errors: &mut Errors) {
    match place.value {
        Value::String(_) => named(place, names::port_name, errors),
        Value::Number(_) => between(place, 1, 65535, errors),
        _ => {}
    }
}

/// Labels.
pub(super) fn labels(place: At<'_, '_>, errors: &mut Errors) {
    let labels = place.value.as_object().into_iter().flatten();
    for (key, value) in labels.take_while(|_| !place.is_told_enough()) {
        let value = value.as_str().unwrap_or_default();
        errors.extend(names::qualified_name(key).iter().map(|why| place.invalid_text(key, why)));
        errors.extend(names::label_value(value).iter().map(|why| place.invalid_text(value, why)));
    }
}

/// A `metav1.LabelSelector`, when given.
pub(super) fn label_selector(place: At<'_, '_>, errors: &mut Errors) {
    labels(place.get("matchLabels"), errors);
    for expression in place.each("matchExpressions") {
        let values = expression.get("values");
        match expression.get("operator").text() {
            "In" | "NotIn" if values.len() == 0 => {
                errors
                    .push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if values.len() > 0 => {
                errors.push(values.forbidden(NOT_WITH_EXISTS));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.push(expression.get("operator").invalid(BAD_OPERATOR)),
        }
        named(expression.get("key"), names::qualified_name, errors);
        for value in expression.each("values") {
            named(value, names::label_value, errors);
        }
    }
}

/// The amounts of a `ResourceList`: amounts, and not negative.
pub(super) fn amounts(place: At<'_, '_>, field: &str, errors: &mut Errors) {
    for (_, amount) in place.entries(field) {
        quantity(amount, errors);
    }
}

/// An amount that is not negative.
pub(super) fn quantity(place: At<'_, '_>, errors: &mut Errors) {
    match place.text().parse::<Quantity>() {
        Err(error) => errors.push(place.invalid(&error.to_string())),
        Ok(amount) if amount.is_negative() => errors.push(place.invalid(NOT_NEGATIVE)),
        Ok(_) => {}
    }
}

/// The amount here, if there is one.
pub(super) fn amount_of(place: At<'_, '_>) -> Option<Quantity> {
    place.text().parse().ok()
}

/// A whole number that is not negative, or a percentage.
pub(super) fn number_or_percent(place: At<'_, '_>, errors: &mut Errors) {
    match place.value {
        Value::Number(_) => not_negative(place, errors),
        Value::String(text) if !is_percent(text) => errors.push(place.invalid(
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. \
             '1%',  or '93%', regex used for validation is '[0-9]+%')",
        )),
        _ => {}
    }
}

/// Whether the text is a percentage.
pub(super) fn is_percent(text: &str) -> bool {
    text.strip_suffix('%')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// A percentage that is no more than the whole.
pub(super) fn at_most_whole(place: At<'_, '_>, errors: &mut Errors) {
    let percent = place.text().strip_suffix('%').and_then(|digits| digits.parse::<i64>().ok());
    if percent.is_some_and(|percent| percent > 100) {
        errors.push(place.invalid("must not be greater than 100%"));
    }
}

/// An address of either family.
pub(super) fn ip_address(place: At<'_, '_>, errors: &mut Errors) {
    if place.text().parse::<IpAddr>().is_err() {
        errors.push(place.invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"));
    }
}

/// An address and a length of its prefix.
pub(super) fn cidr(place: At<'_, '_>, errors: &mut Errors) {
    if split_cidr(place.text()).is_none() {
        errors
            .push(place.invalid("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"));
    }
}

/// Address and prefix length.
pub(super) fn split_cidr(text: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits: u32 = bits.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (bits <= most).then_some((address, bits))
}

/// A value that was not seen before in the same list.
pub(super) fn unique<'v>(place: At<'_, 'v>, seen: &mut BTreeSet<&'v str>, errors: &mut Errors) {
    if !place.text().is_empty() && !seen.insert(place.text()) {
        errors.push(place.duplicate());
    }
}

/// A field of `spec`, or a deeper one, that stays as it is.
pub(super) fn unchanged(new: At<'_, '_>, old: &Value, errors: &mut Errors) {
    if new.value != old {
        errors.push(new.invalid(IMMUTABLE));
    }
}

/// Whether an address is in a range.
pub(super) fn contains((network, bits): (IpAddr, u32), address: IpAddr) -> bool {
    let number = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let difference = number(network) ^ number(address);
    network.is_ipv4() == address.is_ipv4() && (bits == 0 || difference >> (128 - bits) == 0)
}
