//! Driving one step from its order to its outcome: attempts, time-outs, retries.
//!
//! A plain step's outcome is written by the executor, with what else its workflow has come to. One attempt of a
//! transactional step, which writes its own, is `transaction`. What the retries mean for the workflow (suspend it or
//! wait) is the leaf's in `ctx::run`.

use std::any::Any;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::Engine;
use super::limits::{Came, Permit};
use super::transaction::{self, Tried};
use crate::ctx::order::{Driven, StepOrder};
use crate::decide::{Stop, to_json};
use crate::error::Error;
use crate::failure::{Failure, FailureKind};
use crate::history::{FailedAttempt, Kind, Mismatch, Record};
use crate::outflow::{Dry, Outflow};
use crate::probe::probe;
use crate::step::{AttemptFailure, Attempted, Output, StepBody, StepCtx};
use crate::store::Fence;
use crate::store::step::StepRow;

/// Inputs beyond this are not kept in the history. They are there for people; the engine never reads them.
const INPUT_KEPT_MAX: usize = 16 * 1024;

/// Attempts that a record shows: the first of them and the latest.
const ATTEMPTS_KEPT_MAX: usize = 20;

/// Run a step until it has an outcome, its next attempt is far away, or the attempt is stopped.
pub(super) async fn drive(engine: Arc<Engine>, mut order: StepOrder) {
    match StepDrive::go(&engine, &mut order).await {
        // Nobody wants the outcome of a step whose future was dropped; if it was recorded, it stands.
        Ok(Some(driven)) => drop(order.reply.send(driven)),
        // A leaf that still waits is told by the end of its attempt. Usually that has come about already.
        Ok(None) if !order.reply.is_closed() => order.attempt.stop(Stop::Lost),
        Ok(None) => {}
        Err(error) => order.attempt.stop(Stop::Broken(error.to_string())),
    }
}

/// What the drive of one step needs all the time.
pub(super) struct StepDrive<'d> {
    pub(super) engine: &'d Arc<Engine>,
    pub(super) order: &'d mut StepOrder,
    pub(super) input: String,
}

/// Whether an attempt may begin.
enum Turn {
    Now(Option<Permit>),
    Later(Duration),
    Never,
}

/// How one attempt ended.
enum Ended {
    Done(Output, Duration),
    /// It stands already, because a transactional step records itself.
    Recorded(Record, Option<Box<dyn Any + Send>>),
    Failed(AttemptFailure, Duration),
    Stopped,
}

impl<'d> StepDrive<'d> {
    /// Encode the arguments and go through the attempts. `None` when the attempt was stopped.
    async fn go(engine: &'d Arc<Engine>, order: &'d mut StepOrder) -> Result<Option<Driven>, Error> {
        let encoded = order.arguments.lock().unwrap_or_else(PoisonError::into_inner).encode();
        match encoded {
            Ok(input) => Self { engine, order, input }.attempts().await,
            Err(problem) => {
                let drive = Self { engine, order, input: String::new() };
                let failure = Failure::new(FailureKind::Value, format!("its input {problem}")).terminal();
                Ok(Some(drive.give_up(failure, 1)))
            }
        }
    }

