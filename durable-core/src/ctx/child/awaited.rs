//! What an attempt knows about the children that its leaves wait for.
//!
//! One look at the database is for all of them. What it brings is kept here until a leaf asks for it; when to look is
//! decided in `attempt`, the look itself is the worker's.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::id::{Id, Position};
use crate::store::child::{ChildEnd, ChildFound, ChildrenSeen};

/// Children that leaves wait for, and what is known of them.
#[derive(Default)]
pub(in crate::ctx) struct Awaited {
    /// What each waiting leaf waits for.
    leaves: BTreeMap<Position, Arc<[Id]>>,
    /// What the last look at each saw, or its start.
    known: HashMap<Id, Known>,
    /// To be looked at.
    wanted: HashSet<Id>,
    looking: bool,
    /// Those that have ended, in the order in which this attempt learned it, until a leaf takes them.
    ended: BTreeMap<u64, Id>,
    ends: HashMap<Id, (u64, ChildEnd)>,
    learned: u64,
}

/// What a look saw of one that had not ended.
#[derive(Clone, Copy)]
struct Known {
    /// The parent's count of wakes then.
    seen: i64,
    /// It wakes this workflow when it ends.
    mine: bool,
}

impl Awaited {
    /// A child was started here and had not ended yet.
    pub(in crate::ctx) fn started(&mut self, id: Id, wakes: i64) {
        self.known.insert(id, Known { seen: wakes, mine: true });
    }

    /// The first of these that is known to have ended, in the order in which that was learned.
    pub(in crate::ctx) fn take(&mut self, of: &[Id]) -> Option<(Id, ChildEnd)> {
        let id = match of {
            [one] => one.clone(),
            // In the order of ids, see `Children`.
            many => self.ended.values().find(|id| many.binary_search(id).is_ok())?.clone(),
        };
        let (n, end) = self.ends.remove(&id)?;
        self.ended.remove(&n);
        // Its end wakes nobody again: whoever waits for it once more has to look.
        self.known.remove(&id);
        Some((id, end))
    }

    /// A leaf waits for the first of these. `wakes` is the latest count that is known.
    pub(in crate::ctx) fn wait(&mut self, at: &Position, of: &Arc<[Id]>, wakes: i64) {
        if self.leaves.contains_key(at) {
            return;
        }
        let unsure = of.iter().filter(|id| self.known.get(id).is_none_or(|known| known.seen < wakes));
        self.wanted.extend(unsure.cloned());
        self.leaves.insert(at.clone(), of.clone());
    }

    pub(in crate::ctx) fn end_wait(&mut self, at: &Position) {
        self.leaves.remove(at);
    }

    /// Something has woken the workflow: look again.
    pub(in crate::ctx) fn doubt(&mut self) {
        let awaited = self.leaves.values().flat_map(|of| of.iter());
        self.wanted.extend(awaited.filter(|id| !self.ends.contains_key(id)).cloned());
    }

    /// What to look at now, unless a look is under way.
    pub(in crate::ctx) fn begin_look(&mut self) -> Option<Vec<Id>> {
        if self.looking || self.wanted.is_empty() {
            return None;
        }
        let awaited: HashSet<&Id> = self.leaves.values().flat_map(|of| of.iter()).collect();
        let (mut wanted, given_up): (Vec<Id>, Vec<Id>) =
            std::mem::take(&mut self.wanted).into_iter().partition(|id| awaited.contains(id));
        // Whoever waits for one of these later has to look first.
        for id in &given_up {
            self.known.remove(id);
        }
        if wanted.is_empty() {
            return None;
        }
        // What is learned in one look is learned in the order of the ids, the same order on every run.
        wanted.sort_unstable();
        self.looking = true;
        Some(wanted)
    }

    /// A look has come back. Answers which leaves have something to take.
    pub(in crate::ctx) fn looked(&mut self, at: &[Id], seen: ChildrenSeen) -> Vec<Position> {
        self.looking = false;
        for id in at {
            self.known.insert(id.clone(), Known { seen: seen.wakes, mine: true });
        }
        for (place, found) in seen.found {
            let Some(id) = at.get(place) else { continue };
            match found {
                ChildFound::Ended(end) => {
                    if !self.ends.contains_key(id) {
                        self.learned += 1;
                        self.ended.insert(self.learned, id.clone());
                        self.ends.insert(id.clone(), (self.learned, end));
                    }
                }
                ChildFound::LookAgain => {
                    self.wanted.insert(id.clone());
                }
                ChildFound::NotMine => {
                    self.known.insert(id.clone(), Known { seen: seen.wakes, mine: false });
                }
            }
        }
        let served = self.leaves.iter().filter(|(_, of)| of.iter().any(|id| self.ends.contains_key(id)));
        served.map(|(at, _)| at.clone()).collect()
    }

    /// The count of wakes that nothing may have passed for a suspension to be safe, if anything is waited for.
    pub(in crate::ctx) fn seen(&self) -> Option<i64> {
        self.of_leaves().map(|known| known.seen).min()
    }

    /// Whether one of these will not wake this workflow by its end.
    pub(in crate::ctx) fn has_strangers(&self, of: &[Id]) -> bool {
        of.iter().any(|id| self.known.get(id).is_some_and(|known| !known.mine))
    }

    fn of_leaves(&self) -> impl Iterator<Item = &Known> {
        self.leaves.values().flat_map(|of| of.iter()).filter_map(|id| self.known.get(id))
    }
}
