//! Schedules: starting what their ticks start, when they come.
//!
//! Every worker keeps all of them, whatever its queue. It looks which are due and decides (`rule::due`); the statement that acts on
//! one takes that only if the schedule still stands as it was seen, so it does not matter how many do the same. When the next
//! one is due comes with the look for dead workers, so that nobody looks for it where there is none. Starts that are held back
//! have their time in the same way, and the same look (`held`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};

use super::{Engine, cut, held};
use crate::clock::Moves;
use crate::ctx::attempt::far_future;
use crate::error::Error;
use crate::rule::due::{Round, Seen};
use crate::store::link::call;
use crate::store::schedule::{self as store, Looked, Stands, Told};
use crate::wake::Word;

/// Schedules that are acted on in one go.
const LOOK_MAX: i64 = 200;

/// Of them, at the same time: as many as leave a connection to others.
const AT_ONCE: usize = 3;

/// After a look that has failed, for a schedule that somebody else holds, and while something waits for a workflow to end: that
/// one may end elsewhere.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// So that of many workers that have the same time in mind one is first, and the others find it done.
const APART_MS: u64 = 20;

/// Between two looks that something gave cause for: while a tick waits, many workflows may end.
const REST: Duration = Duration::from_millis(20);

impl Engine {
    /// How long the next look at schedules is away, as the last look for dead workers saw it.
    pub(super) fn schedule_in(&self, schedule_in: Option<Duration>) {
        self.next_schedule.send_replace(schedule_in.and_then(after));
    }
}

fn after(away: Duration) -> Option<Instant> {
    Instant::now().checked_add(away)
}

/// Act on schedules when they are due, for ever.
pub(super) async fn keep_schedules(engine: &Arc<Engine>) {
    let mut told = engine.next_schedule.subscribe();
    let mut moves = Moves::watch(engine.plan.factory.connect_options().get_database());
    let (mut next, mut looked_at): (Option<Instant>, _) = (None, Instant::now());
    loop {
        let apart = Duration::from_millis(fastrand::u64(0..=APART_MS));
        let is_time = next.map_or_else(far_future, |next| next + apart);
        tokio::select! {
            // The sender is the engine's.
            _ = told.changed() => {
                next = *told.borrow_and_update();
                continue;
            }
            () = tokio::time::sleep_until(is_time.into()) => {}
            () = engine.plan.wake.schedules() => tokio::time::sleep_until((looked_at + REST).into()).await,
            () = moves.next(), if next.is_some() || engine.plan.wake.some_start_is_unseen() => {}
        }
        looked_at = Instant::now();
        next = round(engine).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "worker could not look at schedules");
            after(AGAIN_AFTER)
        });
    }
}

/// Act on what is due now. When there is something to do again.
async fn round(engine: &Arc<Engine>) -> Result<Option<Instant>, Error> {
    let Looked { mut due, next_in, some_wait, some_held } = call!(engine.writes, "look at schedules", connection =>
        store::schedules_due(connection, &engine.plan.sql, LOOK_MAX))?;
    let looked_at = Instant::now();
    engine.plan.wake.ticks_wait(some_wait);
    // Nearly always there is none, and then nobody asks for them.
    let held_for = if some_held { held::release(engine).await? } else { None };
    let is_full = i64::try_from(due.len()).is_ok_and(|due| due >= LOOK_MAX);
    // Workers that came together do not try the same one at the same time.
    fastrand::shuffle(&mut due);
    let acts = stream::iter(due).map(|seen| act(engine, seen)).buffer_unordered(AT_ONCE);
    let acted: Vec<Option<Duration>> = acts.collect().await;
    let waits = some_wait.then_some(AGAIN_AFTER);
    let full = is_full.then_some(Duration::ZERO);
    let next = acted.into_iter().chain([next_in, waits, full, held_for]).flatten().min();
    Ok(next.and_then(|away| looked_at.checked_add(away)))
}

/// Act on one schedule. How long after it was seen it is to be looked at again, if something is known of that.
async fn act(engine: &Arc<Engine>, seen: Stands) -> Option<Duration> {
    let rule = match &seen.rule {
        Ok(rule) => rule,
        Err(problem) => {
            tracing::error!(schedule = seen.name, problem, "this version cannot read the rule of a schedule");
            return None;
        }
    };
    let Stands { ref name, jitter, catch_up, passed_until, now, .. } = seen;
    let round = match seen.paused_at {
        None => Seen { name, rule, jitter, catch_up, passed_until, now }.round(),
        // Something else waits to be started.
        Some(_) => Round::none(passed_until),
    };
    let named = format!("act on schedule {name}");
    // Sent once: whatever became of a try without an answer, the next look sees it.
    let told = call!(engine.writes, &named, connection =>
        store::tick_schedule(connection, &engine.plan.sql, &seen, &round));
    match told.as_deref() {
        Ok([Told::Busy]) => return Some(AGAIN_AFTER),
        Ok([Told::Changed]) => return Some(Duration::ZERO),
        Ok(told) => tell(engine, &seen, told),
        Err(error) => {
            tracing::warn!(%error, "worker could not act on a schedule");
            return Some(AGAIN_AFTER);
        }
    }
    if round.missed > 0 {
        tracing::warn!(schedule = name, missed = round.missed, "ticks of a schedule were missed");
    }
    // Only what has passed its time while this was done is negative.
    round.next.map(|(_, act_at)| (act_at - now).to_std().unwrap_or_default())
}

/// Tell those whom it concerns what came of it.
fn tell(engine: &Arc<Engine>, seen: &Stands, told: &[Told]) {
    let schedule = &seen.name;
    let wake = &engine.plan.wake;
    for told in told {
        match told {
            Told::Started { id, queue } => {
                tracing::debug!(schedule, %id, "a tick has started a workflow");
                wake.now();
                if !engine.takes(queue, Some((&seen.workflow, seen.version))) {
                    wake.tell_others(Word::Due(queue.clone()));
                }
            }
            Told::Skipped { id } => {
                tracing::info!(schedule, open = %id, "a tick was skipped, because the workflow of one before has not ended");
            }
            Told::Taken { id } => {
                tracing::error!(schedule, %id, "a tick starts nothing, because its id is that of another workflow");
            }
            Told::Cut(cut) => cut::tell(wake, Some(engine), std::slice::from_ref(cut)),
            Told::Existed { id } => tracing::debug!(schedule, %id, "the workflow of a tick was there already"),
            Told::Waits | Told::Refused { .. } | Told::Busy | Told::Changed => {}
        }
    }
}
