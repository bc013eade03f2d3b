//! What a waiting workflow is: one row, with its timers, which goes on when the time or a message has come.

use std::time::Duration;

use anyhow::Result;
use durable::{Ctx, Status, Topic, hours, minutes, workflow};
use durable_tests::db::Db;
use durable_tests::island::Island;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;

pub(crate) const GO: Topic<()> = Topic::new("go");

/// A step, a wait for a message, and a step that is held.
#[workflow]
pub(crate) async fn waits_then_works(ctx: &Ctx) -> Result<String> {
    ctx.run(work(format!("before {}", ctx.id()))).await?;
    ctx.receive(GO).await?;
    Ok(ctx.run(gated(format!("after {}", ctx.id()))).await?)
}

#[workflow]
async fn sleeper(ctx: &Ctx, nap: Duration) -> Result<i64> {
    let before = ctx.now();
    ctx.run(work("before".into())).await?;
    ctx.sleep(nap).await?;
    ctx.run(work("after".into())).await?;
    Ok((ctx.now() - before).num_seconds())
}

/// A body whose last act is a sleep, so that its record has no later step to ride along with.
#[workflow]
async fn ends_with_a_sleep(ctx: &Ctx, nap: Duration) -> Result<()> {
    Ok(ctx.sleep(nap).await?)
}

#[workflow]
async fn naps_between_naps(ctx: &Ctx) -> Result<()> {
    for _ in 0..3 {
        ctx.sleep(hours(1)).await?;
        ctx.sleep(Duration::from_millis(1)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_long_sleep_is_one_row_without_an_owner() -> Result<()> {
    let db = Db::new().await;
    let kit = Kit::default();
    let durable = db.builder().register(sleeper).state(kit.clone()).start().await?;
    let handle = durable.start(sleeper(hours(24))).id("s").await?;

    db.until_status("s", "suspended").await;

    let info = handle.info().await?;
    let left = info.due_at.expect("a time to go on") - info.created_at;
    assert!(left >= chrono::TimeDelta::hours(24), "{left}");
    assert!(left < chrono::TimeDelta::hours(25), "{left}");
    assert_eq!(db.count("select count(*) from durable.workflow where owner is null").await, 1);
    let waits = db.text("select id || ' ' || waits_for || ' ' || (until = due_at) from durable.waiting").await;
    assert_eq!(waits, "s sleep true");
    assert_eq!(kit.log.entries(), ["before"]);
    Ok(())
}

/// P11: a timer fires when the database's clock says so, and not a moment before.
#[tokio::test]
async fn a_sleep_ends_by_the_databases_clock_and_not_before() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let kit = Kit::default();
    let durable = db.builder().register(sleeper).register(waits_then_works).state(kit.clone());
    let durable = durable.start().await?;
    let handle = durable.start(sleeper(hours(24))).id("s").await?;
    db.until_status("s", "suspended").await;

    // Short of the end by half an hour, the statement that claims another workflow does not take this one.
    clock.advance(hours(23) + minutes(30)).await?;
    durable.start(waits_then_works()).id("other").in_tx(&mut *db.pool.acquire().await?).await?;
    db.until_status("other", "suspended").await;
    assert_eq!(handle.status().await?, Status::Suspended);
    assert_eq!(kit.log.count("after"), 0);

    clock.advance(minutes(31)).await?;
    let slept = handle.soon().await?;
    assert!(slept >= 86_400, "the body saw {slept} s go by");
    let early = db.count(
        "select count(*) from durable.step a join durable.step b on b.seq = 2
         where a.seq = 0 and a.workflow_id = 's' and b.workflow_id = 's'
           and b.started_at < a.recorded_at + interval '24 hours'",
    );
    assert_eq!(early.await, 0);
    assert_eq!(kit.log.entries().iter().filter(|e| !e.ends_with("other")).count(), 2);
    Ok(())
}

#[tokio::test]
async fn a_body_that_ends_with_a_sleep_completes() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let durable = db.builder().register(ends_with_a_sleep).start().await?;
    durable.start(ends_with_a_sleep(Duration::from_millis(1))).id("short").await?.soon().await?;

    let long = durable.start(ends_with_a_sleep(minutes(10))).id("long").await?;
    db.until_status("long", "suspended").await;
    clock.advance(minutes(11)).await?;
    long.soon().await?;
    assert_eq!(db.count("select count(*) from durable.step where kind = 'sleep'").await, 2);
    Ok(())
}

#[tokio::test]
async fn sleeps_that_follow_one_another_are_each_slept_once() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let durable = db.builder().register(naps_between_naps).start().await?;
    let handle = durable.start(naps_between_naps()).id("n").await?;
    for slept in [0, 2, 4] {
        db.until_status("n", "suspended").await;
        let recorded: i64 = sqlx::query_scalar("select count(*) from durable.step").fetch_one(&db.pool).await?;
        assert_eq!(recorded, slept);
        clock.advance(minutes(61)).await?;
        db.until("select count(*) = 1 from durable.workflow where due_at > durable.now() or status = 'completed'")
            .await;
    }
    handle.soon().await?;
    assert_eq!(db.count("select count(*) from durable.step where kind = 'sleep'").await, 6);
    Ok(())
}

