//! The end of a child as a body awaits it: answered from history, or by a look that is for all children that are awaited.
//!
//! How it ended is recorded as an outcome of the parent's, like that of a step: given to the body at once, and written before
//! anything else of it begins.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Child, Children};
use crate::codec;
use crate::ctx::attempt::{Asked, Attempt};
use crate::ctx::lane::UnderWay;
use crate::decide::{Stop, to_json};
use crate::failure::{Failure, FailureKind};
use crate::history::{Kind, Mismatch, Record, WaitKind};
use crate::id::{Id, Position};
use crate::options::millis;
use crate::store::child::ChildEnd;
use crate::store::step::StepRow;

/// The name that the ends of whichever child is next have in the history.
const NEXT: &str = "next";

/// The result of a child: await it. Made by [`Ctx::result`](crate::Ctx::result).
#[must_use = "a result is not waited for until this is awaited"]
pub struct ChildResult<'c, T> {
    leaf: Leaf,
    output: PhantomData<fn() -> T>,
    ctx: PhantomData<&'c ()>,
}

/// The next child of several to end: await it. Made by [`Ctx::next`](crate::Ctx::next).
#[must_use = "a result is not waited for until this is awaited"]
pub struct NextChild<'c, T> {
    leaf: Leaf,
    children: &'c mut Children<T>,
}

/// The wait for the first of some children.
struct Leaf {
    attempt: Arc<Attempt>,
    under_way: UnderWay,
    position: Position,
    name: &'static str,
    of: Arc<[Id]>,
    began_at: Instant,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    New,
    Waiting,
    /// Nothing more comes: the attempt was stopped, or the outcome was given.
    Over,
}

/// What a wait came to.
enum Came {
    Recorded(Record),
    Ended(Id, ChildEnd),
}

/// What stands in the record of whichever child was next.
#[derive(Serialize, Deserialize)]
struct Next {
    child: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
}

impl Leaf {
    fn new(attempt: Arc<Attempt>, under_way: UnderWay, position: Position, name: &'static str, of: Arc<[Id]>) -> Self {
        Self { attempt, under_way, position, name, of, began_at: Instant::now(), state: State::New }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Came> {
        self.under_way.begin();
        if self.state == State::New {
            match self.attempt.ask(&self.position, Kind::Child, self.name, cx.waker()) {
                Asked::Recorded(record) => return Poll::Ready(Came::Recorded(record)),
                Asked::Begin => self.state = State::Waiting,
                Asked::Later => return Poll::Pending,
                Asked::Stopped => self.state = State::Over,
            }
        }
        if self.state == State::Over {
            return Poll::Pending;
        }
        match self.attempt.child_end(&self.position, &self.of, cx.waker()) {
            Some((id, end)) => Poll::Ready(Came::Ended(id, end)),
            None => Poll::Pending,
        }
    }

    /// Have an outcome written. Answers its time.
    fn record(&self, id: &Id, output: Option<String>, failure: Option<&Failure>) -> DateTime<Utc> {
        let ended_at = self.attempt.about_now();
        self.attempt.write_first(StepRow {
            id: self.attempt.id.clone(),
            claims: self.attempt.claims,
            row_at: self.attempt.row_at.clone(),
            position: self.position.clone(),
            kind: Kind::Child,
            name: self.name,
            // For people: which one it was.
            input: Some(to_json(&id.as_str())),
            output,
            failure: failure.map(to_json),
            attempts: None,
            ended_at,
            took_ms: millis(self.attempt.waited(&self.position, WaitKind::Child, self.began_at)),
        });
        ended_at
    }

    fn end(&mut self, at: DateTime<Utc>) {
        self.settle();
        self.under_way.lane().observe(at);
        self.under_way.end();
    }

    /// End whatever this leaf had under way.
    fn settle(&mut self) {
        if std::mem::replace(&mut self.state, State::Over) == State::Waiting {
            self.attempt.end_wait(&self.position);
        }
    }

    fn mismatch<T>(&mut self, problem: String) -> Poll<T> {
        self.attempt.stop(Stop::Mismatch(Mismatch(problem)));
        self.settle();
        Poll::Pending
    }

    fn no_such_output<T>(&mut self, id: &str, problem: &str) -> Poll<T> {
        let at = self.position.clone();
        self.mismatch(format!("the output of child {id:?}, awaited at {at}, {problem}"))
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        self.settle();
    }
}

/// What the parent is given of an end: the output's JSON, or the failure.
fn outcome_of(id: &Id, end: ChildEnd) -> Result<String, Failure> {
    let failed = |kind, problem| Failure::new(kind, problem).terminal();
    let read = |stored: Option<String>| stored.and_then(|failure| serde_json::from_str::<Failure>(&failure).ok());
    let failure = match end {
        ChildEnd::Completed(output) => return Ok(output),
        ChildEnd::Failed(stored) => {
            read(stored).unwrap_or_else(|| Failure::new(FailureKind::Error, "its failure was not stored"))
        }
        ChildEnd::Cancelled(stored) => {
            let reason = read(stored).filter(|failure| !failure.message().is_empty());
            reason.unwrap_or_else(|| failed(FailureKind::Cancelled, "it was cancelled"))
        }
        ChildEnd::Gone => failed(FailureKind::Error, "there is no such workflow any more"),
    };
    Err(failure.of_child(id.as_str()))
}

impl<T> ChildResult<'_, T> {
    pub(in crate::ctx) fn new(
        attempt: Arc<Attempt>,
        under_way: UnderWay,
        position: Position,
        child: &Child<T>,
    ) -> Self {
        let leaf = Leaf::new(attempt, under_way, position, child.name, [child.id.clone()].into());
        Self { leaf, output: PhantomData, ctx: PhantomData }
    }
}

