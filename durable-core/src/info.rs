//! Workflows and their histories as people read them, one, a page, and counted. Plain data; `store::inspect` and
//! `store::list` fill it.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::failure::{Failure, FailureKind};
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
    /// Its priority in the queue; lower goes first.
    pub priority: i16,
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
    /// When a worker took it last.
    pub claimed_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// How it failed, or why it is blocked.
    pub failure: Option<Failure>,
    /// The workflow whose history it began with, if it is a [`Fork`](crate::Fork).
    pub forked_from: Option<String>,
    /// The workflow whose body has started it, if it is a child.
    pub parent: Option<String>,
    /// How often it has [continued as new](crate::Ctx::continue_as_new).
    pub generation: i32,
    /// When it fails if it has not ended by then. What has ended keeps the deadline that it met until that has passed.
    pub deadline_at: Option<DateTime<Utc>>,
}

impl WorkflowInfo {
    /// Whether somebody has [paused](crate::Durable::pause) it. Its status is [`Blocked`](Status::Blocked) then, and its
    /// failure has the reason as its message.
    pub fn is_paused(&self) -> bool {
        self.status == Status::Blocked && self.failure.as_ref().is_some_and(|f| f.kind() == FailureKind::Paused)
    }
}

/// What somebody did to a workflow, as [`Handle::operations`](crate::Handle::operations) tells it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Operation {
    /// `pause`, `resume`, `restart`, `cancel`, `fork` or `deadline`; or `recover`: the worker that ran it was lost, and another one
    /// goes on with it.
    pub act: String,
    /// How the workflow stood before, where that was noted.
    pub stood: Option<Status>,
    /// Why, if that was said.
    pub reason: Option<String>,
    /// What a resumption has taken out of the history, to be tried again.
    pub dropped: Vec<Dropped>,
    /// From when a deadline was put, if there was one.
    pub deadline_was_at: Option<DateTime<Utc>>,
    /// To when a deadline was put; `None` of a `deadline` that was taken away.
    pub deadline_at: Option<DateTime<Utc>>,
    /// The database's role that did it.
    pub done_by: String,
    /// When.
    pub done_at: DateTime<Utc>,
}

/// A record that stands in a history no more, because what it is about is tried again.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Dropped {
    /// The lane: `""` for the body itself.
    pub lane: String,
    /// The number in the lane.
    pub seq: i32,
    /// `step`, `transaction`, `start` or `child`.
    pub kind: String,
    /// The name of the step.
    pub name: String,
    /// How it failed.
    pub failure: Failure,
    /// The attempts that failed.
    pub attempts: Option<Vec<FailedAttempt>>,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
}

/// A page of workflows, as [`Durable::workflows`](crate::Durable::workflows) reads it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkflowPage {
    /// The workflows, in the order that was asked for.
    pub workflows: Vec<WorkflowInfo>,
    /// Where the next page begins, for [`after`](crate::ListWorkflows::after); `None` when there was nothing more.
    pub next: Option<String>,
}

/// A page of a workflow's history, as [`Handle::history`](crate::Handle::history) reads it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HistoryPage {
    /// The records, lane by lane.
    pub steps: Vec<RecordedStep>,
    /// Where the next page begins, for [`after`](crate::ReadHistory::after); `None` when there was nothing more.
    pub next: Option<String>,
}

/// How many workflows stand where, as [`Durable::counts`](crate::Durable::counts) counts them. Not how many have
/// completed: for that the whole table would have to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Wait for a worker, or for the time at which they are to start.
    pub queued: u64,
    /// Are run by a worker.
    pub running: u64,
    /// Wait for a message, a child, a time or a retry.
    pub suspended: u64,
    /// Failed.
    pub failed: u64,
    /// Were cancelled.
    pub cancelled: u64,
    /// Are parked until somebody resumes them.
    pub blocked: u64,
}

/// One record of a workflow's history. Values are JSON.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecordedStep {
    /// The lane: `""` for the body itself.
    pub lane: String,
    /// The number in the lane.
    pub seq: i32,
    /// What it is. Of steps: `step`, `transaction`, `undo` (that an undo step was registered). Of waits: `sleep`, `receive`, `event`.
    /// Of children: `start`, and `child` for the end of one. What it wrote for others: `publish`, `stream`. What was decided: `race`
    /// (its output names the arm that won), `patch`.
    pub kind: String,
    /// The name of the step, the topic, or the workflow that a child runs; `next` where the body waited for any of several.
    pub name: String,
    /// The arguments, where they are at most 16 KiB; of a child's end, the child's id; of a publication, its value.
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

/// A subscription as it stands. See [`Durable::subscriptions`](crate::Durable::subscriptions).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SubscriptionInfo {
    /// The name of the event.
    pub event: String,
    /// The name of the workflow that it starts,
    pub workflow: String,
    /// and its version.
    pub version: i32,
    /// Where it is started.
    pub queue: String,
    /// By which priority.
    pub priority: i16,
    /// The field of the event's value that names the partition.
    pub partition_by: Option<String>,
    /// Since when it is so.
    pub changed_at: DateTime<Utc>,
    /// Whether it was [removed](crate::Durable::unsubscribe), so that the event starts nothing by it.
    pub is_removed: bool,
}
