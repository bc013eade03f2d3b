//! P12 under faults: workers that race for a tick, that are killed at random and at every point, and answers that never come. No tick
//! starts two workflows, and none is lost that the policy does not give up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use durable::testing::{TestDatabase, every_crash};
use durable::{Builder, CatchUp, Durable, Overlap, Schedule, days};
use durable_dev::ServerOptions;
use durable_tests::clockwork::{NAME, check, clockwork, every_second, in_a_row};
use durable_tests::db::{APPLICATION_TABLES, Db, PATIENCE};
use durable_tests::victim::{Orders, Victim};
use futures::StreamExt;
use sqlx::PgPool;

use super::faults::{Cutter, Own, hang_commits, let_commits_go};

const VICTIM: &str = env!("CARGO_BIN_EXE_victim");

/// Wait until the schedule has gone so many ticks, stop it, and wait until everything that it has started is over.
async fn stopped_after(durable: &Durable, pool: &PgPool, ticks: u64) -> Result<()> {
    let (schedule, began_at) = (durable.schedule(NAME), Instant::now());
    while schedule.info().await?.is_none_or(|info| info.started < ticks) {
        ensure!(began_at.elapsed() < PATIENCE, "the schedule stands still: {:?}", schedule.info().await?);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    schedule.pause().await?;
    let open = "select count(*) from durable.workflow where status <> 'completed'";
    while sqlx::query_scalar::<_, i64>(open).fetch_one(pool).await? > 0 {
        ensure!(began_at.elapsed() < PATIENCE, "something that was started does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_workers_one_starts_each_tick() -> Result<()> {
    let db = Db::new().await;
    let worker = || db.builder().register(clockwork).schedule(every_second()).start();
    let workers = futures::future::try_join_all((0..5).map(|_| worker())).await?;
    stopped_after(&workers[0], &db.pool, 5).await?;
    check(&db.pool).await?;
    let late = "select (1000 * max(extract(epoch from w.created_at - t.at)))::bigint
                from durable.tick t join durable.workflow w using (bucket, id)";
    println!("started at most {} ms late", db.count(late).await);
    Ok(())
}

/// One that was set by a process without a worker is noticed by those that have one.
#[tokio::test]
async fn a_schedule_that_somebody_else_has_set_is_noticed() -> Result<()> {
    let db = Db::new().await;
    let _worker = db.builder().register(clockwork).start().await?;
    let client = db.client().await;
    client.set_schedule(every_second()).await?;
    stopped_after(&client, &db.pool, 2).await?;
    check(&db.pool).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_killed_at_random_lose_and_repeat_no_tick() -> Result<()> {
    const KILLS: usize = 10;
    let db = Db::new().await;
    let client = db.client().await;
    client.set_schedule(every_second()).await?;
    let orders = Orders { lease: Duration::from_millis(500), ..Orders::new(db.url()) };
    let mut victims = [Victim::begin(VICTIM, &orders).at_work().await, Victim::begin(VICTIM, &orders).at_work().await];
    for kill in 0..KILLS {
        let fresh = Victim::begin(VICTIM, &orders).at_work().await;
        // The moment of death is what is random here; nothing is waited for.
        let random = u64::from(uuid::Uuid::new_v4().as_bytes()[0]);
        tokio::time::sleep(Duration::from_millis(random * 4)).await;
        std::mem::replace(&mut victims[kill % 2], fresh).kill().await;
    }
    let started = client.schedule(NAME).info().await?.map_or(0, |info| info.started);
    stopped_after(&client, &db.pool, started + 2).await?;
    println!("kills: {KILLS}; ticks: {}", check(&db.pool).await?);
    Ok(())
}

/// At its k-th crash point, for each k that a worker comes to in the time of some ticks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_at_any_point_loses_and_repeats_no_tick() -> Result<()> {
    const POINTS: u64 = 48;
    const AT_ONCE: usize = 4;
    let db = Db::new().await;
    let client = db.client().await;
    client.set_schedule(every_second()).await?;
    let deaths: Vec<Option<String>> = futures::stream::iter(1..=POINTS)
        .map(async |k| {
            let orders = Orders { crash_at: k, lease: Duration::from_millis(500), ..Orders::new(db.url()) };
            Victim::begin(VICTIM, &orders).ended().await.crashed_at
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let died = deaths.iter().flatten().count();
    println!("deaths: {died}");
    ensure!(died as u64 == POINTS, "{deaths:?}");
    let _last = db.builder().register(clockwork).start().await?;
    let started = client.schedule(NAME).info().await?.map_or(0, |info| info.started);
    stopped_after(&client, &db.pool, started + 2).await?;
    check(&db.pool).await?;
    Ok(())
}

/// Five nights that were missed, started one after the other by a worker that dies at each of its points in turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_caught_up_on_outlives_a_crash_at_every_point() -> Result<()> {
    let server = Db::new().await;
    let tables = |pool: PgPool| async move {
        sqlx::raw_sql(APPLICATION_TABLES).execute(&pool).await?;
        Ok(())
    };
    let db = TestDatabase::create(&server.pool, tables).await?;
    let client = db.builder().client().await?;
    let nightly = Schedule::new(NAME, clockwork()).cron("0 0 3 * * *", "Europe/Berlin");
    client.set_schedule(nightly.overlap(Overlap::QueueAll).catch_up(CatchUp::all(10))).await?;
    db.advance(days(5)).await?;
    drop(client);
    let worker = |builder: Builder, _: PgPool| builder.register(clockwork);
    let report = every_crash(
        db,
        worker,
        |_| async { Ok(()) },
        |pool| async move {
            let (nights, workflows): (i64, i64) = sqlx::query_as(
                "select count(distinct value), count(distinct workflow_id) from effect where step = 'trace'",
            )
            .fetch_one(&pool)
            .await?;
            let traces: i64 = sqlx::query_scalar("select count(*) from effect").fetch_one(&pool).await?;
            ensure!(
                (nights, workflows, traces) == (5, 5, 5),
                "{nights} nights, {workflows} workflows, {traces} traces"
            );
            // One after the other.
            let beside: i64 = sqlx::query_scalar(
                "select count(*) from durable.workflow a, durable.workflow b
             where b.id > a.id and b.created_at < a.finished_at",
            )
            .fetch_one(&pool)
            .await?;
            ensure!(beside == 0, "{beside} pairs ran beside each other");
            Ok(())
        },
    )
    .await?;
    report.assert_clean();
    for place in ["before", "after"] {
        let point = format!("{place} a call: act on schedule {NAME}");
        ensure!(report.points.contains(&point), "{point} in {:#?}", report.points);
    }
    Ok(())
}

/// No reply to any commit ever comes: each tick's stands, and is not done again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticks_none_of_whose_commits_is_answered_happen_once() -> Result<()> {
    let own = Arc::new(Own::start(ServerOptions::new()).await?);
    let durable = own.builder().lease(Duration::from_secs(3_600)).start().await?;
    hang_commits(&own).await?;
    let cutter = Cutter::begin(&own);
    durable.set_schedule(every_second()).await?;
    let (schedule, began_at) = (durable.schedule(NAME), Instant::now());
    while schedule.info().await?.is_none_or(|info| info.started < 4) {
        ensure!(began_at.elapsed() < PATIENCE, "the schedule stands still: {:?}", schedule.info().await?);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let triggered = schedule.trigger().await?;
    schedule.pause().await?;
    let backfilled = schedule.backfill("2026-01-01T00:00:00Z".parse()?.."2026-01-01T00:00:03Z".parse()?).await?;
    let open = "select count(*) from durable.workflow where status <> 'completed'";
    while sqlx::query_scalar::<_, i64>(open).fetch_one(&own.outside).await? > 0 {
        ensure!(began_at.elapsed() < PATIENCE, "something that was started does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let cuts = cutter.end().await?;
    let_commits_go(&own).await?;
    println!("commits without an answer: {cuts}");
    ensure!(cuts > 10, "{cuts} commits without an answer");
    let (traces, workflows): (i64, i64) =
        sqlx::query_as("select count(*), count(distinct workflow_id) from effect where step = 'trace'")
            .fetch_one(&own.outside)
            .await?;
    let info = schedule.info().await?.expect("the schedule");
    assert_eq!((backfilled, traces, i64::try_from(info.started)?, info.missed), (3, workflows, workflows, 0));
    let of_trigger = "select count(*) from effect where workflow_id = $1 and value = ''";
    assert_eq!(sqlx::query_scalar::<_, i64>(of_trigger).bind(&triggered).fetch_one(&own.outside).await?, 1);
    let others = "delete from effect where value < '2026-01-02'";
    assert_eq!(sqlx::query(others).execute(&own.outside).await?.rows_affected(), 4);
    assert_eq!(in_a_row(&own.outside).await? + 4, usize::try_from(workflows)?);
    Ok(())
}
