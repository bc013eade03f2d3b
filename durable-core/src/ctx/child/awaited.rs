//! What an attempt knows about the children that its leaves wait for.
//!
//! One look at the database is for all of them. What it brings is kept here until a leaf asks for it; when to look is
//! decided in `attempt`, the look itself is the worker's.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::ctx::attempt::{Attempt, Waiting};
use crate::history::WaitKind;
use crate::id::{Id, Position};
use crate::store::child::{ChildEnd, ChildFound, ChildrenSeen};

/// When to look again at one who will not wake the workflow by its end: the child of a workflow that this one was forked from.
const STRANGERS_LOOK_AFTER: Duration = Duration::from_secs(5);

/// Children that leaves wait for, and what is known of them.
#[derive(Default)]
pub(in crate::ctx) struct Awaited {
    /// What each waiting leaf waits for.
    leaves: BTreeMap<Position, Arc<[Id]>>,
    /// What the last look at each saw, or its start.
    known: HashMap<Id, Known>,
    /// To be looked at.
    wanted: HashSet<Id>,
    /// Those that are being looked at, in their order.
    looking: Option<Vec<Id>>,
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
        let is_new = self.leaves.insert(at.clone(), of.clone()).is_none();
        let unsure = of.iter().filter(|id| match self.known.get(id) {
            Some(known) => is_new && known.seen < wakes,
            // Nobody has looked yet; or another leaf has taken the end that this one was woken for.
            None => self.looking.as_ref().is_none_or(|ids| ids.binary_search(id).is_err()),
        });
        self.wanted.extend(unsure.cloned());
    }

    pub(in crate::ctx) fn end_wait(&mut self, at: &Position) {
        self.leaves.remove(at);
    }

    /// Something has woken the workflow: look again. Whether there is something to look at.
    pub(in crate::ctx) fn doubt(&mut self) -> bool {
        let awaited = self.leaves.values().flat_map(|of| of.iter());
        self.wanted.extend(awaited.filter(|id| !self.ends.contains_key(id)).cloned());
        !self.wanted.is_empty()
    }

    /// What to look at now, unless a look is under way.
    pub(in crate::ctx) fn begin_look(&mut self) -> Option<Vec<Id>> {
        if self.looking.is_some() || self.wanted.is_empty() {
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
        self.looking = Some(wanted.clone());
        Some(wanted)
    }

    /// A look has come back. Answers which leaves are to be polled: they have something to take, or wait for a stranger.
    pub(in crate::ctx) fn looked(&mut self, at: &[Id], seen: ChildrenSeen) -> Vec<Position> {
        self.looking = None;
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
        let news = |id: &Id| self.ends.contains_key(id) || self.known.get(id).is_some_and(|known| !known.mine);
        let served = self.leaves.iter().filter(|(_, of)| of.iter().any(news));
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

/// What leaves ask of their attempt about children, and what the worker tells it.
impl Attempt {
    /// A child was started, and the database told the count of wakes.
    pub(crate) fn child_started(&self, id: &Id, wakes: i64) {
        let mut inner = self.inner();
        inner.saw(wakes);
        inner.children.started(id.clone(), wakes);
    }

    /// The first of these children that is known to have ended; or wait for one.
    pub(crate) fn child_end(&self, at: &Position, of: &Arc<[Id]>, waker: &Waker) -> Option<(Id, ChildEnd)> {
        let mut inner = self.inner();
        if inner.stop.is_some() {
            return None;
        }
        if let Some(end) = inner.children.take(of) {
            return Some(end);
        }
        let wakes = inner.wakes;
        inner.children.wait(at, of, wakes);
        let deadline = inner.children.has_strangers(of).then(|| Instant::now() + STRANGERS_LOOK_AFTER);
        let waiting = Waiting { deadline, ..Waiting::new(WaitKind::Child, waker) };
        inner.wait(at, waiting);
        None
    }

    /// Children were looked at.
    pub(crate) fn children_looked(&self, at: &[Id], seen: ChildrenSeen) {
        let mut inner = self.inner();
        inner.in_flight -= 1;
        inner.saw(seen.wakes);
        let served = inner.children.looked(at, seen);
        served.iter().filter_map(|leaf| inner.waits.get(leaf)).for_each(|wait| wait.waker.wake_by_ref());
        // Also when none has ended: now it can be suspended.
        inner.executor.iter().for_each(Waker::wake_by_ref);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Id {
        Id::trusted(text)
    }

    fn ids(texts: &[&str]) -> Arc<[Id]> {
        texts.iter().map(|text| id(text)).collect()
    }

    fn at(seq: i32) -> Position {
        Position { lane: "".into(), seq }
    }

    fn ended(place: usize) -> (usize, ChildFound) {
        (place, ChildFound::Ended(ChildEnd::Cancelled(None)))
    }

    fn seen(wakes: i64, found: Vec<(usize, ChildFound)>) -> ChildrenSeen {
        ChildrenSeen { wakes, found }
    }

    fn taken(awaited: &mut Awaited, of: &[&str]) -> Option<String> {
        awaited.take(&ids(of)).map(|(id, _)| id.as_str().to_owned())
    }

    #[test]
    fn one_that_was_just_started_needs_no_look_until_something_wakes_the_workflow() {
        let mut awaited = Awaited::default();
        awaited.started(id("a"), 3);
        awaited.wait(&at(1), &ids(&["a"]), 3);
        assert_eq!((awaited.begin_look(), awaited.seen()), (None, Some(3)));
        assert!(awaited.doubt());
        assert_eq!(awaited.begin_look(), Some(vec![id("a")]));
        assert_eq!(awaited.begin_look(), None, "one look at a time");
        // Nothing has ended; the workflow may be suspended on what this look saw.
        assert!(awaited.looked(&[id("a")], seen(5, vec![])).is_empty());
        assert_eq!((awaited.begin_look(), awaited.seen()), (None, Some(5)));
        // Another one, of whom nothing is known.
        awaited.wait(&at(2), &ids(&["b"]), 5);
        assert_eq!(awaited.begin_look(), Some(vec![id("b")]));
    }

    #[test]
    fn one_that_was_started_before_the_last_wake_up_is_looked_at() {
        let mut awaited = Awaited::default();
        awaited.started(id("a"), 3);
        awaited.wait(&at(1), &ids(&["a"]), 4);
        assert_eq!(awaited.begin_look(), Some(vec![id("a")]));
    }

    #[test]
    fn the_first_of_several_is_the_one_that_was_learned_first() {
        let mut awaited = Awaited::default();
        let all = ["a", "b", "c"];
        awaited.wait(&at(1), &ids(&all), 0);
        let look = awaited.begin_look().unwrap();
        assert_eq!(awaited.looked(&look, seen(1, vec![ended(1)])), [at(1)]);
        awaited.doubt();
        // What has ended is not looked at again.
        let look = awaited.begin_look().unwrap();
        assert_eq!(look, [id("a"), id("c")]);
        awaited.looked(&look, seen(2, vec![ended(0)]));
        assert_eq!(taken(&mut awaited, &all).as_deref(), Some("b"));
        assert_eq!(taken(&mut awaited, &["c"]), None);
        assert_eq!(taken(&mut awaited, &all).as_deref(), Some("a"));
        assert_eq!(taken(&mut awaited, &all), None);
    }

    #[test]
    fn what_did_not_fit_into_a_look_is_looked_at_by_whoever_waits_for_it_and_not_before() {
        let mut awaited = Awaited::default();
        awaited.wait(&at(1), &ids(&["a", "b"]), 0);
        let look = awaited.begin_look().unwrap();
        awaited.looked(&look, seen(1, vec![ended(0), (1, ChildFound::LookAgain)]));
        assert_eq!(taken(&mut awaited, &["a", "b"]).as_deref(), Some("a"));
        awaited.end_wait(&at(1));
        assert_eq!(awaited.begin_look(), None);
        awaited.wait(&at(2), &ids(&["b"]), 1);
        assert_eq!(awaited.begin_look(), Some(vec![id("b")]));
    }

    #[test]
    fn one_that_was_taken_is_looked_at_again_by_who_waits_for_it_again() {
        let mut awaited = Awaited::default();
        for n in 1..=2 {
            awaited.wait(&at(n), &ids(&["a"]), 1);
            let look = awaited.begin_look().expect("nobody would wake it for this");
            awaited.looked(&look, seen(1, vec![ended(0)]));
            assert!(taken(&mut awaited, &["a"]).is_some());
            awaited.end_wait(&at(n));
        }
    }

    #[test]
    fn two_who_wait_for_the_same_one_both_hear_of_it() {
        let mut awaited = Awaited::default();
        awaited.started(id("a"), 0);
        awaited.wait(&at(1), &ids(&["a"]), 0);
        awaited.wait(&at(2), &ids(&["a"]), 0);
        awaited.doubt();
        for n in 1..=2 {
            let look = awaited.begin_look().expect("somebody waits and has not heard");
            // Polled meanwhile: nothing more to be asked for.
            awaited.wait(&at(2), &ids(&["a"]), 0);
            awaited.looked(&look, seen(1, vec![ended(0)]));
            assert!(taken(&mut awaited, &["a"]).is_some());
            awaited.end_wait(&at(n));
            awaited.wait(&at(2), &ids(&["a"]), 1);
        }
    }

    #[test]
    fn a_stranger_is_known_as_one_until_it_has_ended() {
        let mut awaited = Awaited::default();
        awaited.wait(&at(1), &ids(&["a"]), 0);
        let look = awaited.begin_look().unwrap();
        assert!(!awaited.has_strangers(&ids(&["a"])));
        assert_eq!(awaited.looked(&look, seen(1, vec![(0, ChildFound::NotMine)])), [at(1)]);
        assert!(awaited.has_strangers(&ids(&["a"])) && !awaited.has_strangers(&ids(&["b"])));
    }
}
