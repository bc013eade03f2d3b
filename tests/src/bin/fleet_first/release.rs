//! The code of the first release of an application: everything as it was at first.

use anyhow::Result;
use durable::{Builder, Ctx, workflow};
use durable_tests::fleet::{act, pause};

/// What its workers have.
pub(crate) fn register(builder: Builder) -> Builder {
    builder.register(order).register(visit).register(ticker)
}

/// An order, version 1.
#[workflow]
pub async fn order(ctx: &Ctx) -> Result<i32> {
    ctx.run(act("reserve".to_owned())).await?;
    pause(ctx).await?;
    ctx.run(act("charge".to_owned())).await?;
    Ok(1)
}

/// Gives whether it was greeted.
#[workflow]
pub async fn visit(ctx: &Ctx) -> Result<bool> {
    ctx.run(act("arrive".to_owned())).await?;
    pause(ctx).await?;
    ctx.run(act("leave".to_owned())).await?;
    Ok(false)
}

/// Ticks for ever.
#[workflow]
pub async fn ticker(ctx: &Ctx, round: i64) -> Result<i64> {
    ctx.run(act(format!("tick {round}"))).await?;
    pause(ctx).await?;
    ctx.continue_as_new(ticker(round + 1)).await
}
