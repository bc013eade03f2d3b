//! What the library's own calls answer when they cannot do what was asked: one opaque type with a kind.
//!
//! What user code returns is `failure`. Database errors are stripped here: their DETAIL can hold a whole
//! row, and nobody's data may end up in a log.

use std::fmt;

use crate::failure::Failure;

/// Why a call of this library failed.
///
/// Ask it for its [`kind`](Error::kind), or use one of the predicates. It converts into `anyhow::Error`
/// and any `Box<dyn Error>`.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    code: Option<String>,
    transient: bool,
    failure: Option<Failure>,
}

/// What kind of an [`Error`] it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The call cannot be right: an id that is too long, an input that does not survive being stored.
    /// Nothing was written.
    Usage,
    /// The id belongs to another workflow already, or to one with another input and the policy forbids that.
    Conflict,
    /// There is no workflow with this id.
    NotFound,
    /// The workflow has ended, so it cannot be cancelled, or be sent a message.
    Finished,
    /// The workflow failed; [`Error::failure`] says how.
    Failed,
    /// The workflow was cancelled.
    Cancelled,
    /// A stored value does not decode into the type that was asked for.
    Decode,
    /// The schema is missing, older or newer than this version can use, or the server is too old.
    Schema,
    /// The database did not answer, or answered that it cannot just now. What was asked for may have
    /// happened; asking again is safe for everything that carries an id or a key.
    Unavailable,
    /// The database refused.
    Database,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), code: None, transient: false, failure: None }))
    }

    /// The failure of a workflow, as its handle sees it.
    pub(crate) fn failed(id: &str, failure: Failure) -> Self {
        let mut error = Self::new(ErrorKind::Failed, format!("workflow {id} failed: {failure}"));
        error.0.failure = Some(failure);
        error
    }

    /// A workflow that was cancelled, as its handle sees it.
    pub(crate) fn cancelled(id: &str, failure: Option<Failure>) -> Self {
        let reason = failure.as_ref().map(Failure::message).filter(|reason| !reason.is_empty());
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let mut error = Self::new(ErrorKind::Cancelled, format!("workflow {id} was cancelled{reason}"));
        error.0.failure = failure;
        error
    }

    /// The same error, with more to say at its end.
    pub(crate) fn with(mut self, more: &str) -> Self {
        self.0.message.push_str(more);
        self
    }

    /// No answer within the deadline: unknown whether it happened.
    pub(crate) fn no_answer(act: &str, after: std::time::Duration) -> Self {
        let mut error = Self::new(
            ErrorKind::Unavailable,
            format!("could not {act}: the database did not answer within {} s", after.as_secs()),
        );
        error.0.transient = true;
        error
    }

    /// Name the act at the border of the store, and leave behind what could be somebody's data.
    pub(crate) fn database(act: &str, error: &sqlx::Error) -> Self {
        let transient = is_transient(error);
        let kind = if transient { ErrorKind::Unavailable } else { ErrorKind::Database };
        let (code, reason) = match error.as_database_error() {
            Some(database) => {
                let code = database.code().map(|code| code.into_owned());
                let reason = match &code {
                    Some(code) => format!("{} ({code})", database.message()),
                    None => database.message().to_owned(),
                };
                (code, reason)
            }
            None => (None, error.to_string()),
        };
        let mut error = Self::new(kind, format!("could not {act}: {reason}"));
        error.0.code = code;
        error.0.transient = transient;
        error
    }

    /// What kind of an error it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The SQLSTATE, when the database refused.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// How the workflow failed, when [`ErrorKind::Failed`].
    pub fn failure(&self) -> Option<&Failure> {
        self.0.failure.as_ref()
    }

    /// Whether the same call may work when it is made again.
    pub fn is_transient(&self) -> bool {
        self.0.transient
    }

    /// Whether the id is in use for something else.
    pub fn is_conflict(&self) -> bool {
        self.0.kind == ErrorKind::Conflict
    }

    /// Whether there is no such workflow.
    pub fn is_not_found(&self) -> bool {
        self.0.kind == ErrorKind::NotFound
    }
}

/// Whether the statement may be sent again, on a new connection if need be.
pub(crate) fn is_transient(error: &sqlx::Error) -> bool {
    match error.as_database_error() {
        Some(database) => database.code().is_some_and(|code| is_transient_code(&code)),
        None => matches!(
            error,
            sqlx::Error::Io(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::BeginFailed
        ),
    }
}

/// 08 connection, 53 resources, 57 operator intervention (shutdown, cancelled, time-outs), 40 rolled back
/// to be tried again, 55P03 lock not available, 25P03 idle in transaction.
fn is_transient_code(code: &str) -> bool {
    code.starts_with("08")
        || code.starts_with("53")
        || code.starts_with("57")
        || matches!(code, "40001" | "40P01" | "40003" | "55P03" | "25P03" | "25P04")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sqlstate_has_its_action() {
        for code in ["08006", "53300", "53100", "57P01", "57014", "40001", "40P01", "55P03", "25P03"] {
            assert!(is_transient_code(code), "{code}");
        }
        for code in ["23505", "22P02", "42P01", "42501", "25P02", "54000"] {
            assert!(!is_transient_code(code), "{code}");
        }
    }
}
