//! Streams as a body writes them: each value is the outcome of a position.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::Ctx;
use super::attempt::{Asked, Attempt};
use super::lane::UnderWay;
use super::order::{OpenOrder, Order};
use crate::decide::Stop;
use crate::failure::Failure;
use crate::history::{Kind, Mismatch, Record};
use crate::id::Position;
use crate::lines::{Entry, Source};
use crate::outflow::check_value;
use crate::stream::Stream;

/// A value to be written to a stream.
pub(crate) struct StreamOrder {
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) key: &'static str,
    pub(crate) position: Position,
    pub(crate) entry: Entry,
    /// Its offset, and when it was written.
    pub(crate) reply: oneshot::Sender<(u64, DateTime<Utc>)>,
    pub(crate) _open: OpenOrder,
}

/// A stream that a body writes to. Made by [`Ctx::stream`].
pub struct BodyStream<'c, T> {
    ctx: &'c Ctx,
    stream: Stream<T>,
}

impl<'c, T: Serialize + DeserializeOwned> BodyStream<'c, T> {
    pub(super) fn new(ctx: &'c Ctx, stream: Stream<T>) -> Self {
        Self { ctx, stream }
    }

    /// Write a value, and give its offset.
    ///
    /// # Durability
    ///
    /// The value and the record of this call are one write, made once, however often the body comes here.
    ///
    /// # Errors
    ///
    /// A value that does not survive being stored or has more than 1 MiB of JSON, a name that no stream can have.
    pub fn write(&self, value: T) -> WriteStream<'c> {
        let key = self.stream.key();
        let position = self.ctx.take(format_args!("a value of stream {key:?}"));
        WriteStream {
            attempt: self.ctx.attempt.clone(),
            under_way: UnderWay::new(self.ctx.lane.clone()),
            position,
            key,
            value: check_value(key, &value),
            state: State::New,
            ctx: PhantomData,
        }
    }
}

/// A value about to be written to a stream: await it. Made by [`BodyStream::write`].
#[must_use = "a value is not written until this is awaited"]
pub struct WriteStream<'c> {
    attempt: Arc<Attempt>,
    under_way: UnderWay,
    position: Position,
    key: &'static str,
    value: Result<String, Failure>,
    state: State,
    ctx: PhantomData<&'c ()>,
}

enum State {
    New,
    Sent(oneshot::Receiver<(u64, DateTime<Utc>)>),
    /// Nothing more comes: the attempt was stopped, or it was written.
    Over,
}

impl WriteStream<'_> {
    fn order(&mut self, value: String) {
        let (reply, answer) = oneshot::channel();
        self.attempt.begin_flight();
        let order = StreamOrder {
            attempt: self.attempt.clone(),
            key: self.key,
            position: self.position.clone(),
            entry: Entry { value, source: Source::Body(self.position.clone()) },
            reply,
            _open: OpenOrder::new(&self.attempt),
        };
        self.attempt.order(Order::WriteStream(Box::new(order)));
        self.state = State::Sent(answer);
    }

    fn settle(&mut self) {
        if let State::Sent(_) = std::mem::replace(&mut self.state, State::Over) {
            self.attempt.end_flight();
        }
    }

    fn end(&mut self, offset: u64, at: DateTime<Utc>) -> Poll<Result<u64, Failure>> {
        self.settle();
        self.under_way.lane().observe(at);
        self.under_way.end();
        Poll::Ready(Ok(offset))
    }

    fn give_record(&mut self, record: &Record) -> Poll<Result<u64, Failure>> {
        if let Some(offset) = record.offset_in(self.key) {
            return self.end(offset, record.ended_at);
        }
        let problem = format!("the record of the value of a stream at {} has no offset", self.position);
        self.attempt.stop(Stop::Mismatch(Mismatch(problem)));
        self.settle();
        Poll::Pending
    }
}

impl Future for WriteStream<'_> {
    type Output = Result<u64, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let value = match &this.value {
            Ok(value) => value,
            Err(failure) => return Poll::Ready(Err(failure.clone())),
        };
        this.under_way.begin();
        loop {
            match &mut this.state {
                State::New => match this.attempt.ask(&this.position, Kind::Stream, this.key, cx.waker()) {
                    Asked::Recorded(record) => return this.give_record(&record),
                    Asked::Begin => {
                        let value = value.clone();
                        this.order(value);
                        break;
                    }
                    Asked::Later => return Poll::Pending,
                    Asked::Stopped => this.state = State::Over,
                },
                State::Sent(_) => break,
                State::Over => return Poll::Pending,
            }
        }
        let State::Sent(answer) = &mut this.state else { return Poll::Pending };
        match ready!(Pin::new(answer).poll(cx)) {
            Ok((offset, at)) => this.end(offset, at),
            // The worker stopped the attempt.
            Err(_) => {
                this.settle();
                Poll::Pending
            }
        }
    }
}

impl Drop for WriteStream<'_> {
    fn drop(&mut self) {
        self.settle();
    }
}

impl<T> std::fmt::Debug for BodyStream<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BodyStream({:?})", self.stream.key())
    }
}

impl std::fmt::Debug for WriteStream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WriteStream({:?} at {})", self.key, self.position)
    }
}
