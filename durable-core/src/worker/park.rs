//! Parking a workflow whose code does not fit its history, or what else is there. Whether it does not is decided in `decide`.

use std::sync::Arc;

use super::Engine;
use super::execute::Told;
use crate::ctx::attempt::Attempt;
use crate::decide::{End, Stop};
use crate::store::Fence;
use crate::store::lease;
use crate::store::link::{Backoff, call};

impl Engine {
    /// Write down that a workflow is blocked, after the outcomes that led to it. That is rare, and is noted among what was done to it,
    /// so it does not go with the ends of others.
    pub(super) async fn park(&self, attempt: &Arc<Attempt>, end: End) -> Option<Told> {
        match self.write_outcomes(attempt).await {
            Ok(()) => {}
            Err(Stop::Overtaken) => {
                self.let_go(attempt).await;
                return None;
            }
            Err(Stop::Broken(problem)) => {
                self.give_up(attempt, &problem).await;
                return None;
            }
            Err(Stop::Lost | Stop::Cancelled | Stop::Mismatch(_) | Stop::Undeclared(_) | Stop::Continued(_)) => {
                return Some(None);
            }
        }
        let is_undeclared = matches!(attempt.stopped(), Some(Stop::Undeclared(_)));
        let reason = if is_undeclared {
            "it has come to a limit that nobody has declared"
        } else {
            "its code does not fit its history"
        };
        let mut backoff = Backoff::for_worker();
        while !self.lease.ended() {
            let failure = end.failure.as_deref().unwrap_or("null");
            match call!(self.writes, "park a workflow", connection =>
                lease::block(connection, &self.plan.sql, self.owner, (&attempt.id, attempt.claims), failure, reason))
            {
                Err(error) if backoff.again(&error).await => {}
                Err(error) => {
                    self.give_up(attempt, &error.to_string()).await;
                    return None;
                }
                // Cancelled meanwhile, or an earlier try whose reply was lost: whoever waits looks.
                Ok(Fence::Lost) => return Some(None),
                Ok(Fence::Held) => {
                    tracing::error!(
                        workflow = attempt.workflow,
                        id = %attempt.id,
                        "workflow is blocked: {reason}; its failure says where"
                    );
                    return Some(Some(Arc::new(end)));
                }
            }
        }
        None
    }
}
