//! The start of a child as a body awaits it: answered from history, or ordered from the worker.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::Child;
use super::result::ChildResult;
use crate::ctx::attempt::{Asked, Attempt, WAIT_MAX};
use crate::ctx::lane::UnderWay;
use crate::ctx::order::{Order, StartOrder};
use crate::decide::{Stop, to_json};
use crate::failure::{Failure, FailureKind};
use crate::history::{Kind, Mismatch, Record};
use crate::id::{Id, Position, check_text};
use crate::options::millis;
use crate::store::child::{ChildStarted, NewChild};
use crate::store::step::StepRow;
use crate::workflow::{Call, OutputOf, Workflow};

/// A child about to be started: await it, after giving it options if need be, and get the [`Child`]. Made by
/// [`Ctx::start`](crate::Ctx::start).
///
/// # Cancel safety
///
/// A start that is dropped after it was polled may have started the child.
#[must_use = "a child is not started until this is awaited"]
pub struct ChildStart<'c, W: Workflow> {
    attempt: Arc<Attempt>,
    under_way: UnderWay,
    position: Position,
    call: Option<Call<W>>,
    options: Options,
    state: State,
    ctx: PhantomData<&'c ()>,
}

/// A child about to be started and waited for: await it, after giving it options if need be, and get its output. Made by
/// [`Ctx::run`](crate::Ctx::run).
///
/// # Cancel safety
///
/// As for [`ChildStart`]; the child goes on without anybody who waits for it.
#[must_use = "a child is not started until this is awaited"]
pub struct ChildRun<'c, W: Workflow> {
    start: ChildStart<'c, W>,
    /// The lane and the position of the result, until there is a child to wait for.
    then: Option<(UnderWay, Position)>,
    result: Option<ChildResult<'c, OutputOf<W>>>,
}

#[derive(Default)]
struct Options {
    id: Option<String>,
    queue: Option<String>,
    partition: Option<String>,
    priority: Option<i16>,
    delay: Duration,
    deadline: Option<Duration>,
    detached: bool,
}

enum State {
    New,
    Starting(Id, oneshot::Receiver<ChildStarted>),
    /// Nothing more comes: the attempt was stopped, or the outcome was given.
    Over,
}

/// What stands in the record of a start.
#[derive(Serialize, Deserialize)]
struct Outcome {
    id: String,
}

macro_rules! child_options {
    ($name:ident, $self:ident => $options:expr) => {
        impl<W: Workflow> $name<'_, W> {
            /// The child's id: 1 to 512 bytes without control characters. Default: this workflow's id and the position,
            /// `order-42/3`, or `order-42/3.0` in a branch; a hash of that where it would be too long.
            pub fn id(mut $self, id: impl Into<String>) -> Self {
                $options.id = Some(id.into());
                $self
            }

            /// Put it into this queue. Default: the queue of this workflow.
            pub fn queue(mut $self, queue: impl Into<String>) -> Self {
                $options.queue = Some(queue.into());
                $self
            }

            /// Put it into this [partition](crate::Start::partition) of its queue, which has to have limits. Default: the one of those
            /// that have none, whatever partition this workflow is in.
            pub fn partition(mut $self, partition: impl Into<String>) -> Self {
                $options.partition = Some(partition.into());
                $self
            }

            /// Lower goes first within a queue. Default: the priority of this workflow.
            pub fn priority(mut $self, priority: i16) -> Self {
                $options.priority = Some(priority);
                $self
            }

            /// Start it not before this long from now, by the database's clock.
            pub fn delay(mut $self, delay: Duration) -> Self {
                $options.delay = delay;
                $self
            }

            /// End it when it has not ended this long after its start: at most 100 years. Then it has failed, with a failure of
            /// kind [`Deadline`](crate::FailureKind::Deadline). This workflow's own deadline holds for it in any case, unless it
            /// is detached.
            pub fn deadline(mut $self, deadline: Duration) -> Self {
                $options.deadline = Some(deadline);
                $self
            }

            /// Leave it alone when this workflow is cancelled, or has not ended by its deadline.
            pub fn detached(mut $self) -> Self {
                $options.detached = true;
                $self
            }
        }
    };
}
child_options!(ChildStart, self => self.options);
child_options!(ChildRun, self => self.start.options);

