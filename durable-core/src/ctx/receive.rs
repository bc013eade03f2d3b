//! A receive as a body awaits it: looks into the mailbox when there may be mail, and waits otherwise.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::attempt::{Asked, Attempt, WAIT_MAX, Waiting, far_future};
use super::lane::UnderWay;
use super::order::{Looked, OpenOrder, Order, ReceiveOrder};
use crate::codec;
use crate::decide::Stop;
use crate::failure::{Failure, FailureKind};
use crate::history::{Kind, Mismatch, Record, WaitKind};
use crate::id::{Position, check_text};
use crate::topic::Topic;

/// A receive in a body: await it, or bound it first. Made by [`Ctx::receive`](crate::Ctx::receive).
#[must_use = "a receive does nothing until it is awaited"]
pub struct Receive<'c, T>(Mailbox<'c, T>);

/// A receive with a timeout: gives `None` when no message came in time. Made by [`Receive::timeout`].
#[must_use = "a receive does nothing until it is awaited"]
pub struct ReceiveTimeout<'c, T>(Mailbox<'c, T>);

struct Mailbox<'c, T> {
    attempt: Arc<Attempt>,
    under_way: UnderWay,
    position: Position,
    topic: Topic<T>,
    timeout: Option<Duration>,
    began_at: Instant,
    state: State,
    ctx: PhantomData<&'c ()>,
}

enum State {
    New,
    Looking { answer: oneshot::Receiver<Looked>, mark: u64, wait: Wait },
    Waiting { mark: u64, seen: i64, wait: Wait },
    Over,
}

/// How long a receive waits.
#[derive(Default)]
struct Wait {
    timer: Option<(Pin<Box<tokio::time::Sleep>>, Instant)>,
    until: Option<DateTime<Utc>>,
}

impl Wait {
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.timer.as_mut().is_some_and(|(timer, _)| timer.as_mut().poll(cx).is_ready())
    }
}

/// What stands in the record of a receive.
#[derive(Deserialize)]
struct Outcome {
    #[serde(default)]
    timed_out: bool,
    message: Option<Box<RawValue>>,
}

impl<'c, T> Receive<'c, T> {
    pub(super) fn new(attempt: Arc<Attempt>, under_way: UnderWay, position: Position, topic: Topic<T>) -> Self {
        Self(Mailbox {
            attempt,
            under_way,
            position,
            topic,
            timeout: None,
            began_at: Instant::now(),
            state: State::New,
            ctx: PhantomData,
        })
    }

    /// Wait at most this long, at most 100 years, and give `None` then.
    ///
    /// # Durability
    ///
    /// The time-out counts from the first time that the body came here, and outlives crashes and
    /// suspensions. Whichever comes first, message or time-out, is recorded, and stays so.
    pub fn timeout(mut self, timeout: Duration) -> ReceiveTimeout<'c, T> {
        self.0.timeout = Some(timeout);
        ReceiveTimeout(self.0)
    }
}

impl<T> Mailbox<'_, T> {
    fn begin(&mut self) {
        self.began_at = Instant::now();
        let mut wait = Wait::default();
        if let Some(timeout) = self.timeout {
            let stored = self.attempt.stored_wait(&self.position).filter(|wait| wait.kind == WaitKind::Receive);
            wait.until = stored.and_then(|stored| stored.until);
            let deadline = match wait.until {
                Some(until) => self.attempt.instant_of(until),
                None => self.began_at.checked_add(timeout).unwrap_or_else(far_future),
            };
            wait.timer = Some((Box::pin(tokio::time::sleep_until(deadline.into())), deadline));
        }
        // A mailbox that nobody ever wrote to needs no look.
        let (seen, _) = self.attempt.mail();
        self.state = State::Waiting { mark: 0, seen, wait };
    }

    fn look(&mut self, wait: Wait, over: bool) {
        let (reply, answer) = oneshot::channel();
        let (_, mark) = self.attempt.mail();
        self.attempt.begin_flight();
        let order = ReceiveOrder {
            attempt: self.attempt.clone(),
            position: self.position.clone(),
            topic: self.topic.name(),
            over,
            took: self.attempt.waited(&self.position, WaitKind::Receive, self.began_at),
            reply,
            _open: OpenOrder::new(&self.attempt),
        };
        self.attempt.order(Order::Receive(order));
        self.state = State::Looking { answer, mark, wait };
    }

    fn settle(&mut self) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Looking { .. } => self.attempt.end_look(&self.position),
            State::Waiting { .. } => self.attempt.end_wait(&self.position),
            State::New | State::Over => {}
        }
    }

    /// Reject what cannot be a topic or a wait, the same way on every run.
    fn refuse(&self) -> Option<Failure> {
        let failure = |problem| Some(Failure::new(FailureKind::Error, problem).terminal());
        if let Err(error) = check_text("topic", self.topic.name()) {
            return failure(error.to_string());
        }
        if self.timeout.is_some_and(|timeout| timeout > WAIT_MAX) {
            return failure("a receive that waits for more than 100 years: leave the timeout out".to_owned());
        }
        None
    }
}

