//! One attempt of a workflow: find the body, run it, decide how it ended, write that.
//!
//! Deciding is `decide`, the writes are `store::settle`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::Engine;
use crate::ctx::Ctx;
use crate::ctx::attempt::{Attempt, Idle};
use crate::decide::{End, Ended, Outcome, Returns, Stop, decide, to_json};
use crate::error::Error;
use crate::failure::{Failure, FailureKind, panic_message};
use crate::history::History;
use crate::id::Id;
use crate::step::BoxFuture;
use crate::store::Fence;
use crate::store::claim::Claimed;
use crate::store::link::{Backoff, call};
use crate::store::settle::{self, Suspended, WaitRow};

/// How often a body that waits for messages beside other work has its mailbox looked into.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a cancellation waits for steps to give up.
const STEPS_GIVE_UP_WITHIN: Duration = Duration::from_secs(2);

impl Engine {
    /// Run a workflow that this worker owns, on a task of its own.
    pub(super) fn adopt(self: Arc<Self>, claimed: Claimed, history: History, slot: OwnedSemaphorePermit) {
        let engine = self;
        let hands = Arc::downgrade(&engine);
        let attempt = Arc::new(Attempt::new(&claimed, history, hands, engine.plan.settings.short_wait));
        if !engine.local.run(&attempt) {
            return;
        }
        engine.runtime.clone().spawn(async move {
            engine.execute(&attempt, &claimed).await;
            engine.local.forget(&attempt);
            drop(slot);
        });
    }

    async fn execute(&self, attempt: &Arc<Attempt>, claimed: &Claimed) {
        let Some(body) = self.plan.registry.find(&claimed.name, claimed.version) else {
            let problem = format!("no body {:?} version {} is registered", claimed.name, claimed.version);
            return self.carry_out(attempt, Outcome::Released(problem)).await;
        };
        let ctx = Ctx::new(attempt.clone());
        let Some(ended) = self.run(attempt, body(&ctx, &claimed.input)).await else { return };
        let ended = match ended {
            Ended::Returned(returned) => match self.read_rest(attempt).await {
                Ok(()) => Ended::Returned(returned),
                Err(stop) => Ended::Stopped(stop),
            },
            Ended::Panicked(_) | Ended::Stopped(_) => ended,
        };
        let outcome = decide(ended, attempt.left_over());
        self.carry_out(attempt, outcome).await;
    }

    /// Poll the body until it ends or is suspended (`None`). The future is dropped only after its
    /// suspension was written.
    async fn run(&self, attempt: &Arc<Attempt>, mut body: BoxFuture<'_, Returns>) -> Option<Ended> {
        let mut foreign_reported = false;
        loop {
            match poll_once(attempt, &mut body).await {
                Polled::Ended(ended) => return Some(ended),
                Polled::Foreign => {
                    if !std::mem::replace(&mut foreign_reported, true) {
                        tracing::warn!(
                            workflow = attempt.workflow,
                            id = %attempt.id,
                            "the body awaits something that is not the context's, which a recovery cannot \
                             repeat: put it into a step"
                        );
                    }
                    if let Some(ended) = poll_on(attempt, &mut body).await {
                        return Some(ended);
                    }
                }
                Polled::Note(waits) => match self.suspend(attempt, false, 0, &waits).await {
                    Ok(Suspended::Written | Suspended::Woken(_)) => {}
                    Ok(Suspended::Lost) => attempt.stop(Stop::Lost),
                    Err(error) => attempt.stop(Stop::Broken(error.to_string())),
                },
                Polled::Suspend(waits, seen) => {
                    attempt.set_leaving(true);
                    match self.suspend(attempt, true, seen, &waits).await {
                        Ok(Suspended::Written) => return None,
                        // An earlier try may have been written after all, and the workflow claimed anew since.
                        Ok(Suspended::Woken(_)) if !self.local.is_current(attempt) => attempt.stop(Stop::Lost),
                        Ok(Suspended::Woken(wakes)) => {
                            attempt.set_leaving(false);
                            attempt.saw(wakes);
                            attempt.poke();
                        }
                        Ok(Suspended::Lost) => attempt.stop(Stop::Lost),
                        Err(error) => attempt.stop(Stop::Broken(error.to_string())),
                    }
                }
            }
        }
    }

    async fn suspend(
        &self,
        attempt: &Arc<Attempt>,
        suspend: bool,
        seen: i64,
        waits: &[WaitRow],
    ) -> Result<Suspended, Error> {
        let kept = attempt.kept();
        let mut backoff = Backoff::for_worker();
        loop {
            if self.lease.ended() {
                return Ok(Suspended::Lost);
            }
            match call!(self.writes, "suspend a workflow", connection => settle::suspend(
                connection, &self.plan.sql, self.owner, &attempt.id, attempt.claims, &kept, suspend, seen, waits))
            {
                Err(error) if backoff.again(&error).await => {}
                Ok(Suspended::Written) => {
                    attempt.forget(&kept);
                    break Ok(Suspended::Written);
                }
                answer => break answer,
            }
        }
    }

