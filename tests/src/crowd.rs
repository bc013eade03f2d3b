//! Workflows that run in great number through one committer, and what must be true of each of them afterwards.
//!
//! Each hands a value on from step to step, which names the workflow and is another one on every attempt. So an outcome
//! shows that went to a neighbour, or that a body was given although it was not the one that is recorded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use durable::{Ctx, Durable, PgConnection, StepCtx, step, workflow};
use futures::{StreamExt, TryStreamExt};
use sqlx::PgPool;
use tokio::sync::OnceCell;

use crate::checker::{Seen, unfounded, violations};
use crate::db::{Db, PATIENCE};
use crate::effects;
use crate::journey::{self, Outside, SHORT_WAIT, WORD, note};

/// How many are in flight at a time: all that a worker has room for with the default options.
pub const CROWD: usize = 256;

/// Plain steps with which an errand begins: time enough for several faults before the first one is suspended.
const LINKS: usize = 8;

/// Plain steps, a transactional one, a suspension, a message, plain steps; one after the other. The message to be sent
/// is the workflow's own id.
#[workflow]
pub async fn errand(ctx: &Ctx, id: String) -> Result<String> {
    let mut at = id;
    for _ in 0..LINKS {
        at = ctx.run(link(at)).await?;
    }
    ctx.run(entry(at)).await?;
    ctx.sleep(SHORT_WAIT * 3 / 2).await?;
    at = ctx.receive(WORD).await?;
    for _ in 0..LINKS / 4 {
        at = ctx.run(link(at)).await?;
    }
    Ok(at)
}

/// A plain step, one that is held until [`open_for`], and another plain one.
#[workflow]
pub async fn crossing(ctx: &Ctx, id: String) -> Result<String> {
    let at = ctx.run(link(id)).await?;
    let at = ctx.run(stand(at)).await?;
    Ok(ctx.run(link(at)).await?)
}

#[step]
async fn link(step: &StepCtx, before: String) -> Result<String> {
    note(step, "link", &before).await?;
    Ok(outcome(step))
}

#[step(tx)]
async fn entry(tx: &mut PgConnection, step: &StepCtx, before: String) -> Result<String> {
    effects::write(tx, step, "entry", &before).await?;
    Ok(outcome(step))
}

#[step]
async fn stand(step: &StepCtx, before: String) -> Result<String> {
    note(step, "came", &before).await?;
    step.state::<Crossing>().pass(&step.state::<Outside>().0).await?;
    note(step, "went", &before).await?;
    Ok(outcome(step))
}

fn outcome(step: &StepCtx) -> String {
    format!("{}:{}", step.workflow_id(), uuid::Uuid::new_v4())
}

/// Where all crossings of one process stand until it is opened for that process.
#[derive(Clone, Default, Debug)]
pub struct Crossing(Arc<OnceCell<()>>);

impl Crossing {
    async fn pass(&self, outside: &PgPool) -> Result<()> {
        // One of them looks, for all.
        self.0.get_or_try_init(|| until_opened(outside)).await?;
        Ok(())
    }
}

