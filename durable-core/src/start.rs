//! Starting workflows, as callers describe it. Doing it is `starting`.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;

use crate::attribute::{AttributeValue, stored};
use crate::client::Client;
use crate::ctx::attempt::WAIT_MAX;
use crate::error::{Error, ErrorKind};
use crate::handle::Handle;
use crate::id::{Id, check_text};
use crate::keyed::{Batch, Debounce, IfOpen, Keyed, start_keyed};
use crate::options::millis;
use crate::starting::start_all;
use crate::store::start::NewWorkflow;
use crate::workflow::{Call, OutputOf, Workflow};

/// Workflows in one call that gives a handle for each. More of them are `start_all`'s.
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

impl IfExists {
    /// As the statement takes it.
    pub(crate) fn as_number(self) -> i32 {
        match self {
            IfExists::Return => 0,
            IfExists::ReturnSameInput => 1,
            IfExists::Refuse => 2,
        }
    }
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
/// Outside a transaction a start goes on when this is dropped. Starting it again under the same id is safe.
#[must_use = "a start does nothing until it is awaited"]
pub struct Start<'a, W: Workflow> {
    client: &'a Arc<Client>,
    call: Call<W>,
    id: Option<String>,
    keyed: Option<Keyed>,
    if_open: IfOpen,
    /// What is wrong with it; told when it is awaited.
    problem: Option<&'static str>,
    options: Options<'a>,
}

/// Many workflows about to start. Made by [`Durable::start_many`](crate::Durable::start_many); like [`Start`].
#[must_use = "a start does nothing until it is awaited"]
pub struct StartMany<'a, W: Workflow> {
    client: &'a Arc<Client>,
    calls: Vec<(String, Call<W>)>,
    options: Options<'a>,
}

pub(crate) struct Options<'a> {
    pub(crate) queue: String,
    pub(crate) partition: Option<String>,
    pub(crate) priority: i16,
    pub(crate) delay: Duration,
    pub(crate) deadline: Option<Duration>,
    pub(crate) if_exists: IfExists,
    pub(crate) attributes: Vec<(String, AttributeValue)>,
    pub(crate) tx: Option<&'a mut PgConnection>,
}

impl Options<'_> {
    pub(crate) fn new(client: &Client) -> Self {
        Self {
            queue: client.queue.clone(),
            partition: None,
            priority: 0,
            delay: Duration::ZERO,
            deadline: None,
            if_exists: IfExists::default(),
            attributes: Vec::new(),
            tx: None,
        }
    }
}

macro_rules! start_options {
    ($name:ident $(, $calls:ident)?) => {
        impl<'a, W: Workflow $(, $calls)?> $name<'a, W $(, $calls)?> {
            /// Put it into this queue. Default: the queue of the builder.
            pub fn queue(mut self, queue: impl Into<String>) -> Self {
                self.options.queue = queue.into();
                self
            }

            /// Put it into this partition of its queue, which has to have [limits](crate::Queue): a customer's, for instance. 1 to 512 bytes
            /// without control characters. Default: the one of those that have none.
            pub fn partition(mut self, partition: impl Into<String>) -> Self {
                self.options.partition = Some(partition.into());
                self
            }

            /// Lower goes first within a queue, and within a partition of one. Default 0.
            pub fn priority(mut self, priority: i16) -> Self {
                self.options.priority = priority;
                self
            }

            /// Start not before this long from now, by the database's clock.
            pub fn delay(mut self, delay: Duration) -> Self {
                self.options.delay = delay;
                self
            }

            /// End it when it has not ended this long after its start, by the database's clock: at most 100 years. It has failed
            /// then, with a failure of kind [`Deadline`](crate::FailureKind::Deadline); before that its undo steps
            /// are run, if it has registered any. Its children have the same deadline, unless they have a nearer one of
            /// their own, or are detached. It is acted on within an
            /// eighth of the workers' lease (2 s by default), and never early. A workflow that was there already keeps the deadline that it has.
            /// [`Durable::set_deadline`](crate::Durable::set_deadline) changes it later; `examples/trip.rs` shows both.
            pub fn deadline(mut self, deadline: Duration) -> Self {
                self.options.deadline = Some(deadline);
                self
            }

            /// What to do when it is there already. Default: return it.
            pub fn if_exists(mut self, policy: IfExists) -> Self {
                self.options.if_exists = policy;
                self
            }

            /// Give it an attribute, by which [lists](crate::Durable::workflows) find it: a text, a number, a `bool` or a time. At
            /// most 32 of them, with names of up to 64 bytes and texts of up to 512. A workflow that is there already
            /// keeps those that it has. Its body may set [more](crate::Ctx::set_attribute).
            pub fn attribute(mut self, name: impl Into<String>, value: impl Into<AttributeValue>) -> Self {
                self.options.attributes.push((name.into(), value.into()));
                self
            }

            /// Start it in the caller's transaction: it exists if, and only if, that commits. One statement (for each
            /// thousand of very many); the connection is used for nothing else.
            pub fn in_tx(mut self, tx: &'a mut PgConnection) -> Self {
                self.options.tx = Some(tx);
                self
            }
        }

        impl<W: Workflow $(, $calls)?> std::fmt::Debug for $name<'_, W $(, $calls)?> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({:?})", stringify!($name), W::NAME)
            }
        }
    };
}
pub(crate) use start_options;
start_options!(Start);
start_options!(StartMany);

