//! W1 and W4: a closed loop of so many callers, each starting a workflow, awaiting its result, and starting the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use durable::Durable;
use sqlx::PgPool;
use tokio::task::JoinSet;

use crate::bench::{ACCOUNTS, Pace};
use crate::sample::{Latencies, percentiles};
use crate::workflows::{STEPS_DONE, ten_deposits, ten_steps};

/// What the callers do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load {
    /// Workflows of ten plain steps that return so many bytes.
    Plain { bytes: usize },
    /// Workflows of ten transactional steps, each on a row of its own choice.
    Transactional,
}

pub(crate) struct Loop {
    pub(crate) steps_per_s: f64,
    pub(crate) latencies: Latencies,
}

/// The library's schema, where nothing else is said.
const SCHEMA: &str = "durable";

/// The phases of a loop, as its callers see them.
const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const ENDING: u8 = 2;

/// Run the loop with a worker of its own in this process.
pub(crate) async fn run(url: &str, pace: Pace, in_flight: usize, load: Load) -> Result<Loop> {
    run_in(url, SCHEMA, pace, in_flight, load).await
}

/// The same in a schema with another name.
pub(crate) async fn run_in(url: &str, schema: &str, pace: Pace, in_flight: usize, load: Load) -> Result<Loop> {
    let durable = worker_in(url, schema, in_flight).await?;
    let measured = measure(&durable, pace, in_flight, load, || ()).await.map(|(measured, ())| measured);
    durable.shutdown(Duration::from_secs(10)).await;
    measured
}

/// A worker with room to spare: a place is free again a moment after its result is known.
pub(crate) async fn worker(url: &str, in_flight: usize) -> Result<Durable> {
    worker_in(url, SCHEMA, in_flight).await
}

async fn worker_in(url: &str, schema: &str, in_flight: usize) -> Result<Durable> {
    let pool = PgPool::connect_lazy(url)?;
    let builder = Durable::builder(pool).schema(schema).migrate(false).concurrency(in_flight * 2).register(ten_steps);
    Ok(builder.register(ten_deposits).start().await?)
}

/// Warm up, measure, end. `observe` is called at the beginning and the end of what is measured; its last value is
/// given back.
pub(crate) async fn measure<T>(
    durable: &Durable,
    pace: Pace,
    in_flight: usize,
    load: Load,
    mut observe: impl FnMut() -> T,
) -> Result<(Loop, T)> {
    let phase = Arc::new(AtomicU8::new(WARMING));
    let mut callers = JoinSet::new();
    for n in 0..in_flight {
        callers.spawn(call(durable.clone(), load, n as u64, phase.clone()));
    }
    tokio::time::sleep(pace.warm_up).await;
    phase.store(MEASURING, Ordering::Relaxed);
    observe();
    let (began, before) = (Instant::now(), STEPS_DONE.load(Ordering::Relaxed));
    tokio::time::sleep(pace.ours).await;
    let steps = STEPS_DONE.load(Ordering::Relaxed) - before;
    let seconds = began.elapsed().as_secs_f64();
    let observed = observe();
    phase.store(ENDING, Ordering::Relaxed);
    let mut took = Vec::new();
    while let Some(ended) = callers.join_next().await {
        took.extend(ended?.context("a workflow of the closed loop failed")?);
    }
    Ok((Loop { steps_per_s: steps as f64 / seconds, latencies: percentiles(took) }, observed))
}

/// How long each workflow took that began and ended while it was measured.
async fn call(durable: Durable, load: Load, seed: u64, phase: Arc<AtomicU8>) -> Result<Vec<Duration>> {
    let mut took = Vec::new();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    loop {
        let at_start = phase.load(Ordering::Relaxed);
        if at_start == ENDING {
            return Ok(took);
        }
        let start = Instant::now();
        match load {
            Load::Plain { bytes } => durable.start(ten_steps(bytes)).await?.result().await?,
            Load::Transactional => durable.start(ten_deposits(ten_accounts(&mut state))).await?.result().await?,
        };
        if at_start == MEASURING && phase.load(Ordering::Relaxed) == MEASURING {
            took.push(start.elapsed());
        }
    }
}

fn ten_accounts(state: &mut u64) -> Vec<i64> {
    let mut next = || {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state % ACCOUNTS.unsigned_abs()) as i64 + 1
    };
    (0..10).map(|_| next()).collect()
}
