//! A worker: claims due workflows, runs their bodies and steps, and keeps its lease meanwhile.
//!
//! `lease` holds the lease, `poll` claims, `execute` runs one attempt, `orders` begins what its body orders, `drive` and
//! `transaction` run its steps, `committer` records them, `read` reads histories on, `park` blocks what does not fit, `takeover` gives back what dead workers
//! left, `children` starts children and looks at them, `queues` declares those with limits, `declared` limits of steps, `unserved`
//! reports what nobody takes. A worker lives through incarnations:
//! when it was fenced, or the server was replaced, it drops all that it holds in memory and begins again under a new owner
//! id.

mod children;
mod code;
pub(crate) mod committer;
mod continuing;
pub(crate) mod cut;
mod deadline;
mod declared;
mod drive;
mod events;
mod execute;
mod held;
mod lease;
mod limits;
mod local;
mod orders;
mod park;
mod poll;
mod queues;
mod read;
mod receive;
mod schedules;
mod streams;
mod takeover;
mod transaction;
mod undo;
mod unserved;

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::clock::DatabaseClock;
use crate::decide::Stop;
use crate::error::{Error, ErrorKind};
use crate::hints::Hints;
use crate::history::Record;
use crate::id::{Id, OwnerId};
use crate::lines::Appender;
use crate::options::Settings;
use crate::step::States;
use crate::store::Fence;
use crate::store::claim::{Claimed, Sources};
use crate::store::link::{Backoff, Commits, Links, Tenant, call, server};
use crate::store::sql::Sql;
use crate::store::{lease as lease_store, step};
use crate::wake::{Wake, Word};
use crate::workflow::Registry;
use children::Offspring;
use committer::Committer;
pub(crate) use declared::Disputes;
use events::Events;
use lease::{Heart, Lease};
use limits::Limits;
use local::Local;
use receive::Receiver;
use streams::Appends;

/// Connections for receives and for what happens rarely. What workflows come to has the committer's, claims have their own.
const WRITE_LINKS: usize = 4;

/// Transactional steps at a time, each with a connection of its own.
const TRANSACTION_LINKS: usize = 16;

/// How long giving work back waits for what is just being committed.
const COMMITS_END_WITHIN: Duration = Duration::from_secs(5);

/// What stays the same through all incarnations.
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) sql: Arc<Sql>,
    pub(crate) factory: PgPool,
    pub(crate) registry: Registry,
    /// The names of the queues with limits that it takes workflows from.
    pub(crate) limited: Vec<String>,
    pub(crate) states: Arc<States>,
    pub(crate) wake: Arc<Wake>,
    pub(crate) hints: Arc<Hints>,
    /// One per workflow in memory.
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) disputes: Disputes,
}

impl Plan {
    /// What the worker takes, and from where.
    fn sources(&self) -> Sources<'_> {
        Sources { queue: &self.settings.queue, limited: &self.limited, bodies: self.registry.names() }
    }
}

/// One incarnation of a worker.
pub(crate) struct Engine {
    pub(crate) owner: OwnerId,
    pub(crate) plan: Arc<Plan>,
    claims: Links,
    writes: Arc<Links>,
    transactions: Links,
    /// The committer's.
    commits: Arc<Links>,
    committer: Committer,
    receiver: Receiver,
    offspring: Offspring,
    events: Events,
    limits: Limits,
    appender: Arc<Appender>,
    clock: Arc<DatabaseClock>,
    lease: Lease,
    /// When the next deadline is.
    next_deadline: watch::Sender<Option<Instant>>,
    /// When the next schedule is due.
    next_schedule: watch::Sender<Option<Instant>>,
    local: Local,
    /// Where the worker lives. What it runs lives there too, whoever asked for it from wherever.
    runtime: tokio::runtime::Handle,
    own: Weak<Engine>,
}