impl<'a, W: Workflow> Start<'a, W> {
    pub(crate) fn new(client: &'a Arc<Client>, call: Call<W>) -> Self {
        Self {
            client,
            call,
            id: None,
            keyed: None,
            if_open: IfOpen::default(),
            problem: None,
            options: Options::new(client),
        }
    }

    /// The workflow's id, which is its idempotency key: 1 to 512 bytes without control characters. Default:
    /// a new one.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Have at most one workflow of this name and key open: while there is one that has not ended, this joins it, or what
    /// [`if_open`](Start::if_open) says; once that has ended, this starts another one. Keys have 1 to 512 bytes without control characters.
    /// A blocked or paused workflow is open; so is one that was cancelled, until its worker has stopped it and its undo steps have run.
    ///
    /// ```no_run
    /// # use durable::{Ctx, Durable, IfOpen, workflow};
    /// # #[workflow] async fn sync(ctx: &Ctx, account: u64) -> anyhow::Result<()> { Ok(()) }
    /// # async fn example(durable: Durable) -> anyhow::Result<()> {
    /// // However often somebody presses the button.
    /// durable.start(sync(7)).deduplicate("account-7").await?;
    /// // What has changed meanwhile has to be seen: start over.
    /// durable.start(sync(7)).deduplicate("account-7").if_open(IfOpen::Replace).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// `examples/keys.rs` shows it, and `debounce` and `batch`.
    ///
    /// # Durability
    ///
    /// Starts of one key happen one after the other, from whatever processes: in a [transaction](Start::in_tx), others of the key wait for
    /// its end. With an id that is there already it is that workflow, whoever has the key.
    pub fn deduplicate(self, key: impl Into<String>) -> Self {
        self.keyed(Keyed::Deduplicate { key: key.into() })
    }

    /// What to do when a workflow of the [key](Start::deduplicate) is open. Default: join it.
    pub fn if_open(mut self, if_open: IfOpen) -> Self {
        self.if_open = if_open;
        self
    }

    /// Start it once the starts of this name and key have come to rest, with the input of the last one: each puts the workflow off that
    /// the first one has made, and replaces its input, as long as that has not begun. All of them get the same workflow. Queue, partition,
    /// priority, deadline and attributes are those of the first.
    ///
    /// ```no_run
    /// # use durable::{Ctx, Debounce, Durable, minutes, seconds, workflow};
    /// # #[workflow] async fn index(ctx: &Ctx, text: String) -> anyhow::Result<()> { Ok(()) }
    /// # async fn example(durable: Durable, text: String) -> anyhow::Result<()> {
    /// // While somebody types: once, five seconds after the last letter.
    /// let debounce = Debounce::new(seconds(5)).max_wait(minutes(2));
    /// durable.start(index(text)).debounce("document-42", debounce).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// It begins within a poll of the workers (a second by default) after its time. One of another version, from before a
    /// deploy, is not joined.
    ///
    /// # Durability
    ///
    /// Whether a workflow has begun is decided by the claim of it: a start gets its input in before that, or starts the next one.
    pub fn debounce(self, key: impl Into<String>, debounce: Debounce) -> Self {
        self.keyed(Keyed::Debounce { key: key.into(), debounce })
    }

    fn keyed(mut self, keyed: Keyed) -> Self {
        if self.keyed.is_some() {
            self.problem = Some("a start has one key: deduplicate, debounce or batch");
        }
        self.keyed = Some(keyed);
        self
    }

