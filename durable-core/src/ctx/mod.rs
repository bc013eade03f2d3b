//! What a workflow body holds: everything durable that it does begins with `ctx.`.
//!
//! `lane` is the order of things, `attempt` what they share with the executor, `recall`, `looks` and `strays` its parts; `run`, `sleep`,
//! `receive`, `child`, `event`, `branch`, `race` and `undo` are the things. Running them is the worker's.

pub(crate) mod attempt;
mod attribute;
pub(crate) mod branch;
pub(crate) mod child;
mod continuing;
pub(crate) mod event;
pub(crate) mod lane;
mod looks;
pub(crate) mod order;
pub(crate) mod patch;
pub(crate) mod race;
pub(crate) mod recall;
pub(crate) mod receive;
pub(crate) mod run;
mod scheduled;
pub(crate) mod select;
pub(crate) mod sleep;
pub(crate) mod strays;
pub(crate) mod stream;
pub(crate) mod undo;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::attribute::AttributeValue;
use crate::codec;
use crate::event::Event;
use crate::id::{Position, body_lane};
use crate::step::Step;
use crate::stream::Stream;
use crate::topic::Topic;
use crate::workflow::{Call, OutputOf, Workflow};
use attempt::Attempt;
use attribute::set_attribute;
use branch::{Branch, FanOut, LaneFn};
use child::result::{ChildResult, NextChild};
use child::start::{ChildRun, ChildStart};
use child::{Child, Children};
use event::{AwaitEvent, Publish};
use lane::{Lane, UnderWay};
use patch::Patched;
use race::Race;
use receive::Receive;
use run::StepRun;
use sleep::Sleep;
use stream::BodyStream;
use undo::Undo;

/// The context of a workflow body: runs steps, sleeps, receives messages, opens branches.
///
/// It is borrowed, so it cannot be moved into `tokio::spawn`, where nothing would be recorded.
///
/// # Durability
///
/// A body is run again from its top after a wait or a crash, and what it did through the context is answered
/// from the history. Between those calls a body has to do the same whenever it is run: no clock but
/// [`now`](Ctx::now), no dice but [`random`](Ctx::random) and [`uuid`](Ctx::uuid), no input or output of its
/// own. Code that no longer fits the history is not run on: the workflow is blocked, until code that fits is
/// deployed and [`resume`](crate::Durable::resume) is called.
///
/// # Order
///
/// Each call takes its position when it is made, not when it is polled. So things that are begun together,
/// by `join!`, `try_join!` or `join_all`, keep their positions:
///
/// ```
/// # use durable::{Ctx, step, workflow};
/// # #[step] async fn site(company: String) -> anyhow::Result<String> { Ok(company) }
/// # #[step] async fn news(company: String) -> anyhow::Result<String> { Ok(company) }
/// #[workflow]
/// async fn research(ctx: &Ctx, company: String) -> anyhow::Result<String> {
///     let (site, news) = tokio::try_join!(ctx.run(site(company.clone())), ctx.run(news(company)))?;
///     Ok(site + &news)
/// }
/// ```
///
/// Calls that follow one another beside others need a lane of their own: [`branch`](Ctx::branch), or
/// [`fan_out`](Ctx::fan_out) over a collection; and where only the first of several counts, [`race`](Ctx::race). Beginning something while another call of the same lane is
/// under way blocks the workflow with a message that says so.
pub struct Ctx {
    attempt: Arc<Attempt>,
    lane: Arc<Lane>,
}

impl Ctx {
    pub(crate) fn new(attempt: Arc<Attempt>) -> Self {
        let lane = Arc::new(Lane::new(body_lane(attempt.generation), attempt.began_at));
        Self { attempt, lane }
    }

