//! Starts that are held back: batches that wait for more inputs, and workflows that wait for the one that they replace. Letting them
//! begin when their time has come; as for schedules, and at the same times, by every worker, whatever its queue.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use crate::error::Error;
use crate::store::keyed::{self as store, Release};
use crate::store::link::call;
use crate::wake::Word;

/// Of each kind in one go.
const RELEASES_MAX: i32 = 200;

/// While some wait for a workflow to end: that may happen elsewhere.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Let begin what may. When to look again.
pub(super) async fn release(engine: &Arc<Engine>) -> Result<Option<Duration>, Error> {
    // Whatever became of a try without an answer, the next look sees it.
    let Release { released, next_in, some_wait } = call!(engine.writes, "let begin what was held back", connection =>
        store::release_starts(connection, &engine.plan.sql, RELEASES_MAX))?;
    let wake = &engine.plan.wake;
    wake.starts_wait(some_wait);
    if next_in.is_some() || some_wait {
        wake.starts_are_seen();
    }
    let is_full = i32::try_from(released.len()).is_ok_and(|released| released >= RELEASES_MAX);
    for held in released {
        wake.now();
        if !engine.takes(&held.queue, Some((&held.name, held.version))) {
            wake.tell_others(Word::Due(held.queue));
        }
    }
    let waits = some_wait.then_some(AGAIN_AFTER);
    let full = is_full.then_some(Duration::ZERO);
    Ok([next_in, waits, full].into_iter().flatten().min())
}