impl<W: Workflow> ChildStart<'_, W> {
    pub(in crate::ctx) fn new(attempt: Arc<Attempt>, under_way: UnderWay, position: Position, call: Call<W>) -> Self {
        Self {
            attempt,
            under_way,
            position,
            call: Some(call),
            options: Options::default(),
            state: State::New,
            ctx: PhantomData,
        }
    }

    /// The child, or why it cannot be started.
    fn describe(&mut self) -> Result<NewChild, Failure> {
        let (attempt, options) = (&self.attempt, &self.options);
        let refused = |problem: String| Failure::new(FailureKind::Error, problem).terminal();
        let id = match &options.id {
            Some(id) => Id::new(id).map_err(|error| refused(format!("could not start a child: {error}")))?,
            None => default_id(&attempt.id, &self.position),
        };
        let act = format!("could not start child {:?}", id.as_str());
        if id == attempt.id {
            return Err(conflict(&act, "that is the id of this workflow itself"));
        }
        if let Some(queue) = &options.queue {
            check_text("queue", queue).map_err(|error| refused(format!("{act}: {error}")))?;
        }
        if let Some(partition) = &options.partition {
            check_text("partition", partition).map_err(|error| refused(format!("{act}: {error}")))?;
        }
        let input = self.call.take().map(|call| call.encode()).expect("a child is described once");
        let input = input
            .map_err(|problem| Failure::new(FailureKind::Value, format!("{act}: its input {problem}")).terminal())?;
        Ok(NewChild {
            parent: attempt.id.clone(),
            claims: attempt.claims,
            position: self.position.clone(),
            output: to_json(&Outcome { id: id.as_str().to_owned() }),
            id,
            name: W::NAME,
            version: W::VERSION,
            queue: options.queue.clone(),
            partition: options.partition.clone(),
            priority: options.priority,
            delay_ms: millis(options.delay.min(WAIT_MAX)),
            deadline_ms: options.deadline.map(|deadline| millis(deadline.min(WAIT_MAX))),
            input,
            detached: options.detached,
        })
    }

    fn order(&mut self, child: NewChild) {
        let (reply, answer) = oneshot::channel();
        self.attempt.starts_child(&self.position, &child.id);
        self.state = State::Starting(child.id.clone(), answer);
        self.attempt.begin_flight();
        self.attempt.order(Order::StartChild(Box::new(StartOrder { attempt: self.attempt.clone(), child, reply })));
    }

    /// End whatever this leaf had under way.
    fn settle(&mut self) {
        if let State::Starting(..) = std::mem::replace(&mut self.state, State::Over) {
            self.attempt.end_flight();
        }
    }

    fn give(&mut self, given: Result<Id, Failure>, at: DateTime<Utc>) -> Poll<Result<Child<OutputOf<W>>, Failure>> {
        self.settle();
        self.under_way.lane().observe(at);
        self.under_way.end();
        Poll::Ready(given.map(|id| Child::new(id, W::NAME)))
    }

    fn give_record(&mut self, record: Record) -> Poll<Result<Child<OutputOf<W>>, Failure>> {
        let output = match record.outcome {
            Ok(output) => output,
            Err(failure) => return self.give(Err(failure), record.ended_at),
        };
        let known = serde_json::from_str::<Outcome>(&output);
        let mismatch = match (known, &self.options.id) {
            (Ok(Outcome { id }), Some(asked)) if id != *asked => {
                format!(
                    "at position {} the history has started child {id:?}, the code asks for {asked:?}",
                    self.position
                )
            }
            (Ok(Outcome { id }), _) => {
                let id = Id::trusted(&id);
                self.attempt.starts_child(&self.position, &id);
                return self.give(Ok(id), record.ended_at);
            }
            (Err(_), _) => format!("the record of the start at {} is not one of a start", self.position),
        };
        self.attempt.stop(Stop::Mismatch(Mismatch(mismatch)));
        self.settle();
        Poll::Pending
    }

    /// It cannot be started, and never will be: that is recorded.
    fn give_refusal(&mut self, failure: Failure) -> Poll<Result<Child<OutputOf<W>>, Failure>> {
        let ended_at = self.attempt.about_now();
        self.attempt.write_first(StepRow {
            id: self.attempt.id.clone(),
            claims: self.attempt.claims,
            row_at: self.attempt.row_at.clone(),
            position: self.position.clone(),
            kind: Kind::Start,
            name: W::NAME,
            input: None,
            output: None,
            failure: Some(to_json(&failure)),
            attempts: None,
            ended_at,
            took_ms: 0,
        });
        self.give(Err(failure), ended_at)
    }
}

