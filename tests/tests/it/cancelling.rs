//! Cancelling: decided once, held to, and final.

use anyhow::Result;
use durable::{Ctx, Durable, ErrorKind, PgConnection, Status, StepCtx, hours, step, workflow};
use durable_tests::db::Db;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;

use super::waiting_states::{GO, waits_then_works};

#[workflow]
async fn two_steps(ctx: &Ctx) -> Result<String> {
    ctx.run(gated("first".into())).await?;
    Ok(ctx.run(work("second".into())).await?)
}

/// Shows that the worker has gone through its queue and its tasks since the test asked for it.
#[workflow]
async fn probe(ctx: &Ctx) -> Result<()> {
    ctx.run(work("probe".into())).await?;
    Ok(())
}

#[step(tx)]
async fn held_insert(tx: &mut PgConnection, step: &StepCtx) -> Result<()> {
    let kit = step.state::<Kit>();
    kit.log.note(step.workflow_id());
    sqlx::query("insert into application_row (name) values ($1)").bind(step.key()).execute(tx).await?;
    kit.gate.pass().await;
    Ok(())
}

#[workflow]
async fn inserts(ctx: &Ctx) -> Result<()> {
    Ok(ctx.run(held_insert()).await?)
}

#[workflow]
async fn sleeps(ctx: &Ctx) -> Result<()> {
    ctx.run(work("awake".into())).await?;
    ctx.sleep(hours(9)).await?;
    ctx.run(work("woken".into())).await?;
    Ok(())
}

async fn worker(db: &Db, kit: &Kit) -> Result<Durable> {
    let builder = db.builder().register(two_steps).register(probe).register(inserts).register(sleeps);
    Ok(builder.register(waits_then_works).state(kit.clone()).start().await?)
}

async fn run_probe(worker: &Durable) -> Result<()> {
    Ok(worker.start(probe()).await?.soon().await?)
}

/// P13: what nobody has begun never begins.
#[tokio::test]
async fn a_queued_workflow_that_was_cancelled_never_runs() -> Result<()> {
    let db = Db::new().await;
    let kit = Kit::default();
    let client = db.client().await;
    let handle = client.start(two_steps()).id("q").await?;
    client.cancel("q").await?;

    let durable = worker(&db, &kit).await?;
    run_probe(&durable).await?;

    assert_eq!(handle.soon().await.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(kit.log.entries(), ["probe"]);
    assert_eq!(db.count("select claims::bigint from durable.workflow where id = 'q'").await, 0);
    Ok(())
}

/// P13: neither time nor a message wakes a cancelled workflow.
#[tokio::test]
async fn a_suspended_workflow_that_was_cancelled_never_wakes() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let kit = Kit::default();
    let durable = worker(&db, &kit).await?;
    durable.start(sleeps()).id("s").await?;
    durable.start(waits_then_works()).id("w").await?;
    db.until_status("s", "suspended").await;
    db.until_status("w", "suspended").await;

    durable.cancel("s").await?;
    durable.cancel("w").await?;

    let refused = durable.send("w", GO, ()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Finished);
    clock.advance(hours(10)).await?;
    run_probe(&durable).await?;
    let mut ran = kit.log.entries();
    ran.sort();
    assert_eq!(ran, ["awake", "before w", "probe"]);
    assert_eq!(db.count("select count(*) from durable.workflow where status = 'cancelled' and waits is null").await, 2);
    Ok(())
}

/// P13: after the cancellation returned, no later step begins; the step under way is dropped where it waits.
#[tokio::test]
async fn after_a_cancellation_here_no_later_step_begins() -> Result<()> {
    let db = Db::new().await;
    let kit = Kit::default();
    let durable = worker(&db, &kit).await?;
    let handle = durable.start(two_steps()).id("r").await?;
    kit.gate.reached().await;

    durable.cancel("r").await?;
    kit.gate.open();
    run_probe(&durable).await?;

    assert_eq!(kit.log.entries(), ["first", "probe"]);
    assert_eq!(handle.status().await?, Status::Cancelled);
    assert_eq!(db.count("select count(*) from durable.step where workflow_id = 'r'").await, 0);
    Ok(())
}

