//! A step as a body awaits it: answered from history, or ordered from the worker, or waiting for its next
//! attempt.

use std::any::Any;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::attempt::{Asked, Attempt, Waiting, far_future};
use super::lane::UnderWay;
use super::order::{Driven, OpenOrder, Order, StepOrder};
use crate::codec;
use crate::decide::{Stop, to_json};
use crate::failure::Failure;
use crate::history::{FailedAttempt, Kind, Mismatch, Record, WaitKind};
use crate::id::Position;
use crate::retry::Retry;
use crate::step::{Arguments, Step, StepBody, StepDefinition};
use crate::store::step::StepRow;

/// A step under way in a body: await it, after giving it options if need be. Made by
/// [`Ctx::run`](crate::Ctx::run).
///
/// # Cancel safety
///
/// A step that is dropped before it has ended is given up: its body is dropped at its next await, and
/// nothing is recorded unless that was under way already. Racing steps with `tokio::select!` is therefore
/// not repeatable; [`select!`](crate::select!) and [`Ctx::race`](crate::Ctx::race) are.
#[must_use = "a step does nothing until it is awaited"]
pub struct StepRun<'c, T> {
    attempt: Arc<Attempt>,
    under_way: UnderWay,
    position: Position,
    definition: &'static StepDefinition,
    arguments: Arc<Mutex<Box<dyn Arguments>>>,
    body: StepBody,
    retry: Retry,
    timeout: Option<Duration>,
    state: State,
    output: PhantomData<fn() -> T>,
    ctx: PhantomData<&'c ()>,
}

enum State {
    New,
    Running(oneshot::Receiver<Driven>),
    Waiting {
        timer: Pin<Box<tokio::time::Sleep>>,
        deadline: Instant,
        /// It waits for its turn within its limit, not for a pause to end.
        is_turn: bool,
        past: Vec<FailedAttempt>,
    },
    /// Nothing more comes: the attempt was stopped, or the outcome was given.
    Over,
}

impl<T> StepRun<'_, T> {
    pub(super) fn new(attempt: Arc<Attempt>, under_way: UnderWay, position: Position, step: Step<T>) -> Self {
        Self {
            attempt,
            under_way,
            position,
            definition: step.definition,
            arguments: Arc::new(Mutex::new(step.arguments)),
            body: step.body,
            retry: step.definition.retry.unwrap_or_default(),
            timeout: step.definition.timeout,
            state: State::New,
            output: PhantomData,
            ctx: PhantomData,
        }
    }

    /// Use this retry policy here instead of the step's own; a number means that many attempts.
    pub fn retry(mut self, retry: impl Into<Retry>) -> Self {
        self.retry = retry.into();
        self
    }

    /// Give each attempt at most this long here.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    fn kind(&self) -> Kind {
        match self.body {
            StepBody::Plain(_) => Kind::Step,
            StepBody::Transaction(_) => Kind::Transaction,
        }
    }

    /// Order the next attempt.
    fn order(&mut self, turn: Option<Instant>, past: Vec<FailedAttempt>) {
        let (reply, answer) = oneshot::channel();
        self.attempt.begin_flight();
        let order = StepOrder {
            attempt: self.attempt.clone(),
            position: self.position.clone(),
            name: self.definition.name,
            arguments: self.arguments.clone(),
            body: self.body.clone(),
            retry: self.retry,
            timeout: self.timeout,
            limit: self.definition.limit,
            turn,
            past,
            reply,
            _open: OpenOrder::new(&self.attempt),
        };
        self.attempt.order(Order::Step(order));
        self.state = State::Running(answer);
    }

    fn wait_until(&mut self, deadline: Instant, is_turn: bool, past: Vec<FailedAttempt>) {
        let timer = Box::pin(tokio::time::sleep_until(deadline.into()));
        self.state = State::Waiting { timer, deadline, is_turn, past };
    }

    /// Go on where an earlier attempt of the workflow waited, or begin.
    fn begin(&mut self) {
        match self.attempt.stored_wait(&self.position).filter(|wait| wait.kind == WaitKind::Retry) {
            Some(stored) => {
                let deadline = stored.until.map_or_else(far_future, |until| self.attempt.instant_of(until));
                let is_turn = stored.topic.is_some() && stored.topic.as_deref() == self.definition.limit;
                self.wait_until(deadline, is_turn, stored.attempts.unwrap_or_default());
            }
            None => self.order(None, Vec::new()),
        }
    }

    /// End whatever this leaf had under way.
    fn settle(&mut self) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Running(_) => self.attempt.end_flight(),
            State::Waiting { .. } => self.attempt.end_wait(&self.position),
            State::New | State::Over => {}
        }
    }
}

