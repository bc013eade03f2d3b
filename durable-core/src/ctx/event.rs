//! Events as a body sees them: publishing its own, and waiting for those of other workflows.

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
use super::order::Order;
use super::write::{Reply, Write, Written};
use crate::codec;
use crate::decide::{Stop, to_json};
use crate::event::{EVENT_BYTES_MAX, Event};
use crate::failure::{Failure, FailureKind};
use crate::history::{Kind, Mismatch, Record, WaitKind};
use crate::id::{Id, Position, check_text};
use crate::options::millis;
use crate::store::event::{EventSeen, Publication};
use crate::store::step::StepRow;

/// A value to be published.
pub(crate) struct PublishOrder {
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) publication: Publication,
    pub(crate) reply: oneshot::Sender<((), DateTime<Utc>)>,
}

/// An event to be looked at.
pub(crate) struct EventOrder {
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) of: Id,
    pub(crate) key: &'static str,
    pub(crate) reply: oneshot::Sender<EventSeen>,
}

fn refusal(kind: FailureKind, problem: String) -> Failure {
    Failure::new(kind, problem).terminal()
}

/// A value about to be published: await it. Made by [`Ctx::publish`](crate::Ctx::publish).
#[must_use = "a value is not published until this is awaited"]
pub struct Publish<'c> {
    write: Write<Publishing>,
    ctx: PhantomData<&'c ()>,
}

struct Publishing;

impl Written for Publishing {
    type Answer = ();

    const KIND: Kind = Kind::Publish;

    fn order(attempt: &Arc<Attempt>, at: &Position, key: &'static str, value: String, reply: Reply<Self>) -> Order {
        let publication =
            Publication { id: attempt.id.clone(), claims: attempt.claims, position: at.clone(), key, value };
        Order::Publish(Box::new(PublishOrder { attempt: attempt.clone(), publication, reply }))
    }

    fn recorded(_key: &str, _record: &Record) -> Result<(), String> {
        Ok(())
    }
}

impl Publish<'_> {
    pub(super) fn new(
        attempt: Arc<Attempt>,
        under_way: UnderWay,
        position: Position,
        key: &'static str,
        encoded: Result<String, String>,
    ) -> Self {
        let value = check_text("name of an event", key)
            .map_err(|error| refusal(FailureKind::Error, error.to_string()))
            .and_then(|()| check_value(key, encoded).map_err(|problem| refusal(FailureKind::Value, problem)));
        Self { write: Write::new(attempt, under_way, position, key, value), ctx: PhantomData }
    }
}

fn check_value(key: &str, encoded: Result<String, String>) -> Result<String, String> {
    let value = encoded.map_err(|problem| format!("a value of event {key:?} {problem}"))?;
    if value.len() > EVENT_BYTES_MAX {
        return Err(format!(
            "a value of event {key:?} has {} bytes, at most {EVENT_BYTES_MAX} are allowed: return it from a step, and publish where \
             it is to be found",
            value.len()
        ));
    }
    Ok(value)
}

impl Future for Publish<'_> {
    type Output = Result<(), Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.write.poll(cx)
    }
}

/// A wait for an event of another workflow: await it, or bound it first. Made by [`Ctx::event`](crate::Ctx::event).
#[must_use = "an event is not waited for until this is awaited"]
pub struct AwaitEvent<'c, T>(Watch<'c, T>);

/// A wait for an event with a timeout: gives `None` when nothing was published in time. Made by [`AwaitEvent::timeout`].
#[must_use = "an event is not waited for until this is awaited"]
pub struct AwaitEventTimeout<'c, T>(Watch<'c, T>);

struct Watch<'c, T> {
    attempt: Arc<Attempt>,
    under_way: UnderWay,
    position: Position,
    of: Result<Id, Failure>,
    event: Event<T>,
    timeout: Option<Duration>,
    began_at: Instant,
    wait: Wait,
    state: State,
    ctx: PhantomData<&'c ()>,
}

/// How long it waits.
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

enum State {
    New,
    /// `over` when the time was over before the look.
    Looking {
        answer: oneshot::Receiver<EventSeen>,
        mark: u64,
        over: bool,
    },
    Waiting {
        mark: u64,
        seen: i64,
    },
    Over,
}

/// What stands in the record of a wait.
#[derive(Deserialize)]
struct Outcome {
    #[serde(default)]
    timed_out: bool,
    value: Option<Box<RawValue>>,
}

