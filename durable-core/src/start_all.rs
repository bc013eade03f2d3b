//! Starting as many workflows as somebody can name: chunk by chunk, each of them one statement, never all in memory.
//!
//! A start of one, and of some whose handles are wanted, is `start`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use sqlx::PgConnection;

use crate::attribute::AttributeValue;
use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::handle::Handle;
use crate::id::Id;
use crate::start::{IfExists, Options, describe, start_options};
use crate::starting::start_all;
use crate::store::start::NewWorkflow;
use crate::workflow::{Call, Workflow};

/// What one statement starts at most. More in one would hold its memory, here and in the server, without being quicker.
const CHUNK_ROWS: usize = 1_000;
const CHUNK_BYTES: usize = 1024 * 1024;

/// Any number of workflows about to start. Made by [`Durable::start_all`](crate::Durable::start_all) and
/// [`start_all_from`](crate::Durable::start_all_from); awaiting it starts them, and says how many were new.
///
/// The calls are asked for one by one, and sent in chunks of 1,000 or of 1 MiB, whichever comes first: 100,000 small ones are 100
/// statements, and no more than one chunk is ever in memory. Every option is for all of them.
///
/// An id that comes twice counts as there already the second time, wherever in the call it is, and
/// [`if_exists`](StartAll::if_exists) says what that means: by default, that the first one stands.
///
/// # Durability
///
/// With [`in_tx`](StartAll::in_tx): all of them exist when that transaction commits, and none of them otherwise; after an error, roll
/// it back. Without: each chunk is a write of its own, and stands from then on. Where the call fails, is dropped, or its
/// process dies in the middle, the chunks before stand, of the chunk under way nothing or all, and no other has begun. To repeat the call, with
/// the same ids, is safe, and starts the rest.
///
/// # Errors
///
/// [`Usage`](ErrorKind::Usage) for an id or input that cannot be stored, [`Conflict`](ErrorKind::Conflict) for the id of another
/// workflow and by [`if_exists`](StartAll::if_exists), database kinds. The error names the workflow, and says how many of the call
/// stand; of the chunk that it was in nothing was written (except that an id which another transaction takes in the same
/// moment is found too late for that).
///
/// # Cancel safety
///
/// When this is dropped, a chunk that is under way goes on (outside a transaction), and no other begins.
#[must_use = "a start does nothing until it is awaited"]
pub struct StartAll<'a, W: Workflow, C> {
    client: &'a Arc<Client>,
    calls: C,
    options: Options<'a>,
    workflow: PhantomData<fn() -> W>,
}

/// What [`StartAll`] has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct StartedAll {
    /// Workflows that this call has started.
    pub created: u64,
    /// Those that were there already; also those of a chunk whose first answer was lost, so that it had to be sent again.
    pub existed: u64,
}

impl StartedAll {
    /// All that it was called for.
    pub fn total(&self) -> u64 {
        self.created + self.existed
    }
}

start_options!(StartAll, C);

impl<'a, W: Workflow, C> StartAll<'a, W, C> {
    pub(crate) fn new(client: &'a Arc<Client>, calls: C) -> Self {
        Self { client, calls, options: Options::new(client), workflow: PhantomData }
    }
}

impl<'a, W, I, C> IntoFuture for StartAll<'a, W, C>
where
    W: Workflow,
    I: Into<String> + Send,
    C: Stream<Item = (I, Call<W>)> + Send + 'a,
{
    type Output = Result<StartedAll, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { client, calls, mut options, .. } = self;
        Box::pin(async move {
            let mut done = StartedAll::default();
            let in_tx = options.tx.is_some();
            let ended = in_chunks(client, calls, &mut options, &mut done).await;
            ended.map_err(|error| tell_what_stands(error, &done, in_tx)).map(|()| done)
        })
    }
}

async fn in_chunks<W: Workflow, I: Into<String>>(
    client: &Arc<Client>,
    calls: impl Stream<Item = (I, Call<W>)>,
    options: &mut Options<'_>,
    done: &mut StartedAll,
) -> Result<(), Error> {
    let mut calls = pin!(calls);
    let mut chunk = Chunk::default();
    while let Some((id, call)) = calls.next().await {
        let new = describe::<W>(Id::new(&id.into())?, &call, options)?;
        // The call may be large, and the next lines wait.
        drop(call);
        if chunk.bytes + new.bytes() > CHUNK_BYTES {
            chunk.write(client, options, done).await?;
        }
        chunk.take(new, options.if_exists)?;
        if chunk.new.len() == CHUNK_ROWS {
            chunk.write(client, options, done).await?;
        }
    }
    chunk.write(client, options, done).await
}

/// What goes into one statement.
#[derive(Default)]
struct Chunk {
    new: Vec<NewWorkflow>,
    places: HashMap<Id, usize>,
    bytes: usize,
    /// Calls with an id that the chunk has already. One statement cannot start and find the same row.
    repeats: u64,
}

impl Chunk {
    fn take(&mut self, new: NewWorkflow, policy: IfExists) -> Result<(), Error> {
        match self.places.entry(new.id.clone()) {
            Entry::Vacant(place) => {
                place.insert(self.new.len());
                self.bytes += new.bytes();
                self.new.push(new);
            }
            Entry::Occupied(place) => {
                let same_input = self.new[*place.get()].input == new.input;
                if policy == IfExists::Refuse || (policy == IfExists::ReturnSameInput && !same_input) {
                    let twice = format!("the id {} is twice in one call, which if_exists refuses", new.id);
                    return Err(Error::new(ErrorKind::Conflict, twice));
                }
                self.repeats += 1;
            }
        }
        Ok(())
    }

    async fn write(
        &mut self,
        client: &Arc<Client>,
        options: &mut Options<'_>,
        done: &mut StartedAll,
    ) -> Result<(), Error> {
        let Self { new, repeats, .. } = std::mem::take(self);
        let handles: Vec<Handle<()>> = start_all(client, new, options.if_exists, options.tx.as_deref_mut()).await?;
        for handle in handles {
            match handle.existed() {
                true => done.existed += 1,
                false => done.created += 1,
            }
        }
        done.existed += repeats;
        Ok(())
    }
}

/// Where a call has come to nothing in the middle, whoever made it needs to know what there is.
fn tell_what_stands(error: Error, done: &StartedAll, in_tx: bool) -> Error {
    let (total, created) = (done.total(), done.created);
    let stands = match (total, in_tx) {
        (0, false) => "no chunk of this call was started before".to_owned(),
        (_, false) => format!("the first {total} of this call were started, {created} of them new, and stand"),
        (_, true) => format!("the first {total} of this call are in the transaction: roll it back"),
    };
    let is_unknown = error.kind() == ErrorKind::Unavailable && !in_tx;
    let unknown = if is_unknown { "; the chunk after them may stand, too: repeat the call" } else { "" };
    error.with(&format!(" ({stands}{unknown})"))
}
