//! The door for callers: building, starting, sending, cancelling.
//!
//! Each command is one statement, on a connection of the library's own or on the caller's transaction.

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::{Iter, iter};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::sync::Semaphore;

use crate::cancel::Cancel;
use crate::deadline::SetDeadline;
use crate::error::{Error, ErrorKind};
use crate::fork::Fork;
use crate::handle::Handle;
use crate::hints::Hints;
use crate::id::Id;
use crate::info::Counts;
use crate::limit::Limit;
use crate::list::ListWorkflows;
use crate::message::SendMessage;
use crate::operate::Operate;
use crate::options::Settings;
use crate::published::EventReader;
use crate::queue::Queue;
use crate::schedule::{Schedule, check_declared, declare};
use crate::start::{Start, StartMany};
use crate::start_all::StartAll;
use crate::starter::Starter;
use crate::step::States;
use crate::store::attribute::Statements;
use crate::store::link::{Commits, Links, call_patiently, factory};
use crate::store::operate::Act;
use crate::store::sql::Sql;
use crate::store::{list, migrate as schema};
use crate::streamed::StreamReader;
use crate::subscription::{self, Subscription};
use crate::topic::Topic;
use crate::wake::{Wake, Word};
use crate::worker::{Disputes, Engine, Plan, Worker};
use crate::workflow::{Call, Registry, Workflow, WorkflowFn};

/// The longest wait for the first connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Connections for callers' commands.
const CALL_LINKS: usize = 8;

/// The library in an application: starts workflows, talks to them, and runs a worker if it was built with one.
///
/// Cheap to clone; keep it in the web application's state.
///
/// ```no_run
/// # use durable::{Ctx, Durable, workflow};
/// # #[workflow] async fn greet(ctx: &Ctx, name: String) -> anyhow::Result<String> { Ok(name) }
/// # async fn example(pool: sqlx::PgPool) -> anyhow::Result<()> {
/// let durable = Durable::builder(pool).register(greet).start().await?;
/// let greeting = durable.start(greet("Ada".into())).id("greet-ada").await?.result().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Durable {
    pub(crate) client: Arc<Client>,
}

/// What the clones of a [`Durable`] and its handles share.
pub(crate) struct Client {
    pub(crate) queue: String,
    pub(crate) sql: Arc<Sql>,
    pub(crate) links: Arc<Links>,
    pub(crate) starter: Starter,
    pub(crate) events: EventReader,
    pub(crate) streams: StreamReader,
    pub(crate) wake: Arc<Wake>,
    pub(crate) hints: Arc<Hints>,
    worker: Option<Worker>,
}

impl Client {
    /// The worker's present incarnation, if there is a worker and it has one.
    pub(crate) fn engine(&self) -> Option<Arc<Engine>> {
        self.worker.as_ref().and_then(Worker::engine)
    }

    /// Something of a queue is due, with this body if it is known: the worker of this process is told, and others
    /// unless it has room to take it.
    pub(crate) fn due(&self, queue: &str, body: Option<(&str, i32)>) {
        self.wake.now();
        if !self.takes(queue, body) {
            self.wake.tell_others(Word::Due(queue.to_owned()));
        }
    }

    /// The same when a transaction of the caller's commits, who knows when.
    pub(crate) fn due_soon(&self, queue: &str, body: Option<(&str, i32)>) {
        self.wake.soon();
        if !self.takes(queue, body) {
            self.wake.tell_others(Word::Soon(queue.to_owned()));
        }
    }

    fn takes(&self, queue: &str, body: Option<(&str, i32)>) -> bool {
        self.engine().is_some_and(|engine| engine.takes(queue, body))
    }
}

/// Builds a [`Durable`]. Made by [`Durable::builder`].
#[must_use = "a builder does nothing until .start() or .client()"]
pub struct Builder {
    pool: PgPool,
    settings: Settings,
    registry: Registry,
    pub(crate) states: States,
    /// The first thing that was wrong; told by `start`, which can fail, instead of by panicking here.
    pub(crate) problem: Option<Error>,
    pub(crate) schedules: Vec<Schedule>,
    pub(crate) subscriptions: Vec<Subscription>,
}

