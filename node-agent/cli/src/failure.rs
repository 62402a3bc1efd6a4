//! What went wrong, in terms of exit codes. The codes are documented in the help text and never
//! change their meaning.

use std::error::Error;
use std::process::ExitCode;

use node_agent_datapath::inspect::InspectError;

pub(crate) const INTERNAL: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const DEGRADED: u8 = 3;
pub(crate) const NOT_FOUND: u8 = 4;
pub(crate) const TIMEOUT: u8 = 5;
pub(crate) const DENIED: u8 = 6;
pub(crate) const PARTIAL: u8 = 9;

/// A failure with its exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
}

/// A command that did its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Degraded,
    /// Some nodes could not be read; what they said is on standard error.
    Partial,
}

impl Outcome {
    pub(crate) fn exit_code(self) -> ExitCode {
        match self {
            Self::Done => ExitCode::SUCCESS,
            Self::Degraded => ExitCode::from(DEGRADED),
            Self::Partial => ExitCode::from(PARTIAL),
        }
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (**error).source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    // Wrappers that only pass on repeat what comes next.
    texts.dedup_by(|next, before| before.ends_with(&*next));
    texts.join(": ")
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(crate) fn internal(what: &str, error: &(dyn Error + 'static)) -> Self {
        Self::new(INTERNAL, format!("{what}: {}", chain(error)))
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl From<InspectError> for Failure {
    fn from(error: InspectError) -> Self {
        let code = match &error {
            InspectError::NotFound { .. } | InspectError::NoSuchMap { .. } => NOT_FOUND,
            InspectError::Denied { .. } => DENIED,
            InspectError::Open { .. } | InspectError::Read { .. } | InspectError::Map(_) => {
                INTERNAL
            }
        };
        let advice = match code {
            DENIED => "; try again with sudo",
            _ => "",
        };
        Self::new(code, format!("{}{advice}", chain(&error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_is_told_with_what_to_do() {
        let failure = Failure::from(InspectError::Denied {
            path: "/sys/fs/bpf/skep/v1/meta".into(),
        });
        assert_eq!(failure.code, DENIED);
        assert_eq!(
            failure.message,
            "reading /sys/fs/bpf/skep/v1/meta needs root; try again with sudo"
        );
    }
}