impl<T: DeserializeOwned> Mailbox<'_, T> {
    fn give(&mut self, record: Record) -> Poll<Result<Option<T>, Failure>> {
        self.settle();
        let outcome = match record.outcome.as_deref().map(serde_json::from_str::<Outcome>) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => {
                let mismatch = format!("the record of the receive at {} is not one of a receive", self.position);
                self.attempt.stop(Stop::Mismatch(Mismatch(mismatch)));
                return Poll::Pending;
            }
        };
        if outcome.timed_out && self.timeout.is_none() {
            let mismatch = format!("the receive at {} timed out, the code has no timeout there", self.position);
            self.attempt.stop(Stop::Mismatch(Mismatch(mismatch)));
            return Poll::Pending;
        }
        self.under_way.lane().observe(record.ended_at);
        self.under_way.end();
        if outcome.timed_out {
            return Poll::Ready(Ok(None));
        }
        self.under_way.lane().take_message();
        let message = outcome.message.as_deref().map_or("null", RawValue::get);
        Poll::Ready(codec::decode(message).map(Some).map_err(|problem| {
            let topic = self.topic.name();
            Failure::new(FailureKind::Value, format!("a message of topic {topic:?} {problem}")).terminal()
        }))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<T>, Failure>> {
        if let Some(failure) = self.refuse() {
            return Poll::Ready(Err(failure));
        }
        self.under_way.begin();
        loop {
            match &mut self.state {
                State::New => match self.attempt.ask(&self.position, Kind::Receive, self.topic.name(), cx.waker()) {
                    Asked::Recorded(record) => return self.give(record),
                    Asked::Begin => self.begin(),
                    Asked::Later => return Poll::Pending,
                    Asked::Stopped => self.state = State::Over,
                },
                State::Looking { answer, mark, wait } => match ready!(Pin::new(answer).poll(cx)) {
                    Ok(Looked { record: Some(record), .. }) => return self.give(record),
                    Ok(Looked { record: None, wakes }) => {
                        let (mark, wait) = (*mark, std::mem::take(wait));
                        self.settle();
                        self.attempt.saw(wakes);
                        self.state = State::Waiting { mark, seen: wakes, wait };
                    }
                    Err(_) => self.settle(),
                },
                State::Waiting { mark, seen, wait } => {
                    let over = wait.is_over(cx);
                    if (over || self.attempt.mail().1 > *mark) && self.attempt.may_look(&self.position) {
                        let wait = std::mem::take(wait);
                        self.settle();
                        self.look(wait, over);
                        continue;
                    }
                    let waiting = Waiting {
                        topic: Some(self.topic.name()),
                        deadline: wait.timer.as_ref().map(|(_, deadline)| *deadline),
                        until: wait.until,
                        began_at: self.began_at,
                        seen: Some(*seen),
                        ..Waiting::new(WaitKind::Receive, cx.waker())
                    };
                    self.attempt.wait(&self.position, waiting);
                    return Poll::Pending;
                }
                State::Over => return Poll::Pending,
            }
        }
    }
}

impl<T: DeserializeOwned> Future for Receive<'_, T> {
    type Output = Result<T, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match ready!(self.0.poll(cx)) {
            Ok(Some(value)) => Poll::Ready(Ok(value)),
            // Without a timeout there is no record of one: `give` has refused it.
            Ok(None) => Poll::Pending,
            Err(failure) => Poll::Ready(Err(failure)),
        }
    }
}

impl<T: DeserializeOwned> Future for ReceiveTimeout<'_, T> {
    type Output = Result<Option<T>, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx)
    }
}

impl<T> Drop for Mailbox<'_, T> {
    fn drop(&mut self) {
        self.settle();
    }
}

impl<T> std::fmt::Debug for Receive<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Receive({:?} at {})", self.0.topic.name(), self.0.position)
    }
}

impl<T> std::fmt::Debug for ReceiveTimeout<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReceiveTimeout({:?} at {})", self.0.topic.name(), self.0.position)
    }
}
