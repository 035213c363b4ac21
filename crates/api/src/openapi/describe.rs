//! What messages and fields are for, in a sentence each, as `kubectl explain` shows it.
//!
//! `descriptions.txt` has a line for each that is described: a message, `MESSAGE.FIELD`, or `*.FIELD`
//! for what means the same in every message that has the field.

use std::{collections::HashMap, sync::LazyLock};

static TABLE: LazyLock<HashMap<&'static str, &'static str>> = LazyLock::new(|| {
    include_str!("descriptions.txt").lines().filter_map(|line| line.split_once(' ')).collect()
});

/// What a message is.
pub(super) fn message(name: &str) -> Option<&'static str> {
    TABLE.get(name).copied()
}

/// What a field of a message is for.
pub(super) fn field(message: &str, name: &str) -> Option<&'static str> {
    let exact = TABLE.get(format!("{message}.{name}").as_str());
    exact.or_else(|| TABLE.get(format!("*.{name}").as_str())).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types;

    #[test]
    fn only_what_there_is_is_described() {
        for name in TABLE.keys().filter(|name| !name.starts_with("*.")) {
            let field = name.rsplit_once('.').is_some_and(|(message, field)| {
                types::message(message).is_some_and(|message| message.field(field).is_some())
            });
            assert!(field || types::message(name).is_some(), "{name} is nowhere");
        }
        assert_eq!(TABLE.len(), include_str!("descriptions.txt").lines().count());
    }

    #[test]
    fn every_kind_is_described() {
        for row in crate::kinds::RESOURCES {
            assert!(message(row.message).is_some(), "{}", row.message);
        }
    }
}
