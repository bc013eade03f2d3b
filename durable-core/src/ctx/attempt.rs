//! One attempt to run a body: what its leaves (steps, sleeps, receives) and the executor share.
//!
//! Nothing here touches the database: leaves leave orders and outcomes here, and the executor, which polls the body,
//! carries the ones out and has the others written.

pub(super) mod patch;
mod since;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use super::child::awaited::Awaited;
use super::looks::Looks;
use super::order::{ChildrenOrder, Order};
use super::recall::{ReadOrder, Recall, Recalled};
use super::strays::{LostChildrenOrder, Strays};
use super::undo::Registered;
use crate::clock::DatabaseClock;
use crate::decide::{Ending, Stop};
use crate::history::{History, Kind, Mismatch, Page, Record, StoredWait, WaitKind};
use crate::id::{Id, Position};
use crate::lines::{Appender, Lines};
use crate::options::millis;
use crate::store::claim::{Claimed, Parent};
use crate::store::commit::WaitRow;
use crate::store::step::StepRow;

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
    /// When it began in this attempt.
    pub(crate) began_at: Instant,
    /// For a receive: the count of wakes that its last look into the mailbox saw.
    pub(crate) seen: Option<i64>,
    pub(crate) waker: Waker,
}

impl Waiting {
    /// Without an end of its own.
    pub(super) fn new(kind: WaitKind, waker: &Waker) -> Self {
        let (began_at, waker) = (Instant::now(), waker.clone());
        Self { kind, topic: None, attempts: None, deadline: None, until: None, began_at, seen: None, waker }
    }
}

/// What the executor should do about a body that is pending.
pub(crate) enum Idle {
    /// Poll it again when something wakes it. If it waits for a message, somebody has to look now and then.
    Busy { awaits_message: bool },
    /// Have the outcomes written that the body has been given, before anything else of it begins.
    Write,
    /// Carry out what it has ordered.
    Begin(Vec<Order>),
    /// Write its waits down, but keep it: other work of it goes on.
    Note(Vec<WaitRow>),
    /// Everything it waits for is durable: suspend it, if nothing woke it after this count.
    Suspend(Vec<WaitRow>, i64),
    /// It waits for something that is not the context's.
    Foreign,
    /// It has come as far as it had come before, and is not to go on.
    Replayed,
}

/// What the leaves and the executor of one attempt share.
pub(crate) struct Attempt {
    pub(crate) id: Id,
    pub(crate) workflow: String,
    /// Which claim of the workflow this is.
    pub(crate) claims: i32,
    /// Where its row stood then, if that is known.
    pub(crate) row_at: Option<Arc<str>>,
    /// What its draws and its first look at the time are made of: its id and when it was started; of a fork, those of the
    /// workflow that its history began with.
    pub(crate) seed: (Id, DateTime<Utc>),
    /// Whom its end wakes, if it is a child.
    pub(crate) parent: Option<Parent>,
    /// Which generation this is: 0 unless it has continued as new.
    pub(crate) generation: i32,
    /// What the body takes for the time at first.
    pub(crate) began_at: DateTime<Utc>,
    /// How it ends, if it was cut off: then the body only comes as far as it had come before.
    pub(crate) ending: Option<Ending>,
    /// The ways to the streams that it writes.
    pub(crate) lines: Arc<Lines>,
    short_wait: Duration,
    /// The database's time when the workflow was claimed, and this process's when the answer had come.
    claimed_at: (DateTime<Utc>, Instant),
    clock: Arc<DatabaseClock>,
    /// Steps that were ordered and whose orders are still open, also those that no leaf waits for.
    open_orders: AtomicUsize,
    orders_closed: Notify,
    is_stopped: AtomicBool,
    inner: Mutex<Inner>,
}

