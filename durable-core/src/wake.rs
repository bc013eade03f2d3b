//! Hints inside one process: there may be something to claim, a workflow has ended. Hints only; a poll finds
//! everything anyway.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::id::Id;

/// Delays between the polls that follow a start in the caller's transaction, which commits who knows when.
const QUICK_POLLS_MS: [u64; 8] = [2, 5, 10, 15, 25, 40, 80, 160];

/// What the callers' side of a process tells the worker's, and the other way round.
#[derive(Default)]
pub(crate) struct Wake {
    due: Notify,
    quick: AtomicU32,
    waiters: Mutex<HashMap<Id, (Arc<Notify>, usize)>>,
}

impl Wake {
    /// Something is due.
    pub(crate) fn now(&self) {
        self.due.notify_one();
    }

    /// Something may be due soon: when a transaction of the caller's commits.
    pub(crate) fn soon(&self) {
        self.quick.store(u32::try_from(QUICK_POLLS_MS.len()).unwrap_or(0), Ordering::Relaxed);
        self.due.notify_one();
    }

    /// Wait for a hint, or until the next poll is due.
    pub(crate) async fn wait(&self, poll_every: Duration) {
        let left = self.quick.load(Ordering::Relaxed) as usize;
        let pause = if left > 0 {
            self.quick.fetch_sub(1, Ordering::Relaxed);
            Duration::from_millis(QUICK_POLLS_MS[QUICK_POLLS_MS.len() - left.min(QUICK_POLLS_MS.len())])
        } else {
            poll_every
        };
        // A hint that comes meanwhile is kept by Notify for the next wait.
        drop(tokio::time::timeout(pause, self.due.notified()).await);
    }

    /// A workflow has ended here.
    pub(crate) fn ended(&self, id: &Id) {
        let waiting = self.waiters.lock().unwrap_or_else(PoisonError::into_inner).get(id).map(|(n, _)| n.clone());
        if let Some(notify) = waiting {
            notify.notify_waiters();
        }
    }

    /// Be told when a workflow ends here.
    pub(crate) fn await_end(self: &Arc<Self>, id: &Id) -> EndWaiter {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        let (notify, count) = waiters.entry(id.clone()).or_default();
        *count += 1;
        EndWaiter { wake: self.clone(), id: id.clone(), notify: notify.clone() }
    }
}

/// A place among those who wait for one workflow's end.
pub(crate) struct EndWaiter {
    wake: Arc<Wake>,
    id: Id,
    pub(crate) notify: Arc<Notify>,
}

impl Drop for EndWaiter {
    fn drop(&mut self) {
        let mut waiters = self.wake.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = waiters.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                waiters.remove(&self.id);
            }
        }
    }
}
