//! Deadlines: ending the workflows that have not ended in time.
//!
//! Every worker keeps all of them, whatever its queue; one that a worker is about to act on is skipped by the others. When the
//! next one is comes with the look for dead workers, so that nobody looks for it where there is none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Engine, cut};
use crate::ctx::attempt::far_future;
use crate::error::Error;
use crate::id::Id;
use crate::store::cancel as store;
use crate::store::link::call;

/// Deadlines that are acted on in one go.
const LOOK_MAX: i64 = 1_000;

/// After a look that has failed.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Engine {
    /// How long the next deadline is away, as the last look for dead workers saw it.
    pub(super) fn deadline_in(&self, deadline_in: Option<Duration>) {
        self.next_deadline.send_replace(deadline_in.and_then(|away| Instant::now().checked_add(away)));
    }
}

/// End what passes its deadline, for ever.
pub(super) async fn keep_deadlines(engine: &Arc<Engine>) {
    let mut told = engine.next_deadline.subscribe();
    let mut next = None;
    loop {
        tokio::select! {
            // The sender is the engine's.
            _ = told.changed() => next = *told.borrow_and_update(),
            () = tokio::time::sleep_until(next.unwrap_or_else(far_future).into()) => {
                next = round(engine).await.unwrap_or_else(|error| {
                    tracing::warn!(%error, "worker could not look for deadlines");
                    Some(Instant::now() + AGAIN_AFTER)
                });
            }
        }
    }
}

/// End what has passed its deadline now. When there is something to do again.
async fn round(engine: &Arc<Engine>) -> Result<Option<Instant>, Error> {
    let (passed, next) = call!(engine.writes, "look for deadlines", connection =>
        store::deadlines(connection, &engine.plan.sql, LOOK_MAX))?;
    for id in &passed {
        expire(engine, id).await?;
    }
    let is_full = i64::try_from(passed.len()).is_ok_and(|passed| passed >= LOOK_MAX);
    let next = if is_full { Some(Duration::ZERO) } else { next };
    Ok(next.and_then(|away| Instant::now().checked_add(away)))
}

/// End one, and its children. Whoever loses the answer leaves it to heartbeats and polls to notice.
async fn expire(engine: &Arc<Engine>, id: &Id) -> Result<(), Error> {
    let act = format!("end workflow {id} at its deadline");
    let reached = call!(engine.writes, &act, connection => store::expire(connection, &engine.plan.sql, id))?;
    if reached.iter().any(|own| own.now) {
        tracing::warn!(%id, "workflow has not ended by its deadline");
    }
    cut::tell(&engine.plan.wake, Some(engine), &reached);
    Ok(())
}