    async fn attempts(mut self) -> Result<Option<Driven>, Error> {
        loop {
            let permit = match self.permit().await {
                Turn::Now(permit) => permit,
                Turn::Later(after) => {
                    let past = std::mem::take(&mut self.order.past);
                    return Ok(Some(Driven::Later { after, is_turn: true, past }));
                }
                Turn::Never => return Ok(None),
            };
            if !self.engine.lease.may_begin().await {
                self.order.attempt.stop(Stop::Lost);
                return Ok(None);
            }
            if self.order.attempt.stopped().is_some() || self.order.reply.is_closed() {
                return Ok(None);
            }
            let attempt = self.attempt_number();
            let ended = self.attempt(attempt).await;
            // Before the outcome is written: the call is over, whatever becomes of its record.
            drop(permit);
            let (failed, took) = match ended? {
                Ended::Done(output, took) => {
                    let row = self.row(Ok(output.json), took);
                    return Ok(Some(Driven::Done(Box::new(row), Ok(output.value))));
                }
                Ended::Recorded(record, value) => return Ok(Some(Driven::Recorded(record, value))),
                Ended::Stopped => return Ok(None),
                Ended::Failed(failed, took) => (failed, took),
            };
            if failed.failure.is_terminal() || attempt >= self.order.retry.max_attempts {
                self.remember(attempt, &failed.failure, took);
                return Ok(Some(self.give_up(failed.failure, attempt)));
            }
            let delay = self.order.retry.delay(attempt, failed.after, fastrand::f64());
            self.remember(attempt, &failed.failure, took);
            tracing::debug!(step = self.order.name, attempt, ?delay, "step will be tried again");
            if !self.order.attempt.is_short(delay) {
                let past = std::mem::take(&mut self.order.past);
                return Ok(Some(Driven::Later { after: delay, is_turn: false, past }));
            }
            tokio::select! {
                () = self.order.reply.closed() => return Ok(None),
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    /// Wait until an attempt may begin, if its step has a limit.
    async fn permit(&mut self) -> Turn {
        let Some(limit) = self.order.limit else { return Turn::Now(None) };
        let turn = self.order.turn.take();
        let asked = self.engine.limits.ask(self.engine, limit, turn);
        let came = tokio::select! {
            biased;
            () = self.order.reply.closed() => return Turn::Never,
            came = asked => came,
        };
        match came {
            Ok(Came::Begin(permit)) => Turn::Now(Some(permit)),
            Ok(Came::Later(after)) => Turn::Later(after),
            Ok(Came::Undeclared) => {
                let problem = format!(
                    "step {:?} has the limit {limit:?}, which nobody has declared: declare it with Builder::limit, or set it with \
                     Durable::set_limit, and resume the workflow",
                    self.order.name
                );
                self.order.attempt.stop(Stop::Undeclared(Mismatch(problem)));
                Turn::Never
            }
            // The incarnation is over.
            Err(_) => Turn::Never,
        }
    }

    fn attempt_number(&self) -> u32 {
        self.order.past.last().map_or(0, |past| past.attempt) + 1
    }

    async fn attempt(&mut self, attempt: u32) -> Result<Ended, Error> {
        let ctx = StepCtx {
            id: self.order.attempt.id.clone(),
            position: self.order.position.clone(),
            name: self.order.name,
            key: OnceLock::new(),
            attempt,
            state: self.engine.plan.states.clone(),
            outflow: Outflow::new(&self.order.attempt.lines, &self.order.position, attempt),
        };
        let outflow = ctx.outflow.clone();
        let began = Instant::now();
        match self.order.body.clone() {
            StepBody::Plain(body) => {
                let timeout = self.order.timeout;
                probe!("before the body of a step", self.order.name);
                let ended = tokio::select! {
                    // First, so that a body whose leaf is gone never begins: nobody wants the outcome, and
                    // a cancellation may have answered already.
                    biased;
                    () = self.order.reply.closed() => return Ok(Ended::Stopped),
                    ended = within(timeout, body(ctx, &self.input)) => ended,
                };
                probe!("after the body of a step", self.order.name);
                if self.dried_up(&outflow).await {
                    return Ok(Ended::Stopped);
                }
                match ended {
                    Ok(output) => Ok(Ended::Done(output, began.elapsed())),
                    Err(failed) => Ok(Ended::Failed(failed, began.elapsed())),
                }
            }
            // Boxed, so that a plain step does not carry the room for a transaction about.
            StepBody::Transaction(body) => match Box::pin(transaction::attempt(self, &body, ctx)).await? {
                Tried::Recorded(record, value) => Ok(Ended::Recorded(record, value)),
                Tried::Stopped => Ok(Ended::Stopped),
                Tried::Failed(failed) => Ok(Ended::Failed(failed, began.elapsed())),
            },
        }
    }

    /// Wait until what the body has written to streams stands. If that cannot be, the attempt is stopped.
    pub(super) async fn dried_up(&self, outflow: &Outflow) -> bool {
        let stop = match outflow.end().await {
            Ok(()) => return false,
            Err(Dry::Lost) => Stop::Lost,
            Err(Dry::Broken(problem)) => Stop::Broken(problem),
        };
        self.order.attempt.stop(stop);
        true
    }

    fn remember(&mut self, attempt: u32, failure: &Failure, took: Duration) {
        let past = &mut self.order.past;
        if past.len() >= ATTEMPTS_KEPT_MAX {
            past.remove(ATTEMPTS_KEPT_MAX / 2);
        }
        past.push(FailedAttempt {
            attempt,
            failed_at: self.order.attempt.about_now(),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            failure: failure.clone(),
        });
    }

    /// The step has failed for good.
    fn give_up(&self, failure: Failure, attempts: u32) -> Driven {
        let failure = failure.of_step(self.order.name, attempts);
        let row = self.row(Err(&failure), Duration::ZERO);
        Driven::Done(Box::new(row), Err(failure))
    }

    /// What stands at the position, after a write came back empty: an earlier try whose reply was lost, or
    /// the outcome of another owner. Only the owner may go on with it.
    pub(super) async fn find_recorded(&self) -> Result<Option<Record>, Error> {
        let attempt = &self.order.attempt;
        match self.engine.recorded(&attempt.id, &self.order.position).await? {
            (Fence::Held, Some(record)) => Ok(Some(record)),
            // Still the owner, and nothing there: the committer gave up with its incarnation.
            (Fence::Held, None) | (Fence::Lost, _) => {
                attempt.stop(Stop::Lost);
                Ok(None)
            }
        }
    }

    pub(super) fn row(&self, outcome: Result<String, &Failure>, took: Duration) -> StepRow {
        let order = &*self.order;
        let (output, failure) = match outcome {
            Ok(output) => (Some(output), None),
            Err(failure) => (None, Some(to_json(failure))),
        };
        StepRow {
            id: order.attempt.id.clone(),
            claims: order.attempt.claims,
            row_at: order.attempt.row_at.clone(),
            position: order.position.clone(),
            kind: self.kind(),
            name: order.name,
            input: (self.input.len() <= INPUT_KEPT_MAX && !self.input.is_empty()).then(|| self.input.clone()),
            output,
            failure,
            attempts: (!order.past.is_empty()).then(|| to_json(&order.past)),
            ended_at: order.attempt.about_now(),
            took_ms: i64::try_from(took.as_millis()).unwrap_or(i64::MAX),
        }
    }

    fn kind(&self) -> Kind {
        match self.order.body {
            StepBody::Plain(_) => Kind::Step,
            StepBody::Transaction(_) => Kind::Transaction,
        }
    }
}

/// Give an attempt its time.
pub(super) async fn within(timeout: Option<Duration>, body: impl Future<Output = Attempted>) -> Attempted {
    let Some(timeout) = timeout else { return body.await };
    match tokio::time::timeout(timeout, body).await {
        Ok(attempted) => attempted,
        Err(_) => Err(AttemptFailure::new(FailureKind::Timeout, format!("took longer than {timeout:?}"))),
    }
}
