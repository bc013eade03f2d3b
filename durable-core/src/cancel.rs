//! Cancelling a workflow, and waiting until it holds.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::id::Id;
use crate::status::Status;
use crate::store::cancel::{self as store, Cut, Standing};
use crate::store::link::{Backoff, call};
use crate::worker::cut;

/// Bytes of a reason.
const REASON_BYTES_MAX: usize = 8 * 1024;

/// A cancellation about to be made. Made by [`Durable::cancel`](crate::Durable::cancel); awaiting it cancels.
///
/// # Durability
///
/// The cancellation is decided by one write, once: after that the workflow's status never changes by itself, only if somebody
/// [resumes](crate::Durable::resume) or [restarts](crate::Durable::restart) it. When a
/// worker is running the workflow, awaiting this also waits until that worker has stopped it, which takes a
/// heartbeat (a third of the lease) at most, or until that worker's lease has ended: once it answers `Ok`,
/// no step of the workflow begins any more. A transactional step under way either had committed, or never
/// will.
///
/// The same goes for the children that the workflow has started, and theirs, but for
/// [`detached`](crate::ChildStart::detached) ones: they are cancelled in the same act. If the workflow is a child itself, its
/// parent gets that as the child's failure.
///
/// One that has registered undo steps ([`Ctx::undo`](crate::Ctx::undo)) is not over then: nothing of its body begins any more,
/// but a worker takes it up, runs its undo steps, and then it is cancelled. Whoever waits for its result waits for that. If it is
/// blocked meanwhile, because its code does not fit its history, cancelling it once more ends it without undoing anything.
///
/// With [`in_tx`](Cancel::in_tx) the caller's commit decides, and nothing waits: a plain step may still begin
/// within a heartbeat of it.
///
/// # Errors
///
/// [`NotFound`](ErrorKind::NotFound) when there is no such workflow, [`Finished`](ErrorKind::Finished) when
/// it has completed or failed. Cancelling a cancelled workflow is `Ok`.
#[must_use = "a cancellation does nothing until it is awaited"]
pub struct Cancel<'a> {
    client: &'a Arc<Client>,
    id: String,
    reason: Option<String>,
    tx: Option<&'a mut PgConnection>,
}

impl<'a> Cancel<'a> {
    pub(crate) fn new(client: &'a Arc<Client>, id: String) -> Self {
        Self { client, id, reason: None, tx: None }
    }

    /// Say why: at most 8 KiB, which stand in the workflow's failure, in the error of whoever waits for its result, and in its
    /// [`operations`](crate::Handle::operations).
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Cancel in the caller's transaction: it is cancelled if, and only if, that commits.
    pub fn in_tx(mut self, tx: &'a mut PgConnection) -> Self {
        self.tx = Some(tx);
        self
    }

    async fn cancel(self) -> Result<(), Error> {
        let id = Id::new(&self.id)?;
        let act = format!("cancel workflow {id}");
        let reason = self.reason.as_deref();
        if let Some(reason) = reason {
            check_reason(reason)?;
        }
        match self.tx {
            Some(tx) => cancel_in(tx, self.client, &id, reason, &act).await,
            None => cancel_alone(self.client, &id, reason, &act).await,
        }
    }
}

/// Refuse a reason that the database or a person cannot read.
fn check_reason(reason: &str) -> Result<(), Error> {
    let problem = match reason {
        _ if reason.len() > REASON_BYTES_MAX => {
            format!("has {} bytes, at most {REASON_BYTES_MAX} are allowed", reason.len())
        }
        _ if reason.contains('\0') => "has a NUL character, which the database cannot store".to_owned(),
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::Usage, format!("the reason of a cancellation {problem}")))
}

async fn cancel_in(
    tx: &mut PgConnection,
    client: &Client,
    id: &Id,
    reason: Option<&str>,
    act: &str,
) -> Result<(), Error> {
    let named = |e: sqlx::Error| Error::database(act, &e);
    let reached = store::cancel(tx, &client.sql, id, reason, Uuid::new_v4()).await.map_err(named)?;
    if let Some(own) = reached.iter().find(|own| own.id == *id && own.now) {
        for queue in own.parent.iter().map(|(_, queue)| queue).chain(&own.undo_in) {
            client.due_soon(queue, None);
        }
        return Ok(());
    }
    let standing = store::stopping(tx, &client.sql, id).await.map_err(named)?;
    check(standing, act).map(|_| ())
}

async fn cancel_alone(client: &Arc<Client>, id: &Id, reason: Option<&str>, act: &str) -> Result<(), Error> {
    let (mut backoff, call) = (Backoff::for_callers(), Uuid::new_v4());
    let reached = loop {
        match call!(client.links, act, connection => store::cancel(connection, &client.sql, id, reason, call)) {
            Ok(reached) => break reached,
            Err(error) if backoff.again(&error).await => {}
            Err(error) => return Err(error),
        }
    };
    cut::tell(&client.wake, client.engine().as_deref(), &reached);
    if !reached.iter().any(|own| own.id == *id) {
        // It has ended, or an earlier try of this very call has cancelled it.
        wait_until_stopped(client, id, act).await?;
    }
    for Cut { id, .. } in reached.iter().filter(|reached| reached.stopping.is_some()) {
        wait_until_stopped(client, id, act).await?;
    }
    Ok(())
}

async fn wait_until_stopped(client: &Client, id: &Id, act: &str) -> Result<(), Error> {
    let mut pause = Duration::from_millis(2);
    let mut backoff = Backoff::for_callers();
    loop {
        match call!(client.links, act, connection => store::stopping(connection, &client.sql, id)) {
            Ok(standing) => {
                let standing = check(standing, act)?;
                if standing.stopping.is_none() {
                    if !standing.is_cut {
                        cut::has_ended(&client.wake, id);
                    }
                    return Ok(());
                }
            }
            Err(error) if backoff.again(&error).await => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(250));
    }
}

/// Where it stands, once it is cancelled.
fn check(standing: Option<Standing>, act: &str) -> Result<Standing, Error> {
    let Some(standing) = standing else {
        return Err(Error::new(ErrorKind::NotFound, format!("could not {act}: there is no such workflow")));
    };
    match standing.status {
        Status::Cancelled => Ok(standing),
        status @ (Status::Completed | Status::Failed) => {
            Err(Error::new(ErrorKind::Finished, format!("could not {act}: it is {status} already")))
        }
        Status::Queued | Status::Running | Status::Suspended | Status::Blocked if standing.is_cut => Ok(standing),
        status @ (Status::Queued | Status::Running | Status::Suspended | Status::Blocked) => {
            // Seen between a failed update and this look: it was resumed or deleted and started again.
            Err(Error::new(ErrorKind::Unavailable, format!("could not {act}: it is {status}, try again")))
        }
    }
}

impl<'a> IntoFuture for Cancel<'a> {
    type Output = Result<(), Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.cancel())
    }
}

impl std::fmt::Debug for Cancel<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cancel({})", self.id)
    }
}
