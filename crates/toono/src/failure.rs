//! How a failure reaches a person: a stable code, one line that says what, and a hint.

use std::{error::Error, fmt};

/// The exit code of a failure; 0 is success and 2 is wrong usage.
pub(crate) const EXIT_FAILURE: u8 = 1;

/// Something that went wrong, ready to be shown.
#[derive(Debug)]
pub(crate) struct Failure {
    code: &'static str,
    what: String,
    hint: String,
}

impl Failure {
    /// `code` is stable and documented; `hint` says what to do.
    pub(crate) fn new(
        code: &'static str,
        what: impl fmt::Display,
        hint: impl Into<String>,
    ) -> Self {
        Self { code, what: one_line(&what.to_string()), hint: hint.into() }
    }

    /// The same failure with another hint.
    #[cfg(feature = "cloud")]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// As [`Failure::new`], with the error's whole chain of sources on the line.
    pub(crate) fn caused(
        code: &'static str,
        error: &(dyn Error + 'static),
        hint: impl Into<String>,
    ) -> Self {
        Self::new(code, chain(error), hint)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}\nhint: {}", self.code, self.what, self.hint)
    }
}

/// An error and its sources, `: ` between them; a source that its parent already told is left out.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot bind 0.0.0.0:6443")]
    struct Bind(#[source] std::io::Error);

    #[test]
    fn a_failure_is_one_line_and_a_hint() {
        let error = Bind(std::io::Error::other("address in use\nreally"));
        let failure = Failure::caused("port-taken", &error, "choose another with --listen");
        assert_eq!(
            failure.to_string(),
            "error[port-taken]: cannot bind 0.0.0.0:6443: address in use; really\n\
             hint: choose another with --listen"
        );
    }
}
