//! What is recorded of a workflow, and how a body's questions are answered from it. Pure.
//!
//! `pages` is the part of it that is in memory. Reading it from the database is `store::claim`; deciding how an
//! attempt ended is `decide`.

mod losers;
mod pages;

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
pub(crate) use pages::{Answer, History, PAGE_BYTES, PAGE_RECORDS, Page, Peeked};

/// What kind of a thing stands at a position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Step,
    Transaction,
    Sleep,
    Receive,
    /// A race, with its winner.
    Race,
    /// An undo step that was registered. What it came to stands in the lane below.
    Undo,
    /// The start of a child.
    Start,
    /// The end of a child, as its parent learned it.
    Child,
    /// A value of an event that was published.
    Publish,
    /// A value of another workflow's event.
    Event,
    /// A value that was written to a stream, with its offset.
    Stream,
    /// The marker of a patch: the workflow went the new way there.
    Patch,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Kind::Step => "step",
            Kind::Transaction => "transaction",
            Kind::Sleep => "sleep",
            Kind::Receive => "receive",
            Kind::Race => "race",
            Kind::Undo => "undo",
            Kind::Start => "start",
            Kind::Child => "child",
            Kind::Publish => "publish",
            Kind::Event => "event",
            Kind::Stream => "stream",
            Kind::Patch => "patch",
        }
    }

    /// The kind in the database; `None` when a newer version wrote it.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        const ALL: [Kind; 12] = [
            Kind::Step,
            Kind::Transaction,
            Kind::Sleep,
            Kind::Receive,
            Kind::Race,
            Kind::Undo,
            Kind::Start,
            Kind::Child,
            Kind::Publish,
            Kind::Event,
            Kind::Stream,
            Kind::Patch,
        ];
        ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// Whether a body that asks for `self` may be answered by `recorded`. A step that became transactional,
    /// or stopped being it, keeps its outcomes.
    fn fits(self, recorded: Kind) -> bool {
        let step = |kind| matches!(kind, Kind::Step | Kind::Transaction);
        self == recorded || (step(self) && step(recorded))
    }
}

/// One recorded outcome.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// The output's JSON, or the failure.
    pub(crate) outcome: Result<String, Failure>,
    /// When it came about; what the body takes for the time from then on.
    pub(crate) ended_at: DateTime<Utc>,
}

impl Record {
    /// Whether it says that a value of this event was published.
    pub(crate) fn is_publication_of(&self, key: &str) -> bool {
        self.kind == Kind::Publish && self.name == key
    }

    /// Where the value stands that it says was written to this stream.
    pub(crate) fn offset_in(&self, stream: &str) -> Option<u64> {
        let output = self.outcome.as_deref().ok().filter(|_| self.kind == Kind::Stream && self.name == stream);
        output.and_then(|output| output.parse().ok())
    }

    /// What is to be done where the code does not ask for it, if that is known.
    fn advice(&self) -> String {
        if self.kind != Kind::Patch {
            return String::new();
        }
        let id = &self.name;
        format!(
            "; where the code had ctx.patched({id:?}), put ctx.deprecate_patch({id:?}) for as long as workflows have its marker"
        )
    }

    /// What it takes in memory, about.
    fn bytes(&self) -> usize {
        let outcome = match &self.outcome {
            Ok(output) => output.len(),
            Err(failure) => failure.message().len(),
        };
        128 + self.name.len() + outcome
    }
}

/// Why the code does not fit the history. Blocks the workflow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mismatch(pub(crate) String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a suspended body waits for, as the workflow's row has it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct StoredWait {
    pub(crate) lane: String,
    pub(crate) seq: i32,
    pub(crate) kind: WaitKind,
    /// For the turn of a step with a limit: the limit.
    #[serde(default)]
    pub(crate) topic: Option<String>,
    pub(crate) until: Option<DateTime<Utc>>,
    /// Since when the body waits; a version before this one did not write it.
    #[serde(default)]
    pub(crate) since: Option<DateTime<Utc>>,
    pub(crate) attempts: Option<Vec<FailedAttempt>>,
}

/// The things that a suspended body can wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WaitKind {
    Sleep,
    Receive,
    Retry,
    Child,
    Event,
}

impl WaitKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            WaitKind::Sleep => "sleep",
            WaitKind::Receive => "receive",
            WaitKind::Retry => "retry",
            WaitKind::Child => "child",
            WaitKind::Event => "event",
        }
    }
}

/// An attempt of a step that failed, as its record shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FailedAttempt {
    /// Its number, from 1.
    pub attempt: u32,
    /// When it failed, by the worker's idea of the database's clock.
    pub failed_at: DateTime<Utc>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// How it failed.
    pub failure: Failure,
}