impl<T: DeserializeOwned> Future for ChildResult<'_, T> {
    type Output = Result<T, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let leaf = &mut self.leaf;
        let (id, outcome, recorded_at) = match ready!(leaf.poll(cx)) {
            Came::Recorded(record) => (leaf.of[0].clone(), record.outcome, Some(record.ended_at)),
            Came::Ended(id, end) => {
                let outcome = outcome_of(&id, end);
                (id, outcome, None)
            }
        };
        let given = match outcome.as_deref().map(codec::decode::<T>) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(problem)) => return leaf.no_such_output(id.as_str(), &problem),
            Err(failure) => Err(failure.clone()),
        };
        let at = recorded_at.unwrap_or_else(|| match &outcome {
            Ok(output) => leaf.record(&id, Some(output.clone()), None),
            Err(failure) => leaf.record(&id, None, Some(failure)),
        });
        leaf.end(at);
        Poll::Ready(given)
    }
}

impl<'c, T> NextChild<'c, T> {
    pub(in crate::ctx) fn new(
        attempt: Arc<Attempt>,
        under_way: UnderWay,
        position: Position,
        children: &'c mut Children<T>,
    ) -> Self {
        Self { leaf: Leaf::new(attempt, under_way, position, NEXT, children.ids()), children }
    }
}

impl<T: DeserializeOwned> Future for NextChild<'_, T> {
    type Output = Option<(Child<T>, Result<T, Failure>)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.children.is_empty() {
            return Poll::Ready(None);
        }
        let leaf = &mut this.leaf;
        let (next, recorded_at) = match ready!(leaf.poll(cx)) {
            Came::Recorded(record) => match record.outcome.as_deref().map(serde_json::from_str::<Next>) {
                Ok(Ok(next)) => (next, Some(record.ended_at)),
                Ok(Err(_)) | Err(_) => {
                    let problem = format!("the record at {} is not one of the next child", leaf.position);
                    return leaf.mismatch(problem);
                }
            },
            Came::Ended(id, end) => (Next::of(&id, outcome_of(&id, end)), None),
        };
        let id = Id::trusted(&next.child);
        if !this.children.open.contains_key(&id) {
            let problem =
                format!("child {:?} was the next at {}, the code does not wait for it", next.child, leaf.position);
            return leaf.mismatch(problem);
        }
        let given = match (&next.failure, codec::decode::<T>(next.output.as_deref().map_or("null", RawValue::get))) {
            (Some(failure), _) => Err(failure.clone()),
            (None, Ok(value)) => Ok(value),
            (None, Err(problem)) => return leaf.no_such_output(&next.child, &problem),
        };
        let at = recorded_at.unwrap_or_else(|| leaf.record(&id, Some(to_json(&next)), None));
        leaf.end(at);
        let child = this.children.open.remove(&id).expect("it was looked for");
        Poll::Ready(Some((child, given)))
    }
}

impl Next {
    fn of(id: &Id, outcome: Result<String, Failure>) -> Self {
        let child = id.as_str().to_owned();
        match outcome {
            // What stands in a json column is JSON.
            Ok(output) => Self { child, output: RawValue::from_string(output).ok(), failure: None },
            Err(failure) => Self { child, output: None, failure: Some(failure) },
        }
    }
}

// Nothing in them is ever pinned in place.
impl<T> Unpin for ChildResult<'_, T> {}
impl<T> Unpin for NextChild<'_, T> {}

impl<T> std::fmt::Debug for ChildResult<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChildResult({:?} at {})", self.leaf.name, self.leaf.position)
    }
}

impl<T> std::fmt::Debug for NextChild<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NextChild(of {} at {})", self.leaf.of.len(), self.leaf.position)
    }
}
