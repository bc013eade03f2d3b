//! Durable workflows on the PostgreSQL that you already have.
//!
//! Annotate async functions with [`#[workflow]`](macro@workflow) and [`#[step]`](macro@step), build a [`Durable`]
//! on your connection pool, and start workflows from your application. What a step returned is recorded, and
//! after a crash, a deploy or a week of waiting the workflow goes on where its record ends.
//!
//! ```no_run
//! use durable::{Ctx, Durable, PgConnection, seconds, step, workflow};
//!
//! #[step(retry(max_attempts = 5), timeout = "30s")]
//! async fn quote(item: String) -> anyhow::Result<i64> {
//!     Ok(item.len() as i64 * 100) // ask somebody over HTTP
//! }
//!
//! #[step(tx)]
//! async fn book(tx: &mut PgConnection, item: String, cents: i64) -> anyhow::Result<i64> {
//!     let insert = sqlx::query_scalar("insert into booking (item, cents) values ($1, $2) returning id");
//!     Ok(insert.bind(item).bind(cents).fetch_one(tx).await?)
//! }
//!
//! #[workflow]
//! async fn order(ctx: &Ctx, item: String) -> anyhow::Result<i64> {
//!     let cents = ctx.run(quote(item.clone())).await?;
//!     ctx.sleep(seconds(3)).await?;
//!     Ok(ctx.run(book(item, cents)).await?)
//! }
//!
//! # async fn example(pool: sqlx::PgPool) -> anyhow::Result<()> {
//! let durable = Durable::builder(pool).register(order).start().await?;
//! let booking = durable.start(order("tea".into())).id("order-42").await?.result().await?;
//! # let _ = booking; Ok(()) }
//! ```
//!
//! # Which kind of step
//!
//! | what it does | write it as | it happens |
//! |---|---|---|
//! | writes to the same database | `#[step(tx)]`, on the connection that it is given | exactly once |
//! | calls a service that takes an idempotency key | `#[step]`, with [`StepCtx::key`] | once, as far as the service keeps its word |
//! | calls anything else | `#[step]` | at least once, and never again after its output was recorded |
//! | computes | plain code in the body | on every run |
//!
//! # Rules for bodies
//!
//! A body is run from its top again and again, so it has to do the same every time: [`Ctx::now`] for the time,
//! [`Ctx::random`] and [`Ctx::uuid`] for chance, a step for everything that reaches outside. [`Ctx`] says how
//! several things are done at once. Code may change between two runs where the history does not reach yet; where
//! it does, a body that asks for something else is blocked, not run.
//!
//! # Errors
//!
//! Bodies and steps return any `Result` whose error converts into `anyhow::Error`; [`terminal`] and
//! [`retry_after`] give the engine a word with it. What a failed step looks like to a body is a [`Failure`]. The
//! library's own calls return an [`Error`].
//!
//! # Layout
//!
//! Lowest first; a room imports only rooms above it in this list.
//!
//! 1. words, without any I/O: `id`, `status`, `retry`, `attribute`, `codec`, `clock`, `topic`, `event`, `stream`, `failure`,
//!    `error`, `options`, `queue`, `limit`, `probe`, `sabotage`, `rule`
//! 2. `history`, `decide`, `info`, `transition`: what is recorded, how an attempt ended, and how people read both; pure
//! 3. `store`: the only place with SQL; `group`: many writes in one statement; `lines`,
//!    `outflow`: values on their way to streams
//! 4. `step`, `mock`, `ctx`, `workflow`: what runs inside one attempt
//! 5. `wake`, `hints`, `worker`: who is told what, here and elsewhere; claims, leases, execution
//! 6. `client`, `start`, `start_all`, `starting`, `starter`, `message`, `cancel`, `operate`, `deadline`, `bulk`, `fork`, `handle`, `list`,
//!    `recorded`, `timeline`, `published`, `streamed`, `queues`, `limits`, `schedule`, `keyed`, `subscription`, `publish`: the doors for callers
//! 7. `testing`: the kit for tests: databases, a clock that is moved, every crash, mocks; and sabotage

