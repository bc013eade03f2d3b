//! Keeping to limits around steps: who waits here for a call to begin, and asking the database for all of them together.
//!
//! There is a broker for each limit that a step of this worker has asked for, and a task of it only while somebody waits, or while
//! the database does not know what runs. One statement is under way for each at a time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::Engine;
use crate::store::limit::{Asking, Granted, Turns, ask_limit};
use crate::store::link::{Backoff, call};

/// Those of a limit whose turn has come who wait in memory. The others are suspended again: turns are only as good as what is known of
/// how long calls take. Where there is only a rate, it is known who can begin soon: they come in crowds, one with each poll.
const IN_MEMORY_MAX: usize = 64;

/// For how long they are at least.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// How long a task of a broker looks at nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What somebody who waits hears.
pub(super) enum Came {
    Begin(Permit),
    /// Its turn is so far away.
    Later(Duration),
    Undeclared,
}

/// The limits of one incarnation.
#[derive(Default)]
pub(super) struct Limits(Mutex<HashMap<&'static str, Arc<Broker>>>);

struct Broker {
    name: &'static str,
    engine: Weak<Engine>,
    runtime: tokio::runtime::Handle,
    short_wait: Duration,
    kick: Notify,
    state: Mutex<State>,
}

type Waiter = oneshot::Sender<Came>;

#[derive(Default)]
struct State {
    /// Who has no turn yet, as they came.
    newcomers: VecDeque<Waiter>,
    /// Who has, by turn.
    line: BTreeMap<(Instant, u64), Waiter>,
    arrived: u64,
    /// Calls that run.
    held: usize,
    /// How many of them the database knows of, as far as is known here.
    reported: Option<usize>,
    /// Whether it wants to know.
    counts: bool,
    askings: i64,
    /// About how long calls have taken, since this was last told.
    took_ms: Option<f64>,
    again_at: Option<Instant>,
    /// Whether a task is at work.
    is_kept: bool,
}

/// A call that runs. Dropped when it has ended, however it did.
pub(super) struct Permit {
    broker: Arc<Broker>,
    began: Instant,
}

/// What to do next.
enum Next {
    Ask { asking: Asking, due: usize },
    Wait(Duration),
    Rest,
}

impl Limits {
    /// Wait in a limit's line, from the end, or from a turn that was given earlier. An error when the incarnation is over.
    pub(super) fn ask(
        &self,
        engine: &Arc<Engine>,
        name: &'static str,
        turn: Option<Instant>,
    ) -> oneshot::Receiver<Came> {
        let mut brokers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let broker = brokers.entry(name).or_insert_with(|| {
            Arc::new(Broker {
                name,
                engine: Arc::downgrade(engine),
                runtime: engine.runtime.clone(),
                short_wait: engine.plan.settings.short_wait,
                kick: Notify::new(),
                state: Mutex::new(State { counts: true, reported: Some(0), ..State::default() }),
            })
        });
        let (waiter, came) = oneshot::channel();
        broker.change(|state| match turn {
            Some(turn) => {
                state.arrived += 1;
                state.line.insert((turn, state.arrived), waiter);
                state.again_at = None;
            }
            None => state.newcomers.push_back(waiter),
        });
        came
    }
}

impl Broker {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Change something, and have somebody look at it.
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        if std::mem::replace(&mut state.is_kept, true) {
            self.kick.notify_one();
        } else if let Some(engine) = self.engine.upgrade() {
            self.runtime.spawn(keep(self.clone(), engine));
        }
    }

    /// Do with an answer what it says; whoever hears of it hears after the lock is gone, because permits take it when they are dropped.
    fn share_out(self: &Arc<Self>, asking: Asking, due: usize, turns: Turns) {
        let mut heard: Vec<(Waiter, Came)> = Vec::new();
        let mut state = self.state();
        let now = Instant::now();
        let count = |n: i32| usize::try_from(n).unwrap_or_default();
        let granted = count(turns.booked) + count(turns.newcomers);
        let keys: Vec<_> = state.line.keys().take(due).copied().collect();
        let mut line: VecDeque<_> = keys.iter().filter_map(|key| Some((*key, state.line.remove(key)?))).collect();
        let asked = count(asking.newcomers).min(state.newcomers.len());
        let mut newcomers: VecDeque<Waiter> = state.newcomers.drain(..asked).collect();

        // Whoever does not want it any more leaves it to the next one.
        let mut left = granted;
        while left > 0 {
            let Some(next) = line.pop_front().map(|(_, next)| next).or_else(|| newcomers.pop_front()) else { break };
            if !next.is_closed() {
                left -= 1;
                heard.push((next, Came::Begin(Permit { broker: self.clone(), began: now })));
            }
        }
        state.held += granted - left;
        state.reported = Some(count(asking.held) + granted);
        state.counts = turns.counts;
        // It may be changed meanwhile.
        state.again_at = Some(now + millis(turns.again_in).min(LOOK_EVERY));
        state.took_ms = None;

        let is_far = millis(turns.again_in) > LOOK_EVERY.max(self.short_wait);
        for (n, (key, waiter)) in line.into_iter().enumerate() {
            let is_soon = !turns.counts && millis(turns.spacing * as_f64(n)) < self.short_wait;
            if (n < IN_MEMORY_MAX || is_soon) && !is_far {
                state.line.insert(key, waiter);
            } else {
                let after = millis(turns.again_in.max(turns.spacing * as_f64(n))).max(AGAIN_AFTER);
                heard.push((waiter, Came::Later(after)));
            }
        }
        for (n, waiter) in newcomers.into_iter().enumerate() {
            let after = millis(turns.turn_in + turns.spacing * as_f64(n));
            if after < self.short_wait {
                state.arrived += 1;
                let key = (now + after, state.arrived);
                state.line.insert(key, waiter);
            } else {
                heard.push((waiter, Came::Later(after)));
            }
        }
        drop(state);
        for (waiter, came) in heard {
            // A permit that nobody takes ends here.
            drop(waiter.send(came));
        }
    }

    /// Tell everyone who waits; by nothing, if there is nothing to say any more.
    fn tell_all(&self, came: impl Fn() -> Option<Came>) {
        let mut state = self.state();
        state.is_kept = false;
        let newcomers = std::mem::take(&mut state.newcomers);
        let line = std::mem::take(&mut state.line);
        drop(state);
        for waiter in newcomers.into_iter().chain(line.into_values()) {
            if let Some(came) = came() {
                drop(waiter.send(came));
            }
        }
    }
}