impl Engine {
    /// Begin an incarnation: connect, take a lease, start the committers.
    async fn begin(plan: &Arc<Plan>) -> Result<(Arc<Self>, Heart), Error> {
        let identity = Self::identity(plan).await?;
        let owner = OwnerId::generate();
        let links_of = |owner, purpose, commits, most| {
            let tenant = Tenant { owner, server: identity.clone() };
            Links::new(purpose, plan.factory.clone(), plan.sql.clone(), commits, most, Some(tenant))
        };
        let links = |purpose, commits, most| links_of(Some(owner), purpose, commits, most);
        let (lease, heart) = Lease::take(plan, links_of(None, "lease", Commits::Asynchronous, 1), owner).await?;
        tracing::info!(%owner, queue = plan.settings.queue, "worker has its lease");
        plan.wake.owned_by(owner);
        let commits = Arc::new(links("commits", Commits::Flushed, committer::LINKS));
        // The first claim or start tells the time before anything needs it.
        let clock = Arc::new(DatabaseClock::new(chrono::DateTime::UNIX_EPOCH));
        let writes = Arc::new(links("writes", Commits::Flushed, WRITE_LINKS));
        let engine = Arc::new_cyclic(|own| Self {
            owner,
            plan: plan.clone(),
            claims: links("claims", Commits::Asynchronous, 1),
            receiver: Receiver::new(&writes, owner, &lease),
            offspring: Offspring::new(&writes, owner, &lease),
            events: Events::new(&writes, owner, &lease),
            limits: Limits::default(),
            appender: Appender::new(Appends { links: writes.clone(), owner, lease: lease.view() }),
            writes,
            transactions: links("transactions", Commits::AsTheApplication, TRANSACTION_LINKS),
            committer: Committer::new(&commits, owner, &lease, &clock),
            commits,
            clock,
            lease,
            next_deadline: watch::Sender::new(None),
            next_schedule: watch::Sender::new(None),
            local: Local::default(),
            runtime: tokio::runtime::Handle::current(),
            own: own.clone(),
        });
        Ok((engine, heart))
    }

    async fn identity(plan: &Arc<Plan>) -> Result<Arc<str>, Error> {
        let links = Links::new("identity", plan.factory.clone(), plan.sql.clone(), Commits::Asynchronous, 1, None);
        let server = call!(links, "look at the server", connection => server(connection, &plan.sql))?;
        server.check()?;
        Ok(server.identity)
    }

    /// Itself, for what outlives the borrow. `None` while the incarnation is being torn down.
    fn own(&self) -> Option<Arc<Self>> {
        self.own.upgrade()
    }

    /// Whether effects may begin: the lease holds by this process's own clock.
    pub(crate) fn holds_lease(&self) -> bool {
        self.lease.holds()
    }

    /// Reserve a place to start a workflow here; `None` when there is no room, no body, or the same id is
    /// being started here already.
    pub(crate) fn reserve(&self, id: &Id, name: &str, version: i32, queue: &str) -> Option<Reserved<'_>> {
        let settings = &self.plan.settings;
        // One of a queue with limits has to wait for its turn.
        let has_limits = settings.serves.iter().any(|served| served.name() == queue);
        if queue != settings.queue || has_limits || !self.plan.registry.knows(name, version) || !self.holds_lease() {
            return None;
        }
        let slot = self.plan.slots.clone().try_acquire_owned().ok()?;
        self.local.reserve(id).then(|| Reserved { engine: self, id: id.clone(), slot: Some(slot) })
    }

    /// Whether a workflow runs here under a lease that holds. Then its end will be told here.
    pub(crate) fn runs(&self, id: &Id) -> bool {
        self.holds_lease() && self.local.running(id).is_some()
    }

    /// Whether this worker would claim what is due in a queue now, with this body if it is known.
    pub(crate) fn takes(&self, queue: &str, body: Option<(&str, i32)>) -> bool {
        self.plan.settings.takes_from(queue)
            && body.is_none_or(|(name, version)| self.plan.registry.knows(name, version))
            // Not by the free slots: the claiming loop holds them all while it asks.
            && self.local.count() < self.plan.settings.concurrency
            && self.holds_lease()
    }

    /// A workflow was sent a message: if it runs here, it looks at once, without waiting for a poll. Whether it does.
    pub(crate) fn poke(&self, id: &Id) -> bool {
        let running = self.local.running(id);
        running.as_ref().inspect(|attempt| attempt.poke()).is_some()
    }

    /// Other processes have sent messages: those who wait for one here look at once, for ever.
    async fn pass_messages_on(&self) {
        loop {
            let came = self.plan.wake.messages().await;
            for attempt in self.local.all() {
                if came.contains(&attempt.id.digest()) {
                    attempt.poke();
                }
            }
        }
    }

    /// Stop a cancelled workflow, if it runs here; its end says so to whoever cancelled it.
    pub(crate) fn stop_cancelled(&self, id: &Id) {
        match self.local.cancel(id) {
            Some(attempt) => attempt.stop(Stop::Cancelled),
            // It ended here before it heard, or it will not begin.
            None => self.acknowledge(id.clone()),
        }
    }

    /// Say that nothing of a cancelled workflow can begin here any more.
    fn acknowledge(&self, id: Id) {
        let Some(engine) = self.own() else { return };
        self.runtime.spawn(async move {
            let act = "acknowledge a cancellation";
            let mut backoff = Backoff::for_worker();
            let ids = [id];
            let undo_in = loop {
                match call!(engine.writes, act, connection =>
                    crate::store::cancel::stopped(connection, &engine.plan.sql, engine.owner, &ids))
                {
                    Ok((queues, stopped)) => {
                        stopped.iter().for_each(|(id, claims)| engine.local.cancelled_under(id, *claims));
                        break queues;
                    }
                    Err(error) if !engine.lease.ended() && backoff.again(&error).await => {}
                    Err(_) => return,
                }
            };
            for queue in undo_in {
                engine.plan.wake.now();
                engine.plan.wake.tell_others(Word::Due(queue));
            }
            ids.iter().for_each(|id| engine.plan.wake.a_tick_may_start(id));
        });
    }

    /// Drop everything in memory: this incarnation is over.
    fn abandon(&self) {
        for attempt in self.local.all() {
            attempt.stop(Stop::Lost);
        }
    }
}

