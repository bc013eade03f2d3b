//! A worker in a world of its own, which may end at a crash point: a runtime that is dropped with everything in it.
//!
//! Its connections are closed, its lease is left to end, and nothing of it is told. What comes after that, and whether it
//! is right, is `crash`'s.

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::database::{LOOK_EVERY, MOVES_MAX, PATIENCE, TestDatabase, acquire, builder_on, endless};
use crate::client::{Builder, Durable};
use crate::error::{Error, ErrorKind};
use crate::probe::{Life, Point};
use crate::step::BoxFuture;
use crate::store::trial;
use crate::wake::Wake;
use crate::worker::Engine;

/// So seldom that no poll falls into a short life by chance: how many crash points it has does not depend on them.
const POLL_EVERY: Duration = Duration::from_secs(60);

/// How long something may be due before the worker is told to look. It usually knows.
const TOLD_AFTER: Duration = Duration::from_millis(200);

/// The longest that the dropping of a runtime waits for threads that block.
const END_WITHIN: Duration = Duration::from_secs(10);

/// Connections that are open after this time are held by what the user's code leaked. The death of a process closes those
/// too.
const LEAKED_AFTER: Duration = Duration::from_secs(1);

/// What connections of a world are called, with more behind it.
const NAME: &str = "durable kit world";

/// What the user gave: how a worker is built, and what is asked of it.
pub(super) struct Scenario {
    pub(super) worker: Box<dyn Fn(Builder, PgPool) -> Builder + Send + Sync>,
    pub(super) begin: Box<dyn Fn(Durable) -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync>,
}

/// A worker, and whoever starts workflows beside it.
pub(super) struct World {
    runtime: Option<Runtime>,
    life: Arc<Life>,
    /// Ends once everything was begun.
    beginning: Option<JoinHandle<anyhow::Result<()>>>,
    inside: Arc<OnceLock<Inside>>,
}

/// What is seen of a world from outside.
struct Inside {
    wake: Arc<Wake>,
    engine: Weak<Engine>,
}

impl Inside {
    /// Whether the worker has nothing in memory. Only then has it passed its last crash point.
    fn is_empty(&self) -> bool {
        self.engine
            .upgrade()
            .is_none_or(|engine| engine.plan.slots.available_permits() == engine.plan.settings.concurrency)
    }
}

impl World {
    /// Start a worker on a database, and then begin what the scenario begins.
    pub(super) fn start(db: &TestDatabase, scenario: &Arc<Scenario>, life: Arc<Life>) -> Result<Self, Error> {
        let on_thread = life.clone();
        // One thread is enough, and keeps the order of things nearly the same.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(move || on_thread.take_thread())
            .build()
            .map_err(|e| Error::new(ErrorKind::Unavailable, format!("could not make a runtime: {e}")))?;
        let inside = Arc::new(OnceLock::new());
        let pool = {
            let _guard = runtime.enter();
            db.pool_named(NAME)
        };
        let beginning = runtime.spawn({
            let (scenario, life, inside) = (scenario.clone(), life.clone(), inside.clone());
            async move {
                let builder = builder_on(pool.clone()).poll_every(POLL_EVERY);
                let durable = (scenario.worker)(builder, pool).start().await?;
                let engine = durable.client.engine().map(|engine| Arc::downgrade(&engine)).unwrap_or_default();
                drop(inside.set(Inside { wake: durable.client.wake.clone(), engine }));
                life.begin();
                (scenario.begin)(durable).await
            }
        });
        Ok(Self { runtime: Some(runtime), life, beginning: Some(beginning), inside })
    }

    /// Let it live: until it dies, or until everything has ended that time alone brings to an end. The clock is moved once
    /// everything was begun. The crash point at which it died, if it did.
    pub(super) async fn live(&mut self, db: &TestDatabase) -> Result<Option<Point>, Error> {
        let (mut moves, mut idle_at, mut told_at) = (0, Instant::now(), Instant::now());
        loop {
            if let Some(point) = self.life.end() {
                return Ok(Some(point));
            }
            self.begun().await?;
            let work = db.work().await?;
            if work.running > 0 || work.due == 0 && work.ticks == 0 {
                told_at = Instant::now();
            }
            let is_empty = self.inside.get().is_some_and(Inside::is_empty);
            if work.is_idle() && is_empty && self.beginning.is_none() {
                let Some(next) = work.next_in() else { return Ok(self.life.end()) };
                if moves == MOVES_MAX {
                    return Err(endless());
                }
                db.advance(next).await?;
                (moves, idle_at, told_at) = (moves + 1, Instant::now(), Instant::now());
                self.tell();
            } else if told_at.elapsed() > TOLD_AFTER {
                told_at = Instant::now();
                self.tell();
                // Only where there are any, so that other lives have no crash points of it.
                if work.ticks > 0 {
                    self.tell_of_schedules();
                }
            }
            if idle_at.elapsed() > PATIENCE {
                return Err(db.in_vain().await);
            }
            tokio::select! {
                () = self.life.ended() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Whether everything was begun, or what went wrong with it.
    async fn begun(&mut self) -> Result<(), Error> {
        if let Some(beginning) = self.beginning.take_if(|beginning| beginning.is_finished()) {
            let begun =
                beginning.await.map_err(|e| Error::new(ErrorKind::Usage, format!("the beginning panicked: {e}")))?;
            begun.map_err(|e| Error::new(ErrorKind::Usage, format!("the beginning failed: {e:#}")))?;
        }
        Ok(())
    }

    /// Tell the worker to look for what is due.
    fn tell(&self) {
        if let Some(inside) = self.inside.get() {
            inside.wake.now();
        }
    }

    fn tell_of_schedules(&self) {
        if let Some(inside) = self.inside.get() {
            inside.wake.look_at_schedules();
        }
    }

    /// Drop everything in it. Answers once nothing of it runs any more, and the server has noticed.
    pub(super) async fn end(mut self, db: &TestDatabase) -> Result<(), Error> {
        const ACT: &str = "wait for the end of a worker's sessions";
        self.inside = Arc::default();
        if let Some(runtime) = self.runtime.take() {
            let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(END_WITHIN));
            ended.await.map_err(|e| Error::new(ErrorKind::Unavailable, format!("could not drop a runtime: {e}")))?;
        }
        let named = |e: sqlx::Error| Error::database(ACT, &e);
        let began_at = Instant::now();
        let mut connection = acquire(db.pool(), ACT).await?;
        while trial::sessions(&mut connection, NAME).await.map_err(named)? > 0 {
            if began_at.elapsed() > PATIENCE {
                return Err(Error::no_answer(ACT, PATIENCE));
            }
            if began_at.elapsed() > LEAKED_AFTER {
                trial::end_sessions(&mut connection, NAME).await.map_err(named)?;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A runtime may not be dropped inside another one.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
