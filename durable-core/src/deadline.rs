//! What somebody does to the deadline of a workflow that was started already. At a start it is `start`; acting on one that has
//! passed is `worker::deadline`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::client::Client;
use crate::ctx::attempt::WAIT_MAX;
use crate::error::{Error, ErrorKind};
use crate::id::Id;
use crate::operate::check_reason;
use crate::options::millis;
use crate::store::deadline::{self as store, Changed};
use crate::store::link::call_patiently;

/// A deadline about to be changed. Made by [`Durable::set_deadline`](crate::Durable::set_deadline); awaiting it does it, and tells
/// when the deadline is: `None` if it was taken away.
///
/// # Durability
///
/// It is one write, which is durable when this answers `Ok`. One whose answer is lost is sent again, and known as the same. With
/// [`in_tx`](SetDeadline::in_tx) it holds if, and only if, the caller's transaction commits. A deadline that passes in the same
/// moment either has ended the workflow, and then this says so, or never will. What was done, when, why and by which of the
/// database's roles stands in [`Handle::operations`](crate::Handle::operations), with the deadline before and after.
///
/// # Errors
///
/// [`NotFound`](ErrorKind::NotFound) when there is no such workflow, [`Finished`](ErrorKind::Finished) when it has ended, or is
/// being undone; [`Usage`](ErrorKind::Usage) for an id or a reason that cannot be; database kinds. Nothing is done then.
#[must_use = "a deadline is not changed until this is awaited"]
pub struct SetDeadline<'a> {
    client: &'a Arc<Client>,
    id: String,
    within: Option<Duration>,
    reason: Option<String>,
    tx: Option<&'a mut PgConnection>,
}

impl<'a> SetDeadline<'a> {
    pub(crate) fn new(client: &'a Arc<Client>, id: String, within: Option<Duration>) -> Self {
        Self { client, id, within, reason: None, tx: None }
    }

    /// Why, for those who read its [`operations`](crate::Handle::operations); at most 1,000 bytes.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Change it in the caller's transaction: it holds if, and only if, that commits.
    pub fn in_tx(mut self, tx: &'a mut PgConnection) -> Self {
        self.tx = Some(tx);
        self
    }

    async fn set(self) -> Result<Option<DateTime<Utc>>, Error> {
        let Self { client, id, within, reason, tx } = self;
        let id = Id::new(&id)?;
        let named = format!("set the deadline of workflow {id}");
        let reason = check_reason(reason.as_deref(), &named)?;
        let within_ms = within.map(|within| millis(within.min(WAIT_MAX)));
        let call = Uuid::new_v4();
        let changed = match tx {
            Some(tx) => store::change_deadline(tx, &client.sql, &id, within_ms, reason, call)
                .await
                .map_err(|e| Error::database(&named, &e))?,
            None => call_patiently!(client.links, &named, connection =>
                        store::change_deadline(connection, &client.sql, &id, within_ms, reason, call))?,
        };
        match changed {
            Changed::Now(at) => Ok(at),
            Changed::Missing(problem) => Err(Error::new(ErrorKind::NotFound, format!("could not {named}: {problem}"))),
            Changed::Ended(problem) => Err(Error::new(ErrorKind::Finished, format!("could not {named}: {problem}"))),
        }
    }
}

impl<'a> IntoFuture for SetDeadline<'a> {
    type Output = Result<Option<DateTime<Utc>>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.set())
    }
}

impl std::fmt::Debug for SetDeadline<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SetDeadline({})", self.id)
    }
}
