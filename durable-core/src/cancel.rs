//! Cancelling a workflow, and waiting until it holds.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;

use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::id::{Id, OwnerId};
use crate::status::Status;
use crate::store::cancel::{self as store, Cancelled};
use crate::store::link::{Backoff, call};
use crate::wake::Word;

/// A cancellation about to be made. Made by [`Durable::cancel`](crate::Durable::cancel); awaiting it cancels.
///
/// # Durability
///
/// The cancellation is decided by one write, once: after that the workflow's status never changes. When a
/// worker is running the workflow, awaiting this also waits until that worker has stopped it, which takes a
/// heartbeat (a third of the lease) at most, or until that worker's lease has ended: once it answers `Ok`,
/// no step of the workflow begins any more. A transactional step under way either had committed, or never
/// will.
///
/// The same goes for the children that the workflow has started, and theirs, but for
/// [`detached`](crate::ChildStart::detached) ones: they are cancelled in the same act. If the workflow is a child itself, its
/// parent gets that as the child's failure.
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
    tx: Option<&'a mut PgConnection>,
}

impl<'a> Cancel<'a> {
    pub(crate) fn new(client: &'a Arc<Client>, id: String) -> Self {
        Self { client, id, tx: None }
    }

    /// Cancel in the caller's transaction: it is cancelled if, and only if, that commits.
    pub fn in_tx(mut self, tx: &'a mut PgConnection) -> Self {
        self.tx = Some(tx);
        self
    }

    async fn cancel(self) -> Result<(), Error> {
        let id = Id::new(&self.id)?;
        let act = format!("cancel workflow {id}");
        match self.tx {
            Some(tx) => cancel_in(tx, self.client, &id, &act).await,
            None => cancel_alone(self.client, &id, &act).await,
        }
    }
}

async fn cancel_in(tx: &mut PgConnection, client: &Client, id: &Id, act: &str) -> Result<(), Error> {
    let named = |e: sqlx::Error| Error::database(act, &e);
    let reached = store::cancel(tx, &client.sql, id).await.map_err(named)?;
    if let Some(own) = reached.iter().find(|own| own.id == *id && own.now) {
        if let Some((_, queue)) = &own.parent {
            client.due_soon(queue, None);
        }
        return Ok(());
    }
    let standing = store::stopping(tx, &client.sql, id).await.map_err(named)?;
    check(standing, act).map(|_| ())
}

async fn cancel_alone(client: &Arc<Client>, id: &Id, act: &str) -> Result<(), Error> {
    let mut backoff = Backoff::for_callers();
    let reached = loop {
        match call!(client.links, act, connection => store::cancel(connection, &client.sql, id)) {
            Ok(reached) => break reached,
            Err(error) if backoff.again(&error).await => {}
            Err(error) => return Err(error),
        }
    };
    for Cancelled { id, now, stopping, parent } in &reached {
        match stopping {
            Some(owner) => stop(client, id, *owner),
            // Nobody ran it: nothing can begin.
            None if *now => cancelled(client, id),
            None => {}
        }
        if let Some((parent, queue)) = parent {
            wake_parent(client, parent, queue);
        }
    }
    if !reached.iter().any(|own| own.id == *id) {
        // It has ended, or an earlier try of this very call has cancelled it.
        wait_until_stopped(client, id, act).await?;
    }
    for Cancelled { id, .. } in reached.iter().filter(|reached| reached.stopping.is_some()) {
        wait_until_stopped(client, id, act).await?;
    }
    Ok(())
}

/// A child was cancelled: tell whoever runs its parent, or may take it up.
fn wake_parent(client: &Client, parent: &Id, queue: &str) {
    client.due(queue, None);
    if !client.engine().is_some_and(|engine| engine.poke(parent)) {
        client.wake.tell_others(Word::Message(parent.digest()));
    }
}

/// Have the worker stop it, here or elsewhere.
fn stop(client: &Client, id: &Id, owner: OwnerId) {
    match client.engine().filter(|engine| engine.owner == owner) {
        Some(engine) => engine.stop_cancelled(id),
        None => client.wake.tell_others(Word::Stopping(owner.0)),
    }
}

/// Tell those who wait for its end. This process may not have heard that somebody elsewhere does.
fn cancelled(client: &Client, id: &Id) {
    client.wake.ended(id, None);
    client.wake.tell_others(Word::Ended(id.digest()));
}

async fn wait_until_stopped(client: &Client, id: &Id, act: &str) -> Result<(), Error> {
    let mut pause = Duration::from_millis(2);
    let mut backoff = Backoff::for_callers();
    loop {
        match call!(client.links, act, connection => store::stopping(connection, &client.sql, id)) {
            Ok(standing) => {
                if check(standing, act)?.is_none() {
                    cancelled(client, id);
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

/// The worker that has still to stop it, once it is cancelled.
fn check(standing: Option<(Status, Option<OwnerId>)>, act: &str) -> Result<Option<OwnerId>, Error> {
    match standing {
        None => Err(Error::new(ErrorKind::NotFound, format!("could not {act}: there is no such workflow"))),
        Some((Status::Cancelled, stopping)) => Ok(stopping),
        Some((status @ (Status::Completed | Status::Failed), _)) => {
            Err(Error::new(ErrorKind::Finished, format!("could not {act}: it is {status} already")))
        }
        Some((status @ (Status::Queued | Status::Running | Status::Suspended | Status::Blocked), _)) => {
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