/// A place kept for a workflow that is being started here.
pub(crate) struct Reserved<'e> {
    engine: &'e Engine,
    id: Id,
    slot: Option<OwnedSemaphorePermit>,
}

impl Reserved<'_> {
    /// The workflow was born running, owned by this worker: run it.
    pub(crate) fn run(mut self, claimed: Claimed) {
        if let (Some(engine), Some(slot)) = (self.engine.own(), self.slot.take()) {
            engine.adopt(claimed, crate::history::History::default(), slot);
        }
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.engine.local.unreserve(&self.id);
    }
}

impl Engine {
    /// What stands at a position, after a write came back empty.
    async fn recorded(&self, id: &Id, at: &crate::id::Position) -> Result<(Fence, Option<Record>), Error> {
        let mut backoff = Backoff::for_worker();
        loop {
            match call!(self.writes, "find what was recorded", connection =>
                step::recorded(connection, &self.plan.sql, self.owner, id, at))
            {
                Err(error) if !self.lease.ended() && backoff.again(&error).await => {}
                answer => break answer,
            }
        }
    }
}

/// A worker and the switch that ends it.
pub(crate) struct Worker {
    stop: watch::Sender<Option<Duration>>,
    done: watch::Receiver<bool>,
    current: Arc<Mutex<Option<Arc<Engine>>>>,
}

impl Worker {
    /// Start a worker: answers once it has its lease.
    pub(crate) async fn start(plan: Arc<Plan>) -> Result<Self, Error> {
        let (engine, heart) = Engine::begin(&plan).await?;
        poll::report_unknown(&engine).await;
        declared::look_for_disputes(&engine).await;
        code::note(&engine).await;
        let current = Arc::new(Mutex::new(Some(engine.clone())));
        let (stop, stopping) = watch::channel(None);
        let (done, finished) = watch::channel(false);
        tokio::spawn(supervise(plan, (engine, heart), current.clone(), stopping, done));
        Ok(Self { stop, done: finished, current })
    }

    /// The present incarnation, unless there is none.
    pub(crate) fn engine(&self) -> Option<Arc<Engine>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Take nothing new, wait up to `patience` for what runs, hand the rest back.
    pub(crate) async fn shutdown(&self, patience: Duration) {
        self.stop.send_if_modified(|asked| asked.is_none() && asked.replace(patience).is_none());
        let mut done = self.done.clone();
        // An error means that the supervisor is gone, which is the end as well.
        drop(done.wait_for(|done| *done).await);
    }
}

