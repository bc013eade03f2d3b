//! Forking: a new workflow that goes on from a position in the history of another one.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::PgConnection;

use crate::client::Client;
use crate::codec;
use crate::error::{Error, ErrorKind};
use crate::handle::Handle;
use crate::id::Id;
use crate::operate::check_reason;
use crate::store::fork::{self as store, ForkRow, Forked};
use crate::store::link::{Backoff, call};
use crate::workflow::{Call, Workflow};

/// A fork about to be made. Made by [`Durable::fork`](crate::Durable::fork); awaiting it starts the new workflow and gives
/// its handle.
///
/// What is recorded before the position is taken over as it stands, and is not done again; from there on the new
/// workflow goes its own way, with idempotency keys of its own. Draws and times of the body come out as they did up to
/// the position. It has the attributes that the source has, and no deadline until it is
/// [given one](crate::Durable::set_deadline). Messages that the source has not received are not taken over. The source is left as it is, whatever its
/// status; of one that runs, what is recorded by now is taken.
///
/// # Durability
///
/// The new workflow and its history are written in one act, which is durable when this answers `Ok`; with
/// [`in_tx`](Fork::in_tx), when that transaction commits. The same fork under the same id is made once: repeating one whose
/// answer was lost is safe.
///
/// # Errors
///
/// [`NotFound`](ErrorKind::NotFound) when there is no such source. [`Usage`](ErrorKind::Usage) for a position beyond its
/// history, an output for a position that is not taken over, an input of another workflow, and for what cannot be stored.
/// [`Conflict`](ErrorKind::Conflict) when the id belongs to something else. Database kinds. Nothing is written then. A
/// version that no worker has is no error: the workflow waits for one that has it.
#[must_use = "a fork does nothing until it is awaited"]
pub struct Fork<'a, T> {
    client: &'a Arc<Client>,
    source: String,
    from: u32,
    id: Option<String>,
    instead: Instead,
    reason: Option<String>,
    tx: Option<&'a mut PgConnection>,
    output: PhantomData<fn() -> T>,
}

/// What takes the place of the source's own.
#[derive(Default)]
struct Instead {
    name: Option<&'static str>,
    version: Option<i32>,
    input: Option<String>,
    outputs: Vec<(i32, String)>,
    /// The first thing that was wrong; told when the fork is awaited.
    problem: Option<String>,
}

impl<'a, T> Fork<'a, T> {
    pub(crate) fn new(client: &'a Arc<Client>, source: String, from: u32) -> Self {
        Self {
            client,
            source,
            from,
            id: None,
            instead: Instead::default(),
            reason: None,
            tx: None,
            output: PhantomData,
        }
    }

    /// The new workflow's id. Default: a new one.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Go on with this version of the body. Default: that of the source, or of the [`input`](Fork::input).
    pub fn version(mut self, version: i32) -> Self {
        self.instead.version = Some(version);
        self
    }

    /// Go on with this input, and with the version that it is for: a call of the same workflow.
    pub fn input<W: Workflow>(mut self, call: Call<W>) -> Self {
        match call.encode() {
            Ok(input) => self.instead.input = Some(input),
            Err(problem) => drop(self.instead.problem.get_or_insert(format!("its input {problem}"))),
        }
        self.instead.name = Some(W::NAME);
        self.instead.version.get_or_insert(W::VERSION);
        self
    }

    /// Take this for what the step at a position of the body has returned, whatever it did return, or however it failed.
    /// The position has to be recorded, and before the one from which the fork goes on.
    pub fn output<O: Serialize + DeserializeOwned>(mut self, position: u32, output: &O) -> Self {
        match codec::encode(output) {
            Ok((json, _)) => {
                let at = i32::try_from(position).unwrap_or(i32::MAX);
                self.instead.outputs.retain(|(other, _)| *other != at);
                self.instead.outputs.push((at, json));
            }
            Err(problem) => drop(self.instead.problem.get_or_insert(format!("the output at {position} {problem}"))),
        }
        self
    }

