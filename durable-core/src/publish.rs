//! Publishing an event for all workflows that are subscribed to it. What a workflow publishes about itself is `ctx::event`.

use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::PgConnection;

use crate::client::{Client, Durable};
use crate::codec::{self, Encoded};
use crate::error::{Error, ErrorKind};
use crate::event::{EVENT_BYTES_MAX, Event};
use crate::id::{Id, check_text};
use crate::store::link::call_patiently;
use crate::store::subscription::{SubscribersStarted, start_subscribers};

/// An event about to be published. Made by [`Durable::publish`]; awaiting it starts every workflow that is
/// [subscribed](crate::Subscription) to it.
///
/// # Durability
///
/// One statement, all or nothing: durable when this answers `Ok`; with [`in_tx`](PublishEvent::in_tx) when that transaction commits,
/// and only then. With an [`id`](PublishEvent::id) it may be repeated, at any time and from anywhere: each workflow is started once.
///
/// # Errors
///
/// [`Usage`](ErrorKind::Usage) for a value that cannot be stored or has more than 1 MiB, for an event or an id that is empty or has more
/// than 512 bytes, and for a value whose field names a partition that cannot be. [`Conflict`](ErrorKind::Conflict) where something else has
/// the id of a workflow that it would start. Database kinds. Nothing is written then; a transaction of the caller's can
/// only be rolled back after those that the database finds.
///
/// # Cancel safety
///
/// When this is dropped it may still be published. To publish again under the same id is safe.
#[must_use = "an event is not published until this is awaited"]
pub struct PublishEvent<'a> {
    client: &'a Arc<Client>,
    event: &'static str,
    value: Encoded,
    id: Option<String>,
    tx: Option<&'a mut PgConnection>,
}

/// What a publication has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Published {
    /// Workflows that it has started; none where nobody is subscribed.
    pub started: u32,
    /// Those that an event with this id had started before; also where the answer to that was lost.
    pub existed: u32,
}

impl Durable {
    /// Publish an event: every workflow that is [subscribed](crate::Subscription) to it is started with this value. Give it an id, and put it
    /// into a transaction of yours, before awaiting it:
    /// `durable.publish(LEAD_CREATED, lead).id("lead-42").in_tx(&mut tx).await?`.
    pub fn publish<T: Serialize + DeserializeOwned>(&self, event: Event<T>, value: T) -> PublishEvent<'_> {
        let value = codec::encode(&value).map(|(json, _)| json);
        PublishEvent { client: &self.client, event: event.key(), value, id: None, tx: None }
    }
}

impl<'a> PublishEvent<'a> {
    /// What makes it one event, however often it is published: 1 to 512 bytes without control characters. Default: a new one.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Publish in the caller's transaction: the workflows exist if, and only if, that commits. One statement; the connection is used for
    /// nothing else.
    pub fn in_tx(mut self, tx: &'a mut PgConnection) -> Self {
        self.tx = Some(tx);
        self
    }

    async fn publish(self) -> Result<Published, Error> {
        let Self { client, event, value, id, tx } = self;
        check_text("event", event)?;
        let id = id.unwrap_or_else(|| Id::generate().as_str().to_owned());
        check_text("event's id", &id)?;
        let act = format!("publish {event:?}");
        let wrong = |problem: String| Error::new(ErrorKind::Usage, format!("could not {act}: its value {problem}"));
        let value = value.map_err(wrong)?;
        if value.len() > EVENT_BYTES_MAX {
            let bytes = value.len();
            return Err(wrong(format!(
                "is {bytes} bytes of JSON, at most {EVENT_BYTES_MAX} can be published: keep it elsewhere and publish its address"
            )));
        }
        let in_tx = tx.is_some();
        let published = match tx {
            Some(tx) => in_callers_transaction(tx, client, event, &value, &id, &act).await,
            None => alone(client, event, &value, &id, &act).await,
        };
        let SubscribersStarted { started, existed, queues } = published.map_err(by_kind)?;
        for queue in &queues {
            match in_tx {
                true => client.due_soon(queue, None),
                false => client.due(queue, None),
            }
        }
        Ok(Published { started: started.unsigned_abs(), existed: existed.unsigned_abs() })
    }
}

async fn in_callers_transaction(
    tx: &mut PgConnection,
    client: &Client,
    event: &str,
    value: &str,
    id: &str,
    act: &str,
) -> Result<SubscribersStarted, Error> {
    start_subscribers(tx, &client.sql, event, value, id).await.map_err(|e| Error::database(act, &e))
}

/// On a connection of the library's own. What is repeated has the same id.
async fn alone(client: &Client, event: &str, value: &str, id: &str, act: &str) -> Result<SubscribersStarted, Error> {
    call_patiently!(client.links, act, connection => start_subscribers(connection, &client.sql, event, value, id))
}

/// What the function in the database refuses, as what it is.
fn by_kind(error: Error) -> Error {
    match error.code() {
        Some("23505") => Error::new(ErrorKind::Conflict, error.to_string()),
        Some("22004" | "22023" | "22P05" | "54000") => Error::new(ErrorKind::Usage, error.to_string()),
        _ => error,
    }
}

impl<'a> IntoFuture for PublishEvent<'a> {
    type Output = Result<Published, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.publish())
    }
}

impl std::fmt::Debug for PublishEvent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublishEvent({:?})", self.event)
    }
}