impl<T: DeserializeOwned + Send + 'static> StepRun<'_, T> {
    /// Give a record to the body; or, where it does not fit the body's types, nothing ever.
    fn give_record(&mut self, record: Record, value: Option<Box<dyn Any + Send>>) -> Poll<Result<T, Failure>> {
        let given = match (record.outcome, value.map(Box::<dyn Any + Send>::downcast)) {
            (Ok(_), Some(Ok(value))) => Ok(*value),
            (Ok(output), _) => match codec::decode(&output) {
                Ok(value) => Ok(value),
                Err(problem) => {
                    let mismatch = format!(
                        "the recorded output of step {:?} at {} {problem}",
                        self.definition.name, self.position
                    );
                    self.attempt.stop(Stop::Mismatch(Mismatch(mismatch)));
                    self.settle();
                    return Poll::Pending;
                }
            },
            (Err(failure), _) => Err(failure),
        };
        self.give(given, record.ended_at)
    }

    /// Give a new outcome to the body. It is written when the body next waits or ends, with what else there is to
    /// write; until then nothing begins that a repetition of this step could contradict.
    fn give_new(&mut self, row: StepRow, value: Result<Box<dyn Any + Send>, Failure>) -> Poll<Result<T, Failure>> {
        let ended_at = row.ended_at;
        let given = value.map(|value| *value.downcast().expect("the step's own output"));
        self.attempt.write_first(row);
        self.give(given, ended_at)
    }

    fn give(&mut self, given: Result<T, Failure>, ended_at: DateTime<Utc>) -> Poll<Result<T, Failure>> {
        self.settle();
        self.under_way.lane().observe(ended_at);
        self.under_way.end();
        Poll::Ready(given)
    }
}

impl<T: DeserializeOwned + Send + 'static> Future for StepRun<'_, T> {
    type Output = Result<T, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.under_way.begin();
        loop {
            match &mut this.state {
                State::New => match this.attempt.ask(&this.position, this.kind(), this.definition.name, cx.waker()) {
                    Asked::Recorded(record) => return this.give_record(record, None),
                    Asked::Begin => this.begin(),
                    Asked::Later => return Poll::Pending,
                    Asked::Stopped => this.state = State::Over,
                },
                State::Running(answer) => match ready!(Pin::new(answer).poll(cx)) {
                    Ok(Driven::Done(row, value)) => return this.give_new(*row, value),
                    Ok(Driven::Recorded(record, value)) => return this.give_record(record, value),
                    Ok(Driven::Later { after, is_turn, past }) => {
                        this.settle();
                        let deadline = Instant::now().checked_add(after).unwrap_or_else(far_future);
                        this.wait_until(deadline, is_turn, past);
                    }
                    // The worker stopped the attempt and gave up the order.
                    Err(_) => this.settle(),
                },
                State::Waiting { timer, deadline, is_turn, past } => {
                    if timer.as_mut().poll(cx).is_ready() {
                        let (turn, past) = (is_turn.then_some(*deadline), std::mem::take(past));
                        this.settle();
                        this.order(turn, past);
                        continue;
                    }
                    let waiting = Waiting {
                        topic: this.definition.limit.filter(|_| *is_turn),
                        attempts: Some(to_json(past)),
                        deadline: Some(*deadline),
                        ..Waiting::new(WaitKind::Retry, cx.waker())
                    };
                    this.attempt.wait(&this.position, waiting);
                    return Poll::Pending;
                }
                State::Over => return Poll::Pending,
            }
        }
    }
}

// Nothing in it is ever pinned in place: the one future inside is boxed.
impl<T> Unpin for StepRun<'_, T> {}

impl<T> Drop for StepRun<'_, T> {
    fn drop(&mut self) {
        self.settle();
    }
}

impl<T> std::fmt::Debug for StepRun<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StepRun({:?} at {})", self.definition.name, self.position)
    }
}
