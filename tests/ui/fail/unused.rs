//! A step that is described but never done, or not waited for.

#![deny(unused_must_use)]

use anyhow::Result;
use durable::{Ctx, step, workflow};

#[step]
async fn double(n: i32) -> Result<i32> {
    Ok(n * 2)
}

#[workflow]
async fn forgets_to_run(_ctx: &Ctx) -> Result<()> {
    double(1);
    Ok(())
}

#[workflow]
async fn forgets_to_await(ctx: &Ctx) -> Result<()> {
    ctx.run(double(1));
    Ok(())
}

fn main() {}
