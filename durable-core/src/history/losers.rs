//! What the losers of decided races have left in a history: nobody asks for it, and it counts as nothing. Pure.

use std::collections::BTreeMap;

use crate::id::Position;

/// The decided races of which the history may hold more: the lanes below each, and the one of them that has won.
#[derive(Default)]
pub(super) struct Losers(BTreeMap<String, usize>);

impl Losers {
    pub(super) fn note(&mut self, race: &Position, winner: usize) {
        self.0.insert(race.lane_below(), winner);
    }

    pub(super) fn forget(&mut self, race: &Position) {
        self.0.remove(&race.lane_below());
    }

    /// Whether a position belongs to a loser.
    pub(super) fn have(&self, at: &Position) -> bool {
        if self.0.is_empty() {
            return false;
        }
        at.lane.match_indices('.').any(|(point, _)| {
            let winner = self.0.get(&at.lane[..point]);
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
