//! A database for one test, on the user's own server: made, looked at, moved through time, dropped.
//!
//! A database and not a schema: the application's tables stand where its code expects them, whatever its `search_path`,
//! and nothing of two tests meets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};

use super::Clock;
use crate::client::{Builder, Durable, migrate};
use crate::clock::Moves;
use crate::error::{Error, ErrorKind};
use crate::id::DEFAULT_SCHEMA;
use crate::options::millis;
use crate::store::sql::Sql;
use crate::store::trial::Work;
use crate::store::{clock, databases, trial};

/// The longest wait for workflows to have nothing more to do.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Moves of the clock before a test gives up on workflows that begin a new wait for ever.
pub(super) const MOVES_MAX: usize = 10_000;

/// The pause between two looks at a database where something is still to be done.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The longest that dropping a database may take.
const DROP_WITHIN: Duration = Duration::from_secs(20);

/// Connections of a test's pool: enough for an application, few enough for many tests side by side.
const POOL_MAX: u32 = 10;

/// So long that no heartbeat and no end of a lease falls into a test by chance.
const LEASE: Duration = Duration::from_secs(60);

/// A database of one test's own: with the library's schema, a clock that the test moves, and the application's tables.
///
/// It is dropped with the value. When the test panics it is kept, to be looked at, and its name is printed; the tests of
/// an hour later drop it.
///
/// ```no_run
/// use durable::testing::TestDatabase;
/// use durable::{Ctx, days, workflow};
/// use sqlx::PgPool;
///
/// #[workflow]
/// async fn patient(ctx: &Ctx) -> anyhow::Result<()> {
///     Ok(ctx.sleep(days(30)).await?)
/// }
///
/// async fn tables(pool: PgPool) -> anyhow::Result<()> {
///     sqlx::raw_sql("create table account (id bigint primary key)").execute(&pool).await?;
///     Ok(()) // or: sqlx::migrate!().run(&pool).await
/// }
///
/// # async fn example() -> anyhow::Result<()> {
/// let server = PgPool::connect(&std::env::var("DATABASE_URL")?).await?;
/// let db = TestDatabase::create(&server, tables).await?;
/// let durable = db.builder().register(patient).start().await?;
/// let handle = durable.start(patient()).id("p").await?;
/// db.run_until_idle().await?; // it sleeps
/// db.advance(days(30)).await?;
/// handle.result().await?;
/// # Ok(()) }
/// ```
#[must_use = "the database is dropped with this value"]
pub struct TestDatabase {
    name: String,
    server: PgPool,
    pool: PgPool,
    sql: Arc<Sql>,
}

impl TestDatabase {
    /// Make a database beside the one that `server` connects to, whose user needs `CREATEDB`; bring the library's schema
    /// into it, and have `tables` make the application's.
    ///
    /// # Errors
    ///
    /// Database kinds; [`Usage`](ErrorKind::Usage) with what `tables` returned.
    pub async fn create<F, Fut>(server: &PgPool, tables: F) -> Result<Self, Error>
    where
        F: FnOnce(PgPool) -> Fut,
        Fut: Future<Output = anyhow::Result<()>>,
    {
        static SWEPT: AtomicBool = AtomicBool::new(false);
        let mut connection = connect(server).await?;
        if !SWEPT.swap(true, Ordering::Relaxed) {
            let swept = databases::sweep(&mut connection).await;
            swept.map_err(|e| Error::database("drop what earlier tests left", &e))?;
        }
        let db = Self::made(server, &mut connection, None).await?;
        migrate(&db.pool, DEFAULT_SCHEMA).await?;
        Clock::install(&db.pool, DEFAULT_SCHEMA).await?;
        tables(db.pool.clone())
            .await
            .map_err(|e| Error::new(ErrorKind::Usage, format!("could not make the application's tables: {e:#}")))?;
        Ok(db)
    }

    async fn made(server: &PgPool, connection: &mut PgConnection, from: Option<&str>) -> Result<Self, Error> {
        let name = databases::create(connection, from).await;
        let name = name.map_err(|e| Error::database("make a database for a test", &e))?;
        let pool = pool_of(server, &name, None);
        Ok(Self { name, server: server.clone(), pool, sql: Arc::new(Sql::new(DEFAULT_SCHEMA)?) })
    }

    /// A copy, of a database that nobody is connected to.
    pub(super) async fn copy(&self) -> Result<Self, Error> {
        let mut connection = connect(&self.server).await?;
        Self::made(&self.server, &mut connection, Some(&self.name)).await
    }

    /// A pool on it, whose connections are called so.
    pub(super) fn pool_named(&self, application_name: &str) -> PgPool {
        pool_of(&self.server, &self.name, Some(application_name))
    }

    pub(super) fn sql(&self) -> &Arc<Sql> {
        &self.sql
    }

    /// The application's pool on it.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// A builder on [`pool`](TestDatabase::pool), with times that suit tests: every wait goes to the database, also the
    /// shortest, so that the clock is all that it depends on; workers look for what is due every 10 ms; leases last.
    pub fn builder(&self) -> Builder {
        builder_on(self.pool.clone()).poll_every(Duration::from_millis(10))
    }

    /// Let time pass, for every connection at once. Workers keep their leases; what comes due is taken up within 10 ms.
    ///
    /// # Errors
    ///
    /// Database kinds.
    pub async fn advance(&self, by: Duration) -> Result<(), Error> {
        const ACT: &str = "move the test clock";
        let mut connection = acquire(&self.pool, ACT).await?;
        let moved = clock::advance_with_leases(&mut connection, &self.sql, millis(by)).await;
        moved.map_err(|e| Error::database(ACT, &e))?;
        Moves::tell(Some(&self.name));
        Ok(())
    }

