//! Starting workflows: one statement for one or for thousands, on the caller's transaction or on its own.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgConnection;

use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::handle::Handle;
use crate::id::{Id, check_text};
use crate::options::millis;
use crate::store::claim::Claimed;
use crate::store::link::{Backoff, call};
use crate::store::start::{self as store, NewWorkflow, Started};
use crate::worker::{Engine, Reserved};
use crate::workflow::{Call, OutputOf, Workflow};

/// Workflows in one call. More of them belong in several calls, each in bounded memory.
const MANY_MAX: usize = 10_000;

/// What to do when a workflow with the same id, name and version is there already. The id of another
/// workflow is a [`Conflict`](ErrorKind::Conflict) in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IfExists {
    /// Return it; the handle tells that it existed, and whether its input differs.
    #[default]
    Return,
    /// Return it if its input is the same, else refuse.
    ReturnSameInput,
    /// Refuse.
    Refuse,
}

/// A workflow about to start. Made by [`Durable::start`](crate::Durable::start); awaiting it starts it and gives its handle.
///
/// # Durability
///
/// The start is durable when this answers `Ok`; with [`in_tx`](Start::in_tx), when that transaction commits,
/// and only then. The same id starts one workflow, however often and from however many places: repeating a
/// start whose answer was lost is safe.
///
/// # Errors
///
/// [`Usage`](ErrorKind::Usage) for an id or input that cannot be stored, [`Conflict`](ErrorKind::Conflict)
/// by the policy ([`if_exists`](Start::if_exists)), database kinds. Nothing is written then.
///
/// # Cancel safety
///
/// Dropped before it answered, the workflow may have started or not; starting it again under the same id is
/// safe.
#[must_use = "a start does nothing until it is awaited"]
pub struct Start<'a, W: Workflow> {
    client: &'a Arc<Client>,
    call: Call<W>,
    id: Option<String>,
    options: Options<'a>,
}

/// Many workflows about to start. Made by [`Durable::start_many`](crate::Durable::start_many); like [`Start`].
#[must_use = "a start does nothing until it is awaited"]
pub struct StartMany<'a, W: Workflow> {
    client: &'a Arc<Client>,
    calls: Vec<(String, Call<W>)>,
    options: Options<'a>,
}

struct Options<'a> {
    queue: String,
    priority: i16,
    delay: Duration,
    if_exists: IfExists,
    tx: Option<&'a mut PgConnection>,
}

impl Options<'_> {
    fn new(client: &Client) -> Self {
        Self {
            queue: client.queue.clone(),
            priority: 0,
            delay: Duration::ZERO,
            if_exists: IfExists::default(),
            tx: None,
        }
    }
}

macro_rules! start_options {
    ($name:ident) => {
        impl<'a, W: Workflow> $name<'a, W> {
            /// Put it into this queue. Default: the queue of the builder.
            pub fn queue(mut self, queue: impl Into<String>) -> Self {
                self.options.queue = queue.into();
                self
            }

            /// Lower goes first within a queue. Default 0.
            pub fn priority(mut self, priority: i16) -> Self {
                self.options.priority = priority;
                self
            }

            /// Start not before this long from now, by the database's clock.
            pub fn delay(mut self, delay: Duration) -> Self {
                self.options.delay = delay;
                self
            }

            /// What to do when it is there already. Default: return it.
            pub fn if_exists(mut self, policy: IfExists) -> Self {
                self.options.if_exists = policy;
                self
            }

            /// Start it in the caller's transaction: it exists if, and only if, that commits. One statement;
            /// the connection is used for nothing else.
            pub fn in_tx(mut self, tx: &'a mut PgConnection) -> Self {
                self.options.tx = Some(tx);
                self
            }
        }

        impl<W: Workflow> std::fmt::Debug for $name<'_, W> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({:?})", stringify!($name), W::NAME)
            }
        }
    };
}
start_options!(Start);
start_options!(StartMany);

impl<'a, W: Workflow> Start<'a, W> {
    pub(crate) fn new(client: &'a Arc<Client>, call: Call<W>) -> Self {
        Self { client, call, id: None, options: Options::new(client) }
    }

