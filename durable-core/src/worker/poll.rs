//! The loops of a worker: claim what is due, take over from workers that died, stop what was cancelled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::{Engine, Plan};
use crate::decide::Stop;
use crate::error::Error;
use crate::id::Id;
use crate::store::claim::{self as store, Claimed, Reached, Taken};
use crate::store::lease;
use crate::store::link::{Backoff, call};

/// Workflows in one claim. Bounded so that one statement stays a matter of milliseconds.
const CLAIM_MAX: usize = 500;

/// How long a claim waits for more room, when there is more to claim than there was room for.
const GATHER_WITHIN: Duration = Duration::from_millis(10);

/// Claim and run due workflows, for ever. Ends only with its incarnation.
pub(super) async fn poll(engine: &Arc<Engine>) {
    let plan = &engine.plan;
    let sweep_every = plan.settings.lease;
    let mut swept_at = Instant::now();
    let (mut more, mut looks) = (false, Looks::default());
    loop {
        if swept_at.elapsed() >= sweep_every {
            sweep(engine).await;
            swept_at = Instant::now();
        }
        // A worker without room asks for nothing.
        let room = tokio::time::timeout(sweep_every, plan.slots.clone().acquire_owned()).await;
        let Ok(first) = room.map(|slot| slot.expect("the slots are never closed")) else { continue };
        if !engine.lease.may_begin().await {
            return engine.lease.lost().await;
        }
        let claimed = claim(engine, first, more, &mut looks).await;
        more = matches!(claimed, Ok(true));
        match claimed {
            Ok(true) => {}
            Ok(false) => plan.wake.wait(plan.settings.poll_every).await,
            Err(error) => {
                tracing::warn!(%error, "worker could not claim");
                let pause = plan.settings.poll_every.mul_f64(0.5 + fastrand::f64());
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Claim as many workflows as there is room for, and run them. Whether there may be more.
async fn claim(
    engine: &Arc<Engine>,
    first: OwnedSemaphorePermit,
    more: bool,
    looks: &mut Looks,
) -> Result<bool, Error> {
    let plan = &engine.plan;
    let slots = gather(plan, first, more).await;
    let limit = slots.len();
    let sources = plan.sources();
    let (from, began_at) = (looks.from(), Instant::now());
    let Taken { claimed, more, reached } = call!(engine.claims, "claim workflows", connection => store::claim(
        connection, &plan.sql, engine.owner, &sources, i64::try_from(limit).unwrap_or(1), from.unwrap_or_default()))?;
    looks.looked(from.is_none(), began_at.elapsed(), claimed.len(), more.then_some(reached));
    let running = engine.local.claimed(claimed.iter().map(|c| (&c.id, c.claims)));
    if !running.is_empty() {
        running.iter().for_each(|attempt| attempt.stop(Stop::Lost));
        tracing::error!(owner = %engine.owner, "the server lost claims in a crash; the worker begins again");
        engine.lease.give_up();
        return Ok(false);
    }
    let engine = engine.clone();
    if !claimed.is_empty() {
        // On a task of its own, so that long histories do not hold up the next claim.
        tokio::spawn(async move { begin(&engine, claimed, slots).await });
    }
    Ok(more)
}

/// From where to look for workflows: from the beginning, unless that has become slow.
///
/// What was claimed stays in the indexes, ahead of what is due, for as long as the oldest snapshot of the whole server sees it: a
/// report or a backup of ten minutes leaves what was claimed in that time, and each look would pass by all of it. So after a slow
/// look from the beginning the next ones begin where it got to. What is due before that place, because it is of a higher
/// priority or has come back from a worker that died, is found by the next look from the beginning: they are made
/// often enough that the slow ones are a small part of the time.
#[derive(Default)]
struct Looks {
    reached: Option<Reached>,
    /// When the next look is to be from the beginning.
    whole_at: Option<Instant>,
}

/// A look from the beginning that takes longer than this is slow; and so much longer for each workflow that it has claimed.
const SLOW_FROM: Duration = Duration::from_millis(4);
const SLOW_FROM_PER_CLAIM: Duration = Duration::from_micros(60);

/// The time until the next look from the beginning, in times of what a slow one took; and the longest.
const WHOLE_AFTER: u32 = 20;
const WHOLE_AFTER_MAX: Duration = Duration::from_secs(1);

impl Looks {
    fn from(&self) -> Option<Reached> {
        self.reached.filter(|_| self.whole_at.is_some_and(|at| Instant::now() < at))
    }

    /// A look took so long and got there; or there is nothing more to be found from there on.
    fn looked(&mut self, whole: bool, took: Duration, claimed: usize, reached: Option<Reached>) {
        self.reached = reached;
        if whole {
            let claimed = u32::try_from(claimed).unwrap_or(u32::MAX);
            let is_slow = took > SLOW_FROM + SLOW_FROM_PER_CLAIM * claimed;
            let pause = (took * WHOLE_AFTER).min(WHOLE_AFTER_MAX);
            self.whole_at = is_slow.then(|| Instant::now() + pause);
        }
    }
}

/// All the room there is, within the bound of a claim. When the last claim has left `more` behind, workflows end all the
/// time, and for each a claim of its own would cost far more than it is worth: then some room comes together first.
async fn gather(plan: &Plan, first: OwnedSemaphorePermit, more: bool) -> Vec<OwnedSemaphorePermit> {
    let mut slots = vec![first];
    let together = u32::try_from(plan.settings.concurrency.div_ceil(4).min(CLAIM_MAX / 2) - 1).unwrap_or_default();
    if more
        && together > 0
        && let Ok(Ok(mut gathered)) =
            tokio::time::timeout(GATHER_WITHIN, plan.slots.clone().acquire_many_owned(together)).await
    {
        slots.extend(std::iter::from_fn(|| gathered.split(1)));
    }
    while slots.len() < CLAIM_MAX
        && let Ok(slot) = plan.slots.clone().try_acquire_owned()
    {
        slots.push(slot);
    }
    slots
}

/// Find workflows that this worker owns without knowing it, because the reply to a claim or a start was lost, and
/// give them back. It is part of the claiming loop, so that no claim is under way meanwhile.
async fn sweep(engine: &Arc<Engine>) {
    let plan = &engine.plan;
    let owned = call!(engine.claims, "look at what this worker owns", connection =>
        lease::owned(connection, &plan.sql, engine.owner));
    let stranded = match owned {
        Ok(owned) => engine.local.stranded(owned),
        Err(error) => return tracing::warn!(%error, "worker could not look at what it owns"),
    };
    if stranded.is_empty() {
        return;
    }
    tracing::warn!(count = stranded.len(), "workflows whose claim or start was not answered are given back");
    let let_go = call!(engine.claims, "give workflows back", connection =>
        lease::let_go(connection, &plan.sql, engine.owner, &stranded));
    if let Err(error) = let_go {
        tracing::warn!(%error, "worker could not give workflows back");
    }
}

/// Load the histories of those that ran before, in one statement, and run them all.
async fn begin(engine: &Arc<Engine>, claimed: Vec<Claimed>, slots: Vec<OwnedSemaphorePermit>) {
    let known: Vec<&Id> = claimed.iter().filter(|c| c.has_history()).map(|c| &c.id).collect();
    let mut histories = Vec::new();
    if !known.is_empty() {
        let mut backoff = Backoff::for_worker();
        histories = loop {
            if engine.lease.ended() {
                return;
            }
            match call!(engine.writes, "load histories", connection =>
                store::histories(connection, &engine.plan.sql, &known))
            {
                Err(error) if backoff.again(&error).await => {}
                Ok(histories) => break histories,
                Err(error) => return refuse(engine, &claimed, &error).await,
            }
        };
    }
    let mut histories = histories.into_iter();
    for (claimed, slot) in claimed.into_iter().zip(slots) {
        let known = claimed.has_history().then(|| histories.next()).flatten();
        engine.clone().adopt(claimed, known.unwrap_or_default(), slot);
    }
}

/// A batch whose histories cannot be read here goes back, one by one.
async fn refuse(engine: &Arc<Engine>, claimed: &[Claimed], error: &Error) {
    tracing::error!(%error, count = claimed.len(), "histories cannot be read; the workflows are given back");
    for claimed in claimed {
        engine.release(&claimed.id, claimed.claims, &error.to_string()).await;
        engine.local.give_up(&claimed.id);
    }
}

/// Stop the cancelled workflows that the heartbeat tells of, for ever.
pub(super) async fn stop_cancelled(engine: &Arc<Engine>) {
    loop {
        for id in engine.lease.next_stopping().await {
            engine.stop_cancelled(&id);
        }
    }
}

/// Say which waiting workflows this worker cannot run. Another one may.
pub(super) async fn report_unknown(engine: &Arc<Engine>) {
    let plan = &engine.plan;
    let bodies = plan.registry.names();
    let unknown = call!(engine.writes, "look for workflows without a body", connection =>
        lease::unknown(connection, &plan.sql, &plan.settings.queue, bodies));
    match unknown {
        Ok(unknown) => {
            for (name, version, count) in unknown {
                tracing::warn!(
                    workflow = name,
                    version,
                    count,
                    "workflows are queued whose body is not registered here: register it, or let another worker take them"
                );
            }
        }
        Err(error) => tracing::warn!(%error, "worker could not look for workflows without a body"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_after_a_slow_look_the_next_ones_go_on_from_there() {
        let mut looks = Looks::default();
        let reached = || Some(Reached::default());
        looks.looked(true, SLOW_FROM, 0, reached());
        assert!(looks.from().is_none(), "it was quick");
        looks.looked(true, SLOW_FROM + SLOW_FROM_PER_CLAIM * 100, 100, reached());
        assert!(looks.from().is_none(), "it was quick for so many");
        looks.looked(true, Duration::from_secs(100), 100, reached());
        assert!(looks.from().is_some());
        looks.looked(false, Duration::from_secs(100), 100, reached());
        assert!(looks.from().is_some(), "the time of a look that is not from the beginning says nothing");
        looks.looked(false, Duration::ZERO, 3, None);
        assert!(looks.from().is_none(), "there is nothing more from there on");
    }

    #[test]
    fn after_a_time_a_look_is_from_the_beginning_again() {
        let mut looks = Looks::default();
        looks.looked(true, Duration::from_millis(10), 0, Some(Reached::default()));
        let at = looks.whole_at.expect("it was slow");
        assert!(at <= Instant::now() + Duration::from_millis(10) * WHOLE_AFTER);
        looks.whole_at = Some(Instant::now());
        assert!(looks.from().is_none());
    }
}
