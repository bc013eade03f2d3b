//! W3: workflows that are enqueued by a process without a worker, in bulk and one by one, and drained by one worker.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use durable::Durable;
use sqlx::PgPool;
use tokio::task::JoinSet;

use super::{PATIENCE, until};
use crate::bench::Bench;
use crate::workflows::{STEPS_DONE, one_step, ten_steps};

/// Workflows in memory of the worker that drains.
const CONCURRENCY: usize = 2_000;
/// Callers that start workflows one by one.
const CALLERS: usize = 64;
/// The most that one call takes.
const BULK: usize = 10_000;

pub(crate) struct Queue {
    /// Workflows per second.
    pub(crate) enqueued: f64,
    pub(crate) drained: f64,
}

pub(crate) async fn enqueue_and_drain(bench: &Bench) -> Result<Queue> {
    bench.fresh().await?;
    let count = 50_000 / bench.pace.divide as usize;
    let began = Instant::now();
    enqueue_one_step(bench, count).await?;
    let enqueued = count as f64 / began.elapsed().as_secs_f64();
    drain(bench, count).await?;
    // By the database's clock, from the first claim to the last end: the wait above looks only now and then.
    let seconds = "select extract(epoch from max(finished_at) - min(claimed_at))::float8 from durable.workflow";
    let seconds: f64 = sqlx::query_scalar(seconds).fetch_one(&bench.pool).await?;
    Ok(Queue { enqueued, drained: count as f64 / seconds })
}

/// Enqueue one-step workflows.
pub(crate) async fn enqueue_one_step(bench: &Bench, count: usize) -> Result<()> {
    enqueue_one_step_by(&client(bench).await?, count).await
}

pub(crate) async fn enqueue_one_step_by(client: &Durable, count: usize) -> Result<()> {
    let start = |ids: Range<usize>| async move {
        client.start_many(ids.map(|n| (format!("queued-{n:08}"), one_step(200)))).await?;
        Ok(())
    };
    in_bulk(count, start).await
}

/// Enqueue ten-step workflows.
pub(crate) async fn enqueue_ten_steps(bench: &Bench, prefix: &str, count: usize) -> Result<()> {
    let client = &client(bench).await?;
    let start = |ids: Range<usize>| async move {
        client.start_many(ids.map(|n| (format!("{prefix}-{n:08}"), ten_steps(200)))).await?;
        Ok(())
    };
    in_bulk(count, start).await
}

async fn in_bulk<F: Future<Output = Result<()>>>(count: usize, start: impl Fn(Range<usize>) -> F) -> Result<()> {
    for from in (0..count).step_by(BULK) {
        start(from..count.min(from + BULK)).await?;
    }
    Ok(())
}

/// Run one worker until nothing is left of workflows that have so many steps together.
pub(crate) async fn drain(bench: &Bench, steps: usize) -> Result<()> {
    let until_done = STEPS_DONE.load(Ordering::Relaxed) + steps as u64;
    let worker = worker(bench).await?;
    drained(bench, until_done).await?;
    worker.shutdown(Duration::from_secs(10)).await;
    Ok(())
}

/// Wait until so many steps were done in this process, and nothing is left.
pub(crate) async fn drained(bench: &Bench, until_done: u64) -> Result<()> {
    // First from memory, because to ask the database all the time would cost it something.
    let deadline = Instant::now() + PATIENCE;
    while STEPS_DONE.load(Ordering::Relaxed) < until_done {
        ensure!(Instant::now() < deadline, "the queue is not drained after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    until(&bench.pool, "select count(*) = $1 from durable.workflow where status <> 'completed'", 0).await
}

/// A worker that drains.
pub(crate) async fn worker(bench: &Bench) -> Result<Durable> {
    let pool = PgPool::connect_lazy(&bench.url)?;
    let builder = Durable::builder(pool).migrate(false).concurrency(CONCURRENCY).register(one_step);
    Ok(builder.register(ten_steps).start().await?)
}

/// Workflows per second of callers that each start one after the other.
pub(crate) async fn enqueue_singly(bench: &Bench) -> Result<f64> {
    bench.fresh().await?;
    let client = client(bench).await?;
    let (started, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut callers: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..CALLERS {
        let (client, started, stop) = (client.clone(), started.clone(), stop.clone());
        callers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                client.start(one_step(200)).await?;
                started.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    tokio::time::sleep(bench.pace.warm_up).await;
    let (began, before) = (Instant::now(), started.load(Ordering::Relaxed));
    tokio::time::sleep(bench.pace.ours).await;
    let rate = (started.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    Ok(rate)
}

pub(crate) async fn client(bench: &Bench) -> Result<Durable> {
    Ok(Durable::builder(PgPool::connect_lazy(&bench.url)?).migrate(false).client().await?)
}
