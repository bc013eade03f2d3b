//! The code of the second release: a second version of the order beside the first, a visit that is patched, and a ticker that
//! retires.

use anyhow::Result;
use durable::{Builder, Ctx, workflow};
use durable_tests::fleet::{act, pause};

/// What its workers have.
pub(crate) fn register(builder: Builder) -> Builder {
    builder.register(as_before::order).register(order).register(visit).register(ticker).register(ticker_2)
}

/// What is still there from the first release, for those that it has started.
mod as_before {
    use super::*;

    /// An order, version 1.
    #[workflow]
    pub async fn order(ctx: &Ctx) -> Result<i32> {
        ctx.run(act("reserve".to_owned())).await?;
        pause(ctx).await?;
        ctx.run(act("charge".to_owned())).await?;
        Ok(1)
    }
}

/// An order, version 2: checked before it is charged, with a receipt.
#[workflow(version = 2)]
pub async fn order(ctx: &Ctx) -> Result<i32> {
    for name in ["reserve", "check"] {
        ctx.run(act(name.to_owned())).await?;
    }
    pause(ctx).await?;
    for name in ["charge", "receipt"] {
        ctx.run(act(name.to_owned())).await?;
    }
    Ok(2)
}

/// The same version as before, with something new in the middle.
#[workflow]
pub async fn visit(ctx: &Ctx) -> Result<bool> {
    ctx.run(act("arrive".to_owned())).await?;
    pause(ctx).await?;
    let greeted = ctx.patched("greet").await;
    if greeted {
        ctx.run(act("greet".to_owned())).await?;
    }
    ctx.run(act("leave".to_owned())).await?;
    Ok(greeted)
}

/// Version 1 retires: it ticks once more, and goes on as version 2.
#[workflow]
pub async fn ticker(ctx: &Ctx, round: i64) -> Result<i64> {
    ctx.run(act(format!("tick {round}"))).await?;
    pause(ctx).await?;
    ctx.continue_as_new(ticker_2(round + 1)).await
}

/// Ticks for the last time.
#[workflow(name = "ticker", version = 2)]
pub async fn ticker_2(ctx: &Ctx, round: i64) -> Result<i64> {
    ctx.run(act(format!("tick {round}"))).await?;
    Ok(round)
}
