//! Arguments and outputs are stored, so they own what they hold: one error each, saying what to take instead.

use std::borrow::Cow;

use anyhow::Result;
use durable::{Ctx, step, workflow};

#[step]
async fn text(name: &str) -> Result<String> {
    Ok(name.to_owned())
}

#[step]
async fn slice(names: &[String]) -> Result<usize> {
    Ok(names.len())
}

#[step]
async fn nested(names: Vec<&str>) -> Result<usize> {
    Ok(names.len())
}

#[step]
async fn named<'a>(name: &'a str, other: i32) -> Result<i32> {
    Ok(other + name.len() as i32)
}

#[step]
async fn hidden(name: Cow<'_, str>) -> Result<usize> {
    Ok(name.len())
}

#[step]
async fn output(name: String) -> Result<&'static str> {
    drop(name);
    Ok("done")
}

#[workflow]
async fn body(ctx: &Ctx, name: &String) -> Result<usize> {
    ctx.run(text(name)).await?;
    ctx.run(nested(vec![name])).await?;
    Ok(name.len())
}

fn main() {}
