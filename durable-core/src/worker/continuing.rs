//! Continuing as new: a body has asked for it, and its workflow forgets its history and is queued, in one statement.
//!
//! How a body asks is `ctx::continuing`.

use std::sync::Arc;

use super::Engine;
use super::execute::STEPS_GIVE_UP_WITHIN;
use crate::ctx::attempt::Attempt;
use crate::decide::{Ended, Next, Stop};
use crate::id::Id;
use crate::store::generation::{self, Continued};
use crate::store::link::{Backoff, call};
use crate::wake::Word;

/// Records that one statement forgets, so that it takes no longer than others.
const FORGET_MAX: i64 = 10_000;

impl Engine {
    /// Before a workflow begins anew: what its body has dropped gives up, so that it does not go on beside the next generation;
    /// and what the body was given stands.
    pub(super) async fn before_continuing(&self, attempt: &Arc<Attempt>, next: Next) -> Ended {
        let written = async {
            drop(tokio::time::timeout(STEPS_GIVE_UP_WITHIN, attempt.orders_closed()).await);
            self.write_outcomes(attempt).await
        };
        Ended::Stopped(written.await.err().unwrap_or(Stop::Continued(next)))
    }

    /// Let a workflow begin anew, whoever claims it next.
    pub(super) async fn continue_as_new(&self, attempt: &Arc<Attempt>, next: &Next) {
        // From its write on it may be claimed again, also here, before the attempt is forgotten.
        attempt.set_leaving(true);
        let mut backoff = Backoff::for_worker();
        let (queue, more) = loop {
            if self.lease.ended() {
                return;
            }
            match call!(self.writes, "continue a workflow as new", connection =>
                generation::continue_as_new(connection, &self.plan.sql, self.owner, (&attempt.id, attempt.claims), next,
                    FORGET_MAX))
            {
                Ok(Continued::Done { queue, more }) => break (queue, more),
                // By an earlier try whose reply was lost, it may be queued: a poll finds it. What that one left of the
                // history counts as nothing.
                Ok(Continued::Lost) => return self.plan.wake.now(),
                Err(error) if backoff.again(&error).await => {}
                Err(error) => return self.give_up(attempt, &error.to_string()).await,
            }
        };
        self.plan.wake.now();
        if !self.takes(&queue, Some((&attempt.workflow, next.version))) {
            self.plan.wake.tell_others(Word::Due(queue));
        }
        if more {
            self.forget_the_rest(&attempt.id).await;
        }
    }

    /// Take away what is left of a long history. It counts as nothing by now, so nothing is lost when this is given up.
    async fn forget_the_rest(&self, id: &Id) {
        let mut backoff = Backoff::for_callers();
        while !self.lease.ended() {
            match call!(self.writes, "forget a history", connection =>
                generation::forget(connection, &self.plan.sql, id, FORGET_MAX))
            {
                Ok(count) if i64::try_from(count).is_ok_and(|count| count >= FORGET_MAX) => {}
                Ok(_) => return,
                Err(error) if backoff.again(&error).await => {}
                Err(error) => return tracing::warn!(%id, %error, "what is left of a history was not deleted"),
            }
        }
    }
}
