//! Durable workflows on the PostgreSQL that you already have.
//!
//! # Layout
//!
//! Lowest first; a room imports only rooms above it in this list.
//!
//! 1. words, without any I/O: `id`, `status`, `retry`, `codec`, `topic`, `failure`, `error`, `options`, `probe`
//! 2. `history`, `decide`, `info`: what is recorded, how an attempt ended, and how people read both; pure
//! 3. `store`: the only place with SQL
//! 4. `step`, `ctx`, `workflow`: what runs inside one attempt
//! 5. `wake`, `worker`: claims, leases, execution
//! 6. `client`, `start`, `message`, `cancel`, `handle`: the doors for callers
//! 7. `testing`: crash points and a movable clock

mod cancel;
mod client;
mod codec;
mod ctx;
mod decide;
mod error;
mod failure;
mod handle;
mod history;
mod id;
mod info;
mod message;
mod options;
mod probe;
mod retry;
mod start;
mod status;
mod step;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod topic;
mod wake;
mod worker;
mod workflow;

pub use cancel::Cancel;
pub use client::{Builder, Durable, migrate};
pub use ctx::Ctx;
pub use ctx::branch::{Branch, FanOut};
pub use ctx::receive::{Receive, ReceiveTimeout};
pub use ctx::run::StepRun;
pub use ctx::sleep::Sleep;
pub use error::{Error, ErrorKind};
pub use failure::{Failure, FailureKind, StepError, retry_after, terminal};
pub use handle::Handle;
pub use history::FailedAttempt;
pub use info::{RecordedStep, WorkflowInfo};
pub use message::SendMessage;
pub use retry::{Retry, days, hours, minutes, seconds};
pub use start::{IfExists, Start, StartMany};
pub use status::Status;
pub use step::{Step, StepCtx};
pub use topic::Topic;
pub use workflow::Call;

/// The connection that a transactional step gets: sqlx's own.
pub use sqlx::PgConnection;

#[doc = include_str!("../docs/step.md")]
pub use durable_macros::step;
#[doc = include_str!("../docs/workflow.md")]
pub use durable_macros::workflow;

/// What the macros' output calls. Not for use by hand, and outside the promises of the version number.
#[doc(hidden)]
pub mod __private {
    pub use crate::failure::Returned;
    pub use crate::step::{BoxFuture, StepDefinition, plain_step, tx_step};
    pub use crate::workflow::{Workflow, WorkflowFn, call};
}
