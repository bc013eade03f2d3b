//! Events: the last write wins, and what was read stays what was read.

use std::time::Duration;

use anyhow::{Result, ensure};
use durable::testing::{TestDatabase, every_crash};
use durable::{
    Builder, Ctx, Durable, ErrorKind, Event, FailureKind, PgConnection, Topic, hours, minutes, seconds, step, workflow,
};
use durable_tests::db::Db;
use durable_tests::island::Island;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;
use durable_tests::wire::Wire;
use sqlx::PgPool;

const STAGE: Event<String> = Event::new("stage");
/// The same event, taken for one of numbers.
const STAGE_AS_NUMBER: Event<i64> = Event::new("stage");
const GO: Topic<()> = Topic::new("go");

/// Publishes before and after it is told to go on.
#[workflow]
async fn stages(ctx: &Ctx) -> Result<()> {
    ctx.publish(STAGE, "begun".into()).await?;
    ctx.receive(GO).await?;
    ctx.publish(STAGE, "gone on".into()).await?;
    ctx.run(gated("hold".into())).await?;
    Ok(())
}

#[workflow]
async fn watches(ctx: &Ctx, of: String) -> Result<String> {
    let seen = ctx.event(&of, STAGE).await?;
    ctx.run(work(format!("seen {seen}"))).await?;
    Ok(seen)
}

#[workflow]
async fn watches_an_hour(ctx: &Ctx, of: String) -> Result<String> {
    let seen = ctx.event(&of, STAGE).timeout(hours(1)).await?;
    let again = ctx.event(&of, STAGE).timeout(hours(1)).await?;
    Ok(format!("{seen:?}, {again:?}"))
}

fn everything(builder: Builder) -> Builder {
    builder.register(stages).register(watches).register(watches_an_hour)
}

async fn worker(db: &Db, kit: &Kit) -> Result<Durable> {
    Ok(everything(db.builder()).state(kit.clone()).start().await?)
}

/// P8.
#[tokio::test]
async fn the_last_value_is_read_from_outside_also_after_the_end() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let handle = durable.start(stages()).id("s").await?;
    db.until_status("s", "suspended").await;
    let outside = db.client().await.workflow::<()>("s");
    assert_eq!(outside.event(STAGE).await?.as_deref(), Some("begun"));
    assert_eq!(outside.event(Event::<i64>::new("other")).await?, None);
    durable.send("s", GO, ()).await?;
    kit.gate.reached().await;
    assert_eq!(handle.event(STAGE).await?.as_deref(), Some("gone on"));
    kit.gate.open();
    handle.soon().await?;
    assert_eq!(outside.event(STAGE).wait(hours(1)).await?.as_deref(), Some("gone on"));
    let from_sql =
        db.text("select n || ' ' || value::text from durable.event where workflow_id = 's' and key = 'stage'");
    assert_eq!(from_sql.await, "2 \"gone on\"");
    Ok(())
}

#[tokio::test]
async fn a_caller_waits_for_the_first_value_as_long_as_it_says() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let client = db.client().await;
    client.start(stages()).id("s").await?;
    let handle = client.workflow::<()>("s");
    assert_eq!(handle.event(STAGE).wait(Duration::from_millis(30)).await?, None);
    let (first, _worker) = tokio::join!(handle.event(STAGE).wait(minutes(1)), worker(&db, &kit));
    assert_eq!(first?.as_deref(), Some("begun"));
    Ok(())
}

#[tokio::test]
async fn nobody_waits_for_a_workflow_that_has_ended_or_never_was() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let ended = durable.start(watches("none".into())).id("w").await?;
    db.until_status("w", "suspended").await;
    durable.cancel("w").await?;
    assert_eq!(ended.event(STAGE).wait(hours(1)).await?, None);
    let error = durable.workflow::<()>("nobody").event(STAGE).wait(hours(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = ended.event(Event::<i64>::new("")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    Ok(())
}

/// P8, and one row while it waits: before the other one exists, while it runs, and when it was there before.
#[tokio::test]
async fn a_workflow_waits_for_an_event_whenever_it_is_published() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let before = durable.start(watches("s".into())).id("before").await?;
    let other = durable.start(watches("s".into())).id("other").await?;
    for id in ["before", "other"] {
        db.until_status(id, "suspended").await;
    }
    assert_eq!(db.count("select count(*) from durable.workflow where owner is not null").await, 0);
    durable.start(stages()).id("s").await?;
    assert_eq!(before.soon().await?, "begun");
    assert_eq!(other.soon().await?, "begun");
    let after = durable.start(watches("s".into())).id("after").await?;
    assert_eq!(after.soon().await?, "begun");
    // Nobody is noted any more, and nobody is woken for the next one.
    let waiters = "select cardinality(waiters)::bigint from durable.event";
    assert_eq!(db.count(waiters).await, 0);
    Ok(())
}

/// P9: of workers, too, and across processes.
#[tokio::test]
async fn the_one_who_waits_and_the_one_who_publishes_need_not_share_a_worker() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let one = db.builder().queue("one").register(watches).state(kit.clone()).start().await?;
    let two = db.builder().queue("two").register(stages).state(kit.clone()).start().await?;
    let waits = one.start(watches("s".into())).id("w").await?;
    db.until_status("w", "suspended").await;
    two.start(stages()).id("s").await?;
    assert_eq!(waits.soon().await?, "begun");
    Ok(())
}

