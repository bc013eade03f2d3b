//! Reading what a workflow has published, from outside: what stands there now, or the first value.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::codec;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::group::{Group, Item, Writer};
use crate::id::{Id, check_text};
use crate::store::event::{EventStands, events};
use crate::store::link::{Links, call_patiently};

/// Pauses between the looks of who waits: shorter at first.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(5);
const LOOK_EVERY_MAX: Duration = Duration::from_millis(100);

/// Reads events: those that many callers ask for at the same time in one statement.
pub(crate) struct EventReader(Group<Asked>);

struct Asked {
    of: Id,
    key: &'static str,
}

impl Item for Asked {
    type Answer = EventStands;

    fn rows(&self) -> usize {
        1
    }

    /// With what is answered, as far as it can be known.
    fn bytes(&self) -> usize {
        4096 + self.of.as_str().len() + self.key.len()
    }
}

struct Statement(Arc<Links>);

impl Writer<Asked> for Statement {
    async fn write(&self, items: &[Asked]) -> Result<Option<Vec<EventStands>>, Error> {
        let asked: Vec<(Id, &'static str)> = items.iter().map(|asked| (asked.of.clone(), asked.key)).collect();
        call_patiently!(self.0, "read events", connection => events(connection, &self.0.sql, &asked)).map(Some)
    }
}

impl EventReader {
    pub(crate) fn new(links: &Arc<Links>) -> Self {
        Self(Group::new(Statement(links.clone())))
    }
}

/// An event about to be read. Made by [`Handle::event`](crate::Handle::event); awaiting it gives the last value, or `None` when
/// nothing was published yet.
///
/// # Errors
///
/// [`NotFound`](ErrorKind::NotFound) when there is no such workflow, [`Decode`](ErrorKind::Decode) when the value is no `T`,
/// [`Usage`](ErrorKind::Usage) for a name that no event can have, database kinds.
#[must_use = "an event is not read until it is awaited"]
pub struct ReadEvent<'a, T> {
    client: &'a Arc<Client>,
    id: &'a Id,
    event: Event<T>,
    wait: Option<Duration>,
    types: PhantomData<fn() -> T>,
}

impl<'a, T: DeserializeOwned> ReadEvent<'a, T> {
    pub(crate) fn new(client: &'a Arc<Client>, id: &'a Id, event: Event<T>) -> Self {
        Self { client, id, event, wait: None, types: PhantomData }
    }

    /// If nothing was published yet, wait for the first value, at most this long; `None` then, and when the workflow has ended
    /// without it. It is noticed within a tenth of a second; all who wait in a process look together.
    pub fn wait(mut self, at_most: Duration) -> Self {
        self.wait = Some(at_most);
        self
    }

    async fn read(self) -> Result<Option<T>, Error> {
        let key = self.event.key();
        check_text("name of an event", key)?;
        let until = self.wait.and_then(|wait| Instant::now().checked_add(wait));
        let mut pause = LOOK_EVERY_MIN;
        loop {
            let asked = Asked { of: Id::new(self.id.as_str())?, key };
            let Some((_, stands)) = self.client.events.0.write(asked).await? else {
                return Err(Error::new(ErrorKind::Unavailable, format!("could not read event {key:?}: interrupted")));
            };
            let id = self.id;
            if let Some(value) = stands.value {
                let wrong = |problem| format!("a value of event {key:?} of workflow {id} {problem}");
                let value = codec::decode(&value).map_err(|problem| Error::new(ErrorKind::Decode, wrong(problem)))?;
                return Ok(Some(value));
            }
            let Some(status) = stands.status else {
                return Err(Error::new(ErrorKind::NotFound, format!("there is no workflow {id}")));
            };
            let left = match self.wait {
                Some(_) if !status.is_final() => until.map_or(pause, |until| until - Instant::now().min(until)),
                Some(_) | None => Duration::ZERO,
            };
            if left.is_zero() {
                return Ok(None);
            }
            tokio::time::sleep(pause.mul_f64(0.8 + 0.2 * fastrand::f64()).min(left)).await;
            pause = (pause * 2).min(LOOK_EVERY_MAX);
        }
    }
}

impl<'a, T: DeserializeOwned + 'a> IntoFuture for ReadEvent<'a, T> {
    type Output = Result<Option<T>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.read())
    }
}

impl<T> std::fmt::Debug for ReadEvent<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReadEvent({:?} of {})", self.event.key(), self.id)
    }
}
