//! The table as a whole.

use jiff::Timestamp;

use super::*;
use crate::types;

#[test]
fn the_table_is_consistent() {
    for row in RESOURCES {
        assert_eq!(row.list_kind, format!("{}List", row.kind));
        assert_eq!(row.singular, row.kind.to_lowercase());
        assert!(std::ptr::eq(find(row.group, row.version, row.plural).unwrap(), *row));
        assert!(std::ptr::eq(find_kind(&row.api_version(), row.kind).unwrap(), *row));
        assert!(types::message(row.message).is_some(), "{}", row.message);
        assert_eq!(
            row.strategy.has_status,
            row.subresources.iter().any(|sub| sub.name == "status"),
            "{}",
            row.kind
        );
        let empty = serde_json::json!({"metadata": {}});
        assert_eq!(
            (row.row)(&empty, Timestamp::UNIX_EPOCH).len(),
            row.columns.len(),
            "{}",
            row.kind
        );
        let mut object = empty;
        (row.default)(&mut object);
        let _ = (row.validate)(&object);
        let _ = (row.validate_update)(&object, &object);
        let mut names: Vec<&str> = row.subresources.iter().map(|sub| sub.name).collect();
        names.sort_unstable();
        assert_eq!(names, row.subresources.iter().map(|sub| sub.name).collect::<Vec<_>>());
    }
}
