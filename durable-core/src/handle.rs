//! A workflow from outside: its status, its history, its result.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use crate::attribute::Attribute;
use crate::client::Client;
use crate::codec;
use crate::decide::End;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::failure::{Failure, FailureKind};
use crate::hints::Attention;
use crate::id::Id;
use crate::info::{Operation, RecordedStep, WorkflowInfo};
use crate::published::ReadEvent;
use crate::recorded::ReadHistory;
use crate::status::Status;
use crate::store::attribute::attributes;
use crate::store::inspect as store;
use crate::store::link::call_patiently;
use crate::store::operate::operations;
use crate::store::start::Started;
use crate::stream::Stream;
use crate::streamed::ReadStream;
use crate::timeline::ReadTimeline;
use crate::wake::{Place, WANTED_AGAIN, Word};

/// The longest pause between two looks at a workflow whose result somebody waits for, and the shortest.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);
const LOOK_EVERY_MIN: Duration = Duration::from_millis(10);

/// From which pause on other processes are asked to tell the end: most are found sooner.
const ASK_OTHERS_FROM: Duration = Duration::from_millis(30);

/// The longest pause while it runs in this process, where only what happens elsewhere needs a look: a cancellation, a takeover
/// that the worker has not noticed.
const LOOK_ANYWAY: Duration = Duration::from_secs(5);

/// How long after its start a workflow that was queued in a process with a worker is expected to end there.
const EXPECTED_HERE_FOR: Duration = Duration::from_millis(100);

/// What is told at most of what operators did to a workflow.
const OPERATIONS_MAX: i64 = 1_000;

/// A workflow from outside, with the type of its output.
///
/// Holding or dropping a handle does nothing to the workflow.
pub struct Handle<T> {
    client: Arc<Client>,
    id: Id,
    pub(crate) existed: bool,
    pub(crate) input_differs: bool,
    expected: Option<Expected>,
    output: PhantomData<fn() -> T>,
}

/// A workflow whose end is expected in this process, where it is told without a look at the database.
#[derive(Clone)]
pub(crate) struct Expected {
    place: Arc<Place>,
    until: Instant,
}

impl Expected {
    /// Enlisted before the start is sent, so that no end comes before it.
    pub(crate) fn new(client: &Client, id: &Id) -> Self {
        Self { place: client.wake.enlist(id), until: Instant::now() }
    }

    /// What is to be expected once the start has answered: nothing, if the workflow was there before.
    pub(crate) fn started(self, started: &Started) -> Option<Self> {
        let long = match (started.born_here, started.created) {
            (true, _) => LOOK_EVERY_MAX,
            (false, true) => EXPECTED_HERE_FOR,
            (false, false) => return None,
        };
        Some(Self { until: Instant::now() + long, ..self })
    }
}

impl<T> Handle<T> {
    pub(crate) fn new(client: Arc<Client>, id: Id) -> Self {
        Self { client, id, existed: false, input_differs: false, expected: None, output: PhantomData }
    }

    /// With a place among those who are told its end.
    pub(crate) fn expecting(mut self, expected: Option<Expected>) -> Self {
        self.expected = expected;
        self
    }

    /// The workflow's id.
    pub fn id(&self) -> &str {
        self.id.as_str()
    }

    /// Whether the start that gave this handle found the workflow there already.
    pub fn existed(&self) -> bool {
        self.existed
    }

    /// Whether it was there already with another input, by its stored JSON.
    pub fn input_differs(&self) -> bool {
        self.input_differs
    }