impl Durable {
    /// Build on the application's pool. The library makes connections of its own from the pool's options
    /// and hooks, so that neither can starve the other: 2 for claims and the lease, up to 4 for what
    /// workflows come to, up to 4 for messages, children and what is rare, up to 16 for transactional steps, up to 8 for calls of
    /// this handle, 2 for [`hints`](Builder::hints). Each is opened when it is first needed, and
    /// says in `pg_stat_activity` what it is for and whose: `durable commits 63f0c5d21b9e4a77`, before the application's own
    /// name if it has one. Workers end the sessions of a worker that is dead, so they should all have the same role.
    pub fn builder(pool: PgPool) -> Builder {
        Builder {
            pool,
            settings: Settings::default(),
            registry: Registry::default(),
            states: States::default(),
            problem: None,
            schedules: Vec::new(),
            subscriptions: Vec::new(),
        }
    }

    /// Start a workflow. Give it an id, and put it into a transaction of yours, before awaiting it:
    /// `durable.start(order(cart)).id("order-42").in_tx(&mut tx).await?`.
    pub fn start<W: Workflow>(&self, call: Call<W>) -> Start<'_, W> {
        Start::new(&self.client, call)
    }

    /// Start many workflows in one statement, each with its id; at most 10,000 ([`start_all`](Durable::start_all) takes any number). When one of them is refused,
    /// none starts (except that an id which another transaction takes in the same moment is found too late for
    /// that: the others have started then, unless this is part of a transaction of yours).
    ///
    /// ```no_run
    /// # use durable::{Ctx, Durable, workflow};
    /// # #[workflow] async fn greet(ctx: &Ctx, name: String) -> anyhow::Result<String> { Ok(name) }
    /// # async fn example(durable: Durable, names: Vec<String>) -> anyhow::Result<()> {
    /// let calls = names.into_iter().map(|name| (format!("greet-{name}"), greet(name)));
    /// let handles = durable.start_many(calls).await?;
    /// # Ok(()) }
    /// ```
    pub fn start_many<W: Workflow, I: Into<String>>(
        &self,
        calls: impl IntoIterator<Item = (I, Call<W>)>,
    ) -> StartMany<'_, W> {
        StartMany::new(&self.client, calls.into_iter().map(|(id, call)| (id.into(), call)).collect())
    }

    /// Start as many workflows as an iterator names, a thousand in each statement and in bounded memory; see [`StartAll`].
    ///
    /// ```no_run
    /// # use durable::{Ctx, Durable, workflow};
    /// # #[workflow] async fn greet(ctx: &Ctx, number: u32) -> anyhow::Result<u32> { Ok(number) }
    /// # async fn example(durable: Durable) -> anyhow::Result<()> {
    /// let done = durable.start_all((0..100_000).map(|n| (format!("greet-{n}"), greet(n)))).queue("bulk").await?;
    /// println!("{} are new, {} were there before", done.created, done.existed);
    /// # Ok(()) }
    /// ```
    pub fn start_all<W: Workflow, I: Into<String>, C: IntoIterator<Item = (I, Call<W>)>>(
        &self,
        calls: C,
    ) -> StartAll<'_, W, Iter<C::IntoIter>> {
        StartAll::new(&self.client, iter(calls))
    }

    /// [`start_all`](Durable::start_all) for what comes by and by, from a query for instance: any `Stream` of ids and calls.
    pub fn start_all_from<W: Workflow, I: Into<String>, C: Stream<Item = (I, Call<W>)>>(
        &self,
        calls: C,
    ) -> StartAll<'_, W, C> {
        StartAll::new(&self.client, calls)
    }

    /// Send a message to a workflow. Give it a key, or put it into a transaction of yours, before awaiting
    /// it.
    pub fn send<T: serde::Serialize + serde::de::DeserializeOwned>(
        &self,
        id: impl Into<String>,
        topic: Topic<T>,
        value: T,
    ) -> SendMessage<'_> {
        SendMessage::new(&self.client, id.into(), topic, &value)
    }

    /// The workflow with this id, whether it exists or not.
    pub fn workflow<T>(&self, id: impl AsRef<str>) -> Handle<T> {
        Handle::new(self.client.clone(), Id::trusted(id.as_ref()))
    }

    #[doc = include_str!("../docs/list.md")]
    pub fn workflows(&self) -> ListWorkflows<'_> {
        ListWorkflows::new(&self.client)
    }

    /// How many workflows stand where, over all queues, as of one moment. It walks an index for each status: about 0.15 s
    /// per million that sleep. Those that have completed are not counted.
    ///
    /// # Errors
    ///
    /// Database kinds.
    pub async fn counts(&self) -> Result<Counts, Error> {
        let client = &self.client;
        call_patiently!(client.links, "count workflows", connection => list::counts(connection, &client.sql))
    }

    /// Start a new workflow from the history of another one, up to a position of its body: to go on from where something
    /// went wrong, with the code mended or a value replaced. See [`Fork`], and `examples/fork.rs`.
    ///
    /// ```no_run
    /// # use durable::Durable;
    /// # async fn example(durable: Durable) -> Result<(), durable::Error> {
    /// // What the first three steps did stands; the fourth and all after it are done by the new workflow.
    /// let again = durable.fork::<i64>("order-42", 3).id("order-42-again").await?;
    /// println!("{:?}", again.result().await?);
    /// # Ok(()) }
    /// ```
    pub fn fork<T>(&self, id: impl Into<String>, from: u32) -> Fork<'_, T> {
        Fork::new(&self.client, id.into(), from)
    }

    /// Cancel a workflow; see [`Cancel`], and `examples/trip.rs`.
    pub fn cancel(&self, id: impl Into<String>) -> Cancel<'_> {
        Cancel::new(&self.client, id.into())
    }

    /// Change the deadline of a workflow that has not ended: to so long from now by the database's clock (at most 100 years), or,
    /// with `None`, to none; see [`SetDeadline`], and `examples/trip.rs`.
    ///
    /// What it then comes to is as with a [deadline of its start](crate::Start::deadline). The children that it has started, and
    /// theirs, have the new one where theirs is the same as its own was, and otherwise keep a nearer one of their own;
    /// detached ones are left alone. It may be queued, running, suspended or blocked; workers notice within an eighth of their
    /// lease.
    ///
    /// ```no_run
    /// use durable::{Durable, hours};
    ///
    /// # async fn example(durable: Durable) -> Result<(), durable::Error> {
    /// durable.set_deadline("order-42", hours(48)).reason("the supplier is late").await?;
    /// durable.set_deadline("order-43", None).await?;
    /// # Ok(()) }
    /// ```
    pub fn set_deadline(&self, id: impl Into<String>, within: impl Into<Option<Duration>>) -> SetDeadline<'_> {
        SetDeadline::new(&self.client, id.into(), within.into())
    }

    /// Let a workflow take no further step until it is [resumed](Durable::resume); see [`Operate`].
    ///
    /// A worker that runs it stops as it does for a cancellation. Messages that are sent to it meanwhile are kept. Its
    /// timers are not stopped: what would have been done at the end of one is done after the resumption. It is
    /// [blocked](crate::Status::Blocked) then, and [`is_paused`](crate::WorkflowInfo::is_paused).
    pub fn pause(&self, id: impl Into<String>) -> Operate<'_> {
        Operate::new(&self.client, Act::Pause, id.into())
    }

    /// Let a workflow go on from its history that is blocked (after a deploy that mended its code), paused, failed or
    /// cancelled; see [`Operate`], and `examples/operate.rs`.
    ///
    /// It is queued, and its count of recoveries forgiven. What is recorded is not done again, but for what is at fault: of a
    /// failed workflow, the failures (of steps and of children) *that nothing came after* are taken out of its history, and
    /// tried again. Something came after a failure if it stands behind it in the order of the body, and began when the
    /// failure had been recorded; what ran beside it did not, so all the branches of a fan-out that have failed are tried again.
    /// A failure that the body has dealt with by doing something else stands: the body would have to undo that.
    /// To go back further there is [`fork`](Durable::fork).
    ///
    /// Not for a failed or cancelled workflow whose [undo steps](crate::Ctx::undo) have run: what it had done is gone.
    pub fn resume(&self, id: impl Into<String>) -> Operate<'_> {
        Operate::new(&self.client, Act::Resume, id.into())
    }

    /// Let a workflow that has ended, or is blocked, begin again from nothing, with its id and input; see [`Operate`], and
    /// `examples/operate.rs`.
    ///
    /// Its history is deleted, with the messages that it has received and the attributes that its body has set. Messages that
    /// it has not received stay, and so do the attributes given at its start and what [operators](crate::Handle::operations) did.
    /// The time of its start is now, and a deadline that has not passed is as far from it as it was. Its steps have the idempotency keys that they had: what a service has done under one
    /// it will not do again. Where it should, start another workflow, or [`fork`](Durable::fork) it from position 0.
    /// What it has published stands until it publishes it anew.
    /// Its children are workflows of their own: it finds those that it started before, and what they have come to. A fork that is
    /// restarted has nothing any more of the workflow that it was forked from.
    pub fn restart(&self, id: impl Into<String>) -> Operate<'_> {
        Operate::new(&self.client, Act::Restart, id.into())
    }

    /// Delete a workflow that is not running, and everything that hangs on it: history, messages, attributes, what operators
    /// did; see [`Operate`]. Its id is free then. Its children are workflows of their own, and stay; a child whose parent has not
    /// ended cannot be deleted.
    pub fn delete(&self, id: impl Into<String>) -> Operate<'_> {
        Operate::new(&self.client, Act::Delete, id.into())
    }

    /// End the worker in order: take nothing new, wait up to `patience` for what runs, then hand the rest
    /// back at once, so that another worker goes on with it. Bodies are dropped at their last recorded step;
    /// a plain step that was in the middle runs again elsewhere.
    ///
    /// Without a worker this does nothing.
    pub async fn shutdown(&self, patience: Duration) {
        if let Some(worker) = &self.client.worker {
            worker.shutdown(patience).await;
        }
    }
}

