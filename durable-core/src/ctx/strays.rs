//! Children that losers of races have started: they are cancelled.
//!
//! Which they are, an attempt knows from the starts that it has seen, and from the records that losers have left in the history.
//! So a recovery finds them again, and cancels them again, which does nothing where it was done. It is the worker that does it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::attempt::{Attempt, Inner};
use crate::id::{Id, Position};

/// Children to be cancelled.
pub(crate) struct LostChildrenOrder {
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) lost: Vec<Id>,
}

#[derive(Default)]
pub(super) struct Strays {
    /// Children that were started within races which are not decided yet, by the positions of their starts.
    started: BTreeMap<Position, Id>,
    /// Those whose start is under way.
    starting: HashSet<Id>,
    /// Those that have to be cancelled.
    lost: BTreeSet<Id>,
    /// Somebody is at it.
    cancelling: bool,
}

impl Strays {
    pub(super) fn start(&mut self, at: &Position, id: &Id) {
        self.started.insert(at.clone(), id.clone());
    }

    pub(super) fn begin_start(&mut self, id: &Id) {
        self.starting.insert(id.clone());
    }

    pub(super) fn end_start(&mut self, id: &Id) {
        self.starting.remove(id);
    }

    /// A race is decided. `won` tells the positions of the winner from the losers'.
    pub(super) fn decide(&mut self, race: &Position, won: impl Fn(&Position) -> bool) {
        let (from, to) = race.range_below();
        let below: Vec<Position> = self.started.range(from..to).map(|(at, _)| at).cloned().collect();
        for at in below.into_iter().filter(|at| !won(at)) {
            self.lost.extend(self.started.remove(&at));
        }
    }

    pub(super) fn lose(&mut self, ids: impl IntoIterator<Item = Id>) {
        self.lost.extend(ids);
    }

    /// What can be cancelled now, unless somebody is at it: a start that is under way has to come to its end first.
    pub(super) fn begin(&mut self) -> Option<Vec<Id>> {
        if self.cancelling || self.lost.is_empty() {
            return None;
        }
        let ids: Vec<Id> = self.lost.iter().filter(|id| !self.starting.contains(*id)).cloned().collect();
        self.cancelling = !ids.is_empty();
        self.cancelling.then_some(ids)
    }

    /// It was done.
    pub(super) fn end(&mut self, ids: &[Id]) {
        self.cancelling = false;
        for id in ids {
            self.lost.remove(id);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lost.is_empty()
    }
}

impl Attempt {
    /// A child is about to be started at a position, or was.
    pub(in crate::ctx) fn starts_child(&self, at: &Position, id: &Id) {
        let mut inner = self.inner();
        if inner.looks.are_in_race(at) {
            inner.strays.start(at, id);
        }
    }

    /// The start of a child is sent.
    pub(crate) fn begin_start(&self, id: &Id) {
        self.inner().strays.begin_start(id);
    }

    /// It was answered.
    pub(crate) fn end_start(&self, id: &Id) {
        let mut inner = self.inner();
        inner.strays.end_start(id);
        // It may be one to be cancelled now.
        inner.executor.iter().for_each(Waker::wake_by_ref);
    }

    /// Children of losers were cancelled.
    pub(crate) fn lost_cancelled(&self, ids: &[Id]) {
        let mut inner = self.inner();
        inner.in_flight -= 1;
        inner.strays.end(ids);
        inner.executor.iter().for_each(Waker::wake_by_ref);
    }

    /// Whether children of losers have still to be cancelled.
    pub(crate) fn has_strays(&self) -> bool {
        !self.inner().strays.is_empty()
    }

    /// Wait until none has; the executor has it done meanwhile.
    pub(crate) async fn without_strays(self: Arc<Self>) {
        poll_fn(|_| if self.has_strays() { Poll::Pending } else { Poll::Ready(()) }).await;
    }
}

impl Inner {
    /// Take over what the history has of losers.
    pub(super) fn lose_children_of_losers(&mut self) {
        let lost = self.recall.take_lost_children();
        self.strays.lose(lost);
    }
}
