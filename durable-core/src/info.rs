//! A workflow and its history as people read them. Plain data; `store::inspect` fills it.

use chrono::{DateTime, Utc};

use crate::failure::Failure;
use crate::history::FailedAttempt;
use crate::status::Status;

/// A workflow as it stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkflowInfo {
    /// Its id.
    pub id: String,
    /// The name of its body.
    pub name: String,
    /// The version of its body.
    pub version: i32,
    /// Its queue.
    pub queue: String,
    /// Where it stands.
    pub status: Status,
    /// Workers lost in a row without a step in between.
    pub recoveries: i32,
    /// How many times a worker took it.
    pub claims: i32,
    /// When it goes on: queued, not before; suspended, when the first wait ends.
    pub due_at: Option<DateTime<Utc>>,
    /// When it was started.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// How it failed, or why it is blocked.
    pub failure: Option<Failure>,
}

/// One record of a workflow's history. Values are JSON.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecordedStep {
    /// The lane: `""` for the body itself.
    pub lane: String,
    /// The number in the lane.
    pub seq: i32,
    /// `step`, `transaction`, `sleep` or `receive`.
    pub kind: String,
    /// The name of the step, or the topic.
    pub name: String,
    /// The arguments, where they are at most 16 KiB.
    pub input: Option<String>,
    /// The output.
    pub output: Option<String>,
    /// The failure, if it failed.
    pub failure: Option<Failure>,
    /// The attempts that failed, at most 20 of them: the first and the latest.
    pub failed_attempts: Vec<FailedAttempt>,
    /// When its last attempt began.
    pub started_at: DateTime<Utc>,
    /// When its outcome was recorded.
    pub recorded_at: DateTime<Utc>,
}