async fn until_opened(outside: &PgPool) -> Result<()> {
    let began_at = Instant::now();
    let open = "select exists (select from application_row where name = 'crossing' and value = $1)";
    let pid = std::process::id().to_string();
    while !sqlx::query_scalar::<_, bool>(open).bind(&pid).fetch_one(outside).await? {
        ensure!(began_at.elapsed() < PATIENCE, "nobody opened the crossing");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Let the crossings of a process go on.
///
/// # Errors
///
/// The database's.
pub async fn open_for(pool: &PgPool, pid: i32) -> sqlx::Result<()> {
    let open = "insert into application_row (name, value) values ('crossing', $1)";
    sqlx::query(open).bind(pid.to_string()).execute(pool).await?;
    Ok(())
}

/// The ids of a crowd.
pub fn ids() -> Vec<String> {
    (0..CROWD).map(|n| format!("w-{n}")).collect()
}

/// Start a crowd of errands and send each its message.
///
/// # Errors
///
/// The library's.
pub async fn depart(durable: &Durable) -> Result<Vec<String>> {
    let ids = ids();
    durable.start_many(ids.iter().map(|id| (id.clone(), errand(id.clone())))).await?;
    futures::stream::iter(&ids)
        .map(async |id| durable.send(id, WORD, id.clone()).key("word").await)
        .buffer_unordered(8)
        .try_collect::<Vec<_>>()
        .await?;
    Ok(ids)
}

/// What one workflow comes to without faults, on a database of its own.
///
/// # Errors
///
/// The library's and the database's.
pub async fn clean_errand() -> Result<Seen> {
    let db = Db::new().await;
    let durable = journey::register(db.builder(), db.pool.clone()).start().await?;
    let handle = durable.start(errand("clean".into())).id("clean").await?;
    durable.send("clean", WORD, "clean".into()).key("word").await?;
    handle.result().await?;
    let seen = Seen::look(&db.pool, "clean").await?;
    ensure!(unfounded("clean", &seen).is_empty(), "{seen:?}");
    Ok(seen)
}

/// What a crossing comes to without faults, on a database of its own.
///
/// # Errors
///
/// The library's and the database's.
pub async fn clean_crossing() -> Result<Seen> {
    let db = Db::new().await;
    open_for(&db.pool, std::process::id().cast_signed()).await?;
    let durable = journey::register(db.builder(), db.pool.clone()).start().await?;
    durable.start(crossing("clean".into())).id("clean").await?.result().await?;
    let seen = Seen::look(&db.pool, "clean").await?;
    ensure!(unfounded("clean", &seen).is_empty(), "{seen:?}");
    Ok(seen)
}

/// How far a crowd has come, in one look.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Workflows that a worker has.
    pub running: i64,
    /// Workflows that go no further.
    pub over: i64,
    /// Recorded steps.
    pub records: i64,
}

impl Progress {
    /// Look.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn look(pool: &PgPool) -> sqlx::Result<Self> {
        let look = "select (select count(*) from durable.step) as records,
                           count(*) filter (where status = 'running') as running,
                           count(*) filter (where status not in ('queued', 'running', 'suspended')) as over
                    from durable.workflow";
        let (records, running, over) = sqlx::query_as(look).fetch_one(pool).await?;
        Ok(Self { running, over, records })
    }
}

/// Wait until a crowd has come so far.
///
/// # Errors
///
/// The database's.
///
/// # Panics
///
/// When it never does.
pub async fn until(pool: &PgPool, so_far: impl Fn(Progress) -> bool) -> sqlx::Result<Progress> {
    let began_at = Instant::now();
    loop {
        let progress = Progress::look(pool).await?;
        if so_far(progress) {
            return Ok(progress);
        }
        assert!(began_at.elapsed() < PATIENCE, "the crowd came no further than {progress:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Wait until a crowd has so many records, and is in flight, all of it.
///
/// # Errors
///
/// The database's.
///
/// # Panics
///
/// When it never does.
pub async fn until_amid(pool: &PgPool, records: usize) -> sqlx::Result<()> {
    let enough = i64::try_from(records).expect("a small number");
    until(pool, |progress| progress.records >= enough && progress.running == CROWD as i64).await.map(drop)
}

/// Wait until all of a crowd is over.
///
/// # Errors
///
/// The database's.
///
/// # Panics
///
/// When it never is.
pub async fn until_over(pool: &PgPool) -> sqlx::Result<()> {
    until(pool, |progress| progress.over == CROWD as i64).await.map(drop)
}

/// Whatever is wrong with a crowd after all faults. A process that was frozen may have been in a body of each, which
/// ends, once, however late that is.
///
/// # Errors
///
/// The database's.
pub async fn check(pool: &PgPool, ids: &[String], clean: &Seen, frozen: Option<i32>) -> sqlx::Result<Vec<String>> {
    let mut found = Vec::new();
    for id in ids {
        let mut seen = Seen::look(pool, id).await?;
        if let Some(pid) = frozen {
            seen.excuse_one_late_effect(id, pid);
        }
        found.extend(violations(id, &seen.without_outputs(), &clean.without_outputs()));
        found.extend(unfounded(id, &seen));
    }
    Ok(found)
}
