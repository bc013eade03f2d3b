//! Sending messages to workflows, from anywhere.

use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::PgConnection;

use crate::client::Client;
use crate::codec::{self, Encoded};
use crate::error::{Error, ErrorKind};
use crate::id::{Id, check_text};
use crate::status::Status;
use crate::store::link::{Backoff, call};
use crate::store::message::{self as store, Receiver, Sent};
use crate::topic::Topic;
use crate::wake::Word;

/// A message about to be sent. Made by [`Durable::send`](crate::Durable::send); awaiting it sends it.
///
/// # Durability
///
/// The message is stored when this answers `Ok`; with [`in_tx`](SendMessage::in_tx), when that transaction
/// commits, and only then. It is received exactly once, in the order sent per topic. Without a
/// [`key`](SendMessage::key), sending again after a lost answer may store it twice; with one it never does.
///
/// # Errors
///
/// [`Usage`](ErrorKind::Usage) for a value that cannot be stored, [`NotFound`](ErrorKind::NotFound) when
/// there is no such workflow, [`Finished`](ErrorKind::Finished) when it has ended and nobody would read the
/// message, database kinds.
#[must_use = "a message is not sent until it is awaited"]
pub struct SendMessage<'a> {
    client: &'a Arc<Client>,
    id: String,
    topic: &'static str,
    value: Encoded,
    key: Option<String>,
    tx: Option<&'a mut PgConnection>,
}

impl<'a> SendMessage<'a> {
    pub(crate) fn new<T: Serialize + DeserializeOwned>(
        client: &'a Arc<Client>,
        id: String,
        topic: Topic<T>,
        value: &T,
    ) -> Self {
        Self { client, id, topic: topic.name(), value: codec::encode(value).map(|(json, _)| json), key: None, tx: None }
    }

    /// An idempotency key, for this receiver: a second message with it is not stored, also when the first
    /// one was received long ago. 1 to 512 bytes.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Send in the caller's transaction: the message exists if, and only if, that commits. One statement.
    /// Until then the receiver's row is locked.
    pub fn in_tx(mut self, tx: &'a mut PgConnection) -> Self {
        self.tx = Some(tx);
        self
    }

    async fn send(self) -> Result<(), Error> {
        let id = Id::new(&self.id)?;
        check_text("topic", self.topic)?;
        if let Some(key) = &self.key {
            check_text("message key", key)?;
        }
        let act = format!("send {:?} to workflow {id}", self.topic);
        let value = self
            .value
            .map_err(|problem| Error::new(ErrorKind::Usage, format!("could not {act}: its value {problem}")))?;
        let key = self.key.as_deref();
        let in_tx = self.tx.is_some();
        let sent = match self.tx {
            Some(tx) => in_caller_tx(tx, self.client, &id, self.topic, key, &value, &act).await?,
            None => alone(self.client, &id, self.topic, key, &value, &act).await?,
        };
        let receiver = match sent {
            Sent::Stored(receiver) => receiver,
            Sent::NoReceiver => {
                return Err(Error::new(ErrorKind::NotFound, format!("could not {act}: there is no such workflow")));
            }
            Sent::Finished(status) => {
                return Err(Error::new(
                    ErrorKind::Finished,
                    format!("could not {act}: it is {status}, nobody would read the message"),
                ));
            }
            Sent::Again => return Err(Error::new(ErrorKind::Unavailable, format!("could not {act}: try again"))),
        };
        if in_tx {
            self.client.due_soon(&receiver.queue, None);
        } else {
            tell(self.client, &id, &receiver);
        }
        Ok(())
    }
}

/// A message is there: tell whoever runs its receiver, or may take it up.
fn tell(client: &Client, id: &Id, receiver: &Receiver) {
    client.due(&receiver.queue, None);
    let pokes_here = client.engine().is_some_and(|engine| engine.poke(id));
    if receiver.status == Status::Running && !pokes_here {
        client.wake.tell_others(Word::Message(id.digest()));
    }
}

async fn in_caller_tx(
    tx: &mut PgConnection,
    client: &Client,
    id: &Id,
    topic: &str,
    key: Option<&str>,
    value: &str,
    act: &str,
) -> Result<Sent, Error> {
    store::send(tx, &client.sql, id, topic, key, value).await.map_err(|e| Error::database(act, &e))
}

async fn alone(
    client: &Client,
    id: &Id,
    topic: &str,
    key: Option<&str>,
    value: &str,
    act: &str,
) -> Result<Sent, Error> {
    // Without a key only the caller can know whether sending again is right.
    let mut backoff = Backoff::for_callers();
    loop {
        match call!(client.links, act, connection => store::send(connection, &client.sql, id, topic, key, value)) {
            Ok(Sent::Again) => {}
            Err(error) if key.is_some() && backoff.again(&error).await => {}
            answer => break answer,
        }
    }
}

impl<'a> IntoFuture for SendMessage<'a> {
    type Output = Result<(), Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl std::fmt::Debug for SendMessage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SendMessage({:?} to {})", self.topic, self.id)
    }
}
