//! What happens when a body has failed that has registered undo steps: they are run, as durably as everything else.

use std::sync::Arc;

use super::Engine;
use super::execute::STEPS_GIVE_UP_WITHIN;
use crate::ctx::attempt::Attempt;
use crate::ctx::undo::undo_all;
use crate::decide::Ended;
use crate::failure::{Failure, FailureKind};

impl Engine {
    /// Run the undo steps of a body that has failed, once nothing else of it is under way. How the workflow ended then, or
    /// nothing if it was suspended meanwhile: then the body comes here again, by its records.
    pub(super) async fn undo(&self, attempt: &Arc<Attempt>, ended: Ended) -> Option<Ended> {
        let failure = match &ended {
            Ended::Returned(Err(failure)) => failure.clone(),
            Ended::Panicked(message) => Failure::new(FailureKind::Panic, message.clone()),
            Ended::Returned(Ok(_)) | Ended::Stopped(_) => return Some(ended),
        };
        let undos = attempt.take_undos();
        if undos.is_empty() {
            return Some(ended);
        }
        // What it had begun beside the failure, and dropped, may have an effect until it gives up.
        drop(tokio::time::timeout(STEPS_GIVE_UP_WITHIN, attempt.orders_closed()).await);
        let undone = undo_all(attempt.clone(), undos, failure);
        self.run(attempt, Box::pin(async move { Err(undone.await) })).await
    }
}