    fn problem(&self) -> Option<&'static str> {
        let is_deduplicated = matches!(self.keyed, Some(Keyed::Deduplicate { .. }));
        let is_alone = self.if_open != IfOpen::default() && !is_deduplicated;
        self.problem.or(is_alone.then_some("if_open is for a start with .deduplicate(key)"))
    }
}

impl<T, W: Workflow<Input = Vec<T>>> Start<'_, W> {
    /// Put these inputs into one workflow with those of other starts of the same name and key: it begins when it has as many as the
    /// [batch](Batch) takes, or when that has waited for long enough. For a workflow whose only parameter is a `Vec`. All of its
    /// starts get the same workflow, whose queue, partition, priority, deadline and attributes are those of the first.
    ///
    /// ```no_run
    /// # use durable::{Batch, Ctx, Durable, seconds, workflow};
    /// #[workflow]
    /// async fn embed(ctx: &Ctx, texts: Vec<String>) -> anyhow::Result<()> {
    ///     // One call of the model for all of them.
    ///     Ok(())
    /// }
    ///
    /// # async fn example(durable: Durable, text: String) -> anyhow::Result<()> {
    /// durable.start(embed(vec![text])).batch("tenant-7", Batch::new(100, seconds(10))).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// The inputs of one start stay together: where they do not fit, that batch begins, and they are the first of the next one. 16 MiB are
    /// as much as any number.
    ///
    /// # Durability
    ///
    /// The inputs are stored when this answers `Ok`, in the order in which their starts happened. An [id](Start::id) is that of these inputs,
    /// not of the workflow: a second start with the same one puts nothing in, as long as the workflow of the first has not been
    /// deleted. One that is cancelled or paused gets no more.
    pub fn batch(self, key: impl Into<String>, batch: Batch) -> Self {
        let inputs = self.call.input.len();
        self.keyed(Keyed::Batch { key: key.into(), batch, inputs })
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
        let problem = self.problem().map(|problem| Error::new(ErrorKind::Usage, problem));
        let Self { client, call, id, keyed, if_open, options, .. } = self;
        let has_id = id.is_some();
        let given =
            id.map_or_else(|| Ok(Id::generate()), |id| Id::new(&id)).and_then(|id| describe::<W>(id, &call, &options));
        Box::pin(async move {
            if let Some(problem) = problem {
                return Err(problem);
            }
            let given = given?;
            if let Some(keyed) = keyed {
                let key = keyed.check(&given, if_open, has_id)?;
                return start_keyed(client, given, key, options.if_exists, has_id, options.tx).await;
            }
            let handles = start_all(client, vec![given], options.if_exists, options.tx).await?;
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
        Box::pin(async move { start_all(client, given?, options.if_exists, options.tx).await })
    }
}

fn check_many<W: Workflow>(calls: &[(String, Call<W>)]) -> Result<(), Error> {
    if calls.len() > MANY_MAX {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("{} workflows in one call, at most {MANY_MAX} are allowed: use start_all", calls.len()),
        ));
    }
    let mut seen = HashSet::with_capacity(calls.len());
    match calls.iter().find(|(id, _)| !seen.insert(id)) {
        None => Ok(()),
        Some((id, _)) => Err(Error::new(ErrorKind::Usage, format!("the id {id:?} is twice in one call"))),
    }
}

/// Check everything and encode the input: nothing is written for what cannot be.
pub(crate) fn describe<W: Workflow>(id: Id, call: &Call<W>, options: &Options<'_>) -> Result<NewWorkflow, Error> {
    check_text("workflow name", W::NAME)?;
    check_text("queue", &options.queue)?;
    if let Some(partition) = &options.partition {
        check_text("partition", partition)?;
    }
    let input = call.encode().map_err(|problem| {
        Error::new(ErrorKind::Usage, format!("could not start workflow {id}: its input {problem}"))
    })?;
    let attributes = stored(&options.attributes)
        .map_err(|problem| Error::new(ErrorKind::Usage, format!("could not start workflow {id}: {problem}")))?;
    Ok(NewWorkflow {
        id,
        name: W::NAME,
        version: W::VERSION,
        queue: options.queue.clone(),
        partition: options.partition.clone(),
        priority: options.priority,
        delay_ms: millis(options.delay.min(WAIT_MAX)),
        deadline_ms: options.deadline.map(|deadline| millis(deadline.min(WAIT_MAX))),
        input,
        owner: None,
        attributes,
    })
}
