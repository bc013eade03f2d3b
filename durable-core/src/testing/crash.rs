//! A workflow run once for each of its crash points, and what must be true after each.
//!
//! Where the points are is `probe`'s, how a worker dies at one is `world`'s.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use sqlx::PgPool;
use tokio::sync::Semaphore;

use super::database::{TestDatabase, acquire};
use super::world::{Scenario, World};
use crate::client::{Builder, Durable};
use crate::error::{Error, ErrorKind};
use crate::failure::panic_message;
use crate::probe::{Life, Point};
use crate::step::BoxFuture;
use crate::store::{lease, trial};

/// Crashes tried side by side by all tests of the process, each on a database of its own. They mostly wait for the server,
/// of whose connections each takes about ten.
const AT_ONCE: usize = 4;
static PLACES: Semaphore = Semaphore::const_new(AT_ONCE);

/// More crash points than this are a workflow for a smaller test.
const POINTS_MAX: usize = 10_000;

/// Workflows given back when a worker has died; more than a test starts.
const REAPED_MAX: i64 = 10_000;

/// Lost workers in a row that park a workflow. Here it loses one.
const RECOVERIES_MAX: i32 = 10;

/// What [`every_crash`] came to.
#[derive(Debug)]
#[must_use = "the violations are in here: call assert_clean()"]
pub struct CrashReport {
    /// Each crash point of the undisturbed run, in order: `after the body of a step: charge`.
    pub points: Vec<String>,
    /// Those of them that a crash run did not come to, so that no worker died there. Some are not on every way: a look for
    /// work that one run has and another has not, or a workflow with a generated id, which never comes again.
    pub missed: Vec<String>,
    /// What was not true afterwards.
    pub violations: Vec<Violation>,
}

/// What was not true after a crash.
#[derive(Debug)]
pub struct Violation {
    /// The number of the crash point in [`points`](CrashReport::points), from 1.
    pub number: usize,
    /// Its name there.
    pub point: String,
    /// Whether the worker died there.
    pub died: bool,
    /// What the check said, or that a workflow did not end as it does without a crash.
    pub problem: String,
}

impl CrashReport {
    /// Print how many crash points were tried.
    ///
    /// # Panics
    ///
    /// With all violations, if there are any.
    pub fn assert_clean(&self) {
        println!("{self}");
        assert!(self.violations.is_empty(), "{self}");
    }
}

impl fmt::Display for CrashReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for point in &self.points {
            *kinds.entry(point.split(": ").next().unwrap_or(point)).or_default() += 1;
        }
        let kinds: Vec<_> = kinds.into_iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let (tried, missed, violations) = (self.points.len(), self.missed.len(), self.violations.len());
        write!(f, "crash points tried: {tried} ({}), not come to again: {missed}; ", kinds.join(", "))?;
        write!(f, "violations: {violations}")?;
        for violation in &self.violations {
            write!(f, "\n  {violation}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let survived = if self.died { "" } else { " (not come to)" };
        write!(f, "crash point {}, {}{survived}: {}", self.number, self.point, self.problem)
    }
}

/// Run workflows once for each crash point, let another worker finish them, and check each time what must be true.
///
/// `database` is what each run begins with: every one has a copy of its own. `worker` registers what there is to register;
/// the pool that it is given is for state that step bodies need. `begin` starts workflows and sends messages, **under ids
/// and keys of its own**: it is called again after the crash, as a caller does that got no answer. `check` says what must
/// be true at the end, by an error or a panic; beside it, workflows must have ended as they do without a crash.
///
/// Crash points are before and after each body of a step, and before and after each of the library's own calls to the
/// database, also those that `begin` makes; a point after a call is the loss of its reply. They are counted in a run
/// without a crash. A worker dies by the loss of its runtime, and with it of all that it has in memory and of its
/// connections. Then its lease is over, and another worker goes on. Time moves by itself, to the end of each wait, once
/// `begin` has returned; so `begin` must not wait for what only time brings.
///
/// The manual of [this module](crate::testing) has an example, and says what this does not cover.
///
/// # Errors
///
/// [`Usage`](ErrorKind::Usage) when already the run without a crash goes wrong; database kinds.
pub async fn every_crash<W, B, BF, C, CF>(
    database: TestDatabase,
    worker: W,
    begin: B,
    check: C,
) -> Result<CrashReport, Error>
where
    W: Fn(Builder, PgPool) -> Builder + Send + Sync + 'static,
    B: Fn(Durable) -> BF + Send + Sync + 'static,
    BF: Future<Output = anyhow::Result<()>> + Send + 'static,
    C: Fn(PgPool) -> CF + Send + Sync + 'static,
    CF: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    database.close().await;
    let begin = move |durable| -> BoxFuture<'static, _> { Box::pin(begin(durable)) };
    let check = move |pool| -> BoxFuture<'static, _> { Box::pin(check(pool)) };
    let trial = Trial {
        database,
        scenario: Arc::new(Scenario { worker: Box::new(worker), begin: Box::new(begin) }),
        check: Box::new(check),
    };
    let (points, statuses) = trial.without_a_crash().await?;
    let tried: Vec<(usize, bool, Option<Violation>)> = stream::iter(1..=points.len())
        .map(|number| trial.with_a_crash((number, &points[number - 1]), &statuses))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let points: Vec<_> = points.into_iter().map(|point| point.name).collect();
    let missed = tried.iter().filter(|(_, died, _)| !died).map(|(number, ..)| points[number - 1].clone()).collect();
    let mut violations: Vec<_> = tried.into_iter().filter_map(|(.., violation)| violation).collect();
    violations.sort_unstable_by_key(|violation| violation.number);
    Ok(CrashReport { points, missed, violations })
}