    /// Wait until nothing runs and nothing is due: each workflow has ended, or sleeps, or waits for a message.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](ErrorKind::Unavailable) after a minute, with what is still to be done (a workflow that no worker
    /// has registered, perhaps); database kinds.
    pub async fn run_until_idle(&self) -> Result<(), Error> {
        self.until_idle().await.map(drop)
    }

    /// Wait until nothing runs and nothing is due, then move the clock to where the next wait ends, and so on until nothing
    /// more comes of time alone: each workflow has ended, or waits for a message for ever. Ticks of schedules that are still to
    /// come are none of it; see [`live_through`](TestDatabase::live_through).
    ///
    /// # Errors
    ///
    /// As [`run_until_idle`](TestDatabase::run_until_idle), whose minute begins anew with each move of the clock; and
    /// after 10,000 moves, for what begins a new wait for ever.
    pub async fn run_through_waits(&self) -> Result<(), Error> {
        for _ in 0..MOVES_MAX {
            let Some(next) = self.until_idle().await?.next_in() else { return Ok(()) };
            self.advance(next).await?;
        }
        Err(endless())
    }

    /// Let so much time pass as it would: wait until nothing runs and nothing is due, move the clock to where the next wait ends
    /// or the next tick of a [schedule](crate::Schedule) comes, and so on. A month of nightly ticks takes a second.
    ///
    /// # Errors
    ///
    /// As [`run_through_waits`](TestDatabase::run_through_waits).
    pub async fn live_through(&self, time: Duration) -> Result<(), Error> {
        let mut left = time;
        for _ in 0..MOVES_MAX {
            let work = self.until_idle().await?;
            let next = work.next_in().into_iter().chain(work.tick_in()).min();
            match next.filter(|next| *next <= left) {
                Some(next) => {
                    self.advance(next).await?;
                    left -= next;
                }
                None => {
                    self.advance(left).await?;
                    return self.run_until_idle().await;
                }
            }
        }
        Err(endless())
    }

    async fn until_idle(&self) -> Result<Work, Error> {
        let began_at = Instant::now();
        loop {
            let work = self.work().await?;
            if work.is_idle() {
                return Ok(work);
            }
            if began_at.elapsed() > PATIENCE {
                return Err(self.in_vain().await);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(super) async fn work(&self) -> Result<Work, Error> {
        const ACT: &str = "look whether anything is to be done";
        let mut connection = acquire(&self.pool, ACT).await?;
        trial::work(&mut connection, &self.sql).await.map_err(|e| Error::database(ACT, &e))
    }

    /// What to say when patience has ended.
    pub(super) async fn in_vain(&self) -> Error {
        const ACT: &str = "look at what is still to be done";
        let unfinished = async {
            let mut connection = acquire(&self.pool, ACT).await?;
            trial::unfinished(&mut connection, &self.sql).await.map_err(|e| Error::database(ACT, &e))
        };
        match unfinished.await {
            Ok(left) => {
                Error::new(ErrorKind::Unavailable, format!("after {PATIENCE:?} there is still to be done: {left}"))
            }
            Err(error) => error,
        }
    }

    /// Close its pool, and wait until nobody of this process is connected to it by that.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

pub(super) fn endless() -> Error {
    Error::new(ErrorKind::Unavailable, format!("after {MOVES_MAX} moves of the clock there are still waits to end"))
}

/// The settings of workers in tests, but for the poll.
pub(super) fn builder_on(pool: PgPool) -> Builder {
    // One process: nobody has to be told anything, and two connections less.
    Durable::builder(pool).migrate(false).short_wait(Duration::ZERO).lease(LEASE).hints(false)
}

impl Work {
    pub(super) fn next_in(&self) -> Option<Duration> {
        self.next_in_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or_default()))
    }

    fn tick_in(&self) -> Option<Duration> {
        self.tick_in_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or_default()))
    }
}

pub(super) async fn acquire(pool: &PgPool, act: &str) -> Result<sqlx::pool::PoolConnection<sqlx::Postgres>, Error> {
    pool.acquire().await.map_err(|e| Error::database(act, &e))
}

/// A connection to the server's own database, for what cannot be done inside the test's.
async fn connect(server: &PgPool) -> Result<PgConnection, Error> {
    let options = server.connect_options();
    let connected = PgConnection::connect_with(&options).await;
    connected.map_err(|e| Error::database("connect to the server of the tests", &e))
}

fn pool_of(server: &PgPool, database: &str, application_name: Option<&str>) -> PgPool {
    let mut options: PgConnectOptions = (*server.connect_options()).clone().database(database);
    if let Some(name) = application_name {
        options = options.application_name(name);
    }
    let pool: PgPoolOptions = server.options().clone();
    pool.min_connections(0).max_connections(POOL_MAX).connect_lazy_with(options)
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("durable: the database of the failed test is kept for now: {}", self.name);
            return;
        }
        let (server, name) = (self.server.connect_options(), self.name.clone());
        // On a thread with a runtime of its own: the test's is busy with this, and may have no other thread.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let dropped = async {
                    let mut connection = PgConnection::connect_with(&server).await?;
                    databases::drop_database(&mut connection, &name).await
                };
                tokio::time::timeout(DROP_WITHIN, dropped).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
            })
        });
        // When it does not work, the tests of an hour later do it.
        if let Ok(Err(error)) = dropping.join() {
            eprintln!("durable: the database {} of a test could not be dropped: {error}", self.name);
        }
    }
}

impl std::fmt::Debug for TestDatabase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TestDatabase({})", self.name)
    }
}