/// What changes.
pub(super) struct Inner {
    pub(super) recall: Recall,
    pub(super) stored: HashMap<Position, StoredWait>,
    pub(super) waits: BTreeMap<Position, Waiting>,
    pub(super) noted: Vec<Position>,
    pub(super) in_flight: usize,
    /// Outcomes that the body has been given and that are not written yet.
    pub(super) unwritten: Vec<StepRow>,
    /// How many of them nothing may begin before: of steps that ran. A sleep's can wait for the next write.
    pub(super) pressing: usize,
    pub(super) ordered: Vec<Order>,
    pub(super) looks: Looks,
    /// Children that losers of races have started.
    pub(super) strays: Strays,
    pub(super) undos: Vec<Registered>,
    /// Nothing new begins.
    pub(super) replays_only: bool,
    pub(super) stop: Option<Stop>,
    /// A write is under way that gives the workflow up.
    pub(super) leaving: bool,
    /// The workflow's count of wakes as the database last told it.
    pub(super) wakes: i64,
    /// Grows whenever there may be mail; a receive that saw less looks again.
    pub(super) mail: u64,
    pub(super) children: Awaited,
    pub(super) executor: Option<Waker>,
}

impl Attempt {
    pub(crate) fn new(
        claimed: &Claimed,
        history: History,
        short_wait: Duration,
        clock: Arc<DatabaseClock>,
        appender: Arc<Appender>,
    ) -> Self {
        clock.hear(claimed.now, claimed.seen_at);
        let stored = claimed
            .waits
            .iter()
            .map(|wait| (Position { lane: wait.lane.as_str().into(), seq: wait.seq }, wait.clone()))
            .collect();
        let generation = claimed.generation.map_or(0, |(generation, _)| generation);
        Self {
            generation,
            id: claimed.id.clone(),
            workflow: claimed.name.clone(),
            claims: claimed.claims,
            row_at: claimed.row_at.clone(),
            seed: claimed.seed.clone().unwrap_or_else(|| (claimed.id.clone(), claimed.created_at)),
            parent: claimed.parent.clone(),
            began_at: match (&claimed.generation, &claimed.seed) {
                (Some((_, began_at)), _) | (None, Some((_, began_at))) => *began_at,
                (None, None) => claimed.created_at,
            },
            ending: claimed.ending.clone(),
            lines: Lines::new(appender, claimed.id.clone(), claimed.claims),
            short_wait,
            claimed_at: (claimed.now, claimed.seen_at),
            clock,
            open_orders: AtomicUsize::new(0),
            orders_closed: Notify::new(),
            is_stopped: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                recall: Recall::new(history.of_generation(generation)),
                stored,
                waits: BTreeMap::new(),
                noted: Vec::new(),
                in_flight: 0,
                unwritten: Vec::new(),
                pressing: 0,
                ordered: Vec::new(),
                looks: Looks::default(),
                strays: Strays::default(),
                undos: Vec::new(),
                replays_only: claimed.ending.is_some(),
                stop: None,
                leaving: false,
                wakes: claimed.wakes,
                mail: u64::from(claimed.wakes > 0),
                children: Awaited::default(),
                executor: None,
            }),
        }
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // What leaves use.

    /// Leave an order. It begins once every outcome that the body was given before is written.
    pub(crate) fn order(&self, order: Order) {
        push(&mut self.inner().ordered, order);
    }

    /// What stands at a position. A mismatch stops the attempt.
    pub(crate) fn ask(&self, at: &Position, kind: Kind, name: &str, waker: &Waker) -> Asked {
        let mut inner = self.inner();
        if inner.stop.is_some() {
            return Asked::Stopped;
        }
        match inner.recall.ask(at, kind, name, waker) {
            Ok(Recalled::Recorded(record)) => Asked::Recorded(record),
            // Nobody wakes it: the body has come to where it was cut off. A race has yet to run its arms to there.
            Ok(Recalled::Nothing) if inner.replays_only && kind != Kind::Race => Asked::Later,
            Ok(Recalled::Nothing) => Asked::Begin,
            Ok(Recalled::Later) => Asked::Later,
            Err(mismatch) => {
                inner.stop(&self.is_stopped, Stop::Mismatch(mismatch));
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
            inner.stop(&self.is_stopped, Stop::Mismatch(mismatch));
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
        self.inner().wait(at, waiting);
    }

    pub(crate) fn end_wait(&self, at: &Position) {
        let mut inner = self.inner();
        inner.waits.remove(at);
        inner.children.end_wait(at);
    }

    /// Let an outcome ride along with the workflow's next write, whenever that is.
    pub(crate) fn write_some_time(&self, row: StepRow) {
        push(&mut self.inner().unwritten, row);
    }

    /// Have an outcome written before anything else begins.
    pub(crate) fn write_first(&self, row: StepRow) {
        let mut inner = self.inner();
        push(&mut inner.unwritten, row);
        inner.pressing += 1;
    }

    /// The workflow's count of wakes as the database last told it, and the present mark of the mail.
    pub(crate) fn mail(&self) -> (i64, u64) {
        let inner = self.inner();
        (inner.wakes, inner.mail)
    }

    /// The database told the count of wakes.
    pub(crate) fn saw(&self, wakes: i64) {
        self.inner().saw(wakes);
    }

    /// When a time of the database comes, on this process's clock: never earlier.
    pub(crate) fn instant_of(&self, until: DateTime<Utc>) -> Instant {
        let (now, seen_at) = self.claimed_at;
        (until - now).to_std().map_or(seen_at, |ahead| seen_at.checked_add(ahead).unwrap_or_else(far_future))
    }

    /// The database's time, about, and not before the claim: for what is written beside an outcome.
    pub(crate) fn about_now(&self) -> DateTime<Utc> {
        self.clock.now().max(self.claimed_at.0)
    }

    /// Whether a wait of this length keeps the future in memory.
    pub(crate) fn is_short(&self, wait: Duration) -> bool {
        wait < self.short_wait
    }

    // What the worker uses.

    /// Stop the attempt from outside. The first reason stands.
    pub(crate) fn stop(&self, reason: Stop) {
        self.inner().stop(&self.is_stopped, reason);
    }

    pub(crate) fn stopped(&self) -> Option<Stop> {
        if self.is_stopped.load(Ordering::Acquire) { self.inner().stop.clone() } else { None }
    }

    /// A write that gives the workflow up begins, or has failed to. Until it has, the workflow may be claimed
    /// anew before the attempt is forgotten here.
    pub(crate) fn set_leaving(&self, leaving: bool) {
        self.inner().leaving = leaving;
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.inner().leaving
    }

    pub(super) fn order_opens(&self) {
        self.open_orders.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn order_closes(&self) {
        if self.open_orders.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.orders_closed.notify_waiters();
        }
    }

    /// Wait until no order is open.
    pub(crate) async fn orders_closed(&self) {
        loop {
            // Made before the look, so that the last one's closing is not missed.
            let closed = self.orders_closed.notified();
            if self.open_orders.load(Ordering::SeqCst) == 0 {
                return;
            }
            closed.await;
        }
    }

    /// There may be mail: let the receives look again.
    pub(crate) fn poke(&self) {
        let mut inner = self.inner();
        inner.mail += 1;
        for wait in inner.waits.values().filter(|w| matches!(w.kind, WaitKind::Receive | WaitKind::Event)) {
            wait.waker.wake_by_ref();
        }
        if inner.children.doubt() {
            inner.executor.iter().for_each(Waker::wake_by_ref);
        }
    }

    /// Take the outcomes that are not written yet, for the one write that takes them along.
    pub(crate) fn take_unwritten(&self) -> Vec<StepRow> {
        let mut inner = self.inner();
        inner.pressing = 0;
        std::mem::take(&mut inner.unwritten)
    }

    /// What the executor should do, now that the body is pending.
    pub(crate) fn idle(self: &Arc<Self>, executor: &Waker) -> Idle {
        let mut inner = self.inner();
        if inner.pressing > 0 {
            return Idle::Write;
        }
        if let Some(from) = inner.recall.begin_reading() {
            inner.ordered.push(Order::Read(ReadOrder { attempt: self.clone(), from }));
        }
        if let Some(awaited) = inner.children.begin_look() {
            inner.in_flight += 1;
            inner.ordered.push(Order::LookAtChildren(ChildrenOrder { attempt: self.clone(), awaited }));
        }
        if let Some(lost) = inner.strays.begin() {
            inner.in_flight += 1;
            inner.ordered.push(Order::CancelLost(LostChildrenOrder { attempt: self.clone(), lost }));
        }
        let begin = inner.let_out();
        if !begin.is_empty() {
            return Idle::Begin(begin);
        }
        if !inner.executor.as_ref().is_some_and(|there| there.will_wake(executor)) {
            inner.executor = Some(executor.clone());
        }
        if inner.recall.is_wanted() || !inner.strays.is_empty() {
            return inner.busy();
        }
        if inner.replays_only {
            return Idle::Replayed;
        }
        if inner.waits.is_empty() {
            return if inner.in_flight == 0 { Idle::Foreign } else { Idle::Busy { awaits_message: false } };
        }
        let now = Instant::now();
        let long = inner.waits.values().all(|w| w.deadline.is_none_or(|at| !self.is_short(at - now.min(at))));
        match inner.in_flight {
            0 if long => Idle::Suspend(inner.wait_rows(now), inner.seen()),
            0 => inner.busy(),
            _ => {
                // A timer that runs beside other work must not start over after a crash.
                let unnoted = inner.waits.iter().any(|(at, w)| {
                    w.until.is_none()
                        && w.deadline.is_some_and(|deadline| !self.is_short(deadline - now.min(deadline)))
                        && !inner.noted.contains(at)
                });
                if !unnoted {
                    return inner.busy();
                }
                inner.noted = inner.waits.keys().cloned().collect();
                Idle::Note(inner.wait_rows(now))
            }
        }
    }

    /// A part of the history was read. Answers where to read on at once, if need be.
    pub(crate) fn read(&self, page: Page) -> Option<Position> {
        let mut inner = self.inner();
        let (answered, next) = inner.recall.read(page);
        inner.lose_children_of_losers();
        let executor = inner.executor.clone();
        drop(inner);
        answered.into_iter().for_each(Waker::wake);
        // Also when nobody was answered: others may want another part, and the executor is who orders it.
        executor.inspect(Waker::wake_by_ref);
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
    pub(super) fn stop(&mut self, is_stopped: &AtomicBool, reason: Stop) {
        self.stop.get_or_insert(reason);
        is_stopped.store(true, Ordering::Release);
        if let Some(executor) = self.executor.take() {
            executor.wake();
        }
    }

    fn busy(&self) -> Idle {
        let wakes_it = |kind| matches!(kind, WaitKind::Receive | WaitKind::Child | WaitKind::Event);
        Idle::Busy { awaits_message: self.waits.values().any(|w| wakes_it(w.kind)) }
    }

    /// The count that nothing may have passed for a suspension to be safe. Of several receives, the one
    /// that looked first decides: a message may have come for it while another one looked.
    fn seen(&self) -> i64 {
        let children = self.children.seen();
        self.waits.values().filter_map(|w| w.seen).chain(children).min().unwrap_or(self.wakes)
    }

    /// The database told the count of wakes. Where it has grown, there may be mail for a receive that has not begun yet.
    pub(super) fn saw(&mut self, wakes: i64) {
        if wakes > self.wakes {
            self.wakes = wakes;
            self.mail = self.mail.max(1);
        }
    }

    fn wait_rows(&self, now: Instant) -> Vec<WaitRow> {
        // One child says all there is to say: of a thousand, the others would only make the row large. A deadline is the same
        // for all of them, about.
        let children = self.waits.iter().filter(|(_, wait)| wait.kind == WaitKind::Child);
        let child = children.min_by_key(|(_, wait)| wait.deadline.is_none()).map(|(at, _)| at);
        self.waits
            .iter()
            .filter(|(at, wait)| wait.kind != WaitKind::Child || Some(*at) == child)
            .map(|(at, wait)| WaitRow {
                position: at.clone(),
                kind: wait.kind,
                topic: wait.topic,
                attempts: wait.attempts.clone(),
                until: wait.until,
                since: self.stored_since(at, wait.kind),
                for_ms: millis(now.saturating_duration_since(wait.began_at)),
                after_ms: wait.deadline.map(|deadline| {
                    // Rounded up: a timer may be late by a millisecond, never early.
                    let left = (deadline - now.min(deadline)).as_nanos().div_ceil(1_000_000);
                    i64::try_from(left).unwrap_or(i64::MAX)
                }),
            })
            .collect()
    }
}

/// Usually it is the only one, for which a vector would make room for four.
pub(super) fn push<T>(to: &mut Vec<T>, one: T) {
    if to.is_empty() {
        to.reserve_exact(1);
    }
    to.push(one);
}

/// Further away than anything is allowed to wait.
pub(crate) fn far_future() -> Instant {
    Instant::now() + WAIT_MAX
}

/// The longest wait: a hundred years. Beyond it the database's calendar arithmetic would be the limit.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(100 * 366 * 86_400);