/// Run one incarnation after the other, until told to stop.
async fn supervise(
    plan: Arc<Plan>,
    (mut engine, mut heart): (Arc<Engine>, Heart),
    current: Arc<Mutex<Option<Arc<Engine>>>>,
    mut stopping: watch::Receiver<Option<Duration>>,
    done: watch::Sender<bool>,
) {
    let _attention = plan.hints.attend();
    let set = |engine: Option<Arc<Engine>>| *current.lock().unwrap_or_else(PoisonError::into_inner) = engine;
    loop {
        let patience = tokio::select! {
            patience = asked_to_stop(&mut stopping) => Some(patience),
            () = poll::poll(&engine) => None,
            () = takeover::take_over(&engine) => None,
            () = deadline::keep_deadlines(&engine) => None,
            () = schedules::keep_schedules(&engine) => None,
            () = poll::stop_cancelled(&engine) => None,
            () = engine.pass_messages_on() => None,
            () = engine.lease.lost() => None,
        };
        if let Some(patience) = patience {
            set(None);
            engine.finish(patience).await;
            break;
        }
        set(None);
        tracing::warn!(owner = %engine.owner, "worker lost its lease and begins again under a new owner");
        engine.abandon();
        // If nobody fenced it, nobody has to wait for its lease to end.
        if let Err(error) = engine.hand_back().await {
            tracing::warn!(%error, "the former owner's work waits for its lease to end");
        }
        let Some(next) = begin_again(&plan, &mut stopping).await else { break };
        (engine, heart) = next;
        set(Some(engine.clone()));
    }
    drop(heart);
    done.send_replace(true);
}

async fn asked_to_stop(stopping: &mut watch::Receiver<Option<Duration>>) -> Duration {
    let asked = stopping.wait_for(Option::is_some).await.map(|patience| patience.unwrap_or_default());
    match asked {
        Ok(patience) => patience,
        // Every handle is gone, but the worker was not told to stop: it goes on as long as the process.
        Err(_) => std::future::pending().await,
    }
}

/// A new incarnation, however long the database takes; `None` when told to stop meanwhile.
async fn begin_again(
    plan: &Arc<Plan>,
    stopping: &mut watch::Receiver<Option<Duration>>,
) -> Option<(Arc<Engine>, Heart)> {
    loop {
        let tried = tokio::select! {
            _ = asked_to_stop(stopping) => return None,
            engine = Engine::begin(plan) => engine,
        };
        match tried {
            Ok(engine) => return Some(engine),
            Err(error) => {
                tracing::warn!(%error, "worker cannot begin again yet");
                // Full jitter, so that a fleet does not come back in one moment.
                let pause = Duration::from_millis(100 + fastrand::u64(0..1_000));
                tokio::select! {
                    _ = asked_to_stop(stopping) => return None,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
}

impl Engine {
    /// Give up the lease in the database, and everything owned under it.
    async fn hand_back(&self) -> Result<usize, Error> {
        // Not beside a commit of this worker's: it would still pass for the owner's, and whoever claims the workflow next
        // may have read its history without what is being recorded. One that hangs is left to whoever takes over once the
        // lease has ended, and then ends it first.
        let quiet = tokio::time::timeout(COMMITS_END_WITHIN, self.commits.quiet()).await;
        let _quiet = quiet.map_err(|_| {
            Error::new(ErrorKind::Unavailable, "could not hand work back: a commit is still under way".to_owned())
        })?;
        call!(self.claims, "hand work back", connection =>
            lease_store::hand_back(connection, &self.plan.sql, self.owner))
    }

    /// End an incarnation in order: wait for what runs, then hand the rest back at once.
    async fn finish(self: &Arc<Self>, patience: Duration) {
        let idle = self.plan.slots.acquire_many(u32::try_from(self.plan.settings.concurrency).unwrap_or(u32::MAX));
        let in_time = tokio::time::timeout(patience, idle).await.is_ok();
        // From here on nothing of this worker may begin an effect, so that what it hands back is nobody's.
        self.lease.end();
        self.abandon();
        let handed_back = tokio::time::timeout(Duration::from_secs(10), async {
            let mut backoff = Backoff::for_callers();
            loop {
                match self.hand_back().await {
                    Err(error) if backoff.again(&error).await => {}
                    answer => break answer,
                }
            }
        });
        match handed_back.await {
            Ok(Ok(count)) => {
                tracing::info!(owner = %self.owner, count, in_time, "worker handed its work back");
                if count > 0 {
                    self.plan.hints.tell_now(&Word::Due(self.plan.settings.queue.clone())).await;
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "worker could not hand its work back; its lease will end"),
            Err(_) => tracing::warn!("worker could not hand its work back in time; its lease will end"),
        }
    }
}