#[workflow]
async fn sleeps_beside_a_step(ctx: &Ctx) -> Result<()> {
    let nap = ctx.sleep(hours(5));
    let step = ctx.run(gated("long".into()));
    let (nap, step) = tokio::join!(nap, step);
    nap?;
    step?;
    Ok(())
}

/// P11: a timer that runs beside a long step does not start over when the worker is lost.
#[tokio::test]
async fn a_sleep_beside_a_step_keeps_its_end_across_a_crash() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let kit = Kit::default();
    let first = Island::start(db.builder().register(sleeps_beside_a_step).state(kit.clone())).await;
    first.durable().start(sleeps_beside_a_step()).id("s").await?;
    kit.gate.reached().await;
    db.until("select waits is not null from durable.workflow").await;
    let noted = db.text("select w ->> 'until' from durable.workflow, json_array_elements(waits) w").await;
    first.sink().await;
    clock.advance(hours(4)).await?;

    let second = db.builder().register(sleeps_beside_a_step).state(kit.clone()).start().await?;
    kit.gate.reached().await;
    kit.gate.open();
    db.until_status("s", "suspended").await;

    let kept = db.text("select w ->> 'until' from durable.workflow, json_array_elements(waits) w").await;
    assert_eq!(kept, noted);
    second.shutdown(Duration::from_secs(10)).await;
    clock.advance(minutes(61)).await?;
    let third = db.builder().register(sleeps_beside_a_step).state(kit.clone()).start().await?;
    third.workflow::<()>("s").soon().await?;
    assert_eq!(kit.log.entries(), ["long", "long"], "the second attempt's step was recorded");
    Ok(())
}

/// A worker that is told to stop hands its sleepers and its running work over.
#[tokio::test]
async fn a_worker_that_shuts_down_hands_its_work_over_at_once() -> Result<()> {
    let db = Db::new().await;
    let kit = Kit::default();
    let builder = || db.builder().register(waits_then_works).state(kit.clone());
    let first = builder().start().await?;
    first.start(waits_then_works()).id("w").await?;
    first.send("w", GO, ()).await?;
    kit.gate.reached().await;

    first.shutdown(Duration::ZERO).await;
    assert_eq!(first.workflow::<String>("w").status().await?, Status::Queued);

    let second = builder().start().await?;
    kit.gate.reached().await;
    kit.gate.open();
    assert_eq!(second.workflow::<String>("w").soon().await?, "after w");
    assert_eq!(kit.log.entries(), ["before w", "after w", "after w"]);
    Ok(())
}
