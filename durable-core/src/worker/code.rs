//! What a worker does about code that has changed: it says so when it comes, resumes what other code was blocked by, and
//! leaves what newer code has written to the workers that have that.

use std::sync::Arc;

use super::Engine;
use crate::ctx::attempt::Attempt;
use crate::decide::{End, Ended, Outcome, Stop, decide};
use crate::status::Status;
use crate::store::claim::Claimed;
use crate::store::code;
use crate::store::link::{Backoff, call};
use crate::wake::Word;

/// Workflows resumed by one statement.
const RESUME_MAX: i64 = 1_000;

/// Say for which live workflows this worker's code is new, and set those going again that other code was blocked by.
pub(super) async fn note(engine: &Arc<Engine>) {
    let plan = &engine.plan;
    let (bodies, fingerprints) = (plan.registry.names(), plan.registry.fingerprints());
    let resume = plan.settings.resume_mismatches;
    let mut resumed = 0;
    let mut backoff = Backoff::for_callers();
    loop {
        let noted = call!(engine.writes, "note the code of this worker", connection => code::note_code(
            connection, &plan.sql, &plan.settings.queue, bodies, fingerprints, resume, RESUME_MAX));
        let noted = match noted {
            Ok(noted) => noted,
            // Sent twice, it says nothing the second time; what it has resumed goes on all the same.
            Err(error) if backoff.again(&error).await => continue,
            Err(error) => return tracing::warn!(%error, "worker could not note its code"),
        };
        for changed in noted.iter().filter(|noted| noted.live > 0) {
            tracing::warn!(
                workflow = changed.name,
                version = changed.version,
                count = changed.live,
                "the code of live workflows has changed: where they ask for something else than before, put it behind \
                 ctx.patched(..), or register a new version beside the old one; else they will be blocked"
            );
        }
        let now: i64 = noted.iter().map(|noted| noted.resumed).sum();
        resumed += now;
        // Each of them leaves the blocked ones, so this comes to an end.
        if now < RESUME_MAX {
            break;
        }
    }
    if resumed > 0 {
        tracing::info!(count = resumed, "workflows that other code was blocked by are tried with this one");
        plan.wake.now();
        plan.wake.tell_others(Word::Due(plan.settings.queue.clone()));
    }
}

impl Engine {
    /// An outcome as it is, unless it is that the body does not fit its history. If newer code is about, that may: the workflow
    /// is given back for it. Otherwise it is blocked, and its failure says which code it was.
    pub(super) async fn unless_misfit(&self, attempt: &Arc<Attempt>, claimed: &Claimed, outcome: Outcome) -> Outcome {
        let mut end = match outcome {
            Outcome::Settled(end) if end.status == Status::Blocked => end,
            Outcome::Settled(_)
            | Outcome::Acknowledged
            | Outcome::Dropped
            | Outcome::GivenBack
            | Outcome::Released(_)
            | Outcome::Continued(_)
            | Outcome::Misfit(_) => return outcome,
        };
        let fingerprint = self.plan.registry.fingerprint(&claimed.name, claimed.version);
        end.failure = end.failure.map(|failure| crate::failure::with_fingerprint(&failure, fingerprint));
        if fingerprint.is_empty() || !self.newer_code_is_about(claimed, fingerprint).await {
            return Outcome::Settled(end);
        }
        // What ran here stands, whoever goes on.
        match self.write_outcomes(attempt).await {
            Ok(()) => Outcome::Misfit(end),
            Err(Stop::Mismatch(_) | Stop::Undeclared(_)) => Outcome::Settled(end),
            Err(stop) => decide(Ended::Stopped(stop), Ok(())),
        }
    }

    async fn newer_code_is_about(&self, claimed: &Claimed, fingerprint: &str) -> bool {
        let mut backoff = Backoff::for_callers();
        while !self.lease.ended() {
            match call!(self.writes, "look for newer code", connection =>
                code::newer_code(connection, &self.plan.sql, &claimed.name, claimed.version, fingerprint))
            {
                Ok(newer) => return newer,
                Err(error) if backoff.again(&error).await => {}
                Err(_) => return false,
            }
        }
        false
    }

    /// Give a workflow back whose history newer code has written. After too many times it is blocked all the same.
    pub(super) async fn leave_to_newer_code(&self, attempt: &Arc<Attempt>, end: &End) {
        tracing::warn!(
            workflow = attempt.workflow,
            id = %attempt.id,
            "this worker's code does not fit the history, and newer code is about: the workflow is given back for that"
        );
        attempt.set_leaving(true);
        self.release_with(&attempt.id, attempt.claims, end.failure.as_deref().unwrap_or("null")).await;
    }
}
