//! A sleep as a body awaits it.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::attempt::{Asked, Attempt, WAIT_MAX, Waiting, far_future};
use super::lane::UnderWay;
use crate::failure::{Failure, FailureKind};
use crate::history::{Kind, WaitKind};
use crate::id::Position;
use crate::options::millis;
use crate::store::step::StepRow;

/// The name that sleeps have in the history.
const NAME: &str = "sleep";

/// A sleep in a body: await it. Made by [`Ctx::sleep`](crate::Ctx::sleep).
#[must_use = "a sleep does nothing until it is awaited"]
pub struct Sleep<'c> {
    attempt: Arc<Attempt>,
    under_way: UnderWay,
    position: Position,
    duration: Duration,
    state: State,
    ctx: PhantomData<&'c ()>,
}

enum State {
    New,
    Waiting { timer: Pin<Box<tokio::time::Sleep>>, deadline: Instant, until: Option<DateTime<Utc>> },
    Over,
}

impl Sleep<'_> {
    pub(super) fn new(attempt: Arc<Attempt>, under_way: UnderWay, position: Position, duration: Duration) -> Self {
        Self { attempt, under_way, position, duration, state: State::New, ctx: PhantomData }
    }

    fn begin(&mut self) {
        let stored = self.attempt.stored_wait(&self.position).filter(|wait| wait.kind == WaitKind::Sleep);
        let until = stored.and_then(|wait| wait.until);
        let deadline = match until {
            Some(until) => self.attempt.instant_of(until),
            None => Instant::now().checked_add(self.duration).unwrap_or_else(far_future),
        };
        let timer = Box::pin(tokio::time::sleep_until(deadline.into()));
        self.state = State::Waiting { timer, deadline, until };
    }

    /// The sleep is over. Its record rides along with the workflow's next write: until then the row still
    /// says when it ended, or the sleep was short.
    fn wake(&mut self) {
        self.attempt.write_some_time(StepRow {
            id: self.attempt.id.clone(),
            claims: self.attempt.claims,
            row_at: self.attempt.row_at.clone(),
            position: self.position.clone(),
            kind: Kind::Sleep,
            name: NAME,
            input: None,
            output: Some(format!("{{\"slept_ms\":{}}}", self.duration.as_millis())),
            failure: None,
            attempts: None,
            ended_at: self.attempt.about_now(),
            // Longer than it was to be, where nobody went on with it for a while.
            took_ms: millis(self.attempt.waited(&self.position, WaitKind::Sleep, Instant::now()).max(self.duration)),
        });
    }

    fn end(&mut self) -> Poll<Result<(), Failure>> {
        self.state = State::Over;
        self.attempt.end_wait(&self.position);
        self.under_way.lane().slept(self.duration);
        self.under_way.end();
        Poll::Ready(Ok(()))
    }
}

impl Future for Sleep<'_> {
    type Output = Result<(), Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.duration > WAIT_MAX {
            let problem = format!("a sleep of {} days: at most 36600 are allowed", this.duration.as_secs() / 86_400);
            return Poll::Ready(Err(Failure::new(FailureKind::Error, problem).terminal()));
        }
        this.under_way.begin();
        loop {
            match &mut this.state {
                State::New => match this.attempt.ask(&this.position, Kind::Sleep, NAME, cx.waker()) {
                    Asked::Recorded(_) => return this.end(),
                    Asked::Begin => this.begin(),
                    Asked::Later => return Poll::Pending,
                    Asked::Stopped => this.state = State::Over,
                },
                State::Waiting { timer, deadline, until } => {
                    if timer.as_mut().poll(cx).is_ready() {
                        this.wake();
                        return this.end();
                    }
                    let waiting = Waiting {
                        deadline: Some(*deadline),
                        until: *until,
                        ..Waiting::new(WaitKind::Sleep, cx.waker())
                    };
                    this.attempt.wait(&this.position, waiting);
                    return Poll::Pending;
                }
                State::Over => return Poll::Pending,
            }
        }
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let State::Waiting { .. } = self.state {
            self.attempt.end_wait(&self.position);
        }
    }
}

impl std::fmt::Debug for Sleep<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sleep({:?} at {})", self.duration, self.position)
    }
}
