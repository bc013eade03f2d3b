//! What an attempt remembers: its history as far as it is in memory, and which leaves wait for more of it.
//!
//! The pages are `history`'s, reading them is the worker's. One is read at a time, and the body goes on with it
//! before the next one is: so that what was read for one lane is not thrown out for another before it was asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

use chrono::{DateTime, Utc};

use super::attempt::Attempt;
use crate::history::{Answer, History, Kind, Mismatch, Page, Peeked, Record};
use crate::id::{Id, Position};

/// A part of a history to be read, from a position on.
pub(crate) struct ReadOrder {
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) from: Position,
}

/// What stands at a position, if that is known already.
pub(super) enum Recalled {
    Recorded(Record),
    Nothing,
    /// The history is read on, and then the waker is woken.
    Later,
}

/// What stands where a body asks whether it is patched, if that is known already.
pub(super) enum PatchRecalled {
    Marked(DateTime<Utc>),
    Passed,
    Nothing,
    /// As above.
    Later,
}

pub(super) struct Recall {
    history: History,
    /// The positions from which somebody wants the history to be read.
    wanted: BTreeMap<Position, Vec<Waker>>,
    reading: bool,
}

impl Recall {
    pub(super) fn new(history: History) -> Self {
        Self { history, wanted: BTreeMap::new(), reading: false }
    }

    pub(super) fn ask(&mut self, at: &Position, kind: Kind, name: &str, waker: &Waker) -> Result<Recalled, Mismatch> {
        Ok(match self.history.ask(at, kind, name)? {
            Answer::Recorded(record) => Recalled::Recorded(record),
            Answer::Nothing => Recalled::Nothing,
            Answer::Unread(from) => {
                self.want(from, waker);
                Recalled::Later
            }
        })
    }

    pub(super) fn ask_patch(&mut self, at: &Position, patch: &str, waker: &Waker) -> PatchRecalled {
        match self.history.peek(at, patch) {
            Peeked::Marked(ended_at) => PatchRecalled::Marked(ended_at),
            Peeked::Passed => PatchRecalled::Passed,
            Peeked::Nothing => PatchRecalled::Nothing,
            Peeked::Unread(from) => {
                self.want(from, waker);
                PatchRecalled::Later
            }
        }
    }

    /// Whether a branch may be opened at a position; `false` when that is not known yet.
    pub(super) fn ask_branch(&mut self, at: &Position, waker: &Waker) -> Result<bool, Mismatch> {
        let unread = self.history.ask_branch(at)?;
        let known = unread.is_none();
        if let Some(from) = unread {
            self.want(from, waker);
        }
        Ok(known)
    }

    pub(super) fn want(&mut self, from: Position, waker: &Waker) {
        let wakers = self.wanted.entry(from).or_default();
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    /// Whether leaves wait for the history.
    pub(super) fn is_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Whether leaves below a position do.
    pub(super) fn is_wanted_below(&self, at: &Position) -> bool {
        self.wanted.keys().any(|from| from.is_below(at))
    }

    /// What the losers of a race have recorded counts as nothing from now on.
    pub(super) fn forget_losers(&mut self, race: &Position, winner: usize) {
        self.history.forget_losers(race, winner);
    }

    /// The children that losers have started, as far as their records were read.
    pub(super) fn take_lost_children(&mut self) -> Vec<Id> {
        self.history.take_lost_children()
    }

    /// Where to read now: what is wanted first, unless something is being read.
    pub(super) fn begin_reading(&mut self) -> Option<Position> {
        let from = self.wanted.keys().next().filter(|_| !self.reading)?.clone();
        self.reading = true;
        Some(from)
    }

    /// A page has come. Answers whom to wake, and where to read on at once.
    pub(super) fn read(&mut self, page: Page) -> (Vec<Waker>, Option<Position>) {
        let from = page.from.clone();
        let last = page.records.last().map(|(last, _)| last.clone()).filter(|_| page.more);
        let next = self.history.read(page);
        self.reading = next.is_some();
        let mut answered = self.wanted.split_off(&from);
        if let Some(last) = last {
            self.wanted.append(&mut answered.split_off(&last.next()));
        }
        (answered.into_values().flatten().collect(), next)
    }

    /// What of the history has to be read before `left_over` is the whole truth.
    pub(super) fn rest(&self) -> Option<Position> {
        self.history.rest()
    }

    pub(super) fn left_over(&self) -> Result<(), Mismatch> {
        self.history.left_over()
    }
}
