//! Workflows that continue as new, or ask for a patch, while they are cut off from outside; and what they leave to nobody.

use std::time::Duration;

use anyhow::{Result, ensure};
use durable::{Ctx, ErrorKind, StepCtx, Topic, step, workflow};
use durable_tests::db::Db;
use durable_tests::island::Island;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;
use futures::future::try_join_all;

const GO: Topic<bool> = Topic::new("go");

#[step]
async fn undo(step: &StepCtx, name: String) -> Result<()> {
    step.state::<Kit>().log.note(format!("undo {name}"));
    Ok(())
}

/// Does one thing, and begins anew.
#[workflow]
async fn rounds(ctx: &Ctx, round: i64) -> Result<i64> {
    ctx.undo(undo(format!("round {round}"))).await;
    ctx.run(gated(format!("round {round}"))).await?;
    ctx.continue_as_new(rounds(round + 1)).await
}

/// P13: a cancellation that comes between the last record of a generation and its change is one of that generation, and undoes
/// what it has done.
#[tokio::test]
async fn a_workflow_that_is_cancelled_while_it_continues_is_undone() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().register(rounds).state(kit.clone()).start().await?;
    let handle = durable.start(rounds(0)).id("r").await?;
    kit.gate.reached().await;
    // The change waits for its row, with all that led to it written.
    let mut tx = db.pool.begin().await?;
    sqlx::query("select from durable.workflow where id = 'r' for update").execute(&mut *tx).await?;
    kit.gate.open();
    db.until("select count(*) = 1 from durable.step where kind = 'step'").await;
    db.until(
        "select count(*) = 1 from pg_stat_activity
         where datname = current_database() and wait_event_type = 'Lock' and query like '%begin anew with another input%'",
    )
    .await;
    db.client().await.cancel("r").in_tx(&mut tx).await?;
    tx.commit().await?;
    assert_eq!(handle.soon().await.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(kit.log.entries(), ["round 0", "undo round 0"]);
    assert_eq!(db.count("select count(*) from durable.generation").await, 0);
    Ok(())
}

#[workflow]
async fn waits(ctx: &Ctx) -> Result<()> {
    ctx.receive(GO).await?;
    Ok(())
}

/// With the race's own record they fill two pages of the history, so that nothing but a look at the rest of it finds the race's
/// arms.
const MANY: usize = 1_999;

/// A child races with a message. Then comes much else.
async fn race_and_work(ctx: &Ctx) -> Result<()> {
    ctx.race()
        .or(async |ctx: &Ctx| ctx.run(waits()).await.map(|()| false))
        .or(async |ctx: &Ctx| ctx.receive(GO).await)
        .await?;
    try_join_all((0..MANY).map(|n| ctx.run(work(n.to_string())))).await?;
    Ok(())
}

#[workflow]
async fn races(ctx: &Ctx, _continues: bool, round: i64) -> Result<i64> {
    race_and_work(ctx).await?;
    ctx.receive(GO).await?;
    Ok(round)
}

/// Newer code, which waits no more.
#[workflow(name = "races")]
async fn races_on(ctx: &Ctx, continues: bool, round: i64) -> Result<i64> {
    if round > 0 {
        return Ok(round);
    }
    race_and_work(ctx).await?;
    if continues { ctx.continue_as_new(races_on(continues, round + 1)).await } else { Ok(round) }
}

/// Its worker has died before it had cancelled the child, and whoever goes on finds that only in the rest of the history.
#[tokio::test]
async fn a_child_of_a_loser_is_cancelled_however_long_the_history_is() -> Result<()> {
    for continues in [false, true] {
        let (db, kit) = (Db::new().await, Kit::default());
        let first = Island::start(db.builder().register(races).register(waits).state(kit.clone())).await;
        first.durable().start(races(continues, 0)).id("r").await?;
        db.until("select count(*) = 1 from durable.workflow where name = 'waits' and status = 'suspended'").await;
        db.until_status("r", "suspended").await;
        first.durable().send("r", GO, true).await?;
        db.until("select count(*) = 1999 from durable.step where kind = 'step'").await;
        db.until_status("r", "suspended").await;
        first.sink().await;
        // As if its cancellation had never been.
        db.until(
            "with w as (
                 update durable.workflow set status = 'suspended', failure = null, finished_at = null
                 where name = 'waits' and status = 'cancelled' returning true
             )
             select count(*) = 1 from w",
        )
        .await;
        let second = db.builder().register(races_on).state(kit.clone()).start().await?;
        second.send("r", GO, true).await?;
        assert_eq!(second.workflow::<i64>("r").soon().await?, i64::from(continues));
        assert_eq!(db.text("select status from durable.workflow where name = 'waits'").await, "cancelled");
    }
    Ok(())
}