impl std::fmt::Debug for Durable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Durable({})", self.client.sql.schema)
    }
}

impl Builder {
    /// Let the worker run this workflow: a function annotated with `#[workflow]`.
    pub fn register<P, F: WorkflowFn<P>>(mut self, workflow: F) -> Self {
        // The function itself only tells its type.
        let _ = workflow;
        if let Err(error) = self.registry.add::<F::Workflow>() {
            self.problem.get_or_insert(error);
        }
        self
    }

    /// Give steps a piece of application state: an HTTP client, a configuration. Steps read it by its type
    /// ([`StepCtx::state`](crate::StepCtx::state)); a second one of the same type replaces the first.
    pub fn state<T: Send + Sync + 'static>(mut self, state: T) -> Self {
        self.states.insert(state);
        self
    }

    /// The schema of the library's tables. Default `durable`; 1 to 63 of `a-z 0-9 _`.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.settings.schema = schema.into();
        self
    }

    /// The queue that the worker takes workflows from, and that starts put them into. Default `default`.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.settings.queue = queue.into();
        self
    }

    /// Let the worker take workflows from a queue with limits, too, and declare these limits.
    ///
    /// They are written down when the worker starts, unless the same were declared last: so a deploy that declares others changes
    /// them, and what somebody has [set](Durable::set_queue) meanwhile stands as long as the code does not change. The queue of
    /// [`queue`](Builder::queue) may be given here as well, to have limits. Up to 1,000 queues, which cost an idle worker no more
    /// statements than one.
    ///
    /// Where workers declare different limits for the same queue, those count, for all of them, that were declared last; a worker that
    /// replaces what workers that run have declared logs a warning with both. One that serves a queue twice does not start.
    pub fn serve(mut self, queue: Queue) -> Self {
        self.settings.serves.push(queue);
        self
    }

    /// Declare a limit that steps keep to: `#[step(limit = "openai")]`.
    ///
    /// It is written down when the worker starts, unless the same was declared last: so a deploy that declares another one changes it, and
    /// what somebody has [set](Durable::set_limit) meanwhile stands as long as the code does not change. Up to 1,000 limits. Each costs a
    /// statement only while steps ask for it; all of them together cost one in four [leases](Self::lease).
    ///
    /// Where workers declare different limits of the same name, those count, for all of them, that were declared last; each worker that
    /// finds a live one with another declaration logs a warning with both, at most once an hour for each limit. One that declares a
    /// limit twice does not start. A step whose limit no worker has declared blocks its workflow, loudly: see
    /// [`#[step]`](macro@crate::step#limits).
    pub fn limit(mut self, limit: Limit) -> Self {
        self.settings.limits.push(limit);
        self
    }

    /// How many workflows the worker has in memory at a time; those that wait longer than `short_wait` are
    /// not. Default 256.
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.settings.concurrency = concurrency;
        self
    }

    /// How long a worker that does not renew its lease keeps its workflows: 500 ms to 1 h, default 15 s. It
    /// renews it every third of that. After a crash they go on elsewhere within the lease and 2 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// How often the worker looks for due workflows when nothing hints at one: 10 ms to 60 s, default 1 s.
    /// Timers are late by up to this.
    pub fn poll_every(mut self, poll_every: Duration) -> Self {
        self.settings.poll_every = poll_every;
        self
    }

    /// Waits below this stay in memory, longer ones suspend the workflow: up to 60 s, default 1 s.
    pub fn short_wait(mut self, short_wait: Duration) -> Self {
        self.settings.short_wait = short_wait;
        self
    }

    /// How many workers in a row a workflow may lose, without recording a step in between, before it is
    /// parked as blocked. Default 10.
    pub fn max_recoveries(mut self, max_recoveries: u32) -> Self {
        self.settings.max_recoveries = max_recoveries;
        self
    }

    /// Whether this worker, when it starts, sets those workflows of its queue and its bodies going again that are blocked because
    /// other code did not fit their histories. Default true: so a deploy that mends the code mends what it had blocked.
    /// What was blocked by the very code that this worker has is left, so nothing goes in circles; and
    /// [`resume`](Durable::resume) does it by hand.
    pub fn resume_mismatches(mut self, resume: bool) -> Self {
        self.settings.resume_mismatches = resume;
        self
    }

    /// Whether to bring the schema up to date first. Default true; without it a schema that is missing or
    /// old is an error that says what to run.
    pub fn migrate(mut self, migrate: bool) -> Self {
        self.settings.migrate = migrate;
        self
    }

    /// Whether to tell other processes, by NOTIFY, what they may want to know at once, and to listen to them. Default
    /// true: what one process starts, sends, resumes or cancels is noticed by the others within milliseconds. That
    /// takes two connections, one that listens and stays open, and one NOTIFY in 20 ms at most, never in a
    /// transaction of yours or of a step.
    ///
    /// Without it everything works the same, but is noticed by the next look: after `poll_every`, a second for
    /// results, a third of the lease for cancellations. Turn it off behind a pooler that shares connections between
    /// transactions (PgBouncer's transaction mode), where nobody can listen.
    pub fn hints(mut self, hints: bool) -> Self {
        self.settings.hints = hints;
        self
    }

    /// Start a worker in this process. Answers once it has its lease.
    ///
    /// The worker goes on until [`shutdown`](Durable::shutdown), or as long as the runtime.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage) for settings that cannot work and for a worker without workflows,
    /// [`Schema`](ErrorKind::Schema) for a server or a schema that it cannot use,
    /// [`Unavailable`](ErrorKind::Unavailable) when the database cannot be reached.
    pub async fn start(self) -> Result<Durable, Error> {
        if self.registry.is_empty() && self.problem.is_none() {
            return Err(Error::new(
                ErrorKind::Usage,
                "a worker without workflows would run nothing: add .register(..), or use .client()",
            ));
        }
        let (parts, settings, registry, mut states) = self.prepare(true).await?;
        states.insert(Statements(parts.sql.clone()));
        let slots = Arc::new(Semaphore::new(settings.concurrency));
        let hints = parts.hints(&settings);
        let queue = settings.queue.clone();
        let plan = Plan {
            limited: settings.serves.iter().map(|queue| queue.name().to_owned()).collect(),
            settings,
            sql: parts.sql.clone(),
            factory: parts.factory.clone(),
            registry,
            states: Arc::new(states),
            wake: parts.wake.clone(),
            hints: hints.clone(),
            slots,
            disputes: Disputes::default(),
        };
        plan.declare_queues(&parts.links).await?;
        plan.declare_limits(&parts.links).await?;
        let worker = Worker::start(Arc::new(plan)).await?;
        Ok(parts.durable(queue, hints, Some(worker)))
    }

    /// A handle without a worker, for processes that only start workflows and talk to them.
    ///
    /// # Errors
    ///
    /// As [`start`](Builder::start).
    pub async fn client(self) -> Result<Durable, Error> {
        let (parts, settings, ..) = self.prepare(false).await?;
        let hints = parts.hints(&settings);
        Ok(parts.durable(settings.queue, hints, None))
    }

    async fn prepare(self, to_work: bool) -> Result<(Parts, Settings, Registry, States), Error> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        self.settings.check()?;
        let registry = to_work.then_some(&self.registry);
        check_declared(&self.schedules, &self.settings.queue, registry)?;
        subscription::check_declared(&self.subscriptions, &self.settings.queue, registry)?;
        let parts = Parts::new(&self.pool, &self.settings.schema, self.settings.hints)?;
        check_reachable(&self.pool).await?;
        let mut link = parts.links.take("connect to the database").await?;
        let prepared = if self.settings.migrate {
            schema::migrate(link.connection(), &parts.sql).await
        } else {
            schema::check(link.connection(), &parts.sql).await
        };
        if prepared.is_ok() {
            link.give_back();
        }
        prepared?;
        declare(&self.schedules, &parts.links, &self.settings.queue).await?;
        subscription::declare(&self.subscriptions, &parts.links, &self.settings.queue).await?;
        // For the worker that is to come.
        if !self.schedules.is_empty() {
            parts.wake.look_at_schedules();
        }
        Ok((parts, self.settings, self.registry, self.states))
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Builder({:?})", self.settings)
    }
}

