//! Telling of workflows that a cancellation or a deadline has cut off: workers that have to stop them, those who wait for their
//! ends, parents that are woken.

use super::Engine;
use crate::id::{Id, OwnerId};
use crate::store::cancel::Cut;
use crate::wake::{Wake, Word};

/// Tell everybody of what was cut off. `engine` is the worker of this process.
pub(crate) fn tell(wake: &Wake, engine: Option<&Engine>, reached: &[Cut]) {
    for Cut { id, now, stopping, undo_in, parent } in reached {
        match (stopping, undo_in) {
            (Some(owner), _) => stop(wake, engine, id, *owner),
            // Nobody ran it: nothing can begin.
            (None, None) if *now => has_ended(wake, id),
            (None, Some(queue)) => is_due(wake, queue),
            (None, None) => {}
        }
        if let Some((parent, queue)) = parent {
            is_due(wake, queue);
            if !engine.is_some_and(|engine| engine.poke(parent)) {
                wake.tell_others(Word::Message(parent.digest()));
            }
        }
    }
}

/// Have the worker stop it, here or elsewhere.
pub(crate) fn stop(wake: &Wake, engine: Option<&Engine>, id: &Id, owner: OwnerId) {
    match engine.filter(|engine| engine.owner == owner) {
        Some(engine) => engine.stop_cancelled(id),
        None => wake.tell_others(Word::Stopping(owner.0)),
    }
}

/// Tell those who wait for its end. This process may not have heard that somebody elsewhere does.
pub(crate) fn has_ended(wake: &Wake, id: &Id) {
    wake.ended(id, None);
    wake.tell_others(Word::Ended(id.digest()));
}

fn is_due(wake: &Wake, queue: &str) {
    wake.now();
    wake.tell_others(Word::Due(queue.to_owned()));
}
