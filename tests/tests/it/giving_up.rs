//! Steps whose future the body drops before they have ended: they are given up, and the workflow goes on.

use std::time::Duration;

use anyhow::Result;
use durable::{Ctx, PgConnection, StepCtx, step, workflow};
use durable_tests::db::Db;
use durable_tests::effects;
use durable_tests::gate::Gate;
use durable_tests::soon::Soon;

/// How long the bodies below wait for a step that never ends.
const A_MOMENT: Duration = Duration::from_millis(50);

#[step]
async fn plain(step: &StepCtx) -> Result<()> {
    step.state::<Gate>().pass().await;
    Ok(())
}

#[step(tx)]
async fn transactional(tx: &mut PgConnection, step: &StepCtx) -> Result<()> {
    effects::write(tx, step, "transactional", "").await?;
    step.state::<Gate>().pass().await;
    Ok(())
}

#[step]
async fn after() -> Result<u32> {
    Ok(7)
}

#[workflow]
async fn gives_up(ctx: &Ctx, in_transaction: bool) -> Result<u32> {
    let ended = if in_transaction {
        tokio::time::timeout(A_MOMENT, ctx.run(transactional())).await.is_ok()
    } else {
        tokio::time::timeout(A_MOMENT, ctx.run(plain())).await.is_ok()
    };
    anyhow::ensure!(!ended, "nobody opened the gate");
    Ok(ctx.run(after()).await?)
}

/// A step that was dropped leaves nothing behind, and its workflow goes on at once, under the same worker.
#[tokio::test]
async fn a_dropped_step_leaves_nothing_and_holds_nothing_up() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(gives_up).state(Gate::default()).start().await?;
    for (id, in_transaction) in [("plain", false), ("transactional", true)] {
        let handle = durable.start(gives_up(in_transaction)).id(id).await?;
        assert_eq!(handle.soon().await?, 7);
        assert_eq!(handle.info().await?.claims, 1, "{id}: it was taken from its worker");
        let names: Vec<_> = handle.steps().await?.into_iter().map(|step| step.name).collect();
        assert_eq!(names, ["after"]);
    }
    assert_eq!(db.count("select count(*) from effect").await, 0);
    Ok(())
}
