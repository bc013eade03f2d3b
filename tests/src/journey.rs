//! The workflows that are crashed: one with every kind of step, one that can be held in a step body, and one
//! that kills its worker. Tests and the victim process register the same ones.

use std::time::Instant;

use anyhow::{Result, ensure};
use chrono::Utc;
use durable::{Builder, Ctx, PgConnection, StepCtx, Topic, step, workflow};
use sqlx::PgPool;

use crate::crowd::{Crossing, crossing, errand};
use crate::db::PATIENCE;
use crate::effects;

/// The messages that a journey waits for.
pub const WORD: Topic<String> = Topic::new("word");

/// The words to be sent to a journey, in this order, each also being its key.
pub const WORDS: [&str; 2] = ["one", "two"];

/// What `journey(0)` gives.
pub const JOURNEY_OUTPUT: &str = r#"{"sum":115,"words":["one","two"]}"#;

/// How long the workers of these tests keep a wait in memory.
pub const SHORT_WAIT: std::time::Duration = std::time::Duration::from_millis(60);

/// The pool for the effects of plain steps: what is outside the library, like a mail server.
#[derive(Clone, Debug)]
pub struct Outside(pub PgPool);

/// Everything that a worker of these tests runs.
pub fn register(builder: Builder, outside: PgPool) -> Builder {
    crate::family::register(builder)
        .short_wait(SHORT_WAIT)
        .state(Outside(outside))
        .register(journey)
        .register(held)
        .register(held_transaction)
        .register(modest)
        .register(poison)
        .state(Crossing::default())
        .register(errand)
        .register(crossing)
        .register(crate::clockwork::clockwork)
}

/// What a journey gives.
#[derive(serde::Serialize, serde::Deserialize, Debug)]
pub struct Arrival {
    /// What its steps came to.
    pub sum: i64,
    /// What it received.
    pub words: Vec<String>,
}

/// Every kind of step: plain, transactional, tried again at once and after a suspension, sleeping in memory
/// and suspended, receiving mail that is there and mail that is not, fanned out, and begun together.
#[workflow]
pub async fn journey(ctx: &Ctx, n: i64) -> Result<Arrival> {
    let mut sum = ctx.run(plain(n)).await?;
    sum = ctx.run(transactional(sum)).await?;
    ctx.sleep(SHORT_WAIT / 10).await?;
    sum = ctx.run(flaky(sum)).await?;
    let first = ctx.receive(WORD).await?;
    ctx.sleep(SHORT_WAIT * 3 / 2).await?;
    let fanned = ctx
        .fan_out(0..3, 2, async |ctx: &Ctx, item: i64| {
            let item = ctx.run(plain(item)).await?;
            ctx.run(transactional(item)).await
        })
        .await;
    for item in fanned {
        sum += item?;
    }
    sum = ctx.run(patient(sum)).await?;
    let second = ctx.receive(WORD).timeout(PATIENCE * 10).await?.unwrap_or_default();
    let (left, right) = tokio::try_join!(ctx.run(plain(sum)), ctx.run(transactional(sum)))?;
    sum = ctx.run(transactional(left + right)).await?;
    Ok(Arrival { sum, words: vec![first, second] })
}

/// One step of each kind, for tests with many workflows.
#[workflow]
pub async fn modest(ctx: &Ctx, n: i64) -> Result<i64> {
    let n = ctx.run(plain(n)).await?;
    let n = ctx.run(transactional(n)).await?;
    ctx.sleep(SHORT_WAIT * 3 / 2).await?;
    let n = ctx.run(transactional(n)).await?;
    Ok(ctx.run(plain(n)).await?)
}

/// Waits in a plain step's body until [`open`]. Gives the pid of the process whose body was recorded.
#[workflow]
pub async fn held(ctx: &Ctx) -> Result<u32> {
    ctx.run(plain(0)).await?;
    let pid = ctx.run(hold()).await?;
    ctx.run(transactional(1)).await?;
    Ok(pid)
}

/// Waits in a transactional step's body until [`open`], after its write.
#[workflow]
pub async fn held_transaction(ctx: &Ctx) -> Result<u32> {
    ctx.run(plain(0)).await?;
    let pid = ctx.run(hold_transaction()).await?;
    ctx.run(transactional(1)).await?;
    Ok(pid)
}

/// Kills its worker, every time.
#[workflow]
pub async fn poison(ctx: &Ctx) -> Result<()> {
    Ok(ctx.run(abort()).await?)
}

#[step]
async fn plain(step: &StepCtx, n: i64) -> Result<i64> {
    note(step, "plain", "").await?;
    Ok(n + 1)
}

#[step(tx)]
async fn transactional(tx: &mut PgConnection, step: &StepCtx, n: i64) -> Result<i64> {
    effects::write(tx, step, "transactional", &n.to_string()).await?;
    Ok(n + 10)
}

#[step(retry(max_attempts = 5, first = "5ms", factor = 1.0))]
async fn flaky(step: &StepCtx, n: i64) -> Result<i64> {
    note(step, "flaky", "").await?;
    ensure!(step.attempt() > 1, "the first attempt fails");
    Ok(n + 100)
}

#[step(retry(max_attempts = 5, first = "90ms", factor = 1.0, jitter = 0.0))]
async fn patient(step: &StepCtx, n: i64) -> Result<i64> {
    note(step, "patient", "").await?;
    ensure!(step.attempt() > 1, "the first attempt fails");
    Ok(n - 100)
}

#[step]
async fn hold(step: &StepCtx) -> Result<u32> {
    note(step, "hold", "").await?;
    pass(step).await?;
    Ok(std::process::id())
}

#[step(tx)]
async fn hold_transaction(tx: &mut PgConnection, step: &StepCtx) -> Result<u32> {
    effects::write(tx, step, "hold_transaction", "").await?;
    note(step, "came", "").await?;
    pass(step).await?;
    Ok(std::process::id())
}

#[step]
async fn abort() -> Result<()> {
    std::process::abort()
}

/// Note an effect, however often the connection to the outside breaks: that is not what is tested.
pub(crate) async fn note(step: &StepCtx, name: &str, value: &str) -> Result<()> {
    let (came_at, since) = (Utc::now(), Instant::now());
    loop {
        match effects::note(&step.state::<Outside>().0, step, name, value, came_at).await {
            Ok(()) => return Ok(()),
            Err(error) => ensure!(since.elapsed() < PATIENCE, "could not note an effect: {error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Wait until the workflow's gate is open.
async fn pass(step: &StepCtx) -> Result<()> {
    let began_at = Instant::now();
    loop {
        let open: bool = sqlx::query_scalar("select exists (select from application_row where name = $1)")
            .bind(step.workflow_id())
            .fetch_one(&step.state::<Outside>().0)
            .await?;
        if open {
            return Ok(());
        }
        ensure!(began_at.elapsed() < PATIENCE, "nobody opened the gate of {}", step.workflow_id());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Open the gate of a held workflow, for every process.
pub async fn open(pool: &PgPool, id: &str) -> sqlx::Result<()> {
    sqlx::query("insert into application_row (name) values ($1)").bind(id).execute(pool).await?;
    Ok(())
}