impl State {
    fn next(&mut self) -> Next {
        let now = Instant::now();
        self.newcomers.retain(|waiter| !waiter.is_closed());
        self.line.retain(|_, waiter| !waiter.is_closed());
        let due = self.line.range(..=(now, u64::MAX)).count();
        let may_ask_again = self.again_at.is_none_or(|at| at <= now);
        if !self.newcomers.is_empty() || (due > 0 && may_ask_again) || (self.counts && self.reported != Some(self.held))
        {
            self.askings += 1;
            let first = self.line.keys().next().filter(|_| due > 0).map(|(turn, _)| now.duration_since(*turn));
            let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
            let asking = Asking {
                n: self.askings,
                held: count(self.held),
                booked: count(due),
                booked_for_ms: first.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
                newcomers: count(self.newcomers.len()),
                took_ms: self.took_ms,
            };
            return Next::Ask { asking, due };
        }
        match self.line.keys().next() {
            Some((turn, _)) => {
                let at = self.again_at.map_or(*turn, |again| again.max(*turn));
                Next::Wait(at.saturating_duration_since(now).min(LOOK_EVERY))
            }
            None => {
                self.is_kept = false;
                Next::Rest
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let took = self.began.elapsed().as_secs_f64() * 1_000.0;
        let broker = self.broker.clone();
        let mut state = broker.state();
        state.held -= 1;
        state.took_ms = Some(state.took_ms.map_or(took, |before| before * 0.8 + took * 0.2));
        state.again_at = None;
        let has_work = state.counts || !state.line.is_empty() || !state.newcomers.is_empty();
        drop(state);
        if has_work {
            broker.change(|_| {});
        }
    }
}

/// Ask for those who wait, until nobody does and the database knows what runs.
async fn keep(broker: Arc<Broker>, engine: Arc<Engine>) {
    let mut backoff = Backoff::for_worker();
    while !engine.lease.ended() {
        let next = broker.state().next();
        let (asking, due) = match next {
            Next::Ask { asking, due } => (asking, due),
            Next::Wait(wait) => {
                tokio::select! {
                    () = broker.kick.notified() => {}
                    () = tokio::time::sleep(wait) => {}
                }
                continue;
            }
            Next::Rest => return,
        };
        let whose = (broker.name, engine.owner);
        match call!(engine.writes, "ask a limit", connection => ask_limit(connection, &engine.plan.sql, whose, asking))
        {
            Ok(Granted::Some(turns)) => {
                backoff = Backoff::for_worker();
                broker.share_out(asking, due, turns);
            }
            // An asking that was given up has been late. What it gave is taken back by the next one.
            Ok(Granted::Stale) => broker.state().reported = None,
            Ok(Granted::Undeclared) => {
                let mut state = broker.state();
                state.reported = Some(state.held);
                drop(state);
                tracing::error!(
                    limit = broker.name,
                    "nobody has declared this limit, so workflows that come to a step with it are blocked: declare it with \
                     Builder::limit, or set it with Durable::set_limit, and resume them"
                );
                return broker.tell_all(|| Some(Came::Undeclared));
            }
            Ok(Granted::Fenced) => break,
            // It may have been carried out, and then the database counts calls that do not run.
            Err(error) if backoff.again(&error).await => broker.state().reported = None,
            Err(error) => {
                broker.state().reported = None;
                tracing::error!(limit = broker.name, %error, "could not ask a limit");
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
    broker.tell_all(|| None);
}

fn millis(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1_000.0).unwrap_or(Duration::from_secs(3_600))
}

#[expect(clippy::cast_precision_loss, reason = "places in a line are small")]
fn as_f64(n: usize) -> f64 {
    n as f64
}
