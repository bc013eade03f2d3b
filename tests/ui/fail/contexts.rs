//! Contexts that are missing, misplaced, or not for this kind of function: one error each.

use anyhow::Result;
use durable::{Call, Ctx, PgConnection, StepCtx, step, workflow};
use sqlx::{Postgres, Transaction};

#[step]
async fn double(n: i32) -> Result<i32> {
    Ok(n * 2)
}

#[workflow]
async fn forgotten(n: i32) -> Result<i32> {
    Ok(ctx.run(double(n)).await?)
}

#[workflow]
async fn by_value(ctx: Ctx) -> Result<i32> {
    Ok(ctx.run(double(1)).await?)
}

#[workflow]
async fn exclusive(ctx: &mut Ctx) -> Result<i32> {
    Ok(ctx.run(double(1)).await?)
}

#[workflow]
async fn last(n: i32, ctx: &Ctx) -> Result<i32> {
    Ok(ctx.run(double(n)).await?)
}

#[workflow]
async fn of_a_step(step: &StepCtx) -> Result<String> {
    Ok(step.key().to_owned())
}

#[workflow]
async fn with_a_connection(ctx: &Ctx, tx: &mut PgConnection) -> Result<i32> {
    drop(tx);
    Ok(ctx.run(double(1)).await?)
}

#[step]
async fn step_in_step(ctx: &Ctx) -> Result<i32> {
    Ok(ctx.run(double(1)).await?)
}

#[step]
async fn step_context_by_value(step: StepCtx) -> Result<String> {
    Ok(step.key().to_owned())
}

#[step]
async fn step_context_last(n: i32, step: &StepCtx) -> Result<String> {
    Ok(format!("{n}{}", step.key()))
}

#[step]
async fn not_transactional(tx: &mut PgConnection, n: i32) -> Result<i32> {
    drop(tx);
    Ok(n)
}

#[step(tx)]
async fn no_transaction(n: i32) -> Result<i32> {
    drop(tx);
    Ok(n)
}

#[step(tx)]
async fn own_transaction(tx: Transaction<'_, Postgres>, n: i32) -> Result<i32> {
    tx.commit().await?;
    Ok(n)
}

#[step(tx)]
async fn shared_connection(tx: &PgConnection) -> Result<()> {
    let _ = tx;
    Ok(())
}

#[step(tx)]
async fn transaction_last(n: i32, tx: &mut PgConnection) -> Result<i32> {
    drop(tx);
    Ok(n)
}

#[workflow]
async fn caller(ctx: &Ctx) -> Result<i32> {
    // The doors of wrong functions still answer, so that nothing here is an error as well.
    let _: (Call<_>, Call<_>) = (forgotten(1), last(1));
    ctx.run(step_context_last(1)).await?;
    Ok(ctx.run(not_transactional(1)).await? + ctx.run(no_transaction(1)).await? + ctx.run(own_transaction(1)).await?)
}

fn main() {}
