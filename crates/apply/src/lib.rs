//! How a patch changes an object: JSON Patch (RFC 6902), merge patch (RFC 7386), strategic merge;
//! and server-side apply with the ownership of fields ([`managed`]).
//!
//! Pure functions over JSON. They know merge keys only through `toono_api`'s table of types.

mod json;
pub mod managed;
mod strategic;

use serde_json::Value;
use toono_api::types::Message;

pub use json::{
    JSON_PATCH_MAX_COPY_BYTES, JSON_PATCH_MAX_DEPTH, JSON_PATCH_MAX_OPERATIONS,
    JSON_PATCH_MAX_SHIFTED_ITEMS,
};
pub use strategic::strategic_merge;

/// The forms that a patch may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/json-patch+json`.
    Json,
    /// `application/merge-patch+json`.
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
}

impl PatchKind {
    /// The form that a content type names, parameters aside.
    #[must_use]
    pub fn of_content_type(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            _ => None,
        }
    }
}

/// Why a patch cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The patch does not have the shape of its form.
    #[error("the patch is not valid: {0}")]
    Malformed(String),
    /// It has too many operations.
    #[error(
        "the allowed maximum operations in a JSON patch is {JSON_PATCH_MAX_OPERATIONS}, got {0}"
    )]
    TooManyOperations(usize),
    /// Its copies are too large.
    #[error(
        "the copies of a JSON patch may be no more than {JSON_PATCH_MAX_COPY_BYTES} bytes together"
    )]
    TooMuchCopied,
    /// It inserts and removes too much in long lists.
    #[error(
        "the operations of a JSON patch may shift no more than {JSON_PATCH_MAX_SHIFTED_ITEMS} items of \
         lists together"
    )]
    TooMuchShifted,
    /// It nests too deep.
    #[error("a JSON patch may nest values no deeper than {JSON_PATCH_MAX_DEPTH} levels")]
    TooDeep,
    /// A JSON patch's `test` failed, or a path is not there.
    #[error("the server rejected our request due to an error in our request: {0}")]
    DoesNotApply(String),
}

/// Applies a patch of the given form to an object, whose message a strategic merge goes by.
///
/// # Errors
/// When the patch is malformed or does not apply; the object is then in no defined state.
pub fn apply(
    kind: PatchKind,
    object: &mut Value,
    patch: Value,
    message: Option<&'static Message>,
) -> Result<(), PatchError> {
    match kind {
        PatchKind::Json => json::json_patch(object, patch),
        PatchKind::Merge => {
            if !patch.is_object() {
                return Err(PatchError::Malformed("a merge patch must be an object".to_owned()));
            }
            json_patch::merge(object, &patch);
            Ok(())
        }
        PatchKind::Strategic => strategic_merge(object, patch, message),
    }
}