    /// Where it stands.
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound), database kinds.
    pub async fn status(&self) -> Result<Status, Error> {
        Ok(self.inspect().await?.0.status)
    }

    /// Everything about it but its input, output and history.
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound), database kinds.
    pub async fn info(&self) -> Result<WorkflowInfo, Error> {
        Ok(self.inspect().await?.0)
    }

    /// What it was started with: the parameter if its body has one, a tuple of them if it has several, `()` if it has
    /// none; or anything else that its JSON decodes into. Of one that has continued as new, what it goes on with now.
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound), [`Decode`](ErrorKind::Decode) when the input is no `I`, database kinds.
    pub async fn input<I: DeserializeOwned>(&self) -> Result<I, Error> {
        let id = Id::new(self.id.as_str())?;
        let act = format!("read the input of workflow {id}");
        let found =
            call_patiently!(self.client.links, &act, connection => store::input(connection, &self.client.sql, &id))?;
        let input = found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no workflow {id}")))?;
        codec::decode(&input)
            .map_err(|problem| Error::new(ErrorKind::Decode, format!("the input of workflow {id} {problem}")))
    }

    /// Its attributes, by name; none for a workflow that does not exist.
    ///
    /// # Errors
    ///
    /// Database kinds.
    pub async fn attributes(&self) -> Result<Vec<Attribute>, Error> {
        let id = Id::new(self.id.as_str())?;
        let act = format!("read the attributes of workflow {id}");
        call_patiently!(self.client.links, &act, connection => attributes(connection, &self.client.sql, &id))
    }

    /// What was done to it, in order: by operators, who have paused, resumed, restarted, cancelled or forked it, or changed its
    /// deadline; when, why, and what of its history was tried again for that; and by other workers, who took it over from one that
    /// was lost. With the [`history`](Handle::history), in one order, it stands in the [`timeline`](Handle::timeline). The
    /// latest 1,000 of it; empty for a workflow that does not exist.
    ///
    /// # Errors
    ///
    /// Database kinds.
    pub async fn operations(&self) -> Result<Vec<Operation>, Error> {
        let id = Id::new(self.id.as_str())?;
        let act = format!("read what was done to workflow {id}");
        call_patiently!(self.client.links, &act, connection =>
                operations(connection, &self.client.sql, &id, OPERATIONS_MAX))
    }

    /// Its history, in the order in which it was recorded, all of it at once. Where that may be much, read
    /// [`history`](Handle::history) page by page.
    ///
    /// # Errors
    ///
    /// Database kinds. A workflow that does not exist has an empty history.
    pub async fn steps(&self) -> Result<Vec<RecordedStep>, Error> {
        let act = format!("read the history of workflow {}", self.id);
        call_patiently!(self.client.links, &act, connection => store::steps(connection, &self.client.sql, &self.id))
    }

    /// Its history page by page: inputs, outputs, failures, and the attempts that failed. See [`ReadHistory`].
    ///
    /// ```no_run
    /// # async fn example(durable: durable::Durable) -> Result<(), durable::Error> {
    /// let handle = durable.workflow::<()>("order-42");
    /// let mut page = handle.history().await?;
    /// loop {
    ///     for step in &page.steps {
    ///         println!("{}/{} {}: {:?} {:?}", step.lane, step.seq, step.name, step.output, step.failure);
    ///     }
    ///     let Some(next) = page.next else { break };
    ///     page = handle.history().after(next).await?;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn history(&self) -> ReadHistory<'_> {
        ReadHistory::new(&self.client, &self.id)
    }

    #[doc = include_str!("../docs/timeline.md")]
    pub fn timeline(&self) -> ReadTimeline<'_> {
        ReadTimeline::new(&self.client, &self.id)
    }

    /// Read an event of it: what it has published last, or [`wait`](ReadEvent::wait) for the first value.
    ///
    /// ```no_run
    /// use durable::{Durable, Event, seconds};
    ///
    /// const PROGRESS: Event<usize> = Event::new("progress");
    ///
    /// # async fn example(durable: Durable) -> Result<(), durable::Error> {
    /// let copy = durable.workflow::<()>("copy-7");
    /// let copied: usize = copy.event(PROGRESS).await?.unwrap_or(0);
    /// let has_begun = copy.event(PROGRESS).wait(seconds(30)).await?.is_some();
    /// # let _ = (copied, has_begun); Ok(()) }
    /// ```
    pub fn event<V: DeserializeOwned>(&self, event: Event<V>) -> ReadEvent<'_, V> {
        ReadEvent::new(&self.client, &self.id, event)
    }

    /// Read a stream of it: the values that it writes, from the first one or [from](ReadStream::from) an offset, as they come.
    ///
    /// ```no_run
    /// use durable::{Durable, Stream};
    ///
    /// const TOKENS: Stream<String> = Stream::new("tokens");
    ///
    /// # async fn example(durable: Durable) -> Result<(), durable::Error> {
    /// let mut tokens = durable.workflow::<()>("chat-7").stream(TOKENS).from(0);
    /// while let Some(token) = tokens.next().await {
    ///     let token = token?;
    ///     println!("{}: {}", token.offset, token.value);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn stream<V: DeserializeOwned>(&self, stream: Stream<V>) -> ReadStream<V> {
        ReadStream::new(&self.client, self.id.as_str(), stream)
    }

    async fn inspect(&self) -> Result<(WorkflowInfo, Option<String>), Error> {
        let id = Id::new(self.id.as_str())?;
        let act = format!("look at workflow {id}");
        let found =
            call_patiently!(self.client.links, &act, connection => store::inspect(connection, &self.client.sql, &id))?;
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no workflow {id}")))
    }
}