impl<'c, T> AwaitEvent<'c, T> {
    pub(super) fn new(
        attempt: Arc<Attempt>,
        under_way: UnderWay,
        position: Position,
        of: &str,
        event: Event<T>,
    ) -> Self {
        let of = check_target(&attempt.id, of, event.key());
        Self(Watch {
            attempt,
            under_way,
            position,
            of,
            event,
            timeout: None,
            began_at: Instant::now(),
            wait: Wait::default(),
            state: State::New,
            ctx: PhantomData,
        })
    }

    /// Wait at most this long, at most 100 years, and give `None` then.
    ///
    /// # Durability
    ///
    /// The time-out counts from the first time that the body came here, and outlives crashes and suspensions. Whichever
    /// comes first, value or time-out, is recorded, and stays so.
    pub fn timeout(mut self, timeout: Duration) -> AwaitEventTimeout<'c, T> {
        self.0.timeout = Some(timeout);
        AwaitEventTimeout(self.0)
    }
}

fn check_target(own: &Id, of: &str, key: &str) -> Result<Id, Failure> {
    let refused = |problem| refusal(FailureKind::Error, problem);
    check_text("name of an event", key).map_err(|error| refused(error.to_string()))?;
    let of = Id::new(of).map_err(|error| refused(format!("could not wait for event {key:?}: {error}")))?;
    if of == *own {
        return Err(refused(format!(
            "workflow {own} waits for its own event {key:?}, which would never come: wait for another workflow's, or for a message"
        )));
    }
    Ok(of)
}

impl<T> Watch<'_, T> {
    fn begin(&mut self) {
        self.began_at = Instant::now();
        if let Some(timeout) = self.timeout {
            let stored = self.attempt.stored_wait(&self.position).filter(|wait| wait.kind == WaitKind::Event);
            self.wait.until = stored.and_then(|stored| stored.until);
            let deadline = match self.wait.until {
                Some(until) => self.attempt.instant_of(until),
                None => self.began_at.checked_add(timeout).unwrap_or_else(far_future),
            };
            self.wait.timer = Some((Box::pin(tokio::time::sleep_until(deadline.into())), deadline));
        }
    }

    fn look(&mut self, of: Id, over: bool) {
        let (reply, answer) = oneshot::channel();
        let (_, mark) = self.attempt.mail();
        self.attempt.begin_flight();
        let order = EventOrder { attempt: self.attempt.clone(), of, key: self.event.key(), reply };
        self.attempt.order(Order::LookAtEvent(order));
        self.state = State::Looking { answer, mark, over };
    }

    fn settle(&mut self) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Looking { .. } => self.attempt.end_flight(),
            State::Waiting { .. } => self.attempt.end_wait(&self.position),
            State::New | State::Over => {}
        }
    }

    /// Reject what cannot be waited for, the same way on every run.
    fn refuse(&self) -> Option<Failure> {
        if let Err(failure) = &self.of {
            return Some(failure.clone());
        }
        let too_long = self.timeout.is_some_and(|timeout| timeout > WAIT_MAX);
        let problem = "a wait for an event of more than 100 years: leave the timeout out";
        too_long.then(|| refusal(FailureKind::Error, problem.to_owned()))
    }

    /// Have an outcome written. Answers its time.
    fn record(&self, of: &Id, output: String) -> DateTime<Utc> {
        let ended_at = self.attempt.about_now();
        self.attempt.write_first(StepRow {
            id: self.attempt.id.clone(),
            claims: self.attempt.claims,
            row_at: self.attempt.row_at.clone(),
            position: self.position.clone(),
            kind: Kind::Event,
            name: self.event.key(),
            // For people: whose it is.
            input: Some(to_json(&of.as_str())),
            output: Some(output),
            failure: None,
            attempts: None,
            ended_at,
            took_ms: millis(self.attempt.waited(&self.position, WaitKind::Event, self.began_at)),
        });
        ended_at
    }

    fn wait_for_it(&mut self, cx: &Context<'_>) {
        let State::Waiting { seen, .. } = self.state else { return };
        let waiting = Waiting {
            topic: Some(self.event.key()),
            deadline: self.wait.timer.as_ref().map(|(_, deadline)| *deadline),
            until: self.wait.until,
            began_at: self.began_at,
            seen: Some(seen),
            ..Waiting::new(WaitKind::Event, cx.waker())
        };
        self.attempt.wait(&self.position, waiting);
    }
}

