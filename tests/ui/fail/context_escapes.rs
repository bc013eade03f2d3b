//! The context is lent to the body: a task that outlives the body cannot take it along.

use anyhow::Result;
use durable::{Ctx, step, workflow};

#[step]
async fn double(n: i32) -> Result<i32> {
    Ok(n * 2)
}

#[workflow]
async fn leaks_the_context(ctx: &Ctx) -> Result<()> {
    tokio::spawn(async move {
        let _ = ctx.run(double(1)).await;
    });
    Ok(())
}

fn main() {}
