//! Waiting for a workflow's end: from the process that runs it, from another one, and from one that lost it.
//!
//! That it costs no statement in the first case is in `budgets`.

use std::time::Duration;

use anyhow::Result;
use durable::{Builder, Ctx, ErrorKind, StepCtx, step, workflow};
use durable_tests::db::Db;
use durable_tests::gate::Gate;
use durable_tests::soon::Soon;

const HOUR: Duration = Duration::from_secs(3_600);

#[step]
async fn through_the_gate(step: &StepCtx) -> Result<String> {
    let side = step.state::<Side>();
    side.gate.pass().await;
    Ok(side.name.to_owned())
}

#[workflow]
async fn which_side(ctx: &Ctx) -> Result<String> {
    Ok(ctx.run(through_the_gate()).await?)
}

/// One of two workers, and the gate of its steps.
#[derive(Clone)]
struct Side {
    name: &'static str,
    gate: Gate,
}

fn sides() -> [Side; 2] {
    ["first", "second"].map(|name| Side { name, gate: Gate::default() })
}

fn worker(db: &Db, side: &Side) -> Builder {
    db.builder().register(which_side).state(side.clone())
}

#[tokio::test]
async fn a_result_is_found_after_another_process_took_the_workflow_over() -> Result<()> {
    let db = Db::new().await;
    let [one, two] = sides();
    let first = worker(&db, &one).lease(HOUR).start().await?;
    let handle = first.start(which_side()).id("w").await?;
    let waiting = tokio::spawn(async move { handle.soon().await });
    one.gate.reached().await;

    first.shutdown(Duration::ZERO).await;
    let second = worker(&db, &two).start().await?;
    two.gate.reached().await;
    two.gate.open();

    assert_eq!(waiting.await??, "second");
    drop(second);
    Ok(())
}

#[tokio::test]
async fn a_result_is_found_while_the_worker_that_lost_the_workflow_does_not_know() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let [one, two] = sides();
    let first = worker(&db, &one).lease(HOUR).start().await?;
    let handle = first.start(which_side()).id("w").await?;
    one.gate.reached().await;

    // Its next heartbeat is minutes away, so that it believes to run the workflow for the rest of the test.
    clock.advance(HOUR * 2).await?;
    let second = worker(&db, &two).start().await?;
    two.gate.reached().await;
    two.gate.open();

    assert_eq!(handle.soon().await?, "second");
    drop(second);
    Ok(())
}

#[tokio::test]
async fn a_cancelled_workflow_says_so_to_whoever_waits_where_it_ran() -> Result<()> {
    let db = Db::new().await;
    let [one, _] = sides();
    let durable = worker(&db, &one).start().await?;
    let handle = durable.start(which_side()).id("w").await?;
    one.gate.reached().await;
    let waiting = tokio::spawn(async move { handle.soon().await });

    db.client().await.cancel("w").await?;

    let cancelled = waiting.await?.unwrap_err();
    assert_eq!(cancelled.kind(), ErrorKind::Cancelled);
    Ok(())
}

#[tokio::test]
async fn a_blocked_workflow_has_not_ended() -> Result<()> {
    let db = Db::new().await;
    let [one, two] = sides();
    // Its history begins with a step of another name.
    let first = worker(&db, &one).lease(HOUR).start().await?;
    first.start(which_side()).id("w").await?;
    one.gate.reached().await;
    first.shutdown(Duration::ZERO).await;
    sqlx::query(
        "insert into durable.step (bucket, workflow_id, lane, seq, kind, name, output, started_at)
                 select bucket, id, '', 0, 'step', 'another', '1', now() from durable.workflow",
    )
    .execute(&db.pool)
    .await?;
    let second = worker(&db, &two).start().await?;
    let handle = second.start(which_side()).id("w").await?;
    let waiting = tokio::spawn(async move { handle.soon().await });
    db.until_status("w", "blocked").await;

    sqlx::query("delete from durable.step").execute(&db.pool).await?;
    assert!(!waiting.is_finished());
    second.resume("w").await?;
    two.gate.reached().await;
    two.gate.open();

    assert_eq!(waiting.await??, "second");
    Ok(())
}
