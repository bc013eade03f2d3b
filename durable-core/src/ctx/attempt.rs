//! One attempt to run a body: what its leaves (steps, sleeps, receives) and the executor share.
//!
//! Nothing here touches the database: leaves leave orders with `Hands`, which the worker implements.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{oneshot, watch};

use super::recall::{ReadOrder, Recall, Recalled};
use crate::decide::Stop;
use crate::history::{FailedAttempt, History, Kind, Mismatch, Page, Record, StoredWait, WaitKind};
use crate::id::{Id, Position};
use crate::retry::Retry;
use crate::step::{Arguments, StepBody};
use crate::store::claim::Claimed;
use crate::store::settle::WaitRow;
use crate::store::step::StepRow;

/// What the context asks of the worker.
pub(crate) trait Hands: Send + Sync {
    /// Run a step, on a task of the worker's own, and answer.
    fn run_step(&self, order: StepOrder);
    /// Look into the mailbox, and answer.
    fn receive(&self, order: ReceiveOrder);
    /// Read a part of the history, and give it to the attempt.
    fn read(&self, order: ReadOrder);
}

/// A step to be run.
pub(crate) struct StepOrder {
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) position: Position,
    pub(crate) name: &'static str,
    pub(crate) arguments: Arc<Mutex<Box<dyn Arguments>>>,
    pub(crate) body: StepBody,
    pub(crate) retry: Retry,
    pub(crate) timeout: Option<Duration>,
    /// Attempts that failed before this order.
    pub(crate) past: Vec<FailedAttempt>,
    /// Closed by the leaf when nobody wants the answer any more.
    pub(crate) reply: oneshot::Sender<Driven>,
    /// Held until the order was carried out or given up.
    pub(crate) _open: OpenOrder,
}

/// Counts an order as open while it lives.
pub(crate) struct OpenOrder(Arc<Attempt>);

impl OpenOrder {
    pub(crate) fn new(attempt: &Arc<Attempt>) -> Self {
        attempt.orders.send_modify(|open| *open += 1);
        Self(attempt.clone())
    }
}

impl Drop for OpenOrder {
    fn drop(&mut self) {
        self.0.orders.send_modify(|open| *open -= 1);
    }
}

/// What running a step came to.
pub(crate) enum Driven {
    Recorded(Record),
    /// The next attempt is far enough away to suspend the workflow meanwhile.
    Later {
        after: Duration,
        past: Vec<FailedAttempt>,
    },
}

/// A mailbox to be looked into.
pub(crate) struct ReceiveOrder {
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) position: Position,
    pub(crate) topic: &'static str,
    /// Record that the wait is over, if there is no message.
    pub(crate) over: bool,
    pub(crate) took: Duration,
    pub(crate) reply: oneshot::Sender<Looked>,
}

/// What a look into the mailbox came to.
pub(crate) struct Looked {
    pub(crate) wakes: i64,
    pub(crate) record: Option<Record>,
}

/// What a position was answered with.
pub(crate) enum Asked {
    Recorded(Record),
    Begin,
    /// The history is read on first; then the leaf is woken.
    Later,
    Stopped,
}

/// Something that a leaf waits for and that may outlive the future.
pub(crate) struct Waiting {
    pub(crate) kind: WaitKind,
    pub(crate) topic: Option<&'static str>,
    pub(crate) attempts: Option<String>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) until: Option<DateTime<Utc>>,
    /// For a receive: the count of wakes that its last look into the mailbox saw.
    pub(crate) seen: Option<i64>,
    pub(crate) waker: Waker,
}

/// What the executor should do about a body that is pending.
pub(crate) enum Idle {
    /// Poll it again when something wakes it.
    Busy,
    /// Write its waits down, but keep it: other work of it goes on.
    Note(Vec<WaitRow>),
    /// Everything it waits for is durable: suspend it, if nothing woke it after this count.
    Suspend(Vec<WaitRow>, i64),
    /// It waits for something that is not the context's.
    Foreign,
}

/// What the leaves and the executor of one attempt share.
pub(crate) struct Attempt {
    pub(crate) id: Id,
    pub(crate) workflow: String,
    /// Which claim of the workflow this is.
    pub(crate) claims: i32,
    pub(crate) created_at: DateTime<Utc>,
    /// Weak, because the worker holds the attempt: a strong one would keep both, and the lease, for ever when
    /// the runtime is dropped in the middle.
    hands: Weak<dyn Hands>,
    short_wait: Duration,
    /// The database's time at a time of this process.
    clock: (DateTime<Utc>, Instant),
    /// Steps that were ordered and whose orders are still open, also those that no leaf waits for.
    orders: watch::Sender<usize>,
    inner: Mutex<Inner>,
}

