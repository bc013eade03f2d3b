//! The first things: a workflow runs its steps, in order, once, and gives its output.

use anyhow::Result;
use durable::{Ctx, PgConnection, StepCtx, step, workflow};
use durable_tests::db::Db;
use durable_tests::soon::Soon;

#[step]
async fn double(n: i64) -> Result<i64> {
    Ok(n * 2)
}

#[step(tx)]
async fn store(tx: &mut PgConnection, step: &StepCtx, n: i64) -> Result<i64> {
    sqlx::query("insert into application_row (name, value) values ($1, $2)")
        .bind(step.key())
        .bind(n.to_string())
        .execute(tx)
        .await?;
    Ok(n + 1)
}

#[workflow]
async fn arithmetic(ctx: &Ctx, n: i64) -> Result<i64> {
    let doubled = ctx.run(double(n)).await?;
    let stored = ctx.run(store(doubled)).await?;
    Ok(ctx.run(double(stored)).await?)
}

#[tokio::test]
async fn a_workflow_runs_its_steps_and_gives_its_output() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(arithmetic).start().await?;

    let handle = durable.start(arithmetic(20)).id("a").await?;

    assert_eq!(handle.soon().await?, 82);
    assert!(!handle.existed());
    let steps: Vec<_> = handle.steps().await?.into_iter().map(|s| (s.seq, s.kind, s.name, s.output)).collect();
    let expected = [(0, "step", "double", "40"), (1, "transaction", "store", "41"), (2, "step", "double", "82")];
    let expected = expected.map(|(seq, kind, name, out)| (seq, kind.into(), name.into(), Some(out.into())));
    assert_eq!(steps, expected);
    assert_eq!(db.text("select name || '=' || value from application_row").await, "a/1=40");
    Ok(())
}
