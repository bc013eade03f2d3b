//! What a workflow runs is a step or a workflow.

use durable::{Ctx, workflow};

#[workflow]
async fn child(_ctx: &Ctx, n: i64) -> anyhow::Result<i64> {
    Ok(n)
}

#[workflow]
async fn parent(ctx: &Ctx) -> anyhow::Result<i64> {
    let _number = ctx.run(42);
    let _without_its_parameters = ctx.run(child);
    let _step_options = ctx.run(child(1)).retry(3);
    Ok(0)
}

fn main() {}
