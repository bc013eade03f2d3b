//! A workflow for schedules, each of whose ticks leaves a trace, and what must be true of these traces.

use anyhow::{Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use durable::{CatchUp, Ctx, Overlap, PgConnection, Schedule, StepCtx, seconds, step, workflow};
use sqlx::PgPool;

use crate::effects;

/// The schedule's name.
pub const NAME: &str = "clockwork";

/// Leaves its trace.
#[workflow]
pub async fn clockwork(ctx: &Ctx) -> Result<()> {
    let tick = ctx.scheduled_at().map(|tick| tick.to_rfc3339());
    Ok(ctx.run(trace(tick.unwrap_or_default())).await?)
}

#[step(tx)]
async fn trace(tx: &mut PgConnection, step: &StepCtx, tick: String) -> Result<()> {
    Ok(effects::write(tx, step, "trace", &tick).await?)
}

/// It ticks every second, and no tick may be lost.
pub fn every_second() -> Schedule {
    let every = Schedule::new(NAME, clockwork()).every(seconds(1));
    every.catch_up(CatchUp::all(1_000)).overlap(Overlap::Allow)
}

/// How many traces there are. They are of every second from the first one to the last, one each.
pub async fn in_a_row(pool: &PgPool) -> Result<usize> {
    let traces = "select value from effect where step = 'trace' order by value";
    let ticks: Vec<String> = sqlx::query_scalar(traces).fetch_all(pool).await?;
    let ticks: Vec<DateTime<Utc>> = ticks.iter().map(|tick| tick.parse()).collect::<Result<_, _>>()?;
    for two in ticks.windows(2) {
        ensure!(two[1] - two[0] == TimeDelta::seconds(1), "from {} to {}", two[0], two[1]);
    }
    Ok(ticks.len())
}

/// Each tick has started one workflow, which has left one trace, and no second is missing. How many there are.
pub async fn check(pool: &PgPool) -> Result<usize> {
    let ticks = in_a_row(pool).await?;
    let workflows = "select count(*) from durable.workflow where name = 'clockwork'";
    let workflows: i64 = sqlx::query_scalar(workflows).fetch_one(pool).await?;
    ensure!(usize::try_from(workflows)? == ticks, "{workflows} workflows, {ticks} traces");
    let counts = "select started, missed, skipped from durable.schedule";
    let counts: (i64, i64, i64) = sqlx::query_as(counts).fetch_one(pool).await?;
    ensure!(counts == (workflows, 0, 0), "{workflows} workflows; started, missed, skipped: {counts:?}");
    Ok(ticks)
}
