//! The row of EndpointSlices.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::Value;

use super::{
    ROW,
    checks::{self, Errors},
    field::At,
    maps_in, set_default,
};
use crate::{
    names,
    print::networking as print,
    resource::{BuiltIn, Strategy},
};

/// EndpointSlices.
pub static ENDPOINT_SLICE: BuiltIn = BuiltIn {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    list_kind: "EndpointSliceList",
    plural: "endpointslices",
    singular: "endpointslice",
    strategy: Strategy { counts_generation: true, ..super::DATA },
    columns: print::ENDPOINT_SLICE,
    row: print::endpoint_slice_row,
    message: "discovery.EndpointSlice",
    default: defaults,
    validate: rules,
    validate_update: update_rules,
    ..ROW
};

const ADDRESS_TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
/// Most endpoints of a slice.
const ENDPOINTS_MAX: usize = 1000;
/// Most addresses of an endpoint.
const ADDRESSES_MAX: usize = 100;
/// Most ports of a slice.
const PORTS_MAX: usize = 20000;
/// Most zones that an endpoint may be hinted to.
const HINTS_MAX: usize = 8;

fn defaults(object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    for port in maps_in(fields, "ports") {
        set_default(port, "name", "");
        set_default(port, "protocol", "TCP");
    }
}

fn rules(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    let kind = root.get("addressType");
    checks::required_choice(kind, ADDRESS_TYPES, &mut errors);
    if root.get("endpoints").len() > ENDPOINTS_MAX {
        errors.push(root.get("endpoints").too_many(ENDPOINTS_MAX));
    }
    for endpoint in root.each("endpoints") {
        endpoint_rules(endpoint, kind.text(), &mut errors);
    }
    if root.get("ports").len() > PORTS_MAX {
        errors.push(root.get("ports").too_many(PORTS_MAX));
    }
    let mut seen = BTreeSet::new();
    for port in root.each("ports") {
        let name = port.get("name");
        if !name.text().is_empty() {
            checks::named(name, names::dns_label, &mut errors);
        }
        if !seen.insert(name.text()) {
            errors.push(name.duplicate());
        }
        checks::required_choice(port.get("protocol"), PROTOCOLS, &mut errors);
        checks::between(port.get("port"), 1, 65535, &mut errors);
        if !port.get("appProtocol").text().is_empty() {
            checks::named(port.get("appProtocol"), names::qualified_name, &mut errors);
        }
    }
    errors
}

fn endpoint_rules(endpoint: At<'_, '_>, kind: &str, errors: &mut Errors) {
    let addresses = endpoint.get("addresses");
    if addresses.len() == 0 {
        errors.push(addresses.required("must contain at least 1 address"));
    } else if addresses.len() > ADDRESSES_MAX {
        errors.push(addresses.too_many(ADDRESSES_MAX));
    }
    for address in endpoint.each("addresses") {
        let parsed = address.text().parse::<IpAddr>();
        match kind {
            "IPv4" if !matches!(parsed, Ok(IpAddr::V4(_))) => {
                errors.push(address.invalid("must be an IPv4 address"));
            }
            "IPv6" if !matches!(parsed, Ok(IpAddr::V6(_))) => {
                errors.push(address.invalid("must be an IPv6 address"));
            }
            "FQDN" => checks::named(address, names::dns_subdomain, errors),
            _ => {
                if let Ok(ip) = parsed
                    && let Some(why) = special(ip)
                {
                    errors.push(address.invalid(why));
                }
            }
        }
    }
    if !endpoint.get("nodeName").text().is_empty() {
        checks::named(endpoint.get("nodeName"), names::dns_subdomain, errors);
    }
    if !endpoint.get("hostname").text().is_empty() {
        checks::named(endpoint.get("hostname"), names::dns_label, errors);
    }
    let topology = endpoint.get("deprecatedTopology");
    checks::labels(topology, errors);
    let hints = endpoint.get("hints");
    if hints.get("forZones").len() > HINTS_MAX {
        errors.push(hints.get("forZones").too_many(HINTS_MAX));
    }
    for zone in hints.each("forZones") {
        checks::required_name(zone.get("name"), names::label_value, errors);
    }
}

/// Why an address cannot be that of an endpoint: it would make other hosts reach into the host itself.
fn special(ip: IpAddr) -> Option<&'static str> {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let link_local_multicast = match ip {
        IpAddr::V4(v4) => matches!(v4.octets(), [224, 0, 0, _]),
        IpAddr::V6(v6) => matches!(v6.octets(), [0xff, scope, ..] if scope & 0xf == 2),
    };
    if ip.is_unspecified() {
        Some("may not be unspecified (0.0.0.0 or ::)")
    } else if ip.is_loopback() {
        Some("may not be in the loopback range (127.0.0.0/8, ::1/128)")
    } else if link_local {
        Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    } else if link_local_multicast {
        Some("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
    } else {
        None
    }
}

fn update_rules(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let new = At::root(new);
    let old = old.get("addressType").unwrap_or(&Value::Null);
    checks::unchanged(new.get("addressType"), old, &mut errors);
    errors
}