/// P8: what a body read stays what it read.
#[tokio::test]
async fn what_was_read_stays_after_another_value_and_another_worker() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let clock = db.clock().await;
    let first = Island::start(everything(db.builder()).register(reads_and_holds).state(kit.clone())).await;
    first.durable().start(stages()).id("s").await?;
    db.until_status("s", "suspended").await;
    first.durable().start(reads_and_holds("s".into())).id("r").await?;
    kit.gate.reached().await;
    first.durable().send("s", GO, ()).await?;
    kit.gate.reached().await;
    first.sink().await;
    clock.advance(minutes(1)).await?;
    let second = everything(db.builder()).register(reads_and_holds).state(kit.clone()).start().await?;
    for _ in 0..2 {
        kit.gate.reached().await;
        kit.gate.open();
    }
    assert_eq!(second.workflow::<String>("r").soon().await?, "begun, then gone on");
    assert_eq!(db.count("select n from durable.event where workflow_id = 's'").await, 2);
    Ok(())
}

#[workflow]
async fn reads_and_holds(ctx: &Ctx, of: String) -> Result<String> {
    let first = ctx.event(&of, STAGE).await?;
    ctx.run(gated("hold".into())).await?;
    Ok(format!("{first}, then {}", ctx.event(&of, STAGE).await?))
}

/// P11.
#[tokio::test]
async fn a_wait_for_an_event_ends_by_its_timeout() -> Result<()> {
    let server = Db::new().await;
    let db = TestDatabase::create(&server.pool, |_| async { Ok(()) }).await?;
    let durable = everything(db.builder()).state(Kit::default()).start().await?;
    durable.start(watches_an_hour("s".into())).id("w").await?;
    db.run_until_idle().await?;
    db.advance(minutes(61)).await?;
    db.run_until_idle().await?;
    // Too late for the first wait, in time for the second.
    durable.start(stages()).id("s").await?;
    db.run_until_idle().await?;
    assert_eq!(durable.workflow::<String>("w").result().await?, "None, Some(\"begun\")");
    Ok(())
}

#[workflow]
async fn races_an_event(ctx: &Ctx, of: String) -> Result<String> {
    Ok(durable::select! { ctx,
        stage = ctx.event(&of, STAGE) => stage?,
        _ = ctx.sleep(hours(1)) => "an hour".to_owned(),
    })
}

#[tokio::test]
async fn an_event_is_an_arm_of_a_race() -> Result<()> {
    let server = Db::new().await;
    let db = TestDatabase::create(&server.pool, |_| async { Ok(()) }).await?;
    let durable = everything(db.builder()).register(races_an_event).state(Kit::default()).start().await?;
    durable.start(races_an_event("s".into())).id("won").await?;
    durable.start(races_an_event("nobody".into())).id("lost").await?;
    db.run_until_idle().await?;
    durable.start(stages()).id("s").await?;
    db.run_until_idle().await?;
    assert_eq!(durable.workflow::<String>("won").result().await?, "begun");
    db.advance(hours(2)).await?;
    assert_eq!(durable.workflow::<String>("lost").result().await?, "an hour");
    Ok(())
}

#[workflow]
async fn refused(ctx: &Ctx, case: String) -> Result<String> {
    let own = ctx.id().to_owned();
    let error = match case.as_str() {
        "own" => ctx.event(own, STAGE).await.err(),
        "name" => ctx.event("s", Event::<i64>::new("a\nb")).await.err(),
        "id" => ctx.event("", STAGE).await.err(),
        "long" => ctx.event("s", STAGE).timeout(hours(1_000_000)).await.err(),
        "type" => ctx.event("s", STAGE_AS_NUMBER).await.err(),
        "size" => ctx.publish(STAGE, "x".repeat(2_000_000)).await.err(),
        "publish" => ctx.publish(Event::new(""), 1).await.err(),
        "value" => ctx.publish(Event::new("ratio"), f64::NAN).await.err(),
        _ => None,
    };
    Ok(error.map_or_else(|| "no error".to_owned(), |failure| format!("{:?}: {failure}", failure.kind())))
}

