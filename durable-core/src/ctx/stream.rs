//! Streams as a body writes them: each value is the outcome of a position.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::Ctx;
use super::attempt::Attempt;
use super::lane::UnderWay;
use super::order::{OpenOrder, Order};
use super::write::{Reply, Write, Written};
use crate::failure::Failure;
use crate::history::{Kind, Record};
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
        let (attempt, under_way) = (self.ctx.attempt.clone(), UnderWay::new(self.ctx.lane.clone()));
        let value = check_value(key, &value);
        WriteStream { write: Write::new(attempt, under_way, position, key, value), ctx: PhantomData }
    }
}

/// A value about to be written to a stream: await it. Made by [`BodyStream::write`].
#[must_use = "a value is not written until this is awaited"]
pub struct WriteStream<'c> {
    write: Write<Appending>,
    ctx: PhantomData<&'c ()>,
}

struct Appending;

impl Written for Appending {
    /// Its offset.
    type Answer = u64;

    const KIND: Kind = Kind::Stream;

    fn order(attempt: &Arc<Attempt>, at: &Position, key: &'static str, value: String, reply: Reply<Self>) -> Order {
        let entry = Entry { value, source: Source::Body(at.clone()) };
        let (attempt, position, _open) = (attempt.clone(), at.clone(), OpenOrder::new(attempt));
        Order::WriteStream(Box::new(StreamOrder { attempt, key, position, entry, reply, _open }))
    }

    fn recorded(key: &str, record: &Record) -> Result<u64, String> {
        record.offset_in(key).ok_or_else(|| format!("has no offset in stream {key:?}"))
    }
}

impl Future for WriteStream<'_> {
    type Output = Result<u64, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.write.poll(cx)
    }
}

impl<T> std::fmt::Debug for BodyStream<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BodyStream({:?})", self.stream.key())
    }
}

impl std::fmt::Debug for WriteStream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WriteStream({:?} at {})", self.write.name, self.write.position)
    }
}
