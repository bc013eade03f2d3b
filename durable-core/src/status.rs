//! Where a workflow stands. A closed set: a new status has to break every match.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// Where a workflow stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Status {
    /// Waits for a worker.
    Queued,
    /// A worker runs its body.
    Running,
    /// Waits for a message, a time or a retry. Only its row exists.
    Suspended,
    /// Its body returned `Ok`. Final.
    Completed,
    /// Its body returned `Err`, or panicked. Final, unless somebody resumes it.
    Failed,
    /// Somebody cancelled it. Final, unless somebody resumes it.
    Cancelled,
    /// Parked, because its code does not fit its history or names a limit that nobody has declared, because it lost too many
    /// workers, or because somebody has paused it. [`resume`](crate::Durable::resume) sets it going again, after a deploy if need be.
    Blocked,
}

impl Status {
    /// Every status, in the order of a workflow's life.
    pub(crate) const ALL: [Status; 7] = [
        Status::Queued,
        Status::Running,
        Status::Suspended,
        Status::Completed,
        Status::Failed,
        Status::Cancelled,
        Status::Blocked,
    ];

    /// Whether the status never changes again by itself: an operator may [resume](crate::Durable::resume) or
    /// [restart](crate::Durable::restart) it.
    pub fn is_final(self) -> bool {
        match self {
            Status::Completed | Status::Failed | Status::Cancelled => true,
            Status::Queued | Status::Running | Status::Suspended | Status::Blocked => false,
        }
    }

    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::Running => "running",
            Status::Suspended => "suspended",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
            Status::Blocked => "blocked",
        }
    }

    pub(crate) fn parse(word: &str) -> Result<Self, Error> {
        Status::ALL.into_iter().find(|status| status.as_str() == word).ok_or_else(|| {
            Error::new(
                ErrorKind::Schema,
                format!("the database has a workflow with the status {word:?}, which this version does not know"),
            )
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