/// P13: the same when another process' worker runs it.
#[tokio::test]
async fn after_a_cancellation_from_outside_no_later_step_begins() -> Result<()> {
    let db = Db::new().await;
    let kit = Kit::default();
    let durable = worker(&db, &kit).await?;
    let elsewhere = worker(&db, &Kit::default()).await?;
    durable.start(two_steps()).id("r").await?;
    kit.gate.reached().await;

    elsewhere.cancel("r").await?;
    assert_eq!(db.count("select count(*) from durable.workflow where stopping is not null").await, 0);
    kit.gate.open();
    run_probe(&durable).await?;

    assert_eq!(kit.log.entries(), ["first", "probe"]);
    Ok(())
}

/// Lets a test hold up whoever reads rows of the history, and nobody who only plans to.
const HISTORY_WITH_A_GATE: &str = "
    alter table durable.step rename to step_row;
    create function durable.pass() returns boolean language plpgsql volatile as $$
        begin
            perform pg_advisory_lock_shared(42);
            perform pg_advisory_unlock_shared(42);
            return true;
        end $$;
    create view durable.step as select * from durable.step_row where durable.pass()";

/// P13: a cancellation that comes between a claim and the first look at the history holds as well.
#[tokio::test]
async fn a_workflow_cancelled_while_its_history_loads_begins_nothing() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let kit = Kit::default();
    sqlx::raw_sql(HISTORY_WITH_A_GATE).execute(&db.pool).await?;
    let durable = worker(&db, &kit).await?;
    durable.start(sleeps()).id("s").await?;
    db.until_status("s", "suspended").await;
    let mut gate = db.pool.acquire().await?;
    sqlx::query("select pg_advisory_lock(42)").execute(&mut *gate).await?;
    clock.advance(hours(10)).await?;
    db.until(
        "select count(*) > 0 from pg_locks l join pg_database d on d.oid = l.database
         where d.datname = current_database() and l.locktype = 'advisory' and not l.granted",
    )
    .await;
    durable.cancel("s").await?;
    sqlx::query("select pg_advisory_unlock(42)").execute(&mut *gate).await?;
    // Twice: the first one may overtake the history that was held up.
    run_probe(&durable).await?;
    run_probe(&durable).await?;

    assert_eq!(kit.log.entries(), ["awake", "probe", "probe"]);
    Ok(())
}

/// P13: a cancelled transactional step under way leaves nothing behind.
#[tokio::test]
async fn a_cancelled_transaction_never_commits() -> Result<()> {
    let db = Db::new().await;
    let kit = Kit::default();
    let durable = worker(&db, &kit).await?;
    durable.start(inserts()).id("t").await?;
    kit.gate.reached().await;
    durable.cancel("t").await?;
    kit.gate.open();
    run_probe(&durable).await?;
    db.until(
        "select count(*) = 0 from pg_stat_activity
         where state like 'idle in transaction%' and datname = current_database()",
    )
    .await;
    assert_eq!(db.count("select count(*) from application_row").await, 0);
    Ok(())
}

/// P13: steps that wait for a connection when their workflow is cancelled do not begin when they get one.
#[tokio::test]
async fn a_transactional_step_that_waits_for_a_connection_is_cancelled_too() -> Result<()> {
    let db = Db::new().await;
    let kit = Kit::default();
    let durable = worker(&db, &kit).await?;
    for n in 0..16 {
        durable.start(inserts()).id(format!("busy{n}")).await?;
    }
    for _ in 0..16 {
        kit.gate.reached().await;
    }
    for n in 0..8 {
        durable.start(inserts()).id(format!("late{n}")).await?;
    }
    let cancels = (0..8).map(|n| {
        let durable = durable.clone();
        tokio::spawn(async move { durable.cancel(format!("late{n}")).await })
    });
    let cancels: Vec<_> = cancels.collect();
    db.until("select count(*) = 8 from durable.workflow where status = 'cancelled'").await;
    for _ in 0..16 {
        kit.gate.open();
    }
    for cancel in cancels {
        cancel.await??;
    }
    db.until("select count(*) = 16 from durable.workflow where status = 'completed'").await;
    run_probe(&durable).await?;
    let begun: Vec<_> = kit.log.entries().into_iter().filter(|e| e.starts_with("late")).collect();
    assert_eq!(begun, [""; 0]);
    assert_eq!(db.count("select count(*) from application_row").await, 16);
    Ok(())
}

