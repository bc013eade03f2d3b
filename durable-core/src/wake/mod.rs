//! Hints: there may be something to claim, a workflow has ended. Hints only; a poll finds everything anyway.
//!
//! Here they go from one part of a process to another, and are collected for other processes. How those are told is
//! `hints`.

mod ends;
mod outbox;
mod wanted;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::decide::End;
use crate::id::{Id, OwnerId};
use ends::Ends;
pub(crate) use ends::Place;
pub(crate) use outbox::{Outbox, Word};
pub(crate) use wanted::WANTED_AGAIN;
use wanted::Wanted;

/// Delays between the polls that follow a start in the caller's transaction, which commits who knows when.
const QUICK_POLLS_MS: [u64; 8] = [2, 5, 10, 15, 25, 40, 80, 160];

/// Messages that came for workflows of other processes, until the next look; more than that are found by polls.
const MESSAGES_MAX: usize = 10_000;

/// What the callers' side of a process tells the worker's, and the other way round; and what both tell other processes.
#[derive(Default)]
pub(crate) struct Wake {
    due: Notify,
    quick: AtomicU32,
    ends: Arc<Ends>,
    wanted: Wanted,
    /// For other processes, where they are told anything.
    outbox: Option<Outbox>,
    /// The worker's present incarnation.
    owner: Mutex<Option<OwnerId>>,
    stopping: Notify,
    messages: Mutex<HashSet<u64>>,
    messages_came: Notify,
    schedules: Notify,
    /// Some tick of a schedule waits for a workflow to end.
    ticks_wait: AtomicBool,
    /// Some start is held back until a workflow has ended.
    starts_wait: AtomicBool,
    /// A start of this process may be held back that no look has seen yet, because it was made in a transaction of the caller's.
    starts_unseen: AtomicBool,
}

impl Wake {
    /// For a process that tells others, or does not.
    pub(crate) fn new(tells_others: bool) -> Self {
        Self { outbox: tells_others.then(Outbox::default), ..Self::default() }
    }

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
        self.a_tick_may_start(id);
        match end {
            Some(end) if end.status.is_final() => self.ends.tell(id, end),
            Some(_) => return,
            None => self.ends.doubt(id.digest()),
        }
        if self.wanted.take(id.digest(), Instant::now()) {
            self.tell_others(Word::Ended(id.digest()));
        }
    }

    /// Be told when a workflow ends here, for as long as the place is held.
    pub(crate) fn enlist(&self, id: &Id) -> Arc<Place> {
        self.ends.enlist(id)
    }

    /// Tell other processes. It is sent in a moment, with what else there is to tell.
    pub(crate) fn tell_others(&self, word: Word) {
        if let Some(outbox) = &self.outbox {
            outbox.put(word);
        }
    }

    /// What is to be told to other processes, if they are told anything.
    pub(crate) fn outbox(&self) -> Option<&Outbox> {
        self.outbox.as_ref()
    }

    /// A word of another process; `queues` are this one's.
    pub(crate) fn heard(&self, word: &Word, queues: &HashSet<String>) {
        match word {
            Word::Due(of) if queues.contains(of) => self.now(),
            Word::Soon(of) if queues.contains(of) => self.soon(),
            Word::Due(_) | Word::Soon(_) => {}
            Word::Wanted(hash) => self.wanted.add(*hash, Instant::now()),
            Word::Ended(hash) => self.ends.doubt(*hash),
            Word::Stopping(owner) => {
                if *self.owner.lock().unwrap_or_else(PoisonError::into_inner) == Some(OwnerId(*owner)) {
                    self.stopping.notify_one();
                }
            }
            Word::Message(hash) => {
                let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
                if messages.len() < MESSAGES_MAX {
                    messages.insert(*hash);
                    self.messages_came.notify_one();
                }
            }
        }
    }

    /// The worker goes on under this owner id.
    pub(crate) fn owned_by(&self, owner: OwnerId) {
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner) = Some(owner);
    }

    /// A schedule was changed here, or something of it.
    pub(crate) fn look_at_schedules(&self) {
        self.schedules.notify_one();
    }

    /// This has ended, for which a tick of its schedule may be waiting, or a start.
    pub(crate) fn a_tick_may_start(&self, id: &Id) {
        // What a schedule starts is called `name/..`.
        let of_schedule = self.ticks_wait.load(Ordering::Relaxed) && id.as_str().contains('/');
        if of_schedule || self.starts_wait.load(Ordering::Relaxed) {
            self.look_at_schedules();
        }
    }

    /// Whether some start is held back until a workflow has ended, as the last look saw it.
    pub(crate) fn starts_wait(&self, some: bool) {
        self.starts_wait.store(some, Ordering::Relaxed);
    }

    /// Whether some tick waits, as the last look saw it.
    pub(crate) fn ticks_wait(&self, some: bool) {
        self.ticks_wait.store(some, Ordering::Relaxed);
    }

    /// A start may be held back, once a transaction of the caller's commits.
    pub(crate) fn start_is_unseen(&self) {
        self.starts_unseen.store(true, Ordering::Relaxed);
    }

    /// Whether one may be that no look has seen.
    pub(crate) fn some_start_is_unseen(&self) -> bool {
        self.starts_unseen.load(Ordering::Relaxed)
    }

    /// A look has seen those that are held back.
    pub(crate) fn starts_are_seen(&self) {
        self.starts_unseen.store(false, Ordering::Relaxed);
    }

    /// Wait until schedules are to be looked at.
    pub(crate) async fn schedules(&self) {
        self.schedules.notified().await;
    }

    /// Wait until another process has cancelled what runs here, or may have.
    pub(crate) async fn stopping(&self) {
        self.stopping.notified().await;
    }

    /// Wait until messages have come for workflows that may run here: the hashes of their ids.
    pub(crate) async fn messages(&self) -> HashSet<u64> {
        self.messages_came.notified().await;
        std::mem::take(&mut *self.messages.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
