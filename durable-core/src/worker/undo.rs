//! What happens when a body has failed, or was cut off, that has registered undo steps: they are run, as durably as everything
//! else.

use std::sync::Arc;

use super::Engine;
use super::execute::STEPS_GIVE_UP_WITHIN;
use crate::ctx::attempt::Attempt;
use crate::ctx::undo::undo_all;
use crate::decide::{Ended, Ending};
use crate::failure::{Failure, FailureKind};

impl Engine {
    /// Run the undo steps of a body that has failed or was cut off, once nothing else of it is under way. How the workflow
    /// ended then, or nothing if it was suspended meanwhile: then the body comes here again, by its records.
    pub(super) async fn undo(&self, attempt: &Arc<Attempt>, ended: Ended) -> Option<Ended> {
        let Some(failure) = to_undo(attempt, &ended) else { return Some(ended) };
        let undos = attempt.take_undos();
        if undos.is_empty() && attempt.ending.is_none() {
            return Some(ended);
        }
        // What it had begun beside the failure, and dropped, may have an effect until it gives up.
        drop(tokio::time::timeout(STEPS_GIVE_UP_WITHIN, attempt.orders_closed()).await);
        let undone = undo_all(attempt.clone(), undos, failure);
        let ended = self.run(attempt, Box::pin(async move { Err(undone.await) })).await?;
        Some(match (ended, &attempt.ending) {
            (Ended::Returned(Err(failure)), Some(Ending { status, .. })) => {
                Ended::Cut(Ending { status: *status, failure })
            }
            (ended, _) => ended,
        })
    }
}

/// The failure that an end is undone for, if it is. What a body that was cut off had come to meanwhile does not count.
fn to_undo(attempt: &Attempt, ended: &Ended) -> Option<Failure> {
    match (ended, &attempt.ending) {
        (Ended::Stopped(_), _) => None,
        (_, Some(ending)) => Some(ending.failure.clone()),
        (Ended::Returned(Err(failure)), None) => Some(failure.clone()),
        (Ended::Panicked(message), None) => Some(Failure::new(FailureKind::Panic, message.clone())),
        (Ended::Returned(Ok(_)) | Ended::Cut(_), None) => None,
    }
}
