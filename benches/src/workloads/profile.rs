//! Where the processors' time of a unit of work goes: this process, the server's sessions by what they are for, others,
//! nothing. For what is measured in the rows, and for the limits beside them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::closed::{self, Load};
use super::{processes, queue};
use crate::bare;
use crate::bench::Bench;
use crate::cpu::Cpu;
use crate::limits;
use crate::workflows::STEPS_DONE;

/// What is taken apart, by its id.
pub(crate) const IDS: [&str; 12] = [
    "profile-w1-1",
    "profile-sequential",
    "profile-w1-32",
    "profile-w1-256",
    "profile-w1-2000",
    "profile-w4",
    "profile-w3-bulk",
    "profile-w3-drain",
    "profile-processes-1",
    "profile-processes-2",
    "profile-limit-a",
    "profile-limit-c",
];

/// The one in the picture.
pub(crate) const PICTURED: &str = "profile-w1-256";

/// Sessions that nobody knows: those of pgbench, and the server's own processes.
const UNKNOWN: &str = "others";

/// Microseconds of processor time per unit of work, over all processors.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Profile {
    pub(crate) id: &'static str,
    /// What is counted: a step, a transaction, a workflow.
    pub(crate) unit: &'static str,
    pub(crate) per_s: f64,
    /// The library, the bodies, the driver; the load's own tasks.
    pub(crate) client_us: f64,
    pub(crate) server_us: f64,
    /// Of that, what sessions took, by what the library says they are for.
    pub(crate) sessions_us: BTreeMap<String, f64>,
    pub(crate) other_us: f64,
    pub(crate) idle_us: f64,
    /// What sessions waited for WAL to be written and flushed, beside the above; `None` where the server does not say.
    pub(crate) wal_us: Option<f64>,
}

/// What was done while it was looked at.
struct Done {
    unit: &'static str,
    count: f64,
    took: Duration,
    cpu: Cpu,
    /// Who the sessions were, by process.
    names: Vec<(u32, String)>,
}

pub(crate) async fn profile(bench: &Bench, id: &'static str) -> Result<Profile> {
    bench.fresh().await?;
    bench.set("track_wal_io_timing", "on").await?;
    let (waited, before) = (wal_waits(bench).await?, STEPS_DONE.load(Ordering::Relaxed));
    let done = work(bench, id).await.with_context(|| format!("could not take {id} apart"))?;
    // A session tells its waits at its end.
    bench.alone().await?;
    let all = (STEPS_DONE.load(Ordering::Relaxed) - before) as f64;
    let waited = wal_waits(bench).await?.zip(waited).map(|(after, before)| (after - before) * 1_000.0 / all);
    bench.set("track_wal_io_timing", "off").await?;
    Ok(done.profile(id, waited.filter(|_| all > 0.0)))
}

/// Do what the id says for a while.
async fn work(bench: &Bench, id: &str) -> Result<Done> {
    let plain = Load::Plain { bytes: 200 };
    match id {
        "profile-w1-1" => steps(bench, 1, plain, "step").await,
        "profile-sequential" => sequential(bench).await,
        "profile-w1-32" => steps(bench, 32, plain, "step").await,
        "profile-w1-256" => steps(bench, 256, plain, "step").await,
        "profile-w1-2000" => steps(bench, 2_000, plain, "step").await,
        "profile-w4" => steps(bench, 32, Load::Transactional, "transaction").await,
        "profile-w3-bulk" => in_bulk(bench).await,
        "profile-w3-drain" => drained(bench).await,
        "profile-processes-1" => apart(bench, 1).await,
        "profile-processes-2" => apart(bench, 2).await,
        "profile-limit-a" => limit(bench, limits::Script::Single, "row").await,
        _ => limit(bench, limits::Script::Update, "transaction").await,
    }
}

async fn steps(bench: &Bench, in_flight: usize, load: Load, unit: &'static str) -> Result<Done> {
    let worker = closed::worker(&bench.url, in_flight).await?;
    let mut before = None;
    let (measured, cpu) = closed::measure(&worker, bench.pace, in_flight, load, || {
        let now = Cpu::now(bench.server_pid)?;
        Some(now.since(before.get_or_insert_with(|| now.clone())))
    })
    .await?;
    let names = sessions(bench).await?;
    worker.shutdown(Duration::from_secs(10)).await;
    let took = bench.pace.ours;
    Ok(Done { unit, count: measured.steps_per_s * took.as_secs_f64(), took, cpu: seen(cpu)?, names })
}