    /// The workflow's id, which is its idempotency key: 1 to 512 bytes without control characters. Default:
    /// a new one.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }
}

impl<'a, W: Workflow> StartMany<'a, W> {
    pub(crate) fn new(client: &'a Arc<Client>, calls: Vec<(String, Call<W>)>) -> Self {
        Self { client, calls, options: Options::new(client) }
    }
}

impl<'a, W: Workflow> IntoFuture for Start<'a, W> {
    type Output = Result<Handle<OutputOf<W>>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { client, call, id, options } = self;
        let given = id
            .map_or_else(|| Ok(Id::generate()), |id| Id::new(&id))
            .and_then(|id| describe::<W>(id, &call, &options))
            .map(|given| vec![given]);
        Box::pin(async move {
            let handles = start_all(client, given?, options).await?;
            handles.into_iter().next().ok_or_else(|| Error::new(ErrorKind::Database, "a start gave no answer"))
        })
    }
}

impl<'a, W: Workflow> IntoFuture for StartMany<'a, W> {
    type Output = Result<Vec<Handle<OutputOf<W>>>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { client, calls, options } = self;
        let given = check_many(&calls).and_then(|()| {
            calls.iter().map(|(id, call)| Id::new(id).and_then(|id| describe::<W>(id, call, &options))).collect()
        });
        Box::pin(async move { start_all(client, given?, options).await })
    }
}

fn check_many<W: Workflow>(calls: &[(String, Call<W>)]) -> Result<(), Error> {
    if calls.len() > MANY_MAX {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("{} workflows in one call, at most {MANY_MAX} are allowed: start them in several", calls.len()),
        ));
    }
    let mut seen = HashSet::with_capacity(calls.len());
    match calls.iter().find(|(id, _)| !seen.insert(id)) {
        None => Ok(()),
        Some((id, _)) => Err(Error::new(ErrorKind::Usage, format!("the id {id:?} is twice in one call"))),
    }
}

/// Check everything and encode the input: nothing is written for what cannot be.
fn describe<W: Workflow>(id: Id, call: &Call<W>, options: &Options<'_>) -> Result<NewWorkflow, Error> {
    check_text("workflow name", W::NAME)?;
    check_text("queue", &options.queue)?;
    let input = call.encode().map_err(|problem| {
        Error::new(ErrorKind::Usage, format!("could not start workflow {id}: its input {problem}"))
    })?;
    Ok(NewWorkflow {
        id,
        name: W::NAME,
        version: W::VERSION,
        queue: options.queue.clone(),
        priority: options.priority,
        delay_ms: millis(options.delay.min(crate::ctx::attempt::WAIT_MAX)),
        input,
        here: false,
    })
}

async fn start_all<T>(
    client: &Arc<Client>,
    mut given: Vec<NewWorkflow>,
    options: Options<'_>,
) -> Result<Vec<Handle<T>>, Error> {
    if given.is_empty() {
        return Ok(Vec::new());
    }
    let act = match &given[..] {
        [one] => format!("start workflow {}", one.id),
        many => format!("start {} workflows", many.len()),
    };
    let in_tx = options.tx.is_some();
    let engine = if in_tx || !options.delay.is_zero() { None } else { client.engine() };
    let mut reserved = reserve(engine.as_deref(), &mut given);
    let owner = engine.as_ref().map(|engine| engine.owner);
    let answers = match options.tx {
        Some(tx) => started_in(tx, client, &given, &act).await?,
        None => started(client, &given, owner, &act).await?,
    };
    let answers: Vec<Started> = answers
        .into_iter()
        .map(|answer| answer.ok_or_else(|| Error::new(ErrorKind::Unavailable, format!("could not {act}: try again"))))
        .collect::<Result<_, _>>()?;
    // What was born here is run before anything can fail: nobody else would.
    let mut to_be_claimed = false;
    for (n, (given, answer)) in given.iter().zip(&answers).enumerate() {
        match reserved.get_mut(n).and_then(Option::take).filter(|_| answer.born_here) {
            Some(place) => place.run(born(given, answer)),
            None => to_be_claimed = true,
        }
    }
    if in_tx {
        client.wake.soon();
    } else if to_be_claimed {
        client.wake.now();
    }
    let handle = |(given, answer): (NewWorkflow, Started)| {
        let existed = !answer.created && !answer.born_here;
        if existed {
            check_existing(&given, &answer, options.if_exists)?;
        }
        let mut handle = Handle::new(client.clone(), given.id);
        handle.existed = existed;
        handle.input_differs = !answer.same_input;
        Ok(handle)
    };
    given.into_iter().zip(answers).map(handle).collect()
}

