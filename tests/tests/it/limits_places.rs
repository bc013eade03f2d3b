//! Limits around steps in every place where a step may stand: in a transaction, in a race, before a deadline, on a worker that dies.

use std::time::Duration;

use anyhow::{Result, bail};
use durable::{Ctx, Durable, FailureKind, Limit, PgConnection, StepCtx, step, workflow};
use durable_tests::db::Db;
use durable_tests::island::Island;
use durable_tests::kit::Kit;
use durable_tests::soon::Soon;

/// Comes to the gate, in a transaction, once the limit lets it go.
#[step(tx, limit = "model")]
async fn write(tx: &mut PgConnection, step: &StepCtx, name: String) -> Result<()> {
    sqlx::query("insert into application_row (name) values ($1)").bind(&name).execute(tx).await?;
    let kit: &Kit = step.state();
    kit.log.note(name);
    kit.gate.pass().await;
    Ok(())
}

#[workflow]
async fn writes(ctx: &Ctx) -> Result<()> {
    Ok(ctx.run(write(ctx.id().to_owned())).await?)
}

/// Gives up on the limit after a while.
#[workflow]
async fn impatient(ctx: &Ctx) -> Result<String> {
    let came = durable::select! { ctx,
        _ = ctx.run(write("impatient".into())) => "wrote",
        _ = ctx.sleep(Duration::from_millis(200)) => "slept",
    };
    Ok(came.to_owned())
}

async fn worker(db: &Db, kit: &Kit) -> Result<Durable> {
    let builder = db.builder().register(writes).register(impatient).state(kit.clone());
    Ok(builder.limit(Limit::new("model").concurrency(1)).start().await?)
}

#[tokio::test]
async fn a_transactional_step_that_waits_for_its_turn_holds_no_transaction() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    durable.start(writes()).id("first").await?;
    kit.gate.reached().await;
    durable.start(writes()).id("second").await?;
    // Several askings.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let open = "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in transaction%'";
    assert_eq!((db.count(open).await, kit.log.entries().len()), (1, 1));
    kit.gate.open();
    kit.gate.reached().await;
    kit.gate.open();
    for id in ["first", "second"] {
        durable.workflow::<()>(id).soon().await?;
    }
    assert_eq!(db.count("select count(*) from application_row").await, 2);
    Ok(())
}

#[tokio::test]
async fn a_loser_of_a_race_that_waits_for_its_turn_never_begins() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    durable.start(writes()).id("first").await?;
    kit.gate.reached().await;
    let loses = durable.start(impatient()).id("loses").await?;
    assert_eq!(loses.soon().await?, "slept");
    kit.gate.open();
    durable.workflow::<()>("first").soon().await?;
    // Its place is taken by the next one, not by it.
    let next = durable.start(writes()).id("next").await?;
    kit.gate.reached().await;
    kit.gate.open();
    next.soon().await?;
    assert_eq!(kit.log.entries(), ["first", "next"]);
    Ok(())
}

#[tokio::test]
async fn a_deadline_ends_what_waits_for_its_turn() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    durable.pause_limit("model").await?;
    let late = durable.start(writes()).deadline(Duration::from_millis(300)).await?;
    let Err(error) = late.soon().await else { bail!("it ended well") };
    assert_eq!(error.failure().map(durable::Failure::kind), Some(FailureKind::Deadline));
    assert!(kit.log.entries().is_empty());
    Ok(())
}

/// P21: within its lease.
#[tokio::test]
async fn what_a_dead_worker_held_is_free_again_when_its_lease_is_over() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let limit = Limit::new("model").concurrency(1);
    let dying = db.builder().lease(Duration::from_millis(500)).register(writes).state(kit.clone()).limit(limit);
    let island = Island::start(dying).await;
    island.durable().start(writes()).id("lost").await?;
    kit.gate.reached().await;
    island.sink().await;
    let durable = worker(&db, &kit).await?;
    let next = durable.start(writes()).id("next").await?;
    for _ in 0..2 {
        kit.gate.reached().await;
        kit.gate.open();
    }
    next.soon().await?;
    durable.workflow::<()>("lost").soon().await?;
    assert_eq!(kit.log.count("lost"), 2);
    Ok(())
}
