//! One attempt of a workflow: find the body, run it, decide how it ended, write that.
//!
//! Deciding is `decide`, the writes go through `committer`. What a body is given is written before anything else of it
//! begins, not before it is given: so the outcome of its last step and its end are one write.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::Engine;
use super::committer::{Became, Write, Written};
use crate::ctx::Ctx;
use crate::ctx::attempt::{Attempt, Idle};
use crate::decide::{End, Ended, Outcome, Returns, Stop, decide, to_json};
use crate::failure::{Failure, FailureKind, panic_message};
use crate::history::History;
use crate::id::Id;
use crate::status::Status;
use crate::step::BoxFuture;
use crate::store::claim::Claimed;
use crate::store::commit::{WaitRow, WorkflowRow, waits_json};
use crate::store::link::{Backoff, call};
use crate::store::step::StepRow;
use crate::store::{Fence, lease};

/// How often a body that waits for messages beside other work has its mailbox looked into.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a cancellation waits for steps to give up.
pub(super) const STEPS_GIVE_UP_WITHIN: Duration = Duration::from_secs(2);

impl Engine {
    /// Run a workflow that this worker owns, on a task of its own.
    pub(super) fn adopt(self: Arc<Self>, claimed: Claimed, history: History, slot: OwnedSemaphorePermit) {
        let engine = self;
        let short_wait = engine.plan.settings.short_wait;
        let attempt =
            Arc::new(Attempt::new(&claimed, history, short_wait, engine.clock.clone(), engine.appender.clone()));
        if !engine.local.run(&attempt) {
            return;
        }
        engine.runtime.clone().spawn(async move {
            let told = engine.execute(&attempt, &claimed).await;
            engine.local.forget(&attempt);
            // Its place is free before anybody hears of its end: they may be about to start the next one.
            drop(slot);
            if claimed.is_limited {
                // And so may be its place in the queue.
                engine.plan.wake.now();
            }
            if let Some(end) = told {
                engine.plan.wake.ended(&attempt.id, end);
            }
        });
    }

    /// Run it, and carry out what comes of it. Answers what those who wait for its end are to be told.
    async fn execute(&self, attempt: &Arc<Attempt>, claimed: &Claimed) -> Option<Told> {
        let Some(body) = self.plan.registry.find(&claimed.name, claimed.version) else {
            let problem = format!("no body {:?} version {} is registered", claimed.name, claimed.version);
            return self.carry_out(attempt, Outcome::Released(problem)).await;
        };
        let ctx = Ctx::new(attempt.clone());
        let ended = self.run(attempt, body(&ctx, &claimed.input)).await?;
        let ended = self.undo(attempt, ended).await?;
        let ended = match ended {
            Ended::Returned(_) | Ended::Cut(_) => match self.read_rest(attempt).await {
                Ok(()) => ended,
                Err(stop) => Ended::Stopped(stop),
            },
            Ended::Stopped(Stop::Continued(next)) => self.before_continuing(attempt, next).await,
            Ended::Panicked(_) | Ended::Stopped(_) => ended,
        };
        // The rest of the history may have had some.
        let ended = self.without_strays(attempt, ended).await?;
        let outcome = self.unless_misfit(attempt, claimed, decide(ended, attempt.left_over())).await;
        self.carry_out(attempt, outcome).await
    }

    /// A workflow does not end before the children of its races' losers are cancelled.
    async fn without_strays(&self, attempt: &Arc<Attempt>, ended: Ended) -> Option<Ended> {
        if !attempt.has_strays() || matches!(ended, Ended::Stopped(_)) {
            return Some(ended);
        }
        let done = attempt.clone().without_strays();
        let done = Box::pin(async move {
            done.await;
            Ok(String::new())
        });
        match self.run(attempt, done).await? {
            Ended::Returned(_) => Some(ended),
            stopped @ (Ended::Panicked(_) | Ended::Stopped(_) | Ended::Cut(_)) => Some(stopped),
        }
    }

