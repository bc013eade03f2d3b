//! Options that are unknown, given twice, or of a wrong value: one error each, at the option or its value.

use anyhow::Result;
use durable::{Ctx, step, workflow};

#[step(timeot = "30s")]
async fn misspelt() -> Result<()> {
    Ok(())
}

#[step(retry(attempts = 3))]
async fn misspelt_inside() -> Result<()> {
    Ok(())
}

#[step(colour = "red")]
async fn unknown() -> Result<()> {
    Ok(())
}

#[step(name = "a", timeout = "1s", name = "b")]
async fn twice() -> Result<()> {
    Ok(())
}

#[step(timeout = 30)]
async fn number_for_duration() -> Result<()> {
    Ok(())
}

#[step(timeout = "30")]
async fn no_unit() -> Result<()> {
    Ok(())
}

#[step(timeout = "30sec")]
async fn unknown_unit() -> Result<()> {
    Ok(())
}

#[step(timeout = "0s")]
async fn no_time_at_all() -> Result<()> {
    Ok(())
}

#[step(name = 1)]
async fn number_for_name() -> Result<()> {
    Ok(())
}

#[step(name = "")]
async fn empty_name() -> Result<()> {
    Ok(())
}

#[step(name = "two\nlines")]
async fn control_character() -> Result<()> {
    Ok(())
}

#[step(retry = 3)]
async fn retry_as_value() -> Result<()> {
    Ok(())
}

#[step(retry(max_attempts = 0))]
async fn no_attempt() -> Result<()> {
    Ok(())
}

#[step(retry(max_attempts = "3"))]
async fn text_for_number() -> Result<()> {
    Ok(())
}

#[step(retry(factor = 0.5))]
async fn shrinking() -> Result<()> {
    Ok(())
}

#[step(retry(jitter = 1.5))]
async fn too_much_jitter() -> Result<()> {
    Ok(())
}

#[step(retry(first = "2m"))]
async fn first_above_default_max() -> Result<()> {
    Ok(())
}

#[step(tx = true)]
async fn flag_with_value() -> Result<()> {
    Ok(())
}

#[step(version = 2)]
async fn step_with_version() -> Result<()> {
    Ok(())
}

#[step(limit = "")]
async fn empty_limit() -> Result<()> {
    Ok(())
}

#[step(limit = "two\nlines")]
async fn control_character_in_limit() -> Result<()> {
    Ok(())
}

#[step(limit = 20)]
async fn number_for_limit() -> Result<()> {
    Ok(())
}

#[step(limit("openai"))]
async fn limit_in_parentheses() -> Result<()> {
    Ok(())
}

#[step(limit = concat!("open", "ai"))]
async fn computed_limit() -> Result<()> {
    Ok(())
}

#[workflow(timeout = "30s")]
async fn workflow_with_timeout(_ctx: &Ctx) -> Result<()> {
    Ok(())
}

#[workflow(retry(max_attempts = 3))]
async fn workflow_with_retry(_ctx: &Ctx) -> Result<()> {
    Ok(())
}

#[workflow(tx)]
async fn workflow_with_tx(_ctx: &Ctx) -> Result<()> {
    Ok(())
}

#[workflow(version = 0)]
async fn version_zero(_ctx: &Ctx) -> Result<()> {
    Ok(())
}

#[workflow(version = 2147483648)]
async fn version_too_large(_ctx: &Ctx) -> Result<()> {
    Ok(())
}

#[workflow(limit = "openai")]
async fn workflow_with_limit(_ctx: &Ctx) -> Result<()> {
    Ok(())
}

fn main() {}