/// Reserve places in this process's worker for as many as there is room for.
fn reserve<'e>(engine: Option<&'e Engine>, given: &mut [NewWorkflow]) -> Vec<Option<Reserved<'e>>> {
    let Some(engine) = engine else { return Vec::new() };
    given
        .iter_mut()
        .map(|new| {
            let place = engine.reserve(&new.id, new.name, new.version, &new.queue);
            new.here = place.is_some();
            place
        })
        .collect()
}

type Answers = Vec<Option<Started>>;

/// In the caller's transaction: one statement, and its errors are the transaction's.
async fn started_in(
    tx: &mut PgConnection,
    client: &Client,
    given: &[NewWorkflow],
    act: &str,
) -> Result<Answers, Error> {
    let mut answers = by_place(given.len());
    // Once is enough, but for an id that another transaction committed while this statement waited for it.
    for _ in 0..3 {
        let started = store::start(tx, &client.sql, given, None).await.map_err(|e| Error::database(act, &e))?;
        place(&mut answers, started);
        if answers.iter().all(Option::is_some) {
            break;
        }
    }
    Ok(answers)
}

async fn started(
    client: &Client,
    given: &[NewWorkflow],
    owner: Option<crate::id::OwnerId>,
    act: &str,
) -> Result<Answers, Error> {
    let mut answers = by_place(given.len());
    let mut backoff = Backoff::for_callers();
    loop {
        match call!(client.links, act, connection => store::start(connection, &client.sql, given, owner)) {
            Ok(started) => {
                place(&mut answers, started);
                if answers.iter().all(Option::is_some) {
                    return Ok(answers);
                }
            }
            // An unknown outcome is resolved by the same statement: the id is the key.
            Err(error) if backoff.again(&error).await => {}
            Err(error) => return Err(error),
        }
    }
}

fn by_place(len: usize) -> Answers {
    std::iter::repeat_with(|| None).take(len).collect()
}

/// The first answer stands: after a repeated statement the row would look as if it had been there before.
fn place(answers: &mut Answers, started: Vec<Started>) {
    for started in started {
        if let Some(slot) = answers.get_mut(started.n) {
            slot.get_or_insert(started);
        }
    }
}

fn check_existing(given: &NewWorkflow, found: &Started, policy: IfExists) -> Result<(), Error> {
    let id = &given.id;
    let conflict = |problem: String| Err(Error::new(ErrorKind::Conflict, problem));
    if found.name != given.name || found.version != given.version {
        return conflict(format!(
            "the id {id} belongs to workflow {:?} version {}, not to {:?} version {}: use another id",
            found.name, found.version, given.name, given.version
        ));
    }
    match policy {
        IfExists::Return => Ok(()),
        IfExists::ReturnSameInput if found.same_input => Ok(()),
        IfExists::ReturnSameInput => conflict(format!("workflow {id} was started with another input: use another id")),
        IfExists::Refuse => conflict(format!("workflow {id} was started before")),
    }
}

/// A workflow that was born running here, as if it had been claimed.
fn born(given: &NewWorkflow, started: &Started) -> Claimed {
    Claimed {
        id: given.id.clone(),
        name: given.name.to_owned(),
        version: given.version,
        input: given.input.clone(),
        waits: Vec::new(),
        wakes: 0,
        claims: 1,
        created_at: started.created_at,
        now: started.created_at,
        seen_at: Instant::now(),
    }
}
