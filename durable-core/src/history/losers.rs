//! What the losers of decided races have left in a history: nobody asks for it, and it counts as nothing. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Kind, Record};
use crate::id::{Id, Position};

#[derive(Default)]
pub(super) struct Losers {
    /// The decided races of which the history may hold more: the lanes below each, and the one of them that has won.
    races: BTreeMap<String, usize>,
    /// Children that losers have started.
    children: Vec<Id>,
}

/// What stands in the record of a start.
#[derive(Deserialize)]
struct Start {
    id: String,
}

impl Losers {
    pub(super) fn note(&mut self, race: &Position, winner: usize) {
        self.races.insert(race.lane_below(), winner);
    }

    pub(super) fn forget(&mut self, race: &Position) {
        self.races.remove(&race.lane_below());
    }

    /// A record of a loser is left out.
    pub(super) fn lose(&mut self, record: &Record) {
        let started = record.outcome.as_deref().ok().filter(|_| record.kind == Kind::Start);
        let child = started.and_then(|output| serde_json::from_str::<Start>(output).ok());
        self.children.extend(child.map(|child| Id::trusted(&child.id)));
    }

    pub(super) fn take_children(&mut self) -> Vec<Id> {
        std::mem::take(&mut self.children)
    }

    /// Whether a position belongs to a loser.
    pub(super) fn have(&self, at: &Position) -> bool {
        if self.races.is_empty() {
            return false;
        }
        at.lane.match_indices('.').any(|(point, _)| {
            let winner = self.races.get(&at.lane[..point]);
            winner.is_some_and(|winner| arm(&at.lane[point + 1..]) != Some(*winner))
        })
    }
}

/// The arm in whose lane, or below it, a path goes on.
fn arm(rest: &str) -> Option<usize> {
    rest.split('.').next().and_then(|number| number.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lane: &str) -> Position {
        Position { lane: lane.into(), seq: 0 }
    }

    #[test]
    fn what_lies_in_the_lanes_of_a_loser_or_below_them_is_the_losers() {
        let mut losers = Losers::default();
        losers.note(&Position { lane: "".into(), seq: 3 }, 1);
        losers.note(&Position { lane: "5.2".into(), seq: 4 }, 10);
        for lost in ["3.0", "3.0.7", "3.2", "3.10", "5.2.4.1", "5.2.4.1.0"] {
            assert!(losers.have(&at(lost)), "{lost}");
        }
        for kept in ["", "3", "3.1", "3.1.0", "30.0", "5.2", "5.2.4.10", "5.2.4.10.1", "5.2.40.1", "2.3.0"] {
            assert!(!losers.have(&at(kept)), "{kept}");
        }
    }
}
