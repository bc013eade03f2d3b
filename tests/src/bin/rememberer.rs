//! A worker process that goes on with one long workflow, for the test of what a recovery takes: it tells the peak of
//! its memory before the workflow is claimed and after it has completed.

use std::io::BufRead;

use durable::{Ctx, Durable, step, workflow};
use sqlx::PgPool;

#[step]
async fn page_of_text(n: i64) -> anyhow::Result<String> {
    anyhow::bail!("step {n} was recorded, and is not run again")
}

#[workflow]
async fn read_all(ctx: &Ctx, steps: i64) -> anyhow::Result<usize> {
    let mut length = 0;
    for n in 0..steps {
        length += ctx.run(page_of_text(n)).await?.len();
    }
    Ok(length)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::args().nth(1).ok_or_else(|| anyhow::anyhow!("usage: rememberer DATABASE-URL < IDS"))?;
    let durable = Durable::builder(PgPool::connect(&url).await?).migrate(false).register(read_all).start().await?;
    println!("{}", peak_kb()?);
    for id in std::io::stdin().lock().lines() {
        let length = durable.workflow::<usize>(id?.as_str()).result().await?;
        println!("{} {length}", peak_kb()?);
    }
    Ok(())
}

/// The most that Linux says this process has held in memory; 0 elsewhere.
fn peak_kb() -> anyhow::Result<u64> {
    if !cfg!(target_os = "linux") {
        return Ok(0);
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kb = line.and_then(|rest| rest.split_whitespace().next());
    Ok(kb.ok_or_else(|| anyhow::anyhow!("no VmHWM in /proc/self/status"))?.parse()?)
}