type Check = dyn Fn(PgPool) -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync;

/// What is tried again and again.
struct Trial {
    database: TestDatabase,
    scenario: Arc<Scenario>,
    check: Box<Check>,
}

impl Trial {
    /// The crash points of a run without a crash, and how its workflows ended.
    async fn without_a_crash(&self) -> Result<(Vec<Point>, Vec<String>), Error> {
        let wrong = |problem: String| Error::new(ErrorKind::Usage, format!("wrong even without a crash: {problem}"));
        let db = self.database.copy().await?;
        let life = Life::new(None);
        self.live(&db, &life).await?;
        self.look(&db).await.map_err(wrong)?;
        let points = life.points();
        if points.len() > POINTS_MAX {
            return Err(wrong(format!("{} crash points, at most {POINTS_MAX} are tried", points.len())));
        }
        let statuses = statuses(&db).await?;
        remove(db).await?;
        Ok((points, statuses))
    }

    /// The crash point's number again, whether a worker died there, and what was wrong in the end.
    async fn with_a_crash(
        &self,
        (number, point): (usize, &Point),
        expected: &[String],
    ) -> Result<(usize, bool, Option<Violation>), Error> {
        let _place = PLACES.acquire().await.expect("the places are never closed");
        let db = self.database.copy().await?;
        let died = self.live(&db, &Life::new(Some(point.clone()))).await?.is_some();
        let problem = match self.recover(&db, died).await {
            Ok(()) => self.look(&db).await.err(),
            // What the second worker cannot finish is what this is to find.
            Err(error) => Some(error.to_string()),
        };
        let ended = statuses(&db).await?;
        let problem = problem.or_else(|| {
            (ended != expected).then(|| format!("workflows ended as {ended:?}, and without a crash as {expected:?}"))
        });
        remove(db).await?;
        Ok((number, died, problem.map(|problem| Violation { number, point: point.name.clone(), died, problem })))
    }

    /// One life of a worker. The crash point at which it died, if it did.
    async fn live(&self, db: &TestDatabase, life: &Arc<Life>) -> Result<Option<Point>, Error> {
        let mut world = World::start(db, &self.scenario, life.clone())?;
        let died_at = world.live(db).await;
        world.end(db).await?;
        died_at
    }

    /// What a dead worker left is given back, and another one finishes it.
    async fn recover(&self, db: &TestDatabase, died: bool) -> Result<(), Error> {
        const ACT: &str = "take over from a dead worker";
        if !died {
            return Ok(());
        }
        let named = |e: sqlx::Error| Error::database(ACT, &e);
        let mut connection = acquire(db.pool(), ACT).await?;
        trial::end_leases(&mut connection, db.sql()).await.map_err(named)?;
        let dead = lease::fence(&mut connection, db.sql(), REAPED_MAX).await.map_err(named)?.dead;
        lease::reap(&mut connection, db.sql(), &dead, REAPED_MAX, RECOVERIES_MAX).await.map_err(named)?;
        drop(connection);
        self.live(db, &Life::new(None)).await.map(drop)
    }

    /// Whether the user's check holds, and else why not.
    async fn look(&self, db: &TestDatabase) -> Result<(), String> {
        // On a task of its own, so that an assertion that fails is told like an error.
        match tokio::spawn((self.check)(db.pool().clone())).await {
            Ok(checked) => checked.map_err(|error| format!("{error:#}")),
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => Err(panic_message(&*panic)),
                Err(ended) => Err(ended.to_string()),
            },
        }
    }
}

async fn statuses(db: &TestDatabase) -> Result<Vec<String>, Error> {
    const ACT: &str = "look how workflows ended";
    let mut connection = acquire(db.pool(), ACT).await?;
    trial::statuses(&mut connection, db.sql()).await.map_err(|e| Error::database(ACT, &e))
}

/// Drop a database, on a thread that may wait for it.
async fn remove(db: TestDatabase) -> Result<(), Error> {
    let dropped = tokio::task::spawn_blocking(move || drop(db)).await;
    dropped.map_err(|e| Error::new(ErrorKind::Unavailable, format!("could not drop a database: {e}")))
}
