//! The string and number formats that Kubernetes checks. A format unknown to it is not checked.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Longest DNS name, RFC 1035.
const MAX_HOSTNAME_BYTES: usize = 253;
/// Longest label of a DNS name, RFC 1035.
const MAX_LABEL_BYTES: usize = 63;

/// A value of `format`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    DateTime,
    Date,
    Duration,
    Ipv4,
    Ipv6,
    Cidr,
    Mac,
    /// With the version that it must have.
    Uuid(Option<char>),
    Byte,
    Hostname,
    Email,
    Uri,
    ShortName,
    LongName,
    ObjectId,
    Int32,
    Int64,
    Float,
    Double,
    /// Kept to be published, not checked.
    Unchecked(Arc<str>),
}

impl Format {
    pub(crate) fn of_name(name: &Arc<str>) -> Self {
        match name.as_ref() {
            "date-time" | "datetime" => Self::DateTime,
            "date" => Self::Date,
            "duration" => Self::Duration,
            "ipv4" => Self::Ipv4,
            "ipv6" => Self::Ipv6,
            "cidr" => Self::Cidr,
            "mac" => Self::Mac,
            "uuid" => Self::Uuid(None),
            "uuid3" => Self::Uuid(Some('3')),
            "uuid4" => Self::Uuid(Some('4')),
            "uuid5" => Self::Uuid(Some('5')),
            "byte" => Self::Byte,
            "hostname" => Self::Hostname,
            "email" => Self::Email,
            "uri" => Self::Uri,
            "k8s-short-name" => Self::ShortName,
            "k8s-long-name" => Self::LongName,
            "bsonobjectid" => Self::ObjectId,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "float" => Self::Float,
            "double" => Self::Double,
            _ => Self::Unchecked(name.clone()),
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::DateTime => "date-time",
            Self::Date => "date",
            Self::Duration => "duration",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Cidr => "cidr",
            Self::Mac => "mac",
            Self::Uuid(None) => "uuid",
            Self::Uuid(Some('3')) => "uuid3",
            Self::Uuid(Some('4')) => "uuid4",
            Self::Uuid(Some(_)) => "uuid5",
            Self::Byte => "byte",
            Self::Hostname => "hostname",
            Self::Email => "email",
            Self::Uri => "uri",
            Self::ShortName => "k8s-short-name",
            Self::LongName => "k8s-long-name",
            Self::ObjectId => "bsonobjectid",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Float => "float",
            Self::Double => "double",
            Self::Unchecked(name) => name,
        }
    }

    /// Whether a string has this format; formats of numbers ask nothing of strings.
    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::DateTime => chrono::DateTime::parse_from_rfc3339(text).is_ok(),
            Self::Date => {
                text.len() == 10 && chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok()
            }
            Self::Duration => duration(text).is_some(),
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Self::Cidr => is_cidr(text),
            Self::Mac => is_mac(text),
            Self::Uuid(version) => is_uuid(text, *version),
            Self::Byte => STANDARD.decode(text).is_ok(),
            Self::Hostname => is_hostname(text),
            Self::Email => is_email(text),
            Self::Uri => is_uri(text),
            Self::ShortName => is_dns_label(text),
            Self::LongName => text.len() <= MAX_HOSTNAME_BYTES && text.split('.').all(is_dns_label),
            Self::ObjectId => text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit()),
            Self::Int32 | Self::Int64 | Self::Float | Self::Double | Self::Unchecked(_) => true,
        }
    }

    /// Whether a whole number fits; formats of strings ask nothing of numbers.
    pub(crate) fn fits(&self, number: f64) -> bool {
        match self {
            Self::Int32 => (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number),
            // The largest f64 below 2^63 is the last that an i64 can hold.
            Self::Int64 => {
                (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number)
            }
            Self::Float => number.abs() <= f64::from(f32::MAX),
            _ => true,
        }
    }
}

/// A duration as Go writes it: `1h30m`, `-1.5s`, `0`.
pub(crate) fn duration(text: &str) -> Option<chrono::Duration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(chrono::Duration::zero());
    }
    let mut nanoseconds = 0.0_f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let number: f64 = number.parse().ok()?;
        // The longer unit first, as "ms" begins with "m".
        let units: [(&str, f64); 8] = [
            ("ns", 1.0),
            ("us", 1e3),
            ("µs", 1e3),
            ("μs", 1e3),
            ("ms", 1e6),
            ("s", 1e9),
            ("m", 60e9),
            ("h", 3600e9),
        ];
        let (tail, unit) = units
            .iter()
            .find_map(|(name, unit)| tail.strip_prefix(name).map(|tail| (tail, *unit)))?;
        nanoseconds += number * unit;
        rest = tail;
    }
    if text.is_empty() || nanoseconds >= 9_223_372_036_854_775_808.0 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked to be below 2^63 just above")]
    let nanoseconds = nanoseconds as i64;
    Some(chrono::Duration::nanoseconds(if negative { -nanoseconds } else { nanoseconds }))
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let max = if address.parse::<Ipv4Addr>().is_ok() {
        32
    } else if address.parse::<Ipv6Addr>().is_ok() {
        128
    } else {
        return false;
    };
    length.bytes().all(|byte| byte.is_ascii_digit())
        && length.parse::<u8>().is_ok_and(|length| length <= max)
}

fn is_mac(text: &str) -> bool {
    let separator = if text.contains('-') { '-' } else { ':' };
    let groups: Vec<&str> = text.split(separator).collect();
    matches!(groups.len(), 6 | 8 | 20)
        && groups
            .iter()
            .all(|group| group.len() == 2 && group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_uuid(text: &str, version: Option<char>) -> bool {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let plain = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    // Hyphens are optional, but only between the groups of 8-4-4-4-12 digits.
    let hyphens: Vec<usize> = text.match_indices('-').map(|(at, _)| at).collect();
    let placed = hyphens.is_empty() || hyphens == [8, 13, 18, 23];
    plain && placed && version.is_none_or(|version| digits.chars().nth(12) == Some(version))
}

fn is_dns_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty()
        && text.len() <= MAX_LABEL_BYTES
        && text.bytes().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_hostname(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    !text.is_empty()
        && text.len() <= MAX_HOSTNAME_BYTES
        && text.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= MAX_LABEL_BYTES
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

fn is_email(text: &str) -> bool {
    let Some((user, host)) = text.rsplit_once('@') else { return false };
    !user.is_empty()
        && !user.contains(|c: char| c.is_whitespace() || c.is_control() || c == '@')
        && is_hostname(host)
}

fn is_uri(text: &str) -> bool {
    let clean = !text.contains(|c: char| c.is_whitespace() || c.is_control());
    let Some((scheme, rest)) = text.split_once(':') else {
        return clean && text.starts_with('/');
    };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    clean && ((is_scheme && !rest.is_empty()) || text.starts_with('/'))
}