    /// Run a step, or a child workflow, and give its output.
    ///
    /// What this gives can be awaited as it is, or given call-site options first:
    /// `ctx.run(charge(order)).retry(5).timeout(seconds(10)).await?` for a step ([`StepRun`]),
    /// `ctx.run(ship(order)).id("ship-7").await?` for a workflow, which becomes a child of this one ([`ChildRun`]). A child has a
    /// history, retries and recoveries of its own, any worker may run it, and this workflow is one row meanwhile; to go on
    /// while it runs, [`start`](Ctx::start) it.
    ///
    /// # Durability
    ///
    /// A plain step's outcome is recorded after its body returned: a crash before that runs it again, with
    /// the same [`key`](crate::StepCtx::key) (at least once); after that it is never run again. A
    /// transactional step's outcome is recorded by the transaction that makes its writes (exactly once).
    /// Attempts that fail are tried again by the step's [`Retry`](crate::Retry); delays beyond the worker's
    /// `short_wait` suspend the workflow. What is given here is what was recorded, decoded, on the first run
    /// as on every later one.
    ///
    /// # Errors
    ///
    /// A [`Failure`](crate::Failure) once the attempts are used up or the error was
    /// [`terminal`](crate::terminal). For a child those of [`start`](Ctx::start) and of [`result`](Ctx::result).
    pub fn run<'c, R: Runnable<'c>>(&'c self, what: R) -> R::Running {
        what.run_in(self)
    }