mod attribute;
mod bulk;
mod cancel;
mod client;
mod clock;
mod codec;
mod ctx;
mod deadline;
mod decide;
mod error;
mod event;
mod failure;
mod fork;
mod group;
mod handle;
mod hints;
mod history;
mod id;
mod info;
mod keyed;
mod limit;
mod limits;
mod lines;
mod list;
mod message;
#[cfg(feature = "testing")]
mod mock;
mod operate;
mod options;
mod outflow;
mod probe;
mod publish;
mod published;
mod queue;
mod queues;
mod recorded;
mod retry;
mod rule;
mod sabotage;
mod schedule;
mod start;
mod start_all;
mod starter;
mod starting;
mod status;
mod step;
mod store;
mod stream;
mod streamed;
mod subscription;
#[cfg(feature = "testing")]
pub mod testing;
mod timeline;
mod topic;
mod transition;
mod wake;
mod worker;
mod workflow;

pub use attribute::{Attribute, AttributeValue};
pub use bulk::{Bulk, Operated};
pub use cancel::Cancel;
pub use client::{Builder, Durable, migrate};
pub use ctx::branch::{Branch, FanOut};
pub use ctx::child::result::{ChildResult, NextChild};
pub use ctx::child::start::{ChildRun, ChildStart};
pub use ctx::child::{Child, Children};
pub use ctx::event::{AwaitEvent, AwaitEventTimeout, Publish};
pub use ctx::patch::Patched;
pub use ctx::race::Race;
pub use ctx::receive::{Receive, ReceiveTimeout};
pub use ctx::run::StepRun;
pub use ctx::sleep::Sleep;
pub use ctx::stream::{BodyStream, WriteStream};
pub use ctx::undo::Undo;
pub use ctx::{Ctx, Runnable};
pub use deadline::SetDeadline;
pub use error::{Error, ErrorKind};
pub use event::Event;
pub use failure::{Failure, FailureKind, StepError, retry_after, terminal};
pub use fork::Fork;
pub use handle::Handle;
pub use history::FailedAttempt;
pub use info::{Counts, Dropped, HistoryPage, Operation, RecordedStep, SubscriptionInfo, WorkflowInfo, WorkflowPage};
pub use keyed::{Batch, Debounce, IfOpen};
pub use limit::{Limit, LimitInfo};
pub use list::ListWorkflows;
pub use message::SendMessage;
pub use operate::Operate;
pub use outflow::StepStream;
pub use publish::{PublishEvent, Published};
pub use published::ReadEvent;
pub use queue::{Queue, QueueInfo, QueueMetrics, WaitsFor};
pub use recorded::ReadHistory;
pub use retry::{Retry, days, hours, minutes, seconds};
pub use rule::{CatchUp, Overlap};
pub use schedule::{
    Backfill, ListSchedules, OperateSchedule, Schedule, ScheduleHandle, ScheduleInfo, SetSchedule, TriggerSchedule,
};
pub use start::{IfExists, Start, StartMany};
pub use start_all::{StartAll, StartedAll};
pub use status::Status;
pub use step::{Step, StepCtx};
pub use stream::{StepAttempt, Stream, StreamValue};
pub use streamed::ReadStream;
pub use subscription::Subscription;
pub use timeline::ReadTimeline;
pub use topic::Topic;
pub use transition::{TimelineEntry, TimelinePage, Transition};
pub use workflow::Call;

/// The connection that a transactional step gets: sqlx's own.
pub use sqlx::PgConnection;

#[doc = include_str!("../docs/step.md")]
pub use durable_macros::step;
#[doc = include_str!("../docs/workflow.md")]
pub use durable_macros::workflow;

/// A manual, and nothing else: for whoever has SQL and no Rust.
#[cfg(doc)]
#[doc = include_str!("../docs/from_sql.md")]
pub mod from_sql {}

/// A manual, and nothing else: for whoever looks after workflows.
#[cfg(doc)]
#[doc = include_str!("../docs/operate.md")]
pub mod operating {}

/// What the macros' output calls. Not for use by hand, and outside the promises of the version number.
#[doc(hidden)]
pub mod __private {
    pub use crate::ctx::select::Won;
    pub use crate::failure::Returned;
    pub use crate::step::{BoxFuture, StepDefinition, plain_step, tx_step};
    pub use crate::workflow::{Workflow, WorkflowFn, call};
}

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