struct Inner {
    recall: Recall,
    stored: HashMap<Position, StoredWait>,
    waits: BTreeMap<Position, Waiting>,
    noted: Vec<Position>,
    in_flight: usize,
    kept: Vec<StepRow>,
    stop: Option<Stop>,
    /// A write is under way that gives the workflow up.
    leaving: bool,
    /// The workflow's count of wakes as the database last told it.
    wakes: i64,
    /// Grows whenever there may be mail; a receive that saw less looks again.
    mail: u64,
    executor: Option<Waker>,
}

impl Attempt {
    pub(crate) fn new(claimed: &Claimed, history: History, hands: Weak<dyn Hands>, short_wait: Duration) -> Self {
        let stored = claimed
            .waits
            .iter()
            .map(|wait| (Position { lane: wait.lane.as_str().into(), seq: wait.seq }, wait.clone()))
            .collect();
        Self {
            id: claimed.id.clone(),
            workflow: claimed.name.clone(),
            claims: claimed.claims,
            created_at: claimed.created_at,
            hands,
            short_wait,
            clock: (claimed.now, claimed.seen_at),
            orders: watch::Sender::new(0),
            inner: Mutex::new(Inner {
                recall: Recall::new(history),
                stored,
                waits: BTreeMap::new(),
                noted: Vec::new(),
                in_flight: 0,
                kept: Vec::new(),
                stop: None,
                leaving: false,
                wakes: claimed.wakes,
                mail: u64::from(claimed.wakes > 0),
                executor: None,
            }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // What leaves use.

    /// The worker; `None` while it is being torn down, and an order would never be answered anyway.
    pub(crate) fn hands(&self) -> Option<Arc<dyn Hands>> {
        self.hands.upgrade()
    }

    /// What stands at a position. A mismatch stops the attempt.
    pub(crate) fn ask(&self, at: &Position, kind: Kind, name: &str, waker: &Waker) -> Asked {
        let mut inner = self.inner();
        if inner.stop.is_some() {
            return Asked::Stopped;
        }
        match inner.recall.ask(at, kind, name, waker) {
            Ok(Recalled::Recorded(record)) => Asked::Recorded(record),
            Ok(Recalled::Nothing) => Asked::Begin,
            Ok(Recalled::Later) => Asked::Later,
            Err(mismatch) => {
                inner.stop(Stop::Mismatch(mismatch));
                Asked::Stopped
            }
        }
    }

    /// Whether a branch may be opened at a position: not where something else is recorded, and not before that
    /// is known.
    pub(crate) fn ask_branch(&self, at: &Position, waker: &Waker) -> bool {
        let mut inner = self.inner();
        if inner.stop.is_some() {
            return false;
        }
        inner.recall.ask_branch(at, waker).unwrap_or_else(|mismatch| {
            inner.stop(Stop::Mismatch(mismatch));
            false
        })
    }

    /// The wait that an earlier attempt wrote down for a position.
    pub(crate) fn stored_wait(&self, at: &Position) -> Option<StoredWait> {
        self.inner().stored.get(at).cloned()
    }

    pub(crate) fn begin_flight(&self) {
        self.inner().in_flight += 1;
    }

    pub(crate) fn end_flight(&self) {
        self.inner().in_flight -= 1;
    }

    pub(crate) fn wait(&self, at: &Position, waiting: Waiting) {
        self.inner().waits.insert(at.clone(), waiting);
    }

    pub(crate) fn end_wait(&self, at: &Position) {
        self.inner().waits.remove(at);
    }

    /// Let a record ride along with the workflow's next write.
    pub(crate) fn keep(&self, row: StepRow) {
        self.inner().kept.push(row);
    }

    /// The workflow's count of wakes as the database last told it, and the present mark of the mail.
    pub(crate) fn mail(&self) -> (i64, u64) {
        let inner = self.inner();
        (inner.wakes, inner.mail)
    }

    /// The database told the count of wakes.
    pub(crate) fn saw(&self, wakes: i64) {
        let mut inner = self.inner();
        inner.wakes = inner.wakes.max(wakes);
    }

    /// When a time of the database comes, on this process's clock: never earlier.
    pub(crate) fn instant_of(&self, until: DateTime<Utc>) -> Instant {
        let (now, seen_at) = self.clock;
        (until - now).to_std().map_or(seen_at, |ahead| seen_at.checked_add(ahead).unwrap_or_else(far_future))
    }

    /// The database's time, about: for what people read, not for what the engine decides.
    pub(crate) fn about_now(&self) -> DateTime<Utc> {
        let (now, seen_at) = self.clock;
        now + TimeDelta::from_std(seen_at.elapsed()).unwrap_or_default()
    }

    /// Whether a wait of this length keeps the future in memory.
    pub(crate) fn is_short(&self, wait: Duration) -> bool {
        wait < self.short_wait
    }

    // What the worker uses.

    /// Stop the attempt from outside. The first reason stands.
    pub(crate) fn stop(&self, reason: Stop) {
        self.inner().stop(reason);
    }

    pub(crate) fn stopped(&self) -> Option<Stop> {
        self.inner().stop.clone()
    }

    /// A write that gives the workflow up begins, or has failed to. Until it has, the workflow may be claimed
    /// anew before the attempt is forgotten here.
    pub(crate) fn set_leaving(&self, leaving: bool) {
        self.inner().leaving = leaving;
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.inner().leaving
    }

    /// Wait until no order is open.
    pub(crate) async fn orders_closed(&self) {
        // The sender is here, so that there is always an answer.
        drop(self.orders.subscribe().wait_for(|open| *open == 0).await);
    }

    /// There may be mail: let the receives look again.
    pub(crate) fn poke(&self) {
        let mut inner = self.inner();
        inner.mail += 1;
        for wait in inner.waits.values().filter(|w| w.kind == WaitKind::Receive) {
            wait.waker.wake_by_ref();
        }
    }

    /// The records that ride along with the next write. They stay until `forget`: a crash between two
    /// writes must not lose them, and writing one twice does nothing.
    pub(crate) fn kept(&self) -> Vec<StepRow> {
        self.inner().kept.clone()
    }

    /// These are written.
    pub(crate) fn forget(&self, written: &[StepRow]) {
        self.inner().kept.retain(|row| !written.iter().any(|w| w.position == row.position));
    }

    /// What the executor should do, now that the body is pending.
    pub(crate) fn idle(self: &Arc<Self>, executor: &Waker) -> Idle {
        let mut inner = self.inner();
        inner.executor = Some(executor.clone());
        if inner.recall.is_wanted() {
            let from = inner.recall.begin_reading();
            drop(inner);
            if let (Some(from), Some(hands)) = (from, self.hands()) {
                hands.read(ReadOrder { attempt: self.clone(), from });
            }
            return Idle::Busy;
        }
        let now = Instant::now();
        let long = inner.waits.values().all(|w| w.deadline.is_none_or(|at| !self.is_short(at - now.min(at))));
        match (inner.in_flight, inner.waits.is_empty()) {
            (0, true) => Idle::Foreign,
            (0, false) if long => Idle::Suspend(inner.wait_rows(now), inner.seen()),
            (0, false) | (_, true) => Idle::Busy,
            (_, false) => {
                // A timer that runs beside other work must not start over after a crash.
                let unnoted = inner.waits.iter().any(|(at, w)| {
                    w.until.is_none()
                        && w.deadline.is_some_and(|deadline| !self.is_short(deadline - now.min(deadline)))
                        && !inner.noted.contains(at)
                });
                if !unnoted {
                    return Idle::Busy;
                }
                inner.noted = inner.waits.keys().cloned().collect();
                Idle::Note(inner.wait_rows(now))
            }
        }
    }

    /// Whether the body waits for a message, so that somebody has to look now and then.
    pub(crate) fn awaits_message(&self) -> bool {
        self.inner().waits.values().any(|w| w.kind == WaitKind::Receive)
    }

    /// A part of the history was read. Answers where to read on at once, if need be.
    pub(crate) fn read(&self, page: Page) -> Option<Position> {
        let (answered, next) = self.inner().recall.read(page);
        answered.into_iter().for_each(Waker::wake);
        next
    }

    /// Where to read the history on, once the body has returned.
    pub(crate) fn rest(&self) -> Option<Position> {
        self.inner().recall.rest()
    }

    /// What the history has and the body never asked for, as far as it was read.
    pub(crate) fn left_over(&self) -> Result<(), Mismatch> {
        self.inner().recall.left_over()
    }
}

impl Inner {
    fn stop(&mut self, reason: Stop) {
        self.stop.get_or_insert(reason);
        if let Some(executor) = self.executor.take() {
            executor.wake();
        }
    }

    /// The count that nothing may have passed for a suspension to be safe. Of several receives, the one
    /// that looked first decides: a message may have come for it while another one looked.
    fn seen(&self) -> i64 {
        self.waits.values().filter_map(|w| w.seen).min().unwrap_or(self.wakes)
    }

    fn wait_rows(&self, now: Instant) -> Vec<WaitRow> {
        self.waits
            .iter()
            .map(|(at, wait)| WaitRow {
                position: at.clone(),
                kind: wait.kind,
                topic: wait.topic,
                attempts: wait.attempts.clone(),
                until: wait.until,
                after_ms: wait.deadline.map(|deadline| {
                    // Rounded up: a timer may be late by a millisecond, never early.
                    let left = (deadline - now.min(deadline)).as_nanos().div_ceil(1_000_000);
                    i64::try_from(left).unwrap_or(i64::MAX)
                }),
            })
            .collect()
    }
}

/// Further away than anything is allowed to wait.
pub(crate) fn far_future() -> Instant {
    Instant::now() + WAIT_MAX
}

/// The longest wait: a hundred years. Beyond it the database's calendar arithmetic would be the limit.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(100 * 366 * 86_400);