    /// Poll the body until it ends or is suspended (`None`). The future is dropped only after its
    /// suspension was written.
    pub(super) async fn run(&self, attempt: &Arc<Attempt>, mut body: BoxFuture<'_, Returns>) -> Option<Ended> {
        let mut look = Look::default();
        let mut foreign_reported = false;
        loop {
            let stop = match self.go_on(attempt, &mut body, &mut look, foreign_reported).await {
                Came::Ended(ended) => return Some(ended),
                Came::Replayed => return attempt.ending.clone().map(Ended::Cut),
                Came::Foreign => {
                    foreign_reported = true;
                    tracing::warn!(
                        workflow = attempt.workflow,
                        id = %attempt.id,
                        "the body awaits something that is not the context's, which a recovery cannot \
                         repeat: put it into a step"
                    );
                    None
                }
                Came::Write => self.write_outcomes(attempt).await.err(),
                Came::Note(waits) => match self.suspend(attempt, None, &waits).await {
                    Ok(Became::Done | Became::Held(_)) => None,
                    Ok(Became::Lost) => Some(Stop::Lost),
                    Err(stop) => Some(stop),
                },
                Came::Suspend(waits, seen) => {
                    attempt.set_leaving(true);
                    match self.suspend(attempt, Some(seen), &waits).await {
                        Ok(Became::Done) => return None,
                        // An earlier try may have been written after all, and the workflow claimed anew since.
                        Ok(Became::Held(_)) if !self.local.is_current(attempt) => Some(Stop::Lost),
                        Ok(Became::Held(wakes)) => {
                            attempt.set_leaving(false);
                            attempt.saw(wakes);
                            attempt.poke();
                            None
                        }
                        Ok(Became::Lost) => Some(Stop::Lost),
                        Err(stop) => Some(stop),
                    }
                }
            };
            if let Some(stop) = stop {
                attempt.stop(stop);
            }
        }
    }

    /// Poll a body until there is something for the executor to wait for.
    async fn go_on(
        &self,
        attempt: &Arc<Attempt>,
        body: &mut BoxFuture<'_, Returns>,
        look: &mut Look,
        foreign_reported: bool,
    ) -> Came {
        std::future::poll_fn(|cx| {
            if look.is_due(cx) {
                attempt.poke();
            }
            if let Poll::Ready(ended) = poll_body(attempt, body, cx) {
                return Poll::Ready(Came::Ended(ended));
            }
            loop {
                return match attempt.idle(cx.waker()) {
                    Idle::Begin(orders) => {
                        self.carry_out_orders(orders, cx);
                        continue;
                    }
                    Idle::Busy { awaits_message } => {
                        look.set(awaits_message, cx);
                        Poll::Pending
                    }
                    Idle::Foreign if foreign_reported => Poll::Pending,
                    Idle::Foreign => Poll::Ready(Came::Foreign),
                    Idle::Replayed => Poll::Ready(Came::Replayed),
                    Idle::Write => Poll::Ready(Came::Write),
                    Idle::Note(waits) => Poll::Ready(Came::Note(waits)),
                    Idle::Suspend(waits, seen) => Poll::Ready(Came::Suspend(waits, seen)),
                };
            }
        })
        .await
    }

    /// Write the outcomes that the body has been given, before anything else of it begins.
    pub(super) async fn write_outcomes(&self, attempt: &Arc<Attempt>) -> Result<(), Stop> {
        let write = Write { steps: attempt.take_unwritten(), row: None };
        match self.committer.write(write).await {
            Ok(Some((_, Written { steps: true, .. }))) => Ok(()),
            Ok(Some((write, _))) => self.look_at_outcomes(attempt, &write.steps).await,
            Ok(None) => Err(Stop::Lost),
            Err(error) => Err(Stop::Broken(error.to_string())),
        }
    }