/// The client that `w1-1` is beside: twelve plain statements for ten steps.
async fn sequential(bench: &Bench) -> Result<Done> {
    let before = seen(Cpu::now(bench.server_pid))?;
    let began = Instant::now();
    let found = bare::sequential(bench).await?;
    let took = began.elapsed();
    bench.alone().await?;
    let cpu = seen(Cpu::now(bench.server_pid))?.since(&before);
    // Its warm-up is the same as what is counted.
    Ok(Done { unit: "step", count: found.steps_per_s * took.as_secs_f64(), took, cpu, names: Vec::new() })
}

async fn drained(bench: &Bench) -> Result<Done> {
    let count = 50_000 / bench.pace.divide as usize;
    queue::enqueue_one_step(bench, count).await?;
    let until_done = STEPS_DONE.load(Ordering::Relaxed) + count as u64;
    let worker = queue::worker(bench).await?;
    let (before, began) = (seen(Cpu::now(bench.server_pid))?, Instant::now());
    queue::drained(bench, until_done).await?;
    let (after, took) = (seen(Cpu::now(bench.server_pid))?, began.elapsed());
    let names = sessions(bench).await?;
    worker.shutdown(Duration::from_secs(10)).await;
    Ok(Done { unit: "workflow", count: count as f64, took, cpu: after.since(&before), names })
}

async fn in_bulk(bench: &Bench) -> Result<Done> {
    let count = 50_000 / bench.pace.divide as usize;
    let client = queue::client(bench).await?;
    let (before, began) = (seen(Cpu::now(bench.server_pid))?, Instant::now());
    queue::enqueue_one_step_by(&client, count).await?;
    let (after, took) = (seen(Cpu::now(bench.server_pid))?, began.elapsed());
    let names = sessions(bench).await?;
    Ok(Done { unit: "workflow", count: count as f64, took, cpu: after.since(&before), names })
}

/// W1 at 256 in processes of their own, whose time shows as that of others.
async fn apart(bench: &Bench, processes: usize) -> Result<Done> {
    let mut children = processes::loops(bench, processes, 256).await?;
    // Once to warm up, because what is counted has its warm-up with it.
    processes::together(&mut children).await?;
    let (before, began) = (seen(Cpu::now(bench.server_pid))?, Instant::now());
    let per_s = processes::together(&mut children).await?;
    let (after, took) = (seen(Cpu::now(bench.server_pid))?, began.elapsed());
    let names = sessions(bench).await?;
    Ok(Done { unit: "step", count: per_s * took.as_secs_f64(), took, cpu: after.since(&before), names })
}

async fn limit(bench: &Bench, script: limits::Script, unit: &'static str) -> Result<Done> {
    let before = seen(Cpu::now(bench.server_pid))?;
    let per_s = limits::run(bench, script, 32).await?;
    // The server counts what a session took once it has ended.
    bench.alone().await?;
    let after = seen(Cpu::now(bench.server_pid))?;
    let took = bench.pace.limit;
    // What comes before and after the seconds that pgbench counts shows as idle.
    Ok(Done { unit, count: per_s * took.as_secs_f64(), took, cpu: after.since(&before), names: Vec::new() })
}

fn seen(cpu: Option<Cpu>) -> Result<Cpu> {
    cpu.context("processor time is measured on Linux only")
}

impl Done {
    fn profile(self, id: &'static str, wal_us: Option<f64>) -> Profile {
        let each = |seconds: f64| seconds.max(0.0) * 1e6 / self.count;
        let cpu = &self.cpu;
        let mut sessions_us = BTreeMap::new();
        for (pid, seconds) in &cpu.sessions {
            let name = self.names.iter().find(|(of, _)| of == pid).map_or(UNKNOWN, |(_, name)| name.as_str());
            *sessions_us.entry(name.to_owned()).or_default() += each(*seconds);
        }
        Profile {
            id,
            unit: self.unit,
            per_s: self.count / self.took.as_secs_f64(),
            client_us: each(cpu.client),
            server_us: each(cpu.server),
            sessions_us,
            other_us: each(cpu.busy - cpu.client - cpu.server),
            idle_us: each(cpu.idle),
            wal_us,
        }
    }
}

/// The sessions by process, and what each says that it is for.
async fn sessions(bench: &Bench) -> Result<Vec<(u32, String)>> {
    let names = "select pid, coalesce(nullif(split_part(application_name, ' ', 2), ''), 'transactions') from pg_stat_activity \
                 where backend_type = 'client backend' and pid <> pg_backend_pid()";
    let rows: Vec<(i32, String)> = sqlx::query_as(names).fetch_all(&bench.pool).await?;
    Ok(rows.into_iter().map(|(pid, name)| (pid.unsigned_abs(), name)).collect())
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