#[tokio::test]
async fn what_cannot_be_published_or_waited_for_fails_clearly() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = everything(db.builder()).register(refused).state(kit).start().await?;
    durable.start(stages()).id("s").await?;
    db.until_status("s", "suspended").await;
    for (case, kind, says) in [
        ("own", FailureKind::Error, "waits for its own event \"stage\""),
        ("name", FailureKind::Error, "name of an event"),
        ("id", FailureKind::Error, "could not wait for event \"stage\": the workflow id is empty"),
        ("long", FailureKind::Error, "more than 100 years"),
        ("type", FailureKind::Value, "a value of event \"stage\" does not decode as i64"),
        ("size", FailureKind::Value, "at most 1048576 are allowed"),
        ("publish", FailureKind::Error, "the name of an event is empty"),
        ("value", FailureKind::Value, "a value of event \"ratio\""),
    ] {
        let said = durable.start(refused(case.to_owned())).await?.soon().await?;
        assert!(said.starts_with(&format!("{kind:?}: ")) && said.contains(says), "{case}: {said}");
    }
    let error = durable.workflow::<()>("s").event(STAGE_AS_NUMBER).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    Ok(())
}

/// The race between the one who begins to wait and the one who publishes, in both orders, forced by a lock on the event's row.
#[tokio::test]
async fn who_begins_to_wait_while_it_is_published_is_woken_or_finds_it() -> Result<()> {
    for waits_first in [true, false] {
        let (db, kit) = (Db::new().await, Kit::default());
        let one = db.builder().queue("one").register(watches).state(kit.clone()).start().await?;
        let two = db.builder().queue("two").register(stages).state(kit.clone()).start().await?;
        // The row is there, and held.
        sqlx::query("insert into durable.event (bucket, workflow_id, key) values (durable.bucket('s'), 's', 'stage')")
            .execute(&db.pool)
            .await?;
        let mut lock = db.pool.begin().await?;
        sqlx::query("select from durable.event for update").execute(&mut *lock).await?;
        let in_line = |many: i64| {
            db.until_count(
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
                move |count| count == many,
            )
        };
        let (waiter, publisher) = (one.start(watches("s".into())).id("w"), two.start(stages()).id("s"));
        let waits = if waits_first {
            let waits = waiter.await?;
            in_line(1).await;
            publisher.await?;
            waits
        } else {
            publisher.await?;
            in_line(1).await;
            waiter.await?
        };
        in_line(2).await;
        lock.rollback().await?;
        assert_eq!(waits.soon().await?, "begun", "waits first: {waits_first}");
    }
    Ok(())
}

/// Many who read at the same time ask once.
#[tokio::test]
async fn who_waits_for_events_in_one_process_looks_together() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let _worker = worker(&db, &kit).await?;
    db.client().await.start(watches("nobody".into())).id("w").await?;
    db.until_status("w", "suspended").await;
    let wire = Wire::to(&db);
    let reader = Durable::builder(wire.pool()).migrate(false).client().await?;
    let handle = reader.workflow::<()>("w");
    assert_eq!(handle.event(STAGE).await?, None);
    wire.forget();
    let waits = (0..200).map(|_| async { handle.event(STAGE).wait(seconds(1)).await });
    for seen in futures::future::join_all(waits).await {
        assert_eq!(seen?, None);
    }
    let asked: usize = wire.flights().iter().map(|flight| flight.statements.len()).sum();
    println!("200 readers, one second: {asked} statements");
    assert!(asked < 600, "{asked} statements");
    Ok(())
}

#[step(tx)]
async fn note(tx: &mut PgConnection, what: String) -> Result<()> {
    sqlx::query("insert into noted (what) values ($1)").bind(what).execute(tx).await?;
    Ok(())
}

#[workflow]
async fn tells(ctx: &Ctx) -> Result<()> {
    for n in 1..=3 {
        ctx.publish(Event::new("n"), n).await?;
        ctx.run(note(format!("told {n}"))).await?;
    }
    Ok(())
}

#[workflow]
async fn hears(ctx: &Ctx) -> Result<()> {
    let n = ctx.event("t", Event::<i64>::new("n")).await?;
    ctx.run(note(format!("heard {}", n > 0))).await?;
    Ok(())
}

/// P8, P9: whoever dies wherever, each value is published once, and whoever waits hears of it.
#[tokio::test]
async fn events_outlive_a_crash_at_every_point() -> Result<()> {
    let server = Db::new().await;
    let tables = |pool: PgPool| async move {
        sqlx::raw_sql("create table noted (what text not null)").execute(&pool).await?;
        Ok(())
    };
    let db = TestDatabase::create(&server.pool, tables).await?;
    let worker = |builder: Builder, _| builder.register(tells).register(hears);
    let begin = |durable: Durable| async move {
        durable.start(hears()).id("h").await?;
        durable.start(tells()).id("t").await?;
        Ok(())
    };
    let check = |pool: PgPool| async move {
        let noted: Vec<String> = sqlx::query_scalar("select what from noted order by what").fetch_all(&pool).await?;
        ensure!(noted == ["heard true", "told 1", "told 2", "told 3"], "{noted:?}");
        let event: (i64, String) =
            sqlx::query_as("select n, value::text from durable.event where workflow_id = 't'").fetch_one(&pool).await?;
        ensure!(event == (3, "3".to_owned()), "{event:?}");
        Ok(())
    };
    every_crash(db, worker, begin, check).await?.assert_clean();
    Ok(())
}
