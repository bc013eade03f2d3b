//! Hints inside one process: there may be something to claim, a workflow has ended. Hints only; a poll finds
//! everything anyway.

mod ends;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::decide::End;
use crate::id::Id;
use ends::Ends;
pub(crate) use ends::Place;

/// Delays between the polls that follow a start in the caller's transaction, which commits who knows when.
const QUICK_POLLS_MS: [u64; 8] = [2, 5, 10, 15, 25, 40, 80, 160];

/// What the callers' side of a process tells the worker's, and the other way round.
#[derive(Default)]
pub(crate) struct Wake {
    due: Notify,
    quick: AtomicU32,
    ends: Arc<Ends>,
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

    /// A workflow has ended here, and how, if this is certain: told only after it was written. Without it those
    /// who wait look at the database. A blocked workflow has not ended.
    pub(crate) fn ended(&self, id: &Id, end: Option<Arc<End>>) {
        match end {
            Some(end) if end.status.is_final() => self.ends.tell(id, end),
            Some(_) => {}
            None => self.ends.doubt(id),
        }
    }

    /// Be told when a workflow ends here, for as long as the place is held.
    pub(crate) fn enlist(&self, id: &Id) -> Arc<Place> {
        self.ends.enlist(id)
    }
}
