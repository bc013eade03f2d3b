//! What one incarnation has in memory, by workflow: being started here, claimed, running.
//!
//! One lock, so that a cancellation and the beginning of a body cannot miss each other, and nothing runs twice
//! beside itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ctx::attempt::Attempt;
use crate::id::Id;

/// How long a cancellation that found nothing here is remembered: longer than the reply to a claim or start
/// can be under way.
const CANCELLED_KEPT: Duration = Duration::from_secs(60);

/// The workflows of one incarnation.
#[derive(Default)]
pub(super) struct Local(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    held: HashMap<Id, Held>,
    /// Since when, and up to which claim: a later one has been resumed.
    cancelled: HashMap<Id, (Instant, i32)>,
    /// Owned by this worker in the database but not held here at the last look, with their claims.
    unheld: HashMap<Id, i32>,
}

enum Held {
    /// A caller in this process is starting it here.
    Starting {
        cancelled: bool,
    },
    /// Claimed; its history is being loaded.
    Claimed {
        claims: i32,
        cancelled: bool,
    },
    Running(Arc<Attempt>),
}

impl Local {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keep a place for a workflow that is being started. Not if it has one.
    pub(super) fn reserve(&self, id: &Id) -> bool {
        let mut inner = self.inner();
        let free = !inner.held.contains_key(id);
        if free {
            inner.held.insert(id.clone(), Held::Starting { cancelled: false });
        }
        free
    }

    /// A claim has taken these. Answers the attempts that run them here already: nobody can claim what is
    /// running, so the server has gone back in time (a claim commits asynchronously, and may be lost in a
    /// crash), and under one owner id the two could not be told apart.
    #[must_use]
    pub(super) fn claimed<'i>(&self, ids: impl Iterator<Item = (&'i Id, i32)>) -> Vec<Arc<Attempt>> {
        let mut inner = self.inner();
        let Inner { held, cancelled, .. } = &mut *inner;
        let before = ids.filter_map(|(id, claims)| {
            let cancelled = cancelled.get(id).is_some_and(|(_, up_to)| claims <= *up_to);
            held.insert(id.clone(), Held::Claimed { claims, cancelled })
        });
        let running = before.filter_map(|held| match held {
            // One that is just being suspended may be claimed anew before it is forgotten here.
            Held::Running(attempt) => (!attempt.is_leaving()).then_some(attempt),
            Held::Starting { .. } | Held::Claimed { .. } => None,
        });
        running.collect()
    }

    /// Whether this attempt is still the one that runs its workflow here.
    pub(super) fn is_current(&self, attempt: &Arc<Attempt>) -> bool {
        matches!(self.inner().held.get(&attempt.id), Some(Held::Running(there)) if Arc::ptr_eq(there, attempt))
    }

    /// Begin to run a workflow; unless it was cancelled before it came here, or runs already.
    pub(super) fn run(&self, attempt: &Arc<Attempt>) -> bool {
        let mut inner = self.inner();
        match inner.held.get(&attempt.id) {
            Some(Held::Running(_)) => return false,
            // It was cancelled or paused, resumed and claimed anew while this one loaded its history.
            Some(Held::Claimed { claims, .. }) if *claims != attempt.claims => return false,
            Some(Held::Starting { cancelled: true } | Held::Claimed { cancelled: true, .. }) => {
                inner.held.remove(&attempt.id);
                return false;
            }
            Some(Held::Starting { cancelled: false } | Held::Claimed { cancelled: false, .. }) | None => {}
        }
        inner.held.insert(attempt.id.clone(), Held::Running(attempt.clone()));
        true
    }

    /// Give up a place that never came to run.
    pub(super) fn give_up(&self, id: &Id) {
        let mut inner = self.inner();
        if let Some(Held::Starting { .. } | Held::Claimed { .. }) = inner.held.get(id) {
            inner.held.remove(id);
        }
    }

    /// Give up the place of a workflow that is being started, if nothing else has come of it.
    pub(super) fn unreserve(&self, id: &Id) {
        let mut inner = self.inner();
        if let Some(Held::Starting { .. }) = inner.held.get(id) {
            inner.held.remove(id);
        }
    }

    /// An attempt is over.
    pub(super) fn forget(&self, attempt: &Arc<Attempt>) {
        let mut inner = self.inner();
        if let Some(Held::Running(there)) = inner.held.get(&attempt.id)
            && Arc::ptr_eq(there, attempt)
        {
            inner.held.remove(&attempt.id);
        }
    }

    pub(super) fn running(&self, id: &Id) -> Option<Arc<Attempt>> {
        match self.inner().held.get(id) {
            Some(Held::Running(attempt)) => Some(attempt.clone()),
            Some(Held::Starting { .. } | Held::Claimed { .. }) | None => None,
        }
    }

    /// A workflow was cancelled: the attempt to stop, or `None` after making sure that none begins here.
    pub(super) fn cancel(&self, id: &Id) -> Option<Arc<Attempt>> {
        let mut inner = self.inner();
        match inner.held.get_mut(id) {
            Some(Held::Running(attempt)) => return Some(attempt.clone()),
            Some(Held::Starting { cancelled } | Held::Claimed { cancelled, .. }) => *cancelled = true,
            None => {
                inner.cancelled.retain(|_, (since, _)| since.elapsed() < CANCELLED_KEPT);
                inner.cancelled.insert(id.clone(), (Instant::now(), i32::MAX));
            }
        }
        None
    }

    /// The database has told under which claim it was: a later one is another matter, because somebody has resumed it.
    pub(super) fn cancelled_under(&self, id: &Id, claims: i32) {
        if let Some((_, up_to)) = self.inner().cancelled.get_mut(id) {
            *up_to = claims;
        }
    }

    /// How many have a place here.
    pub(super) fn count(&self) -> usize {
        self.inner().held.len()
    }

    pub(super) fn all(&self) -> Vec<Arc<Attempt>> {
        let inner = self.inner();
        let running = inner.held.values().filter_map(|held| match held {
            Held::Running(attempt) => Some(attempt.clone()),
            Held::Starting { .. } | Held::Claimed { .. } => None,
        });
        running.collect()
    }

    /// Of the workflows that the database says this worker owns: those that were not held here, at this look
    /// and at the one before, under the same claim. Their claim's or start's reply was lost.
    pub(super) fn stranded(&self, owned: Vec<(Id, i32)>) -> Vec<(Id, i32)> {
        let mut inner = self.inner();
        let unheld: HashMap<Id, i32> = owned.into_iter().filter(|(id, _)| !inner.held.contains_key(id)).collect();
        let before = std::mem::replace(&mut inner.unheld, unheld.clone());
        unheld.into_iter().filter(|(id, claims)| before.get(id) == Some(claims)).collect()
    }
}
