//! Who waits in this process for the end of which workflow. What the end was comes along, so that nobody has to ask
//! the database for it.
//!
//! A word that does not come costs a look at the database, never a wrong answer: an end is told only after it
//! was written, and what is less than certain is told as "look".

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use tokio::sync::Notify;

use crate::decide::End;
use crate::id::Id;

/// Locks, so that those who end workflows on many threads seldom meet. Divides the number of buckets.
const SHARDS: usize = 16;

/// The places of those who wait. A place is here while somebody holds it and nothing was told.
#[derive(Default)]
pub(super) struct Ends([Mutex<HashMap<Id, Weak<Place>>>; SHARDS]);

impl Ends {
    fn shard(&self, id: &Id) -> MutexGuard<'_, HashMap<Id, Weak<Place>>> {
        self.0[id.bucket().unsigned_abs() as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place among those who wait for a workflow's end; the same one for all of them.
    pub(super) fn enlist(self: &Arc<Self>, id: &Id) -> Arc<Place> {
        let mut shard = self.shard(id);
        if let Some(place) = shard.get(id).and_then(Weak::upgrade) {
            return place;
        }
        let place = Arc::new(Place {
            ends: self.clone(),
            id: id.clone(),
            end: OnceLock::new(),
            doubts: AtomicU32::new(0),
            told: Notify::new(),
        });
        shard.insert(id.clone(), Arc::downgrade(&place));
        place
    }

    /// Tell those who wait how a workflow has ended.
    pub(super) fn tell(&self, id: &Id, end: Arc<End>) {
        let place = self.shard(id).remove(id).and_then(|place| place.upgrade());
        if let Some(place) = place {
            // Only an earlier word could stand there, and an end never changes.
            drop(place.end.set(end));
            place.told.notify_waiters();
        }
    }

    /// Tell those who wait that something became of a workflow which only the database knows.
    pub(super) fn doubt(&self, id: &Id) {
        let place = self.shard(id).get(id).and_then(Weak::upgrade);
        if let Some(place) = place {
            place.doubts.fetch_add(1, Ordering::Release);
            place.told.notify_waiters();
        }
    }
}

/// A place among those who wait for one workflow's end, shared by all who do, here. It keeps the end for as
/// long as it is held.
pub(crate) struct Place {
    ends: Arc<Ends>,
    id: Id,
    end: OnceLock<Arc<End>>,
    doubts: AtomicU32,
    told: Notify,
}

impl Place {
    /// How the workflow ended, if that was told.
    pub(crate) fn end(&self) -> Option<&Arc<End>> {
        self.end.get()
    }

    /// How often it was told to look. Whoever sees another number than before should.
    pub(crate) fn doubts(&self) -> u32 {
        self.doubts.load(Ordering::Acquire)
    }

    /// Wait until something is told. What is told after this was called is not missed, also before it is polled.
    pub(crate) fn told(&self) -> tokio::sync::futures::Notified<'_> {
        self.told.notified()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.end.get().is_some() {
            return;
        }
        let mut shard = self.ends.shard(&self.id);
        // Somebody else may have come in the meantime, and taken a new place.
        if shard.get(&self.id).is_some_and(|place| place.strong_count() == 0) {
            shard.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::status::Status;

    fn ends() -> Arc<Ends> {
        Arc::default()
    }

    fn completed() -> Arc<End> {
        Arc::new(End { status: Status::Completed, output: Some("1".into()), failure: None })
    }

    fn held(ends: &Ends) -> usize {
        ends.0.iter().map(|shard| shard.lock().unwrap().len()).sum()
    }

    #[test]
    fn an_end_is_kept_for_whoever_holds_a_place() {
        let (ends, id) = (ends(), Id::trusted("a"));
        let place = ends.enlist(&id);
        let again = ends.enlist(&id);
        assert!(Arc::ptr_eq(&place, &again));
        ends.tell(&id, completed());
        assert_eq!(again.end().and_then(|end| end.output.as_deref()), Some("1"));
        assert_eq!(held(&ends), 0);
    }

    #[test]
    fn a_word_between_the_look_and_the_wait_is_not_missed() {
        let (ends, id) = (ends(), Id::trusted("a"));
        let place = ends.enlist(&id);
        for tell in [Ends::doubt as fn(&Ends, &Id), |ends, id| ends.tell(id, completed())] {
            let told = place.told();
            tell(&ends, &id);
            assert!(told.now_or_never().is_some());
        }
        assert_eq!(place.doubts(), 1);
    }

    #[test]
    fn places_that_nobody_holds_leave_nothing_behind() {
        let ends = ends();
        for n in 0..100 {
            let id = Id::trusted(&n.to_string());
            let place = ends.enlist(&id);
            if n % 3 == 0 {
                ends.doubt(&id);
            }
            if n % 2 == 0 {
                ends.tell(&id, completed());
            }
            drop(place);
        }
        assert_eq!(held(&ends), 0);
    }

    #[test]
    fn one_who_comes_while_the_last_one_leaves_keeps_a_place() {
        let (ends, id) = (ends(), Id::trusted("a"));
        let first = ends.enlist(&id);
        // The first is gone but for its drop, which finds the second one's place.
        let second = {
            ends.shard(&id).remove(&id);
            ends.enlist(&id)
        };
        drop(first);
        ends.tell(&id, completed());
        assert!(second.end().is_some());
    }
}
