//! Where the time of a step goes, of W1 with 256 in flight.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::closed::{self, Load};
use crate::bench::Bench;
use crate::cpu::Cpu;
use crate::workflows::STEPS_DONE;

/// Microseconds of processor time per step, over all processors.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Profile {
    pub(crate) in_flight: usize,
    pub(crate) steps_per_s: f64,
    pub(crate) client_us: f64,
    pub(crate) server_us: f64,
    pub(crate) other_us: f64,
    pub(crate) idle_us: f64,
    /// What sessions waited for WAL to be written and flushed, beside the above; `None` where the server does not say.
    pub(crate) wal_us: Option<f64>,
}

pub(crate) async fn profile(bench: &Bench, in_flight: usize) -> Result<Profile> {
    bench.fresh().await?;
    bench.set("track_wal_io_timing", "on").await?;
    let worker = closed::worker(&bench.url, in_flight).await?;
    let (waited, steps) = (wal_waits(bench).await?, STEPS_DONE.load(Ordering::Relaxed));
    let mut before = None;
    let load = Load::Plain { bytes: 200 };
    let (measured, cpu) = closed::measure(&worker, bench.pace, in_flight, load, || {
        let now = Cpu::now(bench.server_pid)?;
        Some(now.since(*before.get_or_insert(now)))
    })
    .await?;
    let steps = (STEPS_DONE.load(Ordering::Relaxed) - steps) as f64;
    worker.shutdown(Duration::from_secs(10)).await;
    drop(worker);
    // A session tells its waits at its end.
    bench.alone().await?;
    let waited = wal_waits(bench).await?.zip(waited).map(|(after, before)| (after - before) * 1_000.0 / steps);
    bench.set("track_wal_io_timing", "off").await?;
    let cpu = cpu.context("processor time is measured on Linux only")?;
    let per_step = |seconds: f64| seconds.max(0.0) * 1e6 / (measured.steps_per_s * bench.pace.ours.as_secs_f64());
    Ok(Profile {
        in_flight,
        steps_per_s: measured.steps_per_s,
        client_us: per_step(cpu.client),
        server_us: per_step(cpu.server),
        other_us: per_step(cpu.busy - cpu.client - cpu.server),
        idle_us: per_step(cpu.idle),
        wal_us: waited,
    })
}

/// Milliseconds so far; from PostgreSQL 18 they are counted elsewhere.
async fn wal_waits(bench: &Bench) -> Result<Option<f64>> {
    let version: i32 =
        sqlx::query_scalar("select current_setting('server_version_num')::integer").fetch_one(&bench.pool).await?;
    if version >= 180_000 {
        return Ok(None);
    }
    Ok(Some(sqlx::query_scalar("select wal_write_time + wal_sync_time from pg_stat_wal").fetch_one(&bench.pool).await?))
}