impl<T: DeserializeOwned> Watch<'_, T> {
    fn give(&mut self, value: Option<&str>, at: DateTime<Utc>) -> Poll<Result<Option<T>, Failure>> {
        self.settle();
        self.under_way.lane().observe(at);
        self.under_way.end();
        Poll::Ready(value.map(codec::decode).transpose().map_err(|problem| {
            refusal(FailureKind::Value, format!("a value of event {:?} {problem}", self.event.key()))
        }))
    }

    fn give_record(&mut self, record: &Record) -> Poll<Result<Option<T>, Failure>> {
        let outcome = record.outcome.as_deref().ok().and_then(|output| serde_json::from_str::<Outcome>(output).ok());
        let mismatch = match &outcome {
            None => format!("the record of the event at {} is not one of an event", self.position),
            Some(outcome) if outcome.timed_out && self.timeout.is_none() => {
                format!("the wait for an event at {} timed out, the code has no timeout there", self.position)
            }
            Some(outcome) => return self.give(outcome.value.as_deref().map(RawValue::get), record.ended_at),
        };
        self.attempt.stop(Stop::Mismatch(Mismatch(mismatch)));
        self.settle();
        Poll::Pending
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<T>, Failure>> {
        if let Some(failure) = self.refuse() {
            return Poll::Ready(Err(failure));
        }
        let Ok(of) = self.of.clone() else { return Poll::Pending };
        self.under_way.begin();
        loop {
            match &mut self.state {
                State::New => match self.attempt.ask(&self.position, Kind::Event, self.event.key(), cx.waker()) {
                    Asked::Recorded(record) => return self.give_record(&record),
                    Asked::Begin => {
                        self.begin();
                        self.look(of.clone(), false);
                    }
                    Asked::Later => return Poll::Pending,
                    Asked::Stopped => self.state = State::Over,
                },
                State::Looking { answer, mark, over } => match ready!(Pin::new(answer).poll(cx)) {
                    Ok(EventSeen { wakes, value }) => {
                        let (mark, over) = (*mark, *over);
                        self.settle();
                        self.attempt.saw(wakes);
                        if let Some(value) = value {
                            let at = self.record(&of, format!("{{\"value\":{value}}}"));
                            return self.give(Some(&value), at);
                        }
                        if over {
                            let at = self.record(&of, "{\"timed_out\":true}".to_owned());
                            return self.give(None, at);
                        }
                        self.state = State::Waiting { mark, seen: wakes };
                    }
                    // The worker stopped the attempt.
                    Err(_) => self.settle(),
                },
                State::Waiting { mark, .. } => {
                    let mark = *mark;
                    let over = self.wait.is_over(cx);
                    if over || self.attempt.mail().1 > mark {
                        self.settle();
                        self.look(of.clone(), over);
                        continue;
                    }
                    self.wait_for_it(cx);
                    return Poll::Pending;
                }
                State::Over => return Poll::Pending,
            }
        }
    }
}

impl<T: DeserializeOwned> Future for AwaitEvent<'_, T> {
    type Output = Result<T, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match ready!(self.0.poll(cx)) {
            Ok(Some(value)) => Poll::Ready(Ok(value)),
            // Without a timeout there is no record of one: `give_record` has refused it.
            Ok(None) => Poll::Pending,
            Err(failure) => Poll::Ready(Err(failure)),
        }
    }
}

impl<T: DeserializeOwned> Future for AwaitEventTimeout<'_, T> {
    type Output = Result<Option<T>, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx)
    }
}

// Nothing in it is ever pinned in place: the timer is boxed.
impl<T> Unpin for Watch<'_, T> {}

impl<T> Drop for Watch<'_, T> {
    fn drop(&mut self) {
        self.settle();
    }
}

impl std::fmt::Debug for Publish<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Publish({:?} at {})", self.write.name, self.write.position)
    }
}

impl<T> std::fmt::Debug for AwaitEvent<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AwaitEvent({:?} at {})", self.0.event.key(), self.0.position)
    }
}

impl<T> std::fmt::Debug for AwaitEventTimeout<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AwaitEventTimeout({:?} at {})", self.0.event.key(), self.0.position)
    }
}
