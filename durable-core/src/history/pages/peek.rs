//! Looking at what stands next in a lane, for a body that asks which way it went there.

use std::ops::Bound::{Excluded, Included, Unbounded};

use chrono::{DateTime, Utc};

use super::{History, Slot};
use crate::history::Kind;
use crate::id::Position;

/// What a look at a position found.
pub(crate) enum Peeked {
    /// The marker of the patch, recorded then. It is handed out.
    Marked(DateTime<Utc>),
    /// Something else is recorded there, or further on in the lane: the body has gone past without the marker.
    Passed,
    /// Nothing is recorded from there on.
    Nothing,
    /// The history has to be read from this position on first.
    Unread(Position),
}

impl History {
    /// Look for the marker of a patch at the next position of a lane.
    pub(crate) fn peek(&mut self, at: &Position, patch: &str) -> Peeked {
        if !self.knows(at) {
            return Peeked::Unread(at.clone());
        }
        match self.slots.remove(at) {
            Some(Slot { record: Some(record), .. }) if record.kind == Kind::Patch && record.name == patch => {
                self.unload(&record);
                return Peeked::Marked(record.ended_at);
            }
            Some(slot) => {
                let is_here = slot.record.is_some();
                self.slots.insert(at.clone(), slot);
                return if is_here { Peeked::Passed } else { Peeked::Unread(at.clone()) };
            }
            None => {}
        }
        if self.is_exhausted() {
            return Peeked::Nothing;
        }
        self.peek_beyond(at)
    }

    /// Of what was begun together, the first need not be the first that was recorded: so the rest of the lane counts as
    /// well, with the lanes that it has opened.
    fn peek_beyond(&self, at: &Position) -> Peeked {
        let end = at.end_of_lane();
        let to = end.as_ref().map_or(Unbounded, Excluded);
        if self.slots.range((Included(at), to)).any(|(there, _)| there.is_not_before(at)) {
            return Peeked::Passed;
        }
        self.first_gap(at.clone(), end.as_ref()).map_or(Peeked::Nothing, Peeked::Unread)
    }
}
