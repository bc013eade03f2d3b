//! Draining 100,000 workflows: from a queue without limits and from one with them, by several processes, beside what is not due yet, and
//! beside an old snapshot. What it takes in time and in statements.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use durable::{Durable, Queue};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection, PgPool};

use super::processes::{Child, Role, order, say};
use super::{PATIENCE, queue, until};
use crate::bench::Bench;
use crate::load;
use crate::workflows::{STEPS_DONE, one_step};

/// Workflows in one call of a start.
const BULK: usize = 10_000;

/// What a worker is asked for: how many it has run, and to end.
const DONE: &str = "done";
const END: &str = "end";

/// The queue with limits.
const LIMITED: &str = "limited";

/// How many waits for its time beside, or has been drained since the old snapshot was taken; divided as the pace says.
const BESIDE: u32 = 1_000_000;
const SINCE_SNAPSHOT: usize = 300_000;
/// The same of the queue with limits.
const LIMITED_SINCE_SNAPSHOT: usize = 100_000;

/// What is drained, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Line {
    /// From a queue without limits, by so many processes, each with so many in memory.
    Plain(usize, usize),
    /// From a queue with this concurrency, over all.
    Limit(u32),
    /// From one with so many partitions, of each of which so many may run.
    Partitions(usize, u32),
    /// From a queue without limits that holds a million more for tomorrow.
    BesideLater,
    /// While somebody's old snapshot keeps from being cleaned up what was drained since.
    BesideSnapshot,
    /// The same, from a queue with this concurrency.
    LimitBesideSnapshot(u32),
}

/// What a drain has come to.
pub(crate) struct Drained {
    /// Workflows per second.
    pub(crate) per_s: f64,
    /// Statements per workflow, without those that have enqueued it.
    pub(crate) statements: f64,
}

/// Drain a line.
pub(crate) async fn drain(bench: &Bench, line: Line) -> Result<Drained> {
    bench.fresh().await?;
    let divide = bench.pace.divide;
    let mut reader = None;
    match line {
        Line::BesideLater => load::later(bench, BESIDE / divide).await?,
        Line::BesideSnapshot | Line::LimitBesideSnapshot(_) => {
            let mut connection = PgConnection::connect(&bench.url).await?;
            let look = "begin isolation level repeatable read; select count(*) from durable.workflow";
            sqlx::raw_sql(look).execute(&mut connection).await?;
            reader = Some(connection);
            let since = if line == Line::BesideSnapshot { SINCE_SNAPSHOT } else { LIMITED_SINCE_SNAPSHOT };
            let count = since / divide as usize;
            enqueue(bench, line, "before", count).await?;
            by_workers(bench, line, count).await?;
        }
        Line::Plain(..) | Line::Limit(_) | Line::Partitions(..) => {}
    }
    let count = 100_000 / divide as usize;
    enqueue(bench, line, "line", count).await?;
    let before = commits(bench, reader.is_some()).await?;
    by_workers(bench, line, count).await?;
    let spent = commits(bench, reader.is_some()).await? - before;
    // By the database's clock, from the first claim to the last end: the wait looks only now and then.
    let seconds = "select extract(epoch from max(finished_at) - min(claimed_at))::float8 from durable.workflow where id like 'line-%'";
    let seconds: f64 = sqlx::query_scalar(seconds).fetch_one(&bench.pool).await?;
    if let Some(reader) = reader {
        reader.close().await?;
    }
    Ok(Drained { per_s: count as f64 / seconds, statements: spent as f64 / count as f64 })
}

async fn enqueue(bench: &Bench, line: Line, prefix: &str, count: usize) -> Result<()> {
    let client = queue::client(bench).await?;
    let (queue, partitions) = match line {
        Line::Limit(_) | Line::LimitBesideSnapshot(_) => (LIMITED, 1),
        Line::Partitions(partitions, _) => (LIMITED, partitions),
        Line::Plain(..) | Line::BesideLater | Line::BesideSnapshot => ("default", 1),
    };
    let together = BULK.min(count / partitions);
    for from in (0..count).step_by(together) {
        let ids = from..count.min(from + together);
        let start = client.start_many(ids.map(|n| (format!("{prefix}-{n:08}"), one_step(200)))).queue(queue);
        match line {
            Line::Partitions(..) => start.partition(format!("partition-{}", from / together)).await?,
            Line::Plain(..)
            | Line::Limit(_)
            | Line::BesideLater
            | Line::BesideSnapshot
            | Line::LimitBesideSnapshot(_) => start.await?,
        };
    }
    // As autovacuum does when so many have come; it would do so in the middle.
    sqlx::raw_sql("vacuum (analyze) durable.workflow").execute(&bench.pool).await?;
    Ok(())
}

/// Run workers until nothing is left that is due.
async fn by_workers(bench: &Bench, line: Line, count: usize) -> Result<()> {
    let processes = if let Line::Plain(processes, _) = line { processes } else { 1 };
    let role = Role::Drainer { url: bench.url.clone(), line };
    let mut workers = futures::future::try_join_all((0..processes).map(|_| Child::start(&role))).await?;
    // First from their memory: the database would have to look through what else there is, all the time.
    let deadline = Instant::now() + PATIENCE;
    while done_by(&mut workers).await? < count {
        ensure!(Instant::now() < deadline, "{count} workflows of {line:?} are not drained after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left = "select count(*) = $1 from durable.workflow where status in ('queued', 'running', 'suspended') and due_at <= now()";
    until(&bench.pool, left, 0).await.with_context(|| format!("{count} workflows of {line:?} are not drained"))?;
    for mut worker in workers {
        worker.ask(END).await?;
    }
    Ok(())
}

/// How many workflows these workers have run.
async fn done_by(workers: &mut [Child]) -> Result<usize> {
    let mut done = 0;
    for worker in workers {
        done += worker.ask(DONE).await?.parse::<usize>()?;
    }
    Ok(done)
}

/// A worker that drains, in a process of its own.
pub(crate) async fn child(url: &str, line: Line) -> Result<()> {
    let in_memory = if let Line::Plain(_, in_memory) = line { in_memory } else { 2_000 };
    let mut builder =
        Durable::builder(PgPool::connect_lazy(url)?).migrate(false).concurrency(in_memory).register(one_step);
    builder = match line {
        Line::Limit(most) | Line::LimitBesideSnapshot(most) => builder.serve(Queue::new(LIMITED).concurrency(most)),
        Line::Partitions(_, each) => builder.serve(Queue::new(LIMITED).concurrency_per_partition(each)),
        Line::Plain(..) | Line::BesideLater | Line::BesideSnapshot => builder,
    };
    let worker = builder.start().await?;
    say("ready");
    while let Some(order) = order().await {
        if order == DONE {
            say(&STEPS_DONE.load(Ordering::Relaxed).to_string());
            continue;
        }
        worker.shutdown(Duration::from_secs(10)).await;
        say("ended");
    }
    Ok(())
}

/// Transactions so far; what workers send are transactions of their own. Sessions add theirs when they end.
async fn commits(bench: &Bench, with_reader: bool) -> Result<i64> {
    bench.alone_but(i64::from(with_reader)).await?;
    let count = "select xact_commit from pg_stat_database where datname = current_database()";
    Ok(sqlx::query_scalar(count).fetch_one(&bench.pool).await?)
}
