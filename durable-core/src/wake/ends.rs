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

/// Locks, so that those who end workflows on many threads seldom meet.
const SHARDS: usize = 16;

/// The places of those who wait, by the hashes of the ids, as other processes tell them. A second id with the same hash
/// gets a place that is not among them, and is told nothing.
#[derive(Default)]
pub(super) struct Ends([Mutex<HashMap<u64, Weak<Place>>>; SHARDS]);

impl Ends {
    fn shard(&self, hash: u64) -> MutexGuard<'_, HashMap<u64, Weak<Place>>> {
        self.0[(hash % SHARDS as u64) as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock is given up first: who drops a place takes it.
    fn find(&self, hash: u64) -> Option<Arc<Place>> {
        self.shard(hash).get(&hash).and_then(Weak::upgrade)
    }

    /// A place among those who wait for a workflow's end; the same one for all of them until it has ended. Who comes later gets
    /// another, because it may have been resumed or restarted since.
    pub(super) fn enlist(self: &Arc<Self>, id: &Id) -> Arc<Place> {
        // Lives longer than the lock, see `find`.
        let there;
        let mut shard = self.shard(id.digest());
        there = shard.get(&id.digest()).and_then(Weak::upgrade);
        let own = there.as_ref().filter(|place| place.id == *id);
        if let Some(place) = own.filter(|place| place.end.get().is_none()) {
            return place.clone();
        }
        let is_free = there.is_none() || own.is_some();
        let place = Arc::new(Place {
            ends: self.clone(),
            id: id.clone(),
            end: OnceLock::new(),
            doubts: AtomicU32::new(0),
            told: Notify::new(),
        });
        if is_free {
            shard.insert(id.digest(), Arc::downgrade(&place));
        }
        place
    }

    /// Tell those who wait how a workflow has ended.
    pub(super) fn tell(&self, id: &Id, end: Arc<End>) {
        if let Some(place) = self.find(id.digest()).filter(|place| place.id == *id) {
            // Only an earlier word of the same end could stand there.
            drop(place.end.set(end));
            place.told.notify_waiters();
        }
    }

    /// Tell those who wait that something became of a workflow which only the database knows.
    pub(super) fn doubt(&self, hash: u64) {
        if let Some(place) = self.find(hash) {
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
        let hash = self.id.digest();
        let mut shard = self.ends.shard(hash);
        // Somebody else may have come in the meantime, and taken a new place.
        if shard.get(&hash).is_some_and(|place| place.strong_count() == 0) {
            shard.remove(&hash);
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
        drop(place);
        assert_eq!(again.end().and_then(|end| end.output.as_deref()), Some("1"));
        let late = ends.enlist(&id);
        assert!(late.end().is_none(), "one who comes late has to look: it may have been restarted");
        ends.tell(&id, completed());
        assert!(late.end().is_some());
    }

    #[test]
    fn a_word_between_the_look_and_the_wait_is_not_missed() {
        let (ends, id) = (ends(), Id::trusted("a"));
        let place = ends.enlist(&id);
        for tell in [(|ends, id| ends.doubt(id.digest())) as fn(&Ends, &Id), |ends, id| ends.tell(id, completed())] {
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
                ends.doubt(id.digest());
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
            ends.shard(id.digest()).remove(&id.digest());
            ends.enlist(&id)
        };
        drop(first);
        ends.tell(&id, completed());
        assert!(second.end().is_some());
    }
}
