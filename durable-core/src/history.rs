//! What is recorded of a workflow, and how a body's questions are answered from it. Pure.
//!
//! Reading it from the database is `store::claim`; deciding how an attempt ended is `decide`.

use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::id::Position;

/// What kind of a thing stands at a position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Step,
    Transaction,
    Sleep,
    Receive,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Kind::Step => "step",
            Kind::Transaction => "transaction",
            Kind::Sleep => "sleep",
            Kind::Receive => "receive",
        }
    }

    /// The kind in the database; `None` when a newer version wrote it.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Kind::Step, Kind::Transaction, Kind::Sleep, Kind::Receive].into_iter().find(|kind| kind.as_str() == word)
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

/// Why the code does not fit the history. Blocks the workflow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mismatch(pub(crate) String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything recorded for one workflow when it was claimed. Each record is handed out once.
#[derive(Default)]
pub(crate) struct History {
    records: HashMap<Position, Record>,
    lanes: HashSet<Arc<str>>,
}

impl History {
    pub(crate) fn add(&mut self, position: Position, record: Record) {
        self.lanes.insert(position.lane.clone());
        self.records.insert(position, record);
    }

    /// What is recorded at a position for this thing, if anything.
    pub(crate) fn ask(&mut self, at: &Position, kind: Kind, name: &str) -> Result<Option<Record>, Mismatch> {
        let Some(record) = self.records.remove(at) else {
            return self.refuse_lanes_below(at, kind, name).map(|()| None);
        };
        if kind.fits(record.kind) && record.name == name {
            return Ok(Some(record));
        }
        Err(Mismatch(format!(
            "at position {at} the history has {} {:?}, the code asks for {} {name:?}",
            record.kind.as_str(),
            record.name,
            kind.as_str(),
        )))
    }

    /// Check that a branch or fan-out may stand at a position.
    pub(crate) fn ask_branch(&self, at: &Position) -> Result<(), Mismatch> {
        match self.records.get(at) {
            None => Ok(()),
            Some(record) => Err(Mismatch(format!(
                "at position {at} the history has {} {:?}, the code opens a branch",
                record.kind.as_str(),
                record.name
            ))),
        }
    }

    /// What the body never asked for, once it has returned: the code has lost a step.
    pub(crate) fn left_over(&self) -> Result<(), Mismatch> {
        match self.records.iter().min_by_key(|(at, _)| (*at).clone()) {
            None => Ok(()),
            Some((at, record)) => Err(Mismatch(format!(
                "at position {at} the history has {} {:?}, the code ended without asking for it",
                record.kind.as_str(),
                record.name
            ))),
        }
    }

    fn refuse_lanes_below(&self, at: &Position, kind: Kind, name: &str) -> Result<(), Mismatch> {
        if self.lanes.is_empty() {
            return Ok(());
        }
        let below = at.lane_below();
        let opened = self
            .lanes
            .iter()
            .any(|lane| lane.strip_prefix(&*below).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')));
        if !opened {
            return Ok(());
        }
        Err(Mismatch(format!(
            "at position {at} the history has a branch, the code asks for {} {name:?}",
            kind.as_str()
        )))
    }
}

/// What a suspended body waits for, as the workflow's row has it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct StoredWait {
    pub(crate) lane: String,
    pub(crate) seq: i32,
    pub(crate) kind: WaitKind,
    pub(crate) until: Option<DateTime<Utc>>,
    pub(crate) attempts: Option<Vec<FailedAttempt>>,
}

/// The things that a suspended body can wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WaitKind {
    Sleep,
    Receive,
    Retry,
}

impl WaitKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            WaitKind::Sleep => "sleep",
            WaitKind::Receive => "receive",
            WaitKind::Retry => "retry",
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lane: &str, seq: i32) -> Position {
        Position { lane: lane.into(), seq }
    }

    fn history(entries: &[(&str, i32, Kind, &str)]) -> History {
        let mut history = History::default();
        for (lane, seq, kind, name) in entries {
            let record =
                Record { kind: *kind, name: (*name).into(), outcome: Ok("1".into()), ended_at: DateTime::UNIX_EPOCH };
            history.add(at(lane, *seq), record);
        }
        history
    }

    #[test]
    fn a_record_answers_once_and_only_for_its_name() {
        let mut h = history(&[("", 0, Kind::Step, "charge")]);
        assert!(h.ask(&at("", 1), Kind::Step, "ship").unwrap().is_none());
        assert!(h.ask(&at("", 0), Kind::Step, "charge").unwrap().is_some());
        assert!(h.left_over().is_ok());

        let mut h = history(&[("", 0, Kind::Step, "charge")]);
        let mismatch = h.ask(&at("", 0), Kind::Step, "refund").unwrap_err().to_string();
        assert!(mismatch.contains("\"charge\"") && mismatch.contains("\"refund\""), "{mismatch}");
    }

    #[test]
    fn a_step_may_become_transactional_but_not_a_sleep() {
        let mut h = history(&[("", 0, Kind::Step, "charge"), ("", 1, Kind::Sleep, "sleep")]);
        assert!(h.ask(&at("", 0), Kind::Transaction, "charge").unwrap().is_some());
        assert!(h.ask(&at("", 1), Kind::Step, "sleep").is_err());
    }

    #[test]
    fn a_branch_and_a_step_do_not_answer_for_each_other() {
        let mut h = history(&[("3.1", 0, Kind::Step, "mail"), ("", 4, Kind::Step, "end")]);
        assert!(h.ask(&at("", 3), Kind::Step, "mail").is_err());
        assert!(h.ask_branch(&at("", 4)).is_err());
        assert!(h.ask_branch(&at("", 3)).is_ok());
        // Lane "3" says nothing about position 30.
        assert!(h.ask(&at("", 30), Kind::Step, "mail").unwrap().is_none());
    }

    #[test]
    fn what_was_never_asked_for_shows_at_the_end() {
        let h = history(&[("", 2, Kind::Step, "ship"), ("", 1, Kind::Step, "pack")]);
        assert!(h.left_over().unwrap_err().to_string().contains("\"pack\""));
    }
}
