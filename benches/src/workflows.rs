//! The workflows that are measured.

use std::sync::atomic::{AtomicU64, Ordering};

use durable::{Ctx, PgConnection, days, step, workflow};

use crate::payload::Page;

/// Steps that came back recorded to their bodies, in this process.
pub(crate) static STEPS_DONE: AtomicU64 = AtomicU64::new(0);

#[step]
pub(crate) async fn work(n: u32, bytes: usize) -> anyhow::Result<Page> {
    Ok(Page::of(n, bytes))
}

/// Ten steps in a row, each returning so many bytes of JSON.
#[workflow]
pub(crate) async fn ten_steps(ctx: &Ctx, bytes: usize) -> anyhow::Result<u32> {
    let mut sum = 0;
    for n in 0..10 {
        sum += ctx.run(work(n, bytes)).await?.n;
        STEPS_DONE.fetch_add(1, Ordering::Relaxed);
    }
    Ok(sum)
}

/// One step.
#[workflow]
pub(crate) async fn one_step(ctx: &Ctx, bytes: usize) -> anyhow::Result<u32> {
    let page = ctx.run(work(0, bytes)).await?;
    STEPS_DONE.fetch_add(1, Ordering::Relaxed);
    Ok(page.n)
}

/// The limit of [`limited_step`].
pub(crate) const LIMIT: &str = "calls";

#[step(limit = "calls")]
async fn limited_work(bytes: usize) -> anyhow::Result<Page> {
    Ok(Page::of(0, bytes))
}

/// One step that has a limit.
#[workflow]
pub(crate) async fn limited_step(ctx: &Ctx, bytes: usize) -> anyhow::Result<u32> {
    Ok(ctx.run(limited_work(bytes)).await?.n)
}

#[step(tx)]
pub(crate) async fn deposit(tx: &mut PgConnection, account: i64, bytes: usize) -> anyhow::Result<Page> {
    let update = sqlx::query("update bench.account set balance = balance + 1 where id = $1");
    update.bind(account).execute(tx).await?;
    Ok(Page::of(1, bytes))
}

/// Ten transactional steps, each updating one row of the application's.
#[workflow]
pub(crate) async fn ten_deposits(ctx: &Ctx, accounts: Vec<i64>) -> anyhow::Result<u32> {
    let mut sum = 0;
    for account in accounts {
        sum += ctx.run(deposit(account, 200)).await?.n;
        STEPS_DONE.fetch_add(1, Ordering::Relaxed);
    }
    Ok(sum)
}

/// Asleep for as long as anybody measures.
#[workflow]
pub(crate) async fn sleeper(ctx: &Ctx, luggage: u32) -> anyhow::Result<u32> {
    ctx.sleep(days(30)).await?;
    Ok(luggage)
}