impl<T: DeserializeOwned> Handle<T> {
    /// Wait until the workflow ends, and give its output. However often it is asked, and from wherever, the
    /// answer is the same, unless somebody [resumes](crate::Durable::resume) or [restarts](crate::Durable::restart) it: whoever
    /// asks after that waits for its next end, but for a handle that was told the first one by its own process, which keeps
    /// to it. A blocked workflow has not ended: bound the wait with `tokio::time::timeout`.
    ///
    /// # Errors
    ///
    /// [`Failed`](ErrorKind::Failed) with the failure, [`Cancelled`](ErrorKind::Cancelled),
    /// [`NotFound`](ErrorKind::NotFound) (also before the starting transaction has committed),
    /// [`Decode`](ErrorKind::Decode) when the output is no `T`, database kinds.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and asked again at any time.
    pub async fn result(&self) -> Result<T, Error> {
        let expected = self.expected.clone().unwrap_or_else(|| Expected::new(&self.client, &self.id));
        let Expected { place, until: mut look_at } = expected;
        let (mut pause, mut doubts, mut looked_at) = (LOOK_EVERY_MIN, 0, Instant::now());
        let mut asked = None;
        loop {
            // Made before the looks: a word between the two is then not missed.
            let told = place.told();
            if let Some(end) = place.end() {
                return self.told(end);
            }
            let doubted = std::mem::replace(&mut doubts, place.doubts()) != doubts;
            if !doubted && timeout_at(look_at, told).await.is_ok() {
                continue;
            }
            if doubted || !self.runs_here() || looked_at.elapsed() > LOOK_ANYWAY {
                looked_at = Instant::now();
                let (info, output) = self.inspect().await?;
                if let Some(result) = self.ended(info.status, output.as_deref(), info.failure) {
                    return result;
                }
                if pause > ASK_OTHERS_FROM {
                    self.ask_others(&mut asked);
                }
            }
            look_at = Instant::now() + pause.mul_f64(0.8 + 0.4 * fastrand::f64());
            pause = pause.mul_f64(1.5).min(LOOK_EVERY_MAX);
        }
    }

    /// Ask other processes to tell the end, and listen to them for as long as `asked` is held.
    fn ask_others(&self, asked: &mut Option<(Attention, Instant)>) {
        if asked.as_ref().is_none_or(|(_, at)| at.elapsed() >= WANTED_AGAIN) {
            *asked = Some((self.client.hints.attend(), Instant::now()));
            self.client.wake.tell_others(Word::Wanted(self.id.digest()));
        }
    }

    fn runs_here(&self) -> bool {
        self.client.engine().is_some_and(|engine| engine.runs(&self.id))
    }

    /// What the worker of this process has just stored.
    fn told(&self, end: &End) -> Result<T, Error> {
        let failure = end.failure.as_deref().and_then(|failure| serde_json::from_str(failure).ok());
        let not_ended = || Err(Error::new(ErrorKind::Database, format!("workflow {} has not ended", self.id)));
        self.ended(end.status, end.output.as_deref(), failure).unwrap_or_else(not_ended)
    }

    /// The result of a workflow that stands so; `None` while it has not ended.
    fn ended(&self, status: Status, output: Option<&str>, failure: Option<Failure>) -> Option<Result<T, Error>> {
        let id = &self.id;
        match status {
            Status::Completed => Some(
                codec::decode(output.unwrap_or("null"))
                    .map_err(|problem| Error::new(ErrorKind::Decode, format!("the output of workflow {id} {problem}"))),
            ),
            Status::Failed => {
                let unknown = || Failure::new(FailureKind::Error, "its failure was not stored");
                Some(Err(Error::failed(id.as_str(), failure.unwrap_or_else(unknown))))
            }
            Status::Cancelled => Some(Err(Error::cancelled(id.as_str(), failure))),
            Status::Queued | Status::Running | Status::Suspended | Status::Blocked => None,
        }
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            id: self.id.clone(),
            existed: self.existed,
            input_differs: self.input_differs,
            expected: self.expected.clone(),
            output: PhantomData,
        }
    }
}

impl<T> std::fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handle({})", self.id)
    }
}