fn conflict(act: &str, problem: &str) -> Failure {
    Failure::new(FailureKind::Conflict, format!("{act}: {problem}: give the child another id")).terminal()
}

/// The same on every run, and different from every other child's.
fn default_id(parent: &Id, position: &Position) -> Id {
    let text = format!("{parent}/{position}");
    Id::new(&text).unwrap_or_else(|_| {
        let hash = Sha256::digest(text.as_bytes());
        Id::trusted(&hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    })
}

impl<W: Workflow> Future for ChildStart<'_, W> {
    type Output = Result<Child<OutputOf<W>>, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.under_way.begin();
        loop {
            match &mut this.state {
                State::New => match this.attempt.ask(&this.position, Kind::Start, W::NAME, cx.waker()) {
                    Asked::Recorded(record) => return this.give_record(record),
                    Asked::Begin => match this.describe() {
                        Ok(child) => this.order(child),
                        Err(failure) => return this.give_refusal(failure),
                    },
                    Asked::Later => return Poll::Pending,
                    Asked::Stopped => this.state = State::Over,
                },
                State::Starting(id, answer) => match ready!(Pin::new(answer).poll(cx)) {
                    Ok(ChildStarted::Started { at, wakes }) => {
                        let id = id.clone();
                        if let Some(wakes) = wakes {
                            this.attempt.child_started(&id, wakes);
                        }
                        return this.give(Ok(id), at);
                    }
                    Ok(ChildStarted::Taken(name, version)) => {
                        let act = format!("could not start child {:?}", id.as_str());
                        let problem = format!(
                            "its id belongs to workflow {name:?} version {version}, which was not started at this position \
                             of this workflow"
                        );
                        return this.give_refusal(conflict(&act, &problem));
                    }
                    // The worker stopped the attempt.
                    Ok(ChildStarted::Overtaken | ChildStarted::Lost | ChildStarted::Again) | Err(_) => this.settle(),
                },
                State::Over => return Poll::Pending,
            }
        }
    }
}

impl<'c, W: Workflow> ChildRun<'c, W> {
    pub(in crate::ctx) fn new(start: ChildStart<'c, W>, under_way: UnderWay, position: Position) -> Self {
        Self { start, then: Some((under_way, position)), result: None }
    }
}

impl<W: Workflow> Future for ChildRun<'_, W> {
    type Output = Result<OutputOf<W>, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.result.is_none() {
            let started = ready!(Pin::new(&mut this.start).poll(cx));
            let Some((under_way, position)) = this.then.take() else { return Poll::Pending };
            match started {
                Ok(child) => {
                    this.result = Some(ChildResult::new(this.start.attempt.clone(), under_way, position, &child));
                }
                Err(failure) => return Poll::Ready(Err(failure)),
            }
        }
        let result = this.result.as_mut().expect("it was just made");
        Pin::new(result).poll(cx)
    }
}

// Nothing in them is ever pinned in place.
impl<W: Workflow> Unpin for ChildStart<'_, W> {}
impl<W: Workflow> Unpin for ChildRun<'_, W> {}

impl<W: Workflow> Drop for ChildStart<'_, W> {
    fn drop(&mut self) {
        self.settle();
    }
}

impl<W: Workflow> std::fmt::Debug for ChildStart<'_, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChildStart({:?} at {})", W::NAME, self.position)
    }
}

impl<W: Workflow> std::fmt::Debug for ChildRun<'_, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChildRun({:?} at {})", W::NAME, self.start.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_named_after_its_parent_and_its_position_as_far_as_that_fits() {
        let at = Position { lane: "3".into(), seq: 1 };
        assert_eq!(default_id(&Id::trusted("order-42"), &at).as_str(), "order-42/3.1");
        let long = Id::trusted(&"x".repeat(510));
        let hashed = default_id(&long, &at);
        assert_eq!((hashed.as_str().len(), hashed.clone()), (64, default_id(&long, &at)));
        assert_ne!(hashed, default_id(&long, &at.next()));
    }
}