    #[doc = include_str!("../../docs/children.md")]
    pub fn start<W: Workflow>(&self, call: Call<W>) -> ChildStart<'_, W> {
        let position = self.take(format_args!("a start of child {:?}", W::NAME));
        ChildStart::new(self.attempt.clone(), UnderWay::new(self.lane.clone()), position, call)
    }

    /// Wait for a child's end, and give its output.
    ///
    /// # Durability
    ///
    /// How the child ended is recorded as this call's outcome, so what the body was given stays. While it waits, the workflow
    /// is one row; the child's end wakes it in the same commit.
    ///
    /// # Errors
    ///
    /// The child's failure, as a [`Failure`](crate::Failure) whose [`child`](crate::Failure::child) is its id; one of the kind
    /// [`Cancelled`](crate::FailureKind::Cancelled) if it was cancelled. A blocked child has not ended.
    pub fn result<T>(&self, child: &Child<T>) -> ChildResult<'_, T>
    where
        T: serde::de::DeserializeOwned + Send + 'static,
    {
        let position = self.take(format_args!("a wait for child {:?}", child.id()));
        ChildResult::new(self.attempt.clone(), UnderWay::new(self.lane.clone()), position, child)
    }

    /// Wait for whichever of these children ends next, take it out of them, and give it with its result; `None` when there is
    /// none left.
    ///
    /// ```
    /// # use durable::{Children, Ctx, workflow};
    /// # #[workflow] async fn quote(_ctx: &Ctx, shop: String) -> anyhow::Result<u32> { Ok(shop.len() as u32) }
    /// #[workflow]
    /// async fn cheapest(ctx: &Ctx, shops: Vec<String>) -> anyhow::Result<Option<u32>> {
    ///     let starts = shops.into_iter().map(|shop| ctx.start(quote(shop)));
    ///     let mut children: Children<u32> = futures_util::future::try_join_all(starts).await?.into_iter().collect();
    ///     let mut best = None;
    ///     while let Some((_shop, price)) = ctx.next(&mut children).await {
    ///         best = best.min(price.ok()).or(best);
    ///     }
    ///     Ok(best)
    /// }
    /// ```
    ///
    /// # Durability
    ///
    /// Which one it was is recorded with its result, so the order is the same on every run: the one in which this workflow
    /// learned of the ends. Those that it learned at the same time come in the order of their ids.
    ///
    /// # Errors
    ///
    /// In the result, as for [`result`](Ctx::result).
    pub fn next<'c, T>(&'c self, children: &'c mut Children<T>) -> NextChild<'c, T>
    where
        T: serde::de::DeserializeOwned + Send + 'static,
    {
        let position = self.take(format_args!("a wait for the next of {} children", children.len()));
        NextChild::new(self.attempt.clone(), UnderWay::new(self.lane.clone()), position, children)
    }

    #[doc = include_str!("../../docs/undo.md")]
    pub fn undo<T>(&self, step: Step<T>) -> Undo<'_, T>
    where
        T: serde::de::DeserializeOwned + Send + 'static,
    {
        let position = self.take(format_args!("the undo step {:?}", step.definition.name));
        Undo::new(self.attempt.clone(), UnderWay::new(self.lane.clone()), position, step)
    }

    /// Sleep.
    ///
    /// # Durability
    ///
    /// Beyond the worker's `short_wait` (1 s by default) the workflow is suspended: it is one row, with no
    /// memory and no task anywhere. It never wakes early by the database's clock. A crash while a shorter
    /// sleep is in memory makes that one start over.
    ///
    /// # Errors
    ///
    /// A duration of more than 100 years.
    pub fn sleep(&self, duration: Duration) -> Sleep<'_> {
        let position = self.take(format_args!("a sleep"));
        Sleep::new(self.attempt.clone(), UnderWay::new(self.lane.clone()), position, duration)
    }

    /// Receive the oldest unread message of a topic, waiting for it if need be; see
    /// [`timeout`](Receive::timeout) for a bounded wait.
    ///
    /// # Durability
    ///
    /// A message is taken and recorded as this call's outcome in one act: it is received exactly once, also
    /// when it was sent before the body came here. While it waits, the workflow is one row.
    ///
    /// # Errors
    ///
    /// A message that does not decode as `T`. It counts as received.
    pub fn receive<T>(&self, topic: Topic<T>) -> Receive<'_, T>
    where
        T: serde::de::DeserializeOwned + Send + 'static,
    {
        let position = self.take(format_args!("a receive of {:?}", topic.name()));
        Receive::new(self.attempt.clone(), UnderWay::new(self.lane.clone()), position, topic)
    }

    #[doc = include_str!("../../docs/events.md")]
    pub fn publish<T>(&self, event: Event<T>, value: T) -> Publish<'_>
    where
        T: serde::Serialize + serde::de::DeserializeOwned,
    {
        let position = self.take(format_args!("the publication of {:?}", event.key()));
        let encoded = codec::encode(&value).map(|(text, _)| text);
        Publish::new(self.attempt.clone(), UnderWay::new(self.lane.clone()), position, event.key(), encoded)
    }

    /// A stream of values that others may read while they are written: what was found, said or done so far.
    ///
    /// ```
    /// # use durable::{Ctx, Stream, step, workflow};
    /// # #[step] async fn fetch(page: String) -> anyhow::Result<Vec<String>> { Ok(vec![page]) }
    /// const FOUND: Stream<String> = Stream::new("found");
    ///
    /// #[workflow]
    /// async fn crawl(ctx: &Ctx, pages: Vec<String>) -> anyhow::Result<()> {
    ///     for page in pages {
    ///         for link in ctx.run(fetch(page)).await? {
    ///             ctx.stream(FOUND).write(link).await?;
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// `examples/tokens.rs` shows it on a web page. They read it by [`Handle::stream`](crate::Handle::stream), and whoever has SQL by `select n, value from
    /// durable.stream_value where workflow_id = 'crawl-7' and key = 'found' order by n`. A step writes to the same stream by
    /// [`StepCtx::stream`](crate::StepCtx::stream), while it runs.
    ///
    /// # Durability
    ///
    /// Each [write](BodyStream::write) is recorded together with its value, so it happens once, however often the body comes
    /// here. The values of a stream have the offsets 0, 1, 2, and so on, in the order in which they were written, whoever writes
    /// them. They stay when the workflow has ended, as long as its row does; a workflow that is
    /// [restarted](crate::Durable::restart) or continues as new goes on where its streams end. A
    /// [fork](crate::Durable::fork) begins with empty ones.
    pub fn stream<T>(&self, stream: Stream<T>) -> BodyStream<'_, T>
    where
        T: serde::Serialize + serde::de::DeserializeOwned,
    {
        BodyStream::new(self, stream)
    }

    /// Wait for an event of another workflow: give its last value, or the first one once that is published; see
    /// [`timeout`](AwaitEvent::timeout) for a bounded wait.
    ///
    /// # Durability
    ///
    /// What is read here is recorded, and stays what was read, whatever is published later. While it waits, the workflow is
    /// one row. The other workflow need not exist yet; one that ends without publishing it wakes nobody, so bound the wait where
    /// that may be.
    ///
    /// # Errors
    ///
    /// A value that does not decode as `T`, the workflow's own id, an id or name that cannot be.
    pub fn event<T>(&self, id: impl AsRef<str>, event: Event<T>) -> AwaitEvent<'_, T>
    where
        T: serde::de::DeserializeOwned + Send + 'static,
    {
        let position = self.take(format_args!("a wait for event {:?}", event.key()));
        AwaitEvent::new(self.attempt.clone(), UnderWay::new(self.lane.clone()), position, id.as_ref(), event)
    }

    /// Open a branch: a part of the body with a lane of its own, for several steps in a row beside others.
    ///
    /// ```
    /// # use durable::{Ctx, step, workflow};
    /// # #[step] async fn charge(order: String) -> anyhow::Result<()> { Ok(()) }
    /// # #[step] async fn receipt(order: String) -> anyhow::Result<()> { Ok(()) }
    /// # #[step] async fn pack(order: String) -> anyhow::Result<()> { Ok(()) }
    /// # #[step] async fn ship(order: String) -> anyhow::Result<()> { Ok(()) }
    /// #[workflow]
    /// async fn fulfil(ctx: &Ctx, order: String) -> anyhow::Result<()> {
    ///     tokio::try_join!(
    ///         ctx.branch(async |ctx: &Ctx| {
    ///             ctx.run(charge(order.clone())).await?;
    ///             ctx.run(receipt(order.clone())).await
    ///         }),
    ///         ctx.branch(async |ctx: &Ctx| {
    ///             ctx.run(pack(order.clone())).await?;
    ///             ctx.run(ship(order.clone())).await
    ///         }),
    ///     )?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Durability
    ///
    /// The branch itself records nothing; what it runs is recorded in its lane.
    pub fn branch<'c, R, F>(&'c self, body: F) -> Branch<'c, R>
    where
        R: Send + 'c,
        F: for<'x> LaneFn<&'x Ctx, R> + Send + 'c,
        for<'x> <F as LaneFn<&'x Ctx, R>>::Future: Send,
    {
        let position = self.take(format_args!("a branch"));
        Branch::new(self, position, body)
    }

    /// Do the same for every item of a collection, at most `at_once` of them at a time, each in a lane of
    /// its own. Gives the results in the order of the items.
    ///
    /// ```
    /// # use durable::{Ctx, step, workflow};
    /// # #[step] async fn fetch(url: String) -> anyhow::Result<String> { Ok(url) }
    /// #[workflow]
    /// async fn crawl(ctx: &Ctx, urls: Vec<String>) -> anyhow::Result<Vec<String>> {
    ///     let pages = ctx.fan_out(urls, 8, async |ctx: &Ctx, url: String| ctx.run(fetch(url)).await).await;
    ///     Ok(pages.into_iter().collect::<Result<_, _>>()?)
    /// }
    /// ```
    ///
    /// # Panics
    ///
    /// When `at_once` is 0, which would never end; the workflow fails.
    pub fn fan_out<'c, I, R, F>(&'c self, items: I, at_once: usize, body: F) -> FanOut<'c, R>
    where
        I: IntoIterator,
        I::Item: Send + 'c,
        R: Send + 'c,
        F: for<'x> branch::ItemFn<&'x Ctx, I::Item, R> + Clone + Send + 'c,
        for<'x> <F as branch::ItemFn<&'x Ctx, I::Item, R>>::Future: Send,
    {
        assert!(at_once > 0, "ctx.fan_out with at_once = 0 would never end: give at least 1");
        let position = self.take(format_args!("a fan-out"));
        FanOut::new(self, position, items.into_iter().collect(), at_once, body)
    }

    #[doc = include_str!("../../docs/races.md")]
    pub fn race<'c, R: Send + 'c>(&'c self) -> Race<'c, R> {
        let position = self.take(format_args!("a race"));
        Race::new(self, position)
    }

    #[doc = include_str!("../../docs/patched.md")]
    pub fn patched(&self, id: &'static str) -> Patched<'_> {
        Patched::new(self, id, true)
    }

    /// The place of a patch that every live workflow has behind it or as its marker: the old way is gone from the code.
    /// The second of the three deploys of [`patched`](Ctx::patched).
    ///
    /// # Durability
    ///
    /// Where the marker is recorded it is passed by, elsewhere nothing happens: nothing is recorded any more. So once no
    /// live workflow has a marker, the call may go.
    pub async fn deprecate_patch(&self, id: &'static str) {
        Patched::new(self, id, false).await;
    }

    #[doc = include_str!("../../docs/continue_as_new.md")]
    pub async fn continue_as_new<W: Workflow>(&self, next: Call<W>) -> ! {
        continuing::begin(&self.attempt, &self.lane, next).await;
        // Its attempt is stopped, and the body is dropped here; or it was cut off before, and has come as far as it had come.
        match std::future::pending::<std::convert::Infallible>().await {}
    }

    /// Set an attribute of the workflow, by which [lists](crate::Durable::workflows) find it: how far it is, what it is about.
    ///
    /// ```
    /// # use durable::{Ctx, workflow};
    /// #[workflow]
    /// async fn parcel(ctx: &Ctx, weight: f64) -> anyhow::Result<()> {
    ///     ctx.set_attribute("weight", weight).await?;
    ///     ctx.set_attribute("stage", "packed").await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Durability
    ///
    /// It is a transactional step of the library's own: set exactly once, and recorded with that. What the last one has set
    /// stands. It costs what such a step costs, so it is for what people search for, not for every turn of a loop.
    ///
    /// # Errors
    ///
    /// A terminal [`Failure`](crate::Failure) for the 33rd attribute, a name of more than 64 bytes, a text of more than 512 or
    /// with control characters, and a number that is none.
    pub fn set_attribute(&self, name: impl Into<String>, value: impl Into<AttributeValue>) -> StepRun<'_, ()> {
        self.run(set_attribute(name.into(), value.into()))
    }

    /// The time: of the end of the last thing that this lane saw, by the database's clock, or of the start.
    /// The same on every run, and it costs nothing.
    pub fn now(&self) -> DateTime<Utc> {
        self.lane.now()
    }

    /// A number from 0 to 1, 1 excluded, the same on every run. Not for secrets: it can be computed from
    /// the workflow's id.
    pub fn random(&self) -> f64 {
        lane::fraction(self.draw())
    }

    /// A UUID (version 8), the same on every run and different from every other. Not for secrets.
    pub fn uuid(&self) -> Uuid {
        lane::uuid(self.draw())
    }

    fn draw(&self) -> [u8; 16] {
        let (id, created_at) = &self.attempt.seed;
        self.lane.draw(id.as_str(), *created_at)
    }

    /// The workflow's id.
    pub fn id(&self) -> &str {
        self.attempt.id.as_str()
    }

    /// The next position of the lane. When the lane may not go on, the attempt is stopped, and the position
    /// is one that nothing is ever asked of.
    fn take(&self, what: fmt::Arguments<'_>) -> Position {
        self.or_stop(self.lane.take(what))
    }
}