/// P14: cancelled is for ever, and asking again is fine.
#[tokio::test]
async fn a_cancelled_workflow_stays_cancelled() -> Result<()> {
    let db = Db::new().await;
    let kit = Kit::default();
    let durable = worker(&db, &kit).await?;
    let handle = durable.start(waits_then_works()).id("w").await?;
    durable.cancel("w").await?;
    durable.cancel("w").await?;

    let again = durable.start(waits_then_works()).id("w").await?;
    assert!(again.existed());
    for handle in [handle, again] {
        let error = handle.soon().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert!(error.to_string().contains("w was cancelled"), "{error}");
    }
    Ok(())
}

/// P14: nothing changes what has ended.
#[tokio::test]
async fn what_has_completed_cannot_be_cancelled_or_changed() -> Result<()> {
    let db = Db::new().await;
    let durable = worker(&db, &Kit::default()).await?;
    let handle = durable.start(probe()).id("p").await?;
    handle.soon().await?;
    let ended = "select (status, finished_at, output::text, wakes)::text from durable.workflow where id = 'p'";
    let before = db.text(ended).await;

    let error = durable.cancel("p").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Finished);
    assert!(error.to_string().contains("completed already"), "{error}");
    assert!(durable.resume("p").await.unwrap_err().is_conflict());
    assert_eq!(durable.send("p", GO, ()).await.unwrap_err().kind(), ErrorKind::Finished);
    assert!(durable.start(probe()).id("p").await?.existed());
    handle.soon().await?;
    assert_eq!(db.text(ended).await, before);
    Ok(())
}

#[tokio::test]
async fn cancelling_nobody_is_a_clear_error() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    let error = client.cancel("nobody").await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("no such workflow"), "{error}");
    assert!(client.resume("nobody").await.unwrap_err().is_not_found());
    assert!(client.workflow::<()>("nobody").soon().await.unwrap_err().is_not_found());
    Ok(())
}

/// P5: a cancellation in a transaction holds if, and only if, it commits.
#[tokio::test]
async fn a_cancellation_in_a_transaction_holds_when_it_commits() -> Result<()> {
    let db = Db::new().await;
    let kit = Kit::default();
    let durable = worker(&db, &kit).await?;
    let handle = durable.start(two_steps()).id("r").await?;
    kit.gate.reached().await;

    let mut tx = db.pool.begin().await?;
    durable.cancel("r").in_tx(&mut tx).await?;
    tx.rollback().await?;
    assert_eq!(handle.status().await?, Status::Running);

    let mut tx = db.pool.begin().await?;
    durable.cancel("r").in_tx(&mut tx).await?;
    assert_eq!(handle.status().await?, Status::Running);
    tx.commit().await?;
    assert_eq!(handle.status().await?, Status::Cancelled);
    // The heartbeat brings the word; cancelling again waits until the worker has heard it.
    durable.cancel("r").await?;
    kit.gate.open();
    run_probe(&durable).await?;
    assert_eq!(kit.log.entries(), ["first", "probe"]);

    let mut tx = db.pool.begin().await?;
    assert!(durable.cancel("nobody").in_tx(&mut tx).await.unwrap_err().is_not_found());
    Ok(())
}

/// P14: of a cancellation and an end that race, one wins, and everybody sees the same one.
#[tokio::test]
async fn a_cancellation_and_an_end_that_race_have_one_winner() -> Result<()> {
    let db = Db::new().await;
    let durable = worker(&db, &Kit::default()).await?;
    for n in 0..20 {
        let id = format!("race{n}");
        let handle = durable.start(probe()).id(&id).await?;
        let (cancelled, result) = tokio::join!(durable.cancel(&id), handle.soon());
        match (cancelled, result) {
            (Ok(()), Err(error)) => assert_eq!(error.kind(), ErrorKind::Cancelled),
            (Err(error), Ok(())) => assert_eq!(error.kind(), ErrorKind::Finished),
            (cancelled, result) => panic!("no one winner: {cancelled:?}, {result:?}"),
        }
    }
    Ok(())
}
