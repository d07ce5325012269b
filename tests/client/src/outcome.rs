//! What became of an attempt, as its client knows it.
//!
//! Decides between *error* (the server said no before it committed) and *unknown* (the statement was sent and nothing
//! proves that it was not committed). The rules: an answer of severity ERROR to an autocommitted statement proves
//! that it was rolled back; FATAL and PANIC end the session and may come after the local commit (P4); a lost
//! connection and a time-out prove nothing; a WARNING beside a success may be a cancelled wait (P2).

use serde::{Deserialize, Serialize};
use tokio_postgres::error::Severity;

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// Acknowledged: must be there exactly once.
    Ok,
    /// Refused: must not be there.
    Error,
    /// Nobody knows: may be there or not.
    Unknown,
}

/// Why an attempt was not acknowledged.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The statement was never sent: there was no session.
    NotSent(anyhow::Error),
    /// No answer within the client's own time.
    TimedOut,
    /// The answer, or the loss of the connection.
    Answered(tokio_postgres::Error),
    /// Success with a warning on the way: it may be that of a cancelled wait (P2), in any language.
    Warned {
        /// Its SQLSTATE.
        code: String,
        /// Its message.
        text: String,
    },
    /// A transaction that ended before its COMMIT was sent, so nothing of it can be there.
    NotCommitted(Box<Failure>),
}

impl Failure {
    /// The outcome that this failure proves.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::NotSent(_) | Self::NotCommitted(_) => Outcome::Error,
            Self::TimedOut | Self::Warned { .. } => Outcome::Unknown,
            Self::Answered(error) => match error.as_db_error() {
                Some(db) => by_answer(db.parsed_severity(), db.code().code()),
                None => Outcome::Unknown,
            },
        }
    }

    /// The SQLSTATE, when the server sent one.
    pub(crate) fn code(&self) -> Option<String> {
        match self {
            Self::Answered(error) => error.code().map(|code| code.code().to_owned()),
            Self::NotSent(error) => error
                .chain()
                .find_map(|cause| cause.downcast_ref::<tokio_postgres::Error>())
                .and_then(|cause| cause.code().map(|code| code.code().to_owned())),
            Self::Warned { code, .. } => Some(code.clone()),
            Self::NotCommitted(failure) => failure.code(),
            Self::TimedOut => None,
        }
    }

    /// The failure in words.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::NotSent(error) => format!("{error:#}"),
            Self::TimedOut => "no answer in time".to_owned(),
            Self::Warned { text, .. } => format!("WARNING: {text}"),
            Self::NotCommitted(failure) => format!("before COMMIT: {}", failure.text()),
            Self::Answered(error) => match error.as_db_error() {
                Some(db) => format!("{}: {}", db.severity(), db.message()),
                None => format!("{:#}", anyhow::Error::msg(error.to_string())),
            },
        }
    }
}

/// What an error message of the server proves about the autocommitted statement that it answers.
///
/// Classes that stay unknown even with severity ERROR: 08 (connection), 57P (shutdown), 40003 (completion unknown),
/// XX (internal: nothing is proved).
fn by_answer(severity: Option<Severity>, code: &str) -> Outcome {
    let doubtful =
        code.starts_with("08") || code.starts_with("57P") || code.starts_with("XX") || code == "40003";
    match severity {
        Some(Severity::Error) if !doubtful => Outcome::Error,
        _ => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_error_proves_that_nothing_was_committed() {
        assert_eq!(by_answer(Some(Severity::Error), "25006"), Outcome::Error);
        assert_eq!(by_answer(Some(Severity::Error), "40001"), Outcome::Error);
        for (severity, code) in [
            (Some(Severity::Fatal), "57P01"),
            (Some(Severity::Panic), "XX000"),
            (Some(Severity::Error), "57P01"),
            (Some(Severity::Error), "08006"),
            (Some(Severity::Error), "40003"),
            (Some(Severity::Warning), "01000"),
            (None, "25006"),
        ] {
            assert_eq!(by_answer(severity, code), Outcome::Unknown, "{severity:?} {code}");
        }
    }

    #[test]
    fn silence_and_warnings_are_unknown() {
        assert_eq!(Failure::TimedOut.outcome(), Outcome::Unknown);
        let warned = Failure::Warned { code: "01000".to_owned(), text: "canceling wait".to_owned() };
        assert_eq!((warned.outcome(), warned.code().as_deref()), (Outcome::Unknown, Some("01000")));
        assert_eq!(Failure::NotSent(anyhow::anyhow!("refused")).outcome(), Outcome::Error);
        let lost_before_commit = Failure::NotCommitted(Box::new(Failure::TimedOut));
        assert_eq!(lost_before_commit.outcome(), Outcome::Error, "nothing was asked to be committed");
    }
}
