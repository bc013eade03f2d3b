//! Taking over from dead workers: fence them, end what of them is still under way in the server, give their workflows back.
//!
//! In this order, each step only once the one before is done: a workflow that is given back is claimed at once, and what a
//! statement of its former owner records after its new one has read the history would come too late to keep a step from
//! being run again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Engine;
use super::declared::look_for_disputes;
use super::unserved::Unserved;
use crate::error::Error;
use crate::id::OwnerId;
use crate::status::Status;
use crate::store::cancel::undo_of_dead;
use crate::store::lease::{self, Fenced};
use crate::store::link::call;
use crate::wake::Word;

/// Workflows given back in one round, so that a round stays far shorter than a lease even after a night of outage.
const REAP_MAX: i64 = 1_000;

/// Owned workflows looked at in one round, to find their dead owners.
const LOOK_MAX: i64 = 10_000;

/// How long the sessions of dead workers are waited for. What is being committed ends in much less; what the server cannot end
/// in this time does not keep everything else from going on.
const SILENT_WITHIN: Duration = Duration::from_secs(5);

/// Look for workers whose lease has ended and give their workflows back, for ever.
pub(super) async fn take_over(engine: &Arc<Engine>) {
    let reap_every = engine.plan.settings.reap_every();
    let mut more = None;
    let mut unserved = Unserved::new(engine);
    loop {
        let pause = match more {
            // As long as the round took, so that no more than half of the time goes into it while others want to
            // run; and never the same for two workers, so that they take turns.
            Some(took) => reap_every.min(took).mul_f64(0.5 + fastrand::f64()),
            None => reap_every.mul_f64(0.8 + 0.2 * fastrand::f64()),
        };
        tokio::time::sleep(pause).await;
        unserved.look(engine).await;
        look_for_disputes(engine).await;
        let began_at = Instant::now();
        more = match round(engine).await {
            Ok(is_full) => is_full.then(|| began_at.elapsed()),
            Err(error) => {
                tracing::warn!(%error, "worker could not look for dead workers");
                None
            }
        };
    }
}

/// Give back workflows of dead workers, as many as fit one round. Whether there may be more.
async fn round(engine: &Arc<Engine>) -> Result<bool, Error> {
    let plan = &engine.plan;
    let Fenced { dead, deadline_in, schedule_in } = call!(engine.writes, "look for dead workers", connection =>
        lease::fence(connection, &plan.sql, LOOK_MAX))?;
    engine.deadline_in(deadline_in);
    engine.schedule_in(schedule_in);
    if dead.is_empty() {
        return Ok(false);
    }
    silence(engine, &dead).await;
    let undo_in = call!(engine.writes, "let go on what dead workers had to stop", connection =>
        undo_of_dead(connection, &plan.sql, &dead))?;
    for queue in undo_in {
        plan.wake.now();
        plan.wake.tell_others(Word::Due(queue));
    }
    let max_recoveries = plan.settings.max_recoveries_i32();
    let reaped = call!(engine.writes, "take over from dead workers", connection =>
        lease::reap(connection, &plan.sql, &dead, REAP_MAX, max_recoveries))?;
    if reaped.is_empty() {
        return Ok(false);
    }
    for parked in reaped.iter().filter(|r| r.status == Status::Blocked) {
        tracing::error!(id = %parked.id, "workflow is blocked: it lost too many workers in a row");
    }
    tracing::warn!(count = reaped.len(), "took workflows over from dead workers");
    plan.wake.now();
    plan.wake.tell_others(Word::Due(plan.settings.queue.clone()));
    Ok(i64::try_from(reaped.len()).is_ok_and(|count| count >= REAP_MAX))
}

/// End the sessions of fenced workers, and wait until they are gone.
async fn silence(engine: &Arc<Engine>, dead: &[OwnerId]) {
    let (began_at, mut pause) = (Instant::now(), Duration::from_millis(1));
    loop {
        let left = call!(engine.writes, "end the sessions of dead workers", connection =>
            lease::silence(connection, &engine.plan.sql, dead));
        match left {
            Ok(0) => return,
            Ok(_) if began_at.elapsed() < SILENT_WITHIN => tokio::time::sleep(pause).await,
            Ok(count) => {
                return tracing::warn!(count, "sessions of dead workers do not end; a step of theirs may be repeated");
            }
            // The role may not, or not these.
            Err(error) => {
                return tracing::warn!(%error, "sessions of dead workers were not ended; a step of theirs may be repeated");
            }
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