/// What a client and a worker have in common.
struct Parts {
    sql: Arc<Sql>,
    factory: PgPool,
    links: Links,
    wake: Arc<Wake>,
}

impl Parts {
    fn new(pool: &PgPool, schema: &str, hints: bool) -> Result<Self, Error> {
        let sql = Arc::new(Sql::new(schema)?);
        let factory = factory(pool);
        let links = Links::new("calls", factory.clone(), sql.clone(), Commits::Flushed, CALL_LINKS, None);
        Ok(Self { sql, factory, links, wake: Arc::new(Wake::new(hints)) })
    }

    fn hints(&self, settings: &Settings) -> Arc<Hints> {
        let served = settings.serves.iter().map(|queue| queue.name().to_owned());
        let queues = std::iter::once(settings.queue.clone()).chain(served).collect();
        Hints::start(&self.wake, queues, &self.sql, &self.factory)
    }

    fn durable(self, queue: String, hints: Arc<Hints>, worker: Option<Worker>) -> Durable {
        let Self { sql, links, wake, factory: _ } = self;
        let links = Arc::new(links);
        let starter = Starter::new(&links);
        let events = EventReader::new(&links);
        let streams = StreamReader::new(&links);
        Durable { client: Arc::new(Client { queue, sql, links, starter, events, streams, wake, hints, worker }) }
    }
}

/// Connect once, directly: whoever starts a process wants to know at once that its database is not there, and why.
/// A pool tries again for half a minute, and then says only that it has.
async fn check_reachable(pool: &PgPool) -> Result<(), Error> {
    let named = |e: sqlx::Error| Error::database("connect to the database", &e);
    let options = pool.connect_options();
    let connected = tokio::time::timeout(CONNECT_WITHIN, PgConnection::connect_with(&options)).await;
    let connection = connected.map_err(|_| Error::no_answer("connect to the database", CONNECT_WITHIN))?;
    // Its goodbye tells nothing more.
    drop(connection.map_err(named)?.close().await);
    Ok(())
}

/// Bring the library's schema in a database up to date. Safe to run from many processes at once, and again.
///
/// # Errors
///
/// [`Usage`](ErrorKind::Usage) for a schema name that would have to be quoted, [`Schema`](ErrorKind::Schema)
/// for a server that is too old or a standby.
pub async fn migrate(pool: &PgPool, schema_name: &str) -> Result<(), Error> {
    let parts = Parts::new(pool, schema_name, false)?;
    check_reachable(pool).await?;
    let mut link = parts.links.take("connect to the database").await?;
    schema::migrate(link.connection(), &parts.sql).await
}