    /// Find out why outcomes do not stand: the workflow may have another owner, or a former one's record was written
    /// after this one had read the history. `Ok` when they stand after all.
    async fn look_at_outcomes(&self, attempt: &Arc<Attempt>, steps: &[StepRow]) -> Result<(), Stop> {
        for step in steps {
            match self.recorded(&attempt.id, &step.position).await {
                Ok((Fence::Held, Some(record))) if step.is_recorded_as(&record) => {}
                Ok((Fence::Held, Some(_))) => return Err(Stop::Overtaken),
                Ok((Fence::Held, None) | (Fence::Lost, _)) => return Err(Stop::Lost),
                Err(error) => return Err(Stop::Broken(error.to_string())),
            }
        }
        Ok(())
    }

    /// Write down what the body waits for; and suspend it, if nothing woke it since `seen`.
    async fn suspend(&self, attempt: &Arc<Attempt>, seen: Option<i64>, waits: &[WaitRow]) -> Result<Became, Stop> {
        let row = WorkflowRow {
            id: attempt.id.clone(),
            claims: attempt.claims,
            status: seen.map(|_| Status::Suspended),
            seen,
            waits: Some(waits_json(waits)),
            output: None,
            failure: None,
            parent: None,
        };
        let write = Write { steps: attempt.take_unwritten(), row: Some(Box::new(row)) };
        match self.committer.write(write).await {
            Ok(Some((_, Written { steps: true, row, .. }))) => Ok(row),
            Ok(Some((_, Written { row: Became::Lost, .. }))) => Ok(Became::Lost),
            Ok(Some((write, Written { row, .. }))) => {
                self.look_at_outcomes(attempt, &write.steps).await?;
                Ok(row)
            }
            Ok(None) => Ok(Became::Lost),
            Err(error) => Err(Stop::Broken(error.to_string())),
        }
    }

    async fn carry_out(&self, attempt: &Arc<Attempt>, outcome: Outcome) -> Option<Told> {
        match outcome {
            Outcome::Settled(end) if end.status == Status::Blocked => self.park(attempt, end).await,
            Outcome::Settled(end) => self.settle(attempt, end).await,
            Outcome::GivenBack => {
                self.let_go(attempt).await;
                None
            }
            Outcome::Acknowledged => {
                // A step whose leaf is gone gives up at its next await; one that blocks its thread has
                // begun long ago, and need not be waited for.
                drop(tokio::time::timeout(STEPS_GIVE_UP_WITHIN, attempt.orders_closed()).await);
                // Forgotten first: whoever is told must find that nothing of it is left here.
                self.local.forget(attempt);
                self.acknowledge(attempt.id.clone());
                Some(None)
            }
            Outcome::Dropped => {
                tracing::debug!(id = %attempt.id, "workflow belongs to another worker by now");
                Some(None)
            }
            Outcome::Released(problem) => {
                self.give_up(attempt, &problem).await;
                None
            }
            Outcome::Misfit(end) => {
                self.leave_to_newer_code(attempt, &end).await;
                None
            }
            Outcome::Continued(next) => {
                self.continue_as_new(attempt, &next).await;
                None
            }
        }
    }

    /// Write the end of a workflow, together with the outcomes that led to it.
    async fn settle(&self, attempt: &Arc<Attempt>, end: End) -> Option<Told> {
        let end_status = end.status;
        let row = WorkflowRow {
            id: attempt.id.clone(),
            claims: attempt.claims,
            status: Some(end_status),
            seen: None,
            waits: None,
            output: end.output,
            failure: end.failure,
            parent: attempt.parent.as_ref().filter(|_| end_status.is_final()).map(|parent| parent.id.clone()),
        };
        let mut write = Write { steps: attempt.take_unwritten(), row: Some(Box::new(row)) };
        loop {
            let (mut unwritten, written) = match self.committer.write(write).await {
                Ok(Some(answer)) => answer,
                Ok(None) => return None,
                Err(error) => {
                    self.give_up(attempt, &error.to_string()).await;
                    return None;
                }
            };
            if !matches!(written.row, Became::Held(_)) {
                self.child_ended(attempt, written.parent_runs);
            }
            match written.row {
                Became::Done => {
                    let row = unwritten.row.take();
                    let end = row.map(|row| End { status: end_status, output: row.output, failure: row.failure });
                    return Some(end.map(Arc::new));
                }
                // Cancelled meanwhile, or somebody else's; the heartbeat brings word of the former.
                Became::Lost => return Some(None),
                Became::Held(_) => match self.look_at_outcomes(attempt, &unwritten.steps).await {
                    Ok(()) => write = unwritten,
                    Err(Stop::Overtaken) => {
                        self.let_go(attempt).await;
                        return None;
                    }
                    Err(Stop::Broken(problem)) => {
                        self.give_up(attempt, &problem).await;
                        return None;
                    }
                    Err(
                        Stop::Lost | Stop::Cancelled | Stop::Mismatch(_) | Stop::Undeclared(_) | Stop::Continued(_),
                    ) => return Some(None),
                },
            }
        }
    }