    async fn carry_out(&self, attempt: &Arc<Attempt>, outcome: Outcome) {
        match outcome {
            Outcome::Settled(end) => self.settle(attempt, &end).await,
            Outcome::Acknowledged => {
                // A step whose leaf is gone gives up at its next await; one that blocks its thread has
                // begun long ago, and need not be waited for.
                drop(tokio::time::timeout(STEPS_GIVE_UP_WITHIN, attempt.orders_closed()).await);
                // Forgotten first: whoever is told must find that nothing of it is left here.
                self.local.forget(attempt);
                self.acknowledge(attempt.id.clone());
            }
            Outcome::Dropped => tracing::debug!(id = %attempt.id, "workflow belongs to another worker by now"),
            Outcome::Released(problem) => {
                tracing::error!(workflow = attempt.workflow, id = %attempt.id, problem, "workflow given back");
                attempt.set_leaving(true);
                self.release(&attempt.id, attempt.claims, &problem).await;
            }
        }
    }

    async fn settle(&self, attempt: &Arc<Attempt>, end: &End) {
        let kept = attempt.kept();
        let mut backoff = Backoff::for_worker();
        let settled = loop {
            if self.lease.ended() {
                return;
            }
            match call!(self.writes, "end a workflow", connection =>
                settle::settle(connection, &self.plan.sql, self.owner, &attempt.id, &kept, end))
            {
                Err(error) if backoff.again(&error).await => {}
                answer => break answer,
            }
        };
        match settled {
            Ok(Fence::Held) => {
                if end.status == crate::status::Status::Blocked {
                    tracing::error!(
                        workflow = attempt.workflow,
                        id = %attempt.id,
                        "workflow is blocked: its code does not fit its history; its failure says where"
                    );
                }
                self.plan.wake.ended(&attempt.id);
            }
            // Cancelled meanwhile, or somebody else's; the heartbeat brings word of the former.
            Ok(Fence::Lost) => self.plan.wake.ended(&attempt.id),
            Err(error) => {
                tracing::error!(workflow = attempt.workflow, id = %attempt.id, %error, "workflow given back");
                attempt.set_leaving(true);
                self.release(&attempt.id, attempt.claims, &error.to_string()).await;
            }
        }
    }

    /// Give a workflow back that this process cannot go on with; after too many times it is parked.
    pub(super) async fn release(&self, id: &Id, claims: i32, problem: &str) {
        let most = self.plan.settings.max_recoveries_i32();
        let failure = Failure::new(FailureKind::Poison, format!("could not go on, again and again: {problem}"));
        let failure = to_json(&failure);
        let mut backoff = Backoff::for_worker();
        while !self.lease.ended() {
            match call!(self.writes, "give a workflow back", connection =>
                settle::release(connection, &self.plan.sql, self.owner, id, claims, most, &failure))
            {
                Err(error) if backoff.again(&error).await => {}
                Err(error) => return tracing::error!(%id, %error, "workflow is stuck until this worker ends"),
                Ok(()) => return,
            }
        }
    }
}

/// What one go at a body came to.
enum Polled {
    Ended(Ended),
    Note(Vec<WaitRow>),
    Suspend(Vec<WaitRow>, i64),
    Foreign,
}

/// Poll a body until there is something for the executor to do.
async fn poll_once(attempt: &Arc<Attempt>, body: &mut BoxFuture<'_, Returns>) -> Polled {
    let mut look = Box::pin(tokio::time::sleep(LOOK_EVERY));
    std::future::poll_fn(|cx| {
        if look.as_mut().poll(cx).is_ready() {
            look.as_mut().reset(tokio::time::Instant::now() + LOOK_EVERY);
            let _ = look.as_mut().poll(cx);
            if attempt.awaits_message() {
                attempt.poke();
            }
        }
        if let Poll::Ready(ended) = poll_body(attempt, body, cx) {
            return Poll::Ready(Polled::Ended(ended));
        }
        match attempt.idle(cx.waker()) {
            Idle::Busy => Poll::Pending,
            Idle::Note(waits) => Poll::Ready(Polled::Note(waits)),
            Idle::Suspend(waits, seen) => Poll::Ready(Polled::Suspend(waits, seen)),
            Idle::Foreign => Poll::Ready(Polled::Foreign),
        }
    })
    .await
}

/// Wait until something wakes a body that awaits what is not the context's, and poll it once. `None` when
/// it is still pending.
async fn poll_on(attempt: &Arc<Attempt>, body: &mut BoxFuture<'_, Returns>) -> Option<Ended> {
    let mut woken = false;
    std::future::poll_fn(|cx| {
        // The first call only registers: the body has just been polled, with another waker.
        let polled = poll_body(attempt, body, cx);
        match (polled, std::mem::replace(&mut woken, true)) {
            (Poll::Ready(ended), _) => Poll::Ready(Some(ended)),
            (Poll::Pending, false) => match attempt.idle(cx.waker()) {
                Idle::Foreign => Poll::Pending,
                Idle::Busy | Idle::Note(_) | Idle::Suspend(..) => Poll::Ready(None),
            },
            (Poll::Pending, true) => Poll::Ready(None),
        }
    })
    .await
}

fn poll_body(attempt: &Attempt, body: &mut BoxFuture<'_, Returns>, cx: &mut std::task::Context<'_>) -> Poll<Ended> {
    if let Some(stop) = attempt.stopped() {
        return Poll::Ready(Ended::Stopped(stop));
    }
    let polled = catch_unwind(AssertUnwindSafe(|| body.as_mut().poll(cx)));
    // A leaf may have stopped the attempt, and then what the body made of that does not count.
    if let Some(stop) = attempt.stopped() {
        return Poll::Ready(Ended::Stopped(stop));
    }
    match polled {
        Ok(Poll::Ready(returned)) => Poll::Ready(Ended::Returned(returned)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panic) => Poll::Ready(Ended::Panicked(panic_message(&*panic))),
    }
}