#[workflow(name = "trip")]
async fn trip(ctx: &Ctx) -> Result<()> {
    ctx.undo(undo("flight".into())).await;
    ctx.run(work("flight".into())).await?;
    ctx.receive(GO).await?;
    Ok(())
}

#[workflow(name = "trip")]
async fn trip_patched(ctx: &Ctx) -> Result<()> {
    ctx.undo(undo("flight".into())).await;
    ctx.run(work("flight".into())).await?;
    if ctx.patched("insurance").await {
        ctx.run(work("insurance".into())).await?;
    }
    ctx.receive(GO).await?;
    Ok(())
}

/// It is on its way out, and goes no new way.
#[tokio::test]
async fn a_workflow_that_was_cut_off_is_not_patched() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let old = Island::start(db.builder().register(trip).state(kit.clone())).await;
    old.durable().start(trip()).id("t").await?;
    db.until_status("t", "suspended").await;
    old.sink().await;
    db.client().await.cancel("t").await?;
    let new = db.builder().register(trip_patched).state(kit.clone()).start().await?;
    assert_eq!(new.workflow::<()>("t").soon().await.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(kit.log.entries(), ["flight", "undo flight"]);
    assert_eq!(db.count("select count(*) from durable.step where kind = 'patch'").await, 0);
    Ok(())
}

/// Two binaries need not register in the same order: else they could wait for each other, and none would be noted.
#[tokio::test]
async fn code_is_noted_in_one_order_however_it_is_registered() -> Result<()> {
    let db = Db::new().await;
    // What the code is known by, from a first worker.
    let first = db.builder().register(waits).register(races).queue("first").start().await?;
    first.shutdown(Duration::from_secs(5)).await;
    let codes: Vec<(String, String)> =
        sqlx::query_as("delete from durable.fingerprint returning name, fingerprint").fetch_all(&db.pool).await?;
    let code = |name: &str| codes.iter().find(|(found, _)| found == name).map(|(_, code)| code.clone());
    // Another worker that has noted the first of two names, and is about to note the second.
    let mut tx = db.pool.begin().await?;
    let note = "insert into durable.fingerprint (name, version, fingerprint) values ($1, 1, $2)";
    sqlx::query(note).bind("races").bind(code("races")).execute(&mut *tx).await?;
    let second = tokio::spawn(db.builder().register(waits).register(races).start());
    db.until(
        "select count(*) = 1 from pg_stat_activity
         where datname = current_database() and wait_event_type = 'Lock' and query like '%durable.fingerprint%'",
    )
    .await;
    sqlx::query("set local lock_timeout = '500 ms'").execute(&mut *tx).await?;
    sqlx::query(note).bind("waits").bind(code("waits")).execute(&mut *tx).await?;
    tx.commit().await?;
    let worker = second.await??;
    ensure!(db.count("select count(*) from durable.fingerprint").await == 2, "both are noted");
    worker.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

/// Fails in its second generation until it is allowed not to.
#[step]
async fn allowed(step: &StepCtx) -> Result<()> {
    step.state::<Kit>().log.note("asked");
    let asked = step.state::<Kit>().log.count("asked");
    if asked > 1 { Ok(()) } else { Err(durable::terminal(anyhow::anyhow!("not yet")).into()) }
}

#[workflow]
async fn twice_over(ctx: &Ctx, round: usize) -> Result<usize> {
    ctx.run(work(format!("round {round}"))).await?;
    if round == 0 {
        ctx.continue_as_new(twice_over(round + 1)).await;
    }
    ctx.run(allowed()).await?;
    Ok(round)
}

/// What failed in a later generation is tried again there; begun again, it is as it was started.
#[tokio::test]
async fn a_later_generation_is_resumed_where_it_is_and_restarted_from_the_first_one() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().register(twice_over).state(kit.clone()).start().await?;
    let handle = durable.start(twice_over(0)).id("t").await?;
    handle.soon().await.unwrap_err();
    durable.resume("t").await?;
    assert_eq!(durable.workflow::<usize>("t").soon().await?, 1);
    assert_eq!(kit.log.entries(), ["round 0", "round 1", "asked", "asked"]);

    durable.restart("t").await?;
    assert_eq!(durable.workflow::<usize>("t").soon().await?, 1);
    assert_eq!(kit.log.entries()[4..], ["round 0", "round 1", "asked"]);
    assert_eq!(db.count("select generation::bigint from durable.generation").await, 1);
    durable.delete("t").await?;
    let left = "select (select count(*) from durable.step) + (select count(*) from durable.generation)";
    assert_eq!(db.count(left).await, 0);
    Ok(())
}
