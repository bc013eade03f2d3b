//! W5: what suspended workflows cost, in the memory of the process that runs them and beside others in the tables.

use std::time::Duration;

use anyhow::{Context, Result};
use durable::Durable;
use sqlx::PgPool;

use super::closed::{self, Load};
use super::processes::{Child, Role, order, resident_kb, say};
use super::until;
use crate::bench::Bench;
use crate::catalog::Rounds;
use crate::load;
use crate::sample::median;
use crate::workflows::sleeper;

/// Workflows that fall asleep before the first look, so that the allocator has what it needs for a while.
const WARM_UP: usize = 30_000;
const BULK: usize = 10_000;

/// Bytes of the process per workflow that is asleep.
pub(crate) async fn memory(bench: &Bench) -> Result<f64> {
    bench.fresh().await?;
    let count = 100_000 / bench.pace.divide as usize;
    let mut child = Child::start(&Role::Sleepers { url: bench.url.clone() }).await?;
    let mut resident = Vec::new();
    for (asleep, more) in [(WARM_UP, WARM_UP), (WARM_UP + count, count)] {
        child.ask(&format!("{more}")).await?;
        let all = "select count(*) = $1 from durable.workflow where status = 'suspended'";
        until(&bench.pool, all, asleep as i64).await?;
        // The last suspensions have committed; what they held is freed a moment later.
        tokio::time::sleep(Duration::from_millis(500)).await;
        resident.push(child.ask("memory").await?.parse::<f64>()?);
    }
    Ok((resident[1] - resident[0]).max(0.0) * 1024.0 / count as f64)
}

/// A worker that puts to sleep as many as it is told, and tells its memory.
pub(crate) async fn child(url: &str) -> Result<()> {
    let pool = PgPool::connect_lazy(url)?;
    let durable = Durable::builder(pool).migrate(false).register(sleeper).start().await?;
    let mut begun = 0;
    say("ready");
    while let Some(order) = order().await {
        if order == "memory" {
            say(&resident_kb()?.to_string());
            continue;
        }
        let count: usize = order.parse().context("a number of workflows")?;
        for from in (begun..begun + count).step_by(BULK) {
            let ids = from..(begun + count).min(from + BULK);
            durable.start_many(ids.map(|n| (format!("asleep-{n:08}"), sleeper(1)))).await?;
        }
        begun += count;
        say("started");
    }
    Ok(())
}

/// Steps per second, beside the sleepers and without them.
pub(crate) struct Beside {
    pub(crate) steps_per_s: f64,
    pub(crate) without: f64,
}

/// How often the two take turns.
const TURNS: usize = 4;

/// W1 at 256 beside so many workflows that sleep, and the same in a schema that has none, by turns: what drifts in
/// between, and what the loading of the rows has left behind, is the same for both.
pub(crate) async fn beside(bench: &Bench, asleep: u32) -> Result<Beside> {
    bench.fresh().await?;
    load::sleepers(bench, asleep).await?;
    let empty = "drop schema if exists quiet cascade";
    sqlx::raw_sql(empty).execute(&bench.pool).await.context("could not drop the other schema")?;
    durable::migrate(&bench.pool, "quiet").await?;
    let pace = bench.pace.in_turns(Rounds::InShortTurns);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        for (schema, found) in [("quiet", &mut without), ("durable", &mut with)] {
            let load = Load::Plain { bytes: 200 };
            found.push(closed::run_in(&bench.url, schema, pace, 256, load).await?.steps_per_s);
        }
    }
    Ok(Beside { steps_per_s: median(&with), without: median(&without) })
}
