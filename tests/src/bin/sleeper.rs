//! A worker process whose workflows sleep, for the test of what waiting costs: it tells its memory and its tasks
//! for every line that it is sent, and ends with its input.

use std::io::BufRead;

use durable::{Ctx, Durable, days, workflow};
use sqlx::PgPool;

#[workflow]
async fn long_sleep(ctx: &Ctx, luggage: String) -> anyhow::Result<usize> {
    ctx.sleep(days(30)).await?;
    Ok(luggage.len())
}

fn main() -> anyhow::Result<()> {
    let url = std::env::args().nth(1).ok_or_else(|| anyhow::anyhow!("usage: sleeper DATABASE-URL"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let _durable = runtime.block_on(async {
        let pool = PgPool::connect(&url).await?;
        anyhow::Ok(Durable::builder(pool).migrate(false).register(long_sleep).start().await?)
    })?;
    for line in std::io::stdin().lock().lines() {
        line?;
        println!("{} {}", resident_kb()?, runtime.metrics().num_alive_tasks());
    }
    Ok(())
}

/// What Linux says this process holds in memory; 0 elsewhere.
fn resident_kb() -> anyhow::Result<u64> {
    if !cfg!(target_os = "linux") {
        return Ok(0);
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb = line.and_then(|rest| rest.split_whitespace().next());
    Ok(kb.ok_or_else(|| anyhow::anyhow!("no VmRSS in /proc/self/status"))?.parse()?)
}
