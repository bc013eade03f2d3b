//! Workflows that wait for one limit around a step: what each of their calls costs in statements, and how much of the rate they use.

use std::time::Duration;

use anyhow::{Context, Result};
use durable::{Durable, Limit};
use sqlx::PgPool;

use super::processes::{Child, Role, order, say};
use super::{cost, queue, until};
use crate::bench::Bench;
use crate::workflows::{LIMIT, limited_step};

/// Workflows that want one call each.
const CALLS: usize = 1_000;

/// Calls that may begin in any second: so all of them take five.
pub(crate) const RATE: u32 = 200;

/// What waiting for a limit has come to.
pub(crate) struct Waited {
    /// Calls per second.
    pub(crate) per_s: f64,
    /// Statements per call, with those of its workflow and without those that have started it.
    pub(crate) statements: f64,
}

/// Have all of them wait, and wait for all of them.
pub(crate) async fn wait(bench: &Bench) -> Result<Waited> {
    bench.fresh().await?;
    let client = queue::client(bench).await?;
    client.start_many((0..CALLS).map(|n| (format!("call-{n:04}"), limited_step(200)))).await?;
    drop(client);
    let before = cost::commits(bench).await?;
    let mut worker = Child::start(&Role::Caller { url: bench.url.clone() }).await?;
    let ended = "select count(*) = $1 from durable.workflow where status = 'completed'";
    until(&bench.pool, ended, i64::try_from(CALLS)?).await.context("not all calls were made")?;
    worker.ask("end").await?;
    worker.kill().await?;
    let spent = cost::commits(bench).await? - before;
    let seconds =
        "select extract(epoch from max(started_at) - min(started_at))::float8 from durable.step where kind = 'step'";
    let seconds: f64 = sqlx::query_scalar(seconds).fetch_one(&bench.pool).await?;
    Ok(Waited { per_s: CALLS as f64 / seconds, statements: spent as f64 / CALLS as f64 })
}

/// A worker that makes the calls, in a process of its own.
pub(crate) async fn child(url: &str) -> Result<()> {
    let limit = Limit::new(LIMIT).rate(RATE, Duration::from_secs(1));
    let builder = Durable::builder(PgPool::connect_lazy(url)?).migrate(false).concurrency(CALLS).register(limited_step);
    let worker = builder.limit(limit).start().await?;
    say("ready");
    while order().await.is_some() {
        worker.shutdown(Duration::from_secs(10)).await;
        say("ended");
    }
    Ok(())
}
