//! A deploy in the middle of workflows: those that are past the changed place go the old way, those that come to it go the new
//! one, and an old version runs beside a new one.
//!
//! ```text
//! cargo run -p durable-examples --bin patched
//! ```

use anyhow::Result;
use durable::{Ctx, Durable, seconds, step, workflow};
use sqlx::PgPool;

#[step]
async fn act(what: String, order: String) -> Result<()> {
    println!("  {what} {order}");
    Ok(())
}

/// What was deployed first.
mod before {
    use super::*;

    #[workflow]
    pub async fn sell(ctx: &Ctx, order: String) -> Result<()> {
        ctx.run(act("reserve".into(), order.clone())).await?;
        ctx.sleep(seconds(2)).await?;
        ctx.run(act("charge".into(), order)).await?;
        Ok(())
    }
}

/// The next deploy. A small change is patched into the version that there is; a large one is a version of its own, beside the
/// one that live workflows began with.
mod after {
    use super::*;

    #[workflow]
    pub async fn sell(ctx: &Ctx, order: String) -> Result<()> {
        if ctx.patched("check the stock").await {
            ctx.run(act("check the stock for".into(), order.clone())).await?;
        }
        ctx.run(act("reserve".into(), order.clone())).await?;
        ctx.sleep(seconds(2)).await?;
        // Nobody has come here yet, so nobody is too late for this one.
        if ctx.patched("check the card").await {
            ctx.run(act("check the card for".into(), order.clone())).await?;
        }
        ctx.run(act("charge".into(), order)).await?;
        Ok(())
    }

    #[workflow(name = "sell", version = 2)]
    pub async fn sell_2(ctx: &Ctx, order: String, cents: i64) -> Result<()> {
        ctx.run(act(format!("charge {cents} for"), order.clone())).await?;
        ctx.run(act("deliver".into(), order)).await?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    // A worker that comes with other code than live workflows began with says so.
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).without_time().init();
    let database = durable_dev::Database::dev("patched")?;
    let pool = PgPool::connect(database.url()).await?;

    println!("the first deploy:");
    let first = Durable::builder(pool.clone()).register(before::sell).start().await?;
    let tea = first.start(before::sell("tea".into())).await?;
    // Its first step is recorded, and it sleeps.
    while tea.steps().await?.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    first.shutdown(seconds(5)).await;

    println!("the second deploy:");
    let second = Durable::builder(pool).register(after::sell).register(after::sell_2).start().await?;
    // Tea is past the first place, and comes to the second one for the first time.
    second.workflow::<()>(tea.id()).result().await?;
    println!("started since:");
    second.start(after::sell("coffee".into())).await?.result().await?;
    second.start(after::sell_2("cocoa".into(), 450)).await?.result().await?;

    second.shutdown(seconds(5)).await;
    Ok(())
}
