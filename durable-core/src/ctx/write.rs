//! What a body writes for others to read, a value of an event or of a stream: the outcome of a position, made by the worker in a
//! write of its own.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use chrono::{DateTime, Utc};
use tokio::sync::oneshot;

use super::attempt::{Asked, Attempt};
use super::lane::UnderWay;
use super::order::Order;
use crate::decide::Stop;
use crate::failure::Failure;
use crate::history::{Kind, Mismatch, Record};
use crate::id::Position;

/// A kind of such a value.
pub(super) trait Written {
    /// What the body is given for it.
    type Answer;

    const KIND: Kind;

    /// The order to write it.
    fn order(attempt: &Arc<Attempt>, at: &Position, name: &'static str, value: String, reply: Reply<Self>) -> Order;

    /// What the body is given where it was written before; or why that cannot be said.
    fn recorded(name: &str, record: &Record) -> Result<Self::Answer, String>;
}

/// Where the answer of the worker goes, with the time of the write. It gives none when the attempt was stopped.
pub(super) type Reply<W> = oneshot::Sender<(<W as Written>::Answer, DateTime<Utc>)>;

/// The leaf: ordered when it is awaited, or answered from the history.
pub(super) struct Write<W: Written + ?Sized> {
    attempt: Arc<Attempt>,
    under_way: UnderWay,
    pub(super) position: Position,
    pub(super) name: &'static str,
    /// Its JSON, or why it cannot be written, which is the same on every run.
    value: Result<String, Failure>,
    state: State<W::Answer>,
}

enum State<A> {
    New,
    Sent(oneshot::Receiver<(A, DateTime<Utc>)>),
    /// Nothing more comes: the attempt was stopped, or it was written.
    Over,
}

impl<W: Written> Write<W> {
    pub(super) fn new(
        attempt: Arc<Attempt>,
        under_way: UnderWay,
        position: Position,
        name: &'static str,
        value: Result<String, Failure>,
    ) -> Self {
        Self { attempt, under_way, position, name, value, state: State::New }
    }

    fn order(&mut self, value: String) {
        let (reply, answer) = oneshot::channel();
        self.attempt.begin_flight();
        self.attempt.order(W::order(&self.attempt, &self.position, self.name, value, reply));
        self.state = State::Sent(answer);
    }

    fn end(&mut self, answer: W::Answer, at: DateTime<Utc>) -> Poll<Result<W::Answer, Failure>> {
        self.settle();
        self.under_way.lane().observe(at);
        self.under_way.end();
        Poll::Ready(Ok(answer))
    }

    fn give_record(&mut self, record: &Record) -> Poll<Result<W::Answer, Failure>> {
        match W::recorded(self.name, record) {
            Ok(answer) => self.end(answer, record.ended_at),
            Err(problem) => {
                let problem = format!("the record at {} {problem}", self.position);
                self.attempt.stop(Stop::Mismatch(Mismatch(problem)));
                self.settle();
                Poll::Pending
            }
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<W::Answer, Failure>> {
        if let Err(failure) = &self.value {
            return Poll::Ready(Err(failure.clone()));
        }
        self.under_way.begin();
        loop {
            match &mut self.state {
                State::New => match self.attempt.ask(&self.position, W::KIND, self.name, cx.waker()) {
                    Asked::Recorded(record) => return self.give_record(&record),
                    Asked::Begin => {
                        let value = std::mem::replace(&mut self.value, Ok(String::new()));
                        self.order(value.unwrap_or_default());
                    }
                    Asked::Later => return Poll::Pending,
                    Asked::Stopped => self.state = State::Over,
                },
                State::Sent(answer) => match ready!(Pin::new(answer).poll(cx)) {
                    Ok((answer, at)) => return self.end(answer, at),
                    // The worker stopped the attempt.
                    Err(_) => self.settle(),
                },
                State::Over => return Poll::Pending,
            }
        }
    }
}

impl<W: Written + ?Sized> Write<W> {
    /// End whatever it had under way.
    fn settle(&mut self) {
        if let State::Sent(_) = std::mem::replace(&mut self.state, State::Over) {
            self.attempt.end_flight();
        }
    }
}

// Nothing in it is ever pinned in place.
impl<W: Written + ?Sized> Unpin for Write<W> {}

impl<W: Written + ?Sized> Drop for Write<W> {
    fn drop(&mut self) {
        self.settle();
    }
}
