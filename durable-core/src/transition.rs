//! What a workflow goes through, as people read it. Plain data; `store::timeline` fills it, `timeline` gives it out.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::error::{Error, ErrorKind};
use crate::history::FailedAttempt;
use crate::info::{Operation, RecordedStep};
use crate::status::Status;

/// Something that happened to a workflow, or in it. Printed, it is a line without values.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TimelineEntry {
    /// When. What a body did is told by its worker's idea of the database's clock, which is late by milliseconds at most; the rest by the
    /// database's own.
    pub at: DateTime<Utc>,
    /// What.
    pub what: Transition,
}

/// What a [`TimelineEntry`] tells.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Transition {
    /// It was started, and queued.
    Created,
    /// A worker ran it for the first time since it was created, restarted or forked.
    Began {
        /// Whether the time is that of the claim. Where that is not known any more, it is when the body did its first thing.
        is_exact: bool,
        /// The claim's number and the worker, where they are known.
        claim: Option<String>,
    },
    /// A worker took it up again. Of these, the last one is told, and those that were cut short: by a pause, a cancellation, a lost
    /// worker, a block. Of the others [`WorkflowInfo::claims`](crate::WorkflowInfo::claims) is the count.
    Claimed {
        /// The claim's number and the worker, where they are known.
        claim: Option<String>,
    },
    /// An attempt of a step failed.
    AttemptFailed {
        /// The lane: `""` for the body itself.
        lane: String,
        /// The number in the lane.
        seq: i32,
        /// The step's name; not known before the step has an outcome.
        step: Option<String>,
        /// The attempt.
        attempt: FailedAttempt,
    },
    /// It began to wait. It is suspended from then on, unless something else of it is under way, or the wait is so short that it stays
    /// in memory. The wait is over with the [`Record`](Transition::Recorded) at the same position, or where it never gets one
    /// (a lost race), with that of the race.
    Waits {
        /// The lane: `""` for the body itself.
        lane: String,
        /// The number in the lane.
        seq: i32,
        /// `sleep`, `receive`, `event`, `child` or `retry`.
        for_what: String,
        /// The topic, event or child workflow.
        name: Option<String>,
        /// Until when at most, if it still waits and that is known.
        until: Option<DateTime<Utc>>,
    },
    /// An outcome was recorded: of a step, a wait, a child, a decision.
    Recorded(Box<RecordedStep>),
    /// Its worker gave it back.
    Released {
        /// Why.
        reason: Option<String>,
    },
    /// It was parked, until somebody resumes it. By [`Durable::pause`](crate::Durable::pause), that is an
    /// [`Operated`](Transition::Operated).
    Blocked {
        /// Why.
        reason: Option<String>,
    },
    /// An operator did something to it, or a worker took it over from one that was lost (`recover`).
    Operated(Box<Operation>),
    /// It began anew with another input, and its history was forgotten.
    ContinuedAsNew {
        /// How often it had done so.
        generation: i32,
    },
    /// It ended.
    Ended {
        /// Completed, failed or cancelled.
        status: Status,
        /// The first message of its failure.
        reason: Option<String>,
    },
}

/// A page of a timeline, as [`Handle::timeline`](crate::Handle::timeline) reads it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TimelinePage {
    /// In order.
    pub entries: Vec<TimelineEntry>,
    /// Where the next page begins, for [`after`](crate::ReadTimeline::after); `None` when there was nothing more.
    pub next: Option<String>,
}

/// A place in the order of a timeline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) at: DateTime<Utc>,
    pub(crate) rank: i32,
    pub(crate) n: i64,
    pub(crate) seq: i32,
    pub(crate) lane: String,
}

impl Place {
    pub(crate) fn first() -> Self {
        // Before anything that a database has seen, and within what its calendar knows.
        Self { at: DateTime::UNIX_EPOCH, rank: -1, n: 0, seq: 0, lane: String::new() }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let read = || {
            let (numbers, lane) = text.split_once('@')?;
            let mut numbers = numbers.split(',');
            let at = DateTime::from_timestamp_micros(numbers.next()?.parse().ok()?)?;
            let (rank, n) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
            let place = Self { at, rank, n, seq: numbers.next()?.parse().ok()?, lane: lane.to_owned() };
            let plain = lane.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'g'));
            (plain && numbers.next().is_none()).then_some(place)
        };
        read().ok_or_else(|| {
            let problem = format!("cannot read a timeline after {text:?}: it is not what a page gave as its `next`");
            Error::new(ErrorKind::Usage, problem)
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{},{}@{}", self.at.timestamp_micros(), self.rank, self.n, self.seq, self.lane)
    }
}

impl fmt::Display for TimelineEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.at.format("%Y-%m-%d %H:%M:%S%.3f"), self.what)
    }
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let because =
            |reason: &Option<String>| reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        let named = |name: &Option<String>| name.as_ref().map_or_else(String::new, |name| format!(" {name:?}"));
        let at = |lane: &str, seq: i32| if lane.is_empty() { seq.to_string() } else { format!("{lane}.{seq}") };
        match self {
            Self::Created => write!(f, "created"),
            Self::Began { is_exact: true, claim } => write!(f, "began{}", because(claim)),
            Self::Began { is_exact: false, .. } => write!(f, "began, at the latest"),
            Self::Claimed { claim } => write!(f, "claimed{}", because(claim)),
            Self::AttemptFailed { lane, seq, step, attempt } => {
                write!(f, "attempt {} of step{} failed, at {}", attempt.attempt, named(step), at(lane, *seq))
            }
            Self::Waits { lane, seq, for_what, name, .. } => {
                write!(f, "waits: {for_what}{}, at {}", named(name), at(lane, *seq))
            }
            Self::Recorded(step) => {
                let how = if step.failure.is_some() { "failed" } else { "recorded" };
                write!(f, "{how}: {} {:?}, at {}", step.kind, step.name, at(&step.lane, step.seq))
            }
            Self::Released { reason } => write!(f, "given back{}", because(reason)),
            Self::Blocked { reason } => write!(f, "blocked{}", because(reason)),
            Self::Operated(operation) => {
                write!(f, "{} by {}{}", operation.act, operation.done_by, because(&operation.reason))
            }
            Self::ContinuedAsNew { generation } => write!(f, "continued as new, for the {generation}. time"),
            // Its messages are the user's own text.
            Self::Ended { status, .. } => write!(f, "{status}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written_and_nothing_else_is() {
        let at = "2026-01-02T03:04:05.678901Z".parse().unwrap();
        for place in [
            Place { at, rank: 4, n: 0, seq: 7, lane: String::new() },
            Place { at, rank: 5, n: 3, seq: 0, lane: "g1.3".to_owned() },
        ] {
            assert_eq!(Place::parse(&place.to_string()).unwrap(), place);
        }
        for bad in ["", "7", "@", "1,2,3@", "1,2,3,4,5@", "1,2,3,x@", "1,2,3,4@x", "1,2,3,4@'"] {
            assert_eq!(Place::parse(bad).unwrap_err().kind(), ErrorKind::Usage, "{bad:?}");
        }
    }
}
