//! What a ten-step workflow costs the database: statements and WAL.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::closed::{self, Load};
use super::queue;
use crate::bench::Bench;
use crate::workflows::STEPS_DONE;

/// Statements per workflow of a closed loop. A plain workflow's statements are transactions of their own, so commits
/// are counted; what a worker sends that has nothing to do is taken off.
pub(crate) async fn statements(bench: &Bench, in_flight: usize) -> Result<f64> {
    bench.fresh().await?;
    let (before, steps_before) = (commits(bench).await?, STEPS_DONE.load(Ordering::Relaxed));
    let began = Instant::now();
    closed::run(&bench.url, bench.pace, in_flight, Load::Plain { bytes: 200 }).await?;
    let took = began.elapsed();
    let (loaded, steps) = (commits(bench).await?, STEPS_DONE.load(Ordering::Relaxed) - steps_before);
    let idle = closed::worker(&bench.url, in_flight).await?;
    tokio::time::sleep(took).await;
    idle.shutdown(Duration::from_secs(10)).await;
    drop(idle);
    let idle = commits(bench).await? - loaded;
    Ok((loaded - before - idle) as f64 / (steps as f64 / 10.0))
}

/// Transactions of this database so far. A session adds its own at its end.
pub(crate) async fn commits(bench: &Bench) -> Result<i64> {
    bench.alone().await?;
    let count = "select xact_commit from pg_stat_database where datname = current_database()";
    Ok(sqlx::query_scalar(count).fetch_one(&bench.pool).await?)
}

pub(crate) struct Wal {
    /// Bytes per workflow.
    pub(crate) all: f64,
    /// What full-page images are of it, at most: each counted as a whole page.
    pub(crate) images: f64,
}

/// The WAL of workflows that are enqueued and drained, on tables that are in use and after a checkpoint, so that the
/// full-page images which follow one are in it.
pub(crate) async fn wal(bench: &Bench) -> Result<Wal> {
    bench.fresh().await?;
    let count = 20_000 / bench.pace.divide as usize;
    queue::enqueue_ten_steps(bench, "warm", count / 2).await?;
    queue::drain(bench, count / 2 * 10).await?;
    sqlx::raw_sql("checkpoint").execute(&bench.pool).await?;
    let before = written(bench).await?;
    queue::enqueue_ten_steps(bench, "counted", count).await?;
    queue::drain(bench, count * 10).await?;
    let after = written(bench).await?;
    let per_workflow = |bytes: i64| bytes as f64 / count as f64;
    Ok(Wal { all: per_workflow(after.0 - before.0), images: per_workflow((after.1 - before.1) * 8_192) })
}

/// Bytes of WAL, and full-page images, so far.
async fn written(bench: &Bench) -> Result<(i64, i64)> {
    bench.alone().await?;
    let so_far = "select (pg_current_wal_insert_lsn() - '0/0')::bigint, wal_fpi from pg_stat_wal";
    Ok(sqlx::query_as(so_far).fetch_one(&bench.pool).await?)
}
