//! Reading what a workflow writes to a stream, from outside, while it is written.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::codec;
use crate::error::{Error, ErrorKind};
use crate::group::{Group, Item, Writer};
use crate::id::{Id, check_text};
use crate::step::BoxFuture;
use crate::store::link::{Links, call_patiently};
use crate::store::stream::{ReadOn, StreamPage, StreamRow, streams};
use crate::stream::{Stream, StreamValue};

/// Pauses between the looks of who waits: shorter while values come.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(5);
const LOOK_EVERY_MAX: Duration = Duration::from_millis(100);

/// What one look may bring of a stream.
const PAGE_VALUES: i64 = 256;
const PAGE_BYTES: i64 = 256 * 1024;

/// Reads streams: those that many callers read at the same time in one statement.
pub(crate) struct StreamReader(Group<ReadOn>);

impl Item for ReadOn {
    type Answer = StreamPage;

    fn rows(&self) -> usize {
        1
    }

    /// With what is answered, as far as it can be known.
    fn bytes(&self) -> usize {
        8 * 1024 + self.id.as_str().len() + self.key.len()
    }
}

struct Statement(Arc<Links>);

impl Writer<ReadOn> for Statement {
    async fn write(&self, asked: &[ReadOn]) -> Result<Option<Vec<StreamPage>>, Error> {
        call_patiently!(self.0, "read streams", connection =>
                streams(connection, &self.0.sql, asked, PAGE_VALUES, PAGE_BYTES))
        .map(Some)
    }
}

impl StreamReader {
    pub(crate) fn new(links: &Arc<Links>) -> Self {
        Self(Group::new(Statement(links.clone())))
    }
}

/// The values of a stream, one after the other, as they come. Made by [`Handle::stream`](crate::Handle::stream).
///
/// Ask for the [`next`](ReadStream::next) one, or use it as a `futures::Stream`, as a web handler does that sends them on. It
/// ends once the workflow has ended and all of its values were given. Values are noticed within a tenth of a second, and within
/// some milliseconds while they come one after the other. All who read in a process look together, so a thousand readers
/// cost the database no more looks than one.
///
/// A reader that was cut off goes on with [`from`](ReadStream::from): the last [offset](StreamValue::offset) that it has seen, and one
/// more. What a [forked](crate::Durable::fork) workflow's history was taken over with stands in the stream of the workflow that
/// wrote it.
///
/// # Errors
///
/// [`NotFound`](ErrorKind::NotFound) when there is no such workflow, [`Usage`](ErrorKind::Usage) for a name that no stream can
/// have, and for an offset past its end: offsets are given in order, so nobody can have seen it. It has ended then.
/// [`Decode`](ErrorKind::Decode) for a value that is no `T`: the one after it comes next. Database kinds after half a minute of
/// trying: asking again tries again.
///
/// # Cancel safety
///
/// [`next`](ReadStream::next) may be dropped and asked again at any time: no value is lost.
#[must_use = "a stream is not read until it is asked for its values"]
pub struct ReadStream<T> {
    client: Arc<Client>,
    id: String,
    stream: Stream<T>,
    next: u64,
    waits: bool,
    read: VecDeque<StreamRow>,
    looking: Option<BoxFuture<'static, Result<StreamPage, Error>>>,
    pause: Duration,
    /// Whether something stands beyond what was read.
    more: bool,
    ended: bool,
}

impl<T: DeserializeOwned> ReadStream<T> {
    pub(crate) fn new(client: &Arc<Client>, id: &str, stream: Stream<T>) -> Self {
        Self {
            client: client.clone(),
            id: id.to_owned(),
            stream,
            next: 0,
            waits: true,
            read: VecDeque::new(),
            looking: None,
            pause: Duration::ZERO,
            more: false,
            ended: false,
        }
    }

    /// Begin with this offset, instead of 0.
    pub fn from(mut self, offset: u64) -> Self {
        self.next = offset;
        self
    }

    /// Give what stands there now, and end, whether the workflow has or not.
    pub fn without_waiting(mut self) -> Self {
        self.waits = false;
        self
    }

    /// The next value, once there is one; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<StreamValue<T>, Error>> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// Look what is there, after the pause.
    fn look(&self) -> BoxFuture<'static, Result<StreamPage, Error>> {
        let (client, id, key, next, pause) =
            (self.client.clone(), self.id.clone(), self.stream.key(), self.next, self.pause);
        Box::pin(async move {
            check_text("name of a stream", key)?;
            let from = i64::try_from(next).map_err(|_| past_the_end(&id, key, next, None))?;
            let id = Id::new(&id)?;
            tokio::time::sleep(pause.mul_f64(0.8 + 0.2 * fastrand::f64())).await;
            let page = client.streams.0.write(ReadOn { id: id.clone(), key, from }).await?;
            let interrupted =
                || Error::new(ErrorKind::Unavailable, format!("could not read stream {key:?}: interrupted"));
            let (_, page) = page.ok_or_else(interrupted)?;
            if page.status.is_none() {
                return Err(Error::new(ErrorKind::NotFound, format!("there is no workflow {id}")));
            }
            if page.next < from {
                return Err(past_the_end(id.as_str(), key, next, Some(page.next)));
            }
            Ok(page)
        })
    }

    /// A look has come back.
    fn saw(&mut self, page: StreamPage) {
        let has_ended = page.status.is_some_and(|status| status.is_final());
        let came = !page.values.is_empty();
        let last = page.values.last().map_or(page.next, |last| last.offset + 1);
        self.more = last < page.next;
        self.pause = match (self.more, came) {
            (true, _) => Duration::ZERO,
            (false, true) => LOOK_EVERY_MIN,
            (false, false) => (self.pause * 2).clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX),
        };
        self.ended = !self.more && (has_ended || !self.waits);
        self.next = last.unsigned_abs();
        self.read = page.values.into();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<StreamValue<T>, Error>>> {
        loop {
            if let Some(row) = self.read.pop_front() {
                return Poll::Ready(Some(self.decode(row)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let look = self.looking.take().unwrap_or_else(|| self.look());
            let looked = ready!(self.looking.insert(look).as_mut().poll(cx));
            self.looking = None;
            match looked {
                Ok(page) => self.saw(page),
                Err(error) => {
                    self.ended = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Usage);
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    fn decode(&self, row: StreamRow) -> Result<StreamValue<T>, Error> {
        let StreamRow { offset, value, written_at, attempt } = row;
        let key = self.stream.key();
        let value = codec::decode(&value).map_err(|problem| {
            let problem = format!("value {offset} of stream {key:?} of workflow {} {problem}", self.id);
            Error::new(ErrorKind::Decode, problem)
        })?;
        Ok(StreamValue { offset: offset.unsigned_abs(), value, written_at, attempt })
    }
}

fn past_the_end(id: &str, key: &str, from: u64, has: Option<i64>) -> Error {
    let has = has.map_or_else(|| "fewer".to_owned(), |has| has.to_string());
    let problem = format!(
        "stream {key:?} of workflow {id} has {has} values, and cannot be read from offset {from}: begin with 0, or with the last \
         offset that was read and one more"
    );
    Error::new(ErrorKind::Usage, problem)
}

impl<T: DeserializeOwned> futures_util::Stream for ReadStream<T> {
    type Item = Result<StreamValue<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }
}

// Nothing in it is ever pinned in place: the one future inside is boxed.
impl<T> Unpin for ReadStream<T> {}

impl<T> std::fmt::Debug for ReadStream<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReadStream({:?} of {}, from {})", self.stream.key(), self.id, self.next)
    }
}