    pub(super) async fn give_up(&self, attempt: &Arc<Attempt>, problem: &str) {
        tracing::error!(workflow = attempt.workflow, id = %attempt.id, problem, "workflow given back");
        attempt.set_leaving(true);
        self.release(&attempt.id, attempt.claims, problem).await;
    }

    /// Give a workflow back whose body has to begin again: another outcome stands than the one that it was given.
    pub(super) async fn let_go(&self, attempt: &Arc<Attempt>) {
        tracing::warn!(id = %attempt.id, "a former owner's record came in between; the workflow begins again from it");
        attempt.set_leaving(true);
        let mut backoff = Backoff::for_worker();
        while !self.lease.ended() {
            let given = [(attempt.id.clone(), attempt.claims)];
            match call!(self.writes, "give a workflow back", connection =>
                lease::let_go(connection, &self.plan.sql, self.owner, &given))
            {
                Err(error) if backoff.again(&error).await => {}
                Err(error) => return tracing::error!(id = %attempt.id, %error, "workflow waits for a sweep"),
                Ok(()) => return self.plan.wake.now(),
            }
        }
    }

    /// Give a workflow back that this process cannot go on with; after too many times it is parked.
    pub(super) async fn release(&self, id: &Id, claims: i32, problem: &str) {
        let failure = Failure::new(FailureKind::Poison, format!("could not go on, again and again: {problem}"));
        self.release_with(id, claims, &to_json(&failure)).await;
    }

    /// The same, with the failure that it has once it is parked.
    pub(super) async fn release_with(&self, id: &Id, claims: i32, failure: &str) {
        let most = self.plan.settings.max_recoveries_i32();
        let mut backoff = Backoff::for_worker();
        while !self.lease.ended() {
            match call!(self.writes, "give a workflow back", connection =>
                lease::release(connection, &self.plan.sql, self.owner, (id, claims), most, failure))
            {
                Err(error) if backoff.again(&error).await => {}
                Err(error) => return tracing::error!(%id, %error, "workflow is stuck until this worker ends"),
                Ok(()) => return,
            }
        }
    }
}

/// What those who wait for an end are told: the end, or only to look.
pub(super) type Told = Option<Arc<End>>;

/// What a body came to that the executor has to wait for.
enum Came {
    Ended(Ended),
    Write,
    Note(Vec<WaitRow>),
    Suspend(Vec<WaitRow>, i64),
    Foreign,
    Replayed,
}

/// When to look into the mailbox of a body that waits for a message beside other work.
#[derive(Default)]
struct Look(Option<Pin<Box<tokio::time::Sleep>>>);

impl Look {
    fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        let due = self.0.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
        if due {
            self.0 = None;
        }
        due
    }

    fn set(&mut self, wanted: bool, cx: &mut Context<'_>) {
        if !wanted {
            self.0 = None;
        } else if self.0.is_none() {
            let mut timer = Box::pin(tokio::time::sleep(LOOK_EVERY));
            // The first poll is what sets it going.
            let _ = timer.as_mut().poll(cx);
            self.0 = Some(timer);
        }
    }
}

fn poll_body(attempt: &Attempt, body: &mut BoxFuture<'_, Returns>, cx: &mut Context<'_>) -> Poll<Ended> {
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