    /// Why, for those who read its [`operations`](crate::Handle::operations); at most 1,000 bytes.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Fork in the caller's transaction: the new workflow exists if, and only if, that commits. One statement, or
    /// two where the id is taken.
    pub fn in_tx(mut self, tx: &'a mut PgConnection) -> Self {
        self.tx = Some(tx);
        self
    }

    async fn fork(self) -> Result<Handle<T>, Error> {
        let Self { client, source, from, id, instead, reason, tx, .. } = self;
        let source = Id::new(&source)?;
        let act = format!("fork workflow {source}");
        if let Some(problem) = instead.problem {
            return Err(Error::new(ErrorKind::Usage, format!("could not {act}: {problem}")));
        }
        check_reason(reason.as_deref(), &act)?;
        let row = ForkRow {
            source,
            from: i32::try_from(from).unwrap_or(i32::MAX),
            id: id.map_or_else(|| Ok(Id::generate()), |id| Id::new(&id))?,
            name: instead.name,
            version: instead.version,
            input: instead.input,
            outputs: instead.outputs,
            reason,
        };
        match tx {
            Some(tx) => {
                let named = |e| Error::database(&act, &e);
                let mut forked = store::fork(tx, &client.sql, &row).await.map_err(named)?;
                if is_unclear(forked.as_ref()) {
                    forked = store::fork(tx, &client.sql, &row).await.map_err(named)?;
                }
                let forked = check(forked, &row, &act)?;
                client.due_soon(&forked.queue, None);
            }
            None => {
                let forked = check(alone(client, &row, &act).await?, &row, &act)?;
                client.due(&forked.queue, None);
            }
        }
        Ok(Handle::new(client.clone(), row.id))
    }
}

/// On a connection of the library's own. An unknown outcome is resolved by the same statement: the id is the key.
async fn alone(client: &Client, row: &ForkRow, act: &str) -> Result<Option<Forked>, Error> {
    let mut backoff = Backoff::for_callers();
    let mut again = true;
    loop {
        match call!(client.links, act, connection => store::fork(connection, &client.sql, row)) {
            Err(error) if backoff.again(&error).await => {}
            Ok(forked) if again && is_unclear(forked.as_ref()) => again = false,
            answer => break answer,
        }
    }
}

/// Whether the statement may have waited for the same fork of somebody else's, which it cannot have seen then: the next
/// one does.
fn is_unclear(forked: Option<&Forked>) -> bool {
    forked.is_some_and(|forked| !forked.born && !forked.existed)
}

/// What was forked; or what stood in the way.
fn check(forked: Option<Forked>, row: &ForkRow, act: &str) -> Result<Forked, Error> {
    let refused = |kind, problem: String| Err(Error::new(kind, format!("could not {act}: {problem}")));
    let Some(forked) = forked else { return refused(ErrorKind::NotFound, "there is no such workflow".to_owned()) };
    if forked.born || forked.existed {
        return Ok(forked);
    }
    if let Some(name) = row.name.filter(|name| *name != forked.name) {
        let problem = format!("the input is for workflow {name:?}, this one is {:?}: call that", forked.name);
        return refused(ErrorKind::Usage, problem);
    }
    if row.from > forked.reach {
        let (from, reach) = (row.from, forked.reach);
        let problem =
            format!("position {from} is beyond its history, which ends before {reach}: fork from 0 to {reach}");
        return refused(ErrorKind::Usage, problem);
    }
    if let Some(nowhere) = forked.nowhere {
        let problem = format!(
            "an output is given for position {nowhere}, where nothing is taken over: give one for a recorded position \
             of the body before {}",
            row.from
        );
        return refused(ErrorKind::Usage, problem);
    }
    refused(ErrorKind::Conflict, format!("the id {} belongs to another workflow: use another id", row.id))
}

impl<'a, T: 'a> IntoFuture for Fork<'a, T> {
    type Output = Result<Handle<T>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.fork())
    }
}

impl<T> std::fmt::Debug for Fork<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fork({} from {})", self.source, self.from)
    }
}
