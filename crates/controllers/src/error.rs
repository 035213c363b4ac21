//! What can go wrong while an object is brought to what it should be.

use crate::key::Key;

/// A failed step; the loop tries the whole object again later.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SyncError {
    /// The API refused or could not be reached.
    #[error("{verb} {kind} {key}")]
    Api {
        verb: &'static str,
        kind: &'static str,
        key: Key,
        #[source]
        source: Box<kube::Error>,
    },
    /// An object's label selector does not parse.
    #[error("selector of {kind} {key}")]
    Selector {
        kind: &'static str,
        key: Key,
        #[source]
        source: kube::core::ParseExpressionError,
    },
    /// Several things failed at once.
    #[error("{} steps failed, the first: {}", .0.len(), .0.first().map_or("", String::as_str))]
    Several(Vec<String>),
    /// The cache is behind our own writes.
    #[error("the cache does not show {key} as it was last written")]
    Stale { key: Key },
}

impl SyncError {
    /// For `map_err` on a call of the API.
    pub(crate) fn api(
        verb: &'static str,
        kind: &'static str,
        key: &Key,
    ) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Api { verb, kind, key: key.clone(), source: Box::new(source) }
    }

    /// Races with other writers end in these; they are no news.
    pub(crate) fn is_expected(&self) -> bool {
        match self {
            Self::Api { source, .. } => is_conflict(source) || is_not_found(source),
            Self::Stale { .. } => true,
            Self::Selector { .. } | Self::Several(_) => false,
        }
    }
}

/// The API's answer 404.
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// The API's answer 403.
pub(crate) fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// The API's answer 409 for a stale object.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 && status.reason != "AlreadyExists")
}

/// The API's answer 422: what was sent breaks a rule of the kind.
pub(crate) fn is_invalid(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 422)
}

/// The API's answer 409 for a taken name.
pub(crate) fn is_already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists")
}

/// The namespace is being deleted: nothing can be created in it, and trying again helps nobody.
pub(crate) fn is_namespace_terminating(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403 && status.message.contains("being terminated"))
}

/// An error and its causes in one line, for the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
