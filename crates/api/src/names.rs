//! What names, label keys and label values may look like (RFC 1123 and Kubernetes' object names page).
//!
//! Every function returns why the text is wrong, in the words that Kubernetes uses, or nothing.

/// Longest DNS label (RFC 1035).
pub const LABEL_MAX_BYTES: usize = 63;
/// Longest DNS subdomain that a name may be.
pub const SUBDOMAIN_MAX_BYTES: usize = 253;
/// Longest name of a port.
pub const PORT_NAME_MAX_BYTES: usize = 15;
/// How many characters `generateName` is followed by.
pub const GENERATED_SUFFIX_BYTES: usize = 5;

const LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric \
characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
'123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035_RULE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or \
'-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or \
'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const WILDCARD_RULE: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS \
subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an \
alphanumeric character (e.g. '*.example.com', regex used for validation is \
'\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const VARIABLE_RULE: &str = "a valid environment variable name must consist only of printable ASCII \
characters other than '='";
const SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case \
alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
'example.com', regex used for validation is \
'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED_RULE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', \
and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or \
'123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric \
characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
'MyValue',  or 'my_value',  or '12345', regex used for validation is \
'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn lower_alnum(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn label_shape(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().copied().is_some_and(lower_alnum)
        && bytes.last().copied().is_some_and(lower_alnum)
        && bytes.iter().all(|byte| lower_alnum(*byte) || *byte == b'-')
}

fn qualified_shape(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// Why the text is not a DNS-1123 label.
#[must_use]
pub fn dns_label(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > LABEL_MAX_BYTES {
        wrong.push(too_long(LABEL_MAX_BYTES));
    }
    if !label_shape(text) {
        wrong.push(LABEL_RULE.to_owned());
    }
    wrong
}

/// Why the text is not a DNS-1123 subdomain.
#[must_use]
pub fn dns_subdomain(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > SUBDOMAIN_MAX_BYTES {
        wrong.push(too_long(SUBDOMAIN_MAX_BYTES));
    }
    if !text.split('.').all(label_shape) {
        wrong.push(SUBDOMAIN_RULE.to_owned());
    }
    wrong
}

/// Why the text is not a DNS-1035 label, as names of Services are.
#[must_use]
pub fn dns_label_1035(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > LABEL_MAX_BYTES {
        wrong.push(too_long(LABEL_MAX_BYTES));
    }
    if !label_shape(text) || !text.starts_with(|first: char| first.is_ascii_lowercase()) {
        wrong.push(LABEL_1035_RULE.to_owned());
    }
    wrong
}

/// Why the text is not a DNS-1123 subdomain whose first label is a wildcard.
#[must_use]
pub fn wildcard_subdomain(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > SUBDOMAIN_MAX_BYTES {
        wrong.push(too_long(SUBDOMAIN_MAX_BYTES));
    }
    if !text.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(label_shape)) {
        wrong.push(WILDCARD_RULE.to_owned());
    }
    wrong
}

/// Why the text is not the name of a port (an IANA service name).
#[must_use]
pub fn port_name(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > PORT_NAME_MAX_BYTES {
        wrong.push(format!("must be no more than {PORT_NAME_MAX_BYTES} characters"));
    }
    if !text.bytes().all(|byte| lower_alnum(byte) || byte == b'-') {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".into());
    }
    if text.contains("--") {
        wrong.push("must not contain consecutive hyphens".into());
    }
    if text.starts_with('-') || text.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".into());
    }
    wrong
}

/// Why the text cannot be the name of a variable of a container's environment.
#[must_use]
pub fn variable_name(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.is_empty() || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=') {
        wrong.push(VARIABLE_RULE.to_owned());
    }
    wrong
}

/// Why the text is not an address in canonical form, as names of IPAddresses are.
#[must_use]
pub fn ip_address(text: &str) -> Vec<String> {
    match text.parse::<std::net::IpAddr>() {
        Err(_) => vec!["must be a valid IP address in canonical form".to_owned()],
        Ok(address) if address.to_string() != text => {
            vec![format!("must be in canonical form (\"{address}\")")]
        }
        Ok(_) => Vec::new(),
    }
}

/// The rule of names that need be no more than a segment of a path: every name is checked for that
/// anyway, so there is nothing to add.
#[must_use]
pub fn any(_: &str) -> Vec<String> {
    Vec::new()
}

/// Why the text cannot be one segment of a path, which every object's name must be.
#[must_use]
pub fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"]
        .iter()
        .filter(|part| text.contains(**part))
        .map(|part| format!("may not contain '{part}'"))
        .collect()
}

/// Why the text is not a qualified name: `[prefix/]name`, as label and annotation keys are.
#[must_use]
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            return vec![format!(
                "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and \
                 must start and end with an alphanumeric character with an optional DNS subdomain \
                 prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                wrong.extend(dns_subdomain(prefix).iter().map(|why| format!("prefix part {why}")));
            }
            name
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX_BYTES {
        wrong.push(format!("name part {}", too_long(LABEL_MAX_BYTES)));
    }
    if !qualified_shape(name) {
        wrong.push(QUALIFIED_RULE.to_owned());
    }
    wrong
}

/// Why the text cannot be the value of a label.
#[must_use]
pub fn label_value(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > LABEL_MAX_BYTES {
        wrong.push(too_long(LABEL_MAX_BYTES));
    }
    if !text.is_empty() && !qualified_shape(text) {
        wrong.push(VALUE_RULE.to_owned());
    }
    wrong
}

/// Why the text cannot be a key of a ConfigMap or Secret.
#[must_use]
pub fn config_key(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > SUBDOMAIN_MAX_BYTES {
        wrong.push(too_long(SUBDOMAIN_MAX_BYTES));
    }
    let shaped = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !shaped || text == "." || text.starts_with("..") {
        wrong.push(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
             'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
             '[-._a-zA-Z0-9]+')"
                .to_owned(),
        );
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_accepted_and_refused_as_kubernetes_does() {
        for good in ["a", "a-b", "0", "my-name-1"] {
            assert!(dns_label(good).is_empty(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"x".repeat(64)] {
            assert!(!dns_label(bad).is_empty(), "{bad}");
        }
        for good in ["a.b", "kube-root-ca.crt", "0.1"] {
            assert!(dns_subdomain(good).is_empty(), "{good}");
        }
        for bad in ["a..b", ".a", "a.", "A.b", &"x.".repeat(127)] {
            assert!(!dns_subdomain(bad).is_empty(), "{bad}");
        }
        for good in ["app", "app.kubernetes.io/name", "A_b.c"] {
            assert!(qualified_name(good).is_empty(), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "UP.io/x", "-a"] {
            assert!(!qualified_name(bad).is_empty(), "{bad}");
        }
        assert!(label_value("").is_empty());
        assert!(!label_value("a b").is_empty());
        assert!(config_key("ca.crt").is_empty());
        assert!(!config_key("..x").is_empty());
    }
}