/// What [`Ctx::run`] runs: what a `#[step]` or a `#[workflow]` function gives when it is called.
#[diagnostic::on_unimplemented(
    message = "a workflow cannot run this",
    label = "expected what a `#[step]` or `#[workflow]` function gives when it is called"
)]
pub trait Runnable<'c> {
    /// What is to be awaited.
    type Running: Future;

    #[doc(hidden)]
    fn run_in(self, ctx: &'c Ctx) -> Self::Running;
}

impl<'c, T: serde::de::DeserializeOwned + Send + 'static> Runnable<'c> for Step<T> {
    type Running = StepRun<'c, T>;

    fn run_in(self, ctx: &'c Ctx) -> StepRun<'c, T> {
        let position = ctx.take(format_args!("step {:?}", self.definition.name));
        StepRun::new(ctx.attempt.clone(), UnderWay::new(ctx.lane.clone()), position, self)
    }
}

impl<'c, W: Workflow> Runnable<'c> for Call<W>
where
    OutputOf<W>: serde::de::DeserializeOwned,
{
    type Running = ChildRun<'c, W>;

    /// Takes two positions: that of the start, and that of the result.
    fn run_in(self, ctx: &'c Ctx) -> ChildRun<'c, W> {
        let start = ctx.start(self);
        let position = ctx.take(format_args!("a wait for child {:?}", W::NAME));
        ChildRun::new(start, UnderWay::new(ctx.lane.clone()), position)
    }
}

impl fmt::Debug for Ctx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ctx({})", self.attempt.id)
    }
}
