//! The kit for users' tests: databases of their own, time that is moved, and the wait until nothing is to be done.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use durable::testing::TestDatabase;
use durable::{Ctx, ErrorKind, Status, Topic, days, hours, seconds, step, workflow};
use durable_tests::db::Db;
use durable_tests::kit::{Kit, work};
use sqlx::PgPool;

const GO: Topic<String> = Topic::new("go");

/// It takes months: a step, a month, a step that fails at first, a nap, and a message.
#[workflow]
async fn takes_months(ctx: &Ctx) -> Result<String> {
    let began_at = ctx.now();
    ctx.run(work("before".into())).await?;
    ctx.sleep(days(30)).await?;
    ctx.run(fails_at_first()).await?;
    ctx.sleep(Duration::from_millis(10)).await?;
    let word = ctx.receive(GO).timeout(days(60)).await?;
    Ok(format!("{word:?} after {} days", (ctx.now() - began_at).num_days()))
}

#[step(retry(max_attempts = 2, first = "1h", max = "1h"))]
async fn fails_at_first(step: &durable::StepCtx) -> Result<()> {
    if step.attempt() == 1 {
        bail!("not yet");
    }
    Ok(())
}

#[workflow]
async fn says_hello(ctx: &Ctx) -> Result<String> {
    Ok(ctx.run(work("hello".into())).await?)
}

async fn tables(pool: PgPool) -> Result<()> {
    sqlx::raw_sql("create table item (name text primary key)").execute(&pool).await?;
    Ok(())
}

/// A database of the kit on the server of these tests.
pub(crate) async fn kit_database(db: &Db) -> Result<TestDatabase> {
    Ok(TestDatabase::create(&db.pool, tables).await?)
}

#[tokio::test]
async fn a_workflow_that_takes_months_is_tested_in_a_moment() -> Result<()> {
    let server = Db::new().await;
    let db = kit_database(&server).await?;
    let durable = db.builder().register(takes_months).state(Kit::default()).start().await?;
    let began_at = Instant::now();

    let handle = durable.start(takes_months()).id("m").await?;
    db.run_until_idle().await?;
    assert_eq!(handle.status().await?, Status::Suspended);
    db.advance(days(29)).await?;
    db.run_until_idle().await?;
    assert_eq!(handle.steps().await?.len(), 1, "the month is not over");
    db.run_through_waits().await?;

    assert_eq!(handle.result().await?, "None after 90 days");
    assert!(began_at.elapsed() < Duration::from_secs(20), "{:?}", began_at.elapsed());
    Ok(())
}

#[tokio::test]
async fn what_waits_for_a_message_is_idle_until_it_comes() -> Result<()> {
    let server = Db::new().await;
    let db = kit_database(&server).await?;
    let durable = db.builder().register(takes_months).state(Kit::default()).start().await?;
    let handle = durable.start(takes_months()).id("m").await?;
    db.run_until_idle().await?;
    db.advance(days(31)).await?;
    db.run_until_idle().await?;
    // The pause after the failed attempt, and the nap.
    db.advance(hours(2)).await?;
    db.run_until_idle().await?;
    db.advance(seconds(1)).await?;
    db.run_until_idle().await?;
    assert_eq!(handle.status().await?, Status::Suspended);
    durable.send("m", GO, "go".to_owned()).await?;
    db.run_until_idle().await?;
    assert_eq!(handle.status().await?, Status::Completed);
    assert_eq!(handle.result().await?, "Some(\"go\") after 31 days");
    Ok(())
}

/// Sixty leases pass at once, and the worker goes on under the owner that it was.
#[tokio::test]
async fn time_that_passes_takes_no_lease() -> Result<()> {
    let server = Db::new().await;
    let db = kit_database(&server).await?;
    let durable = db.builder().register(says_hello).state(Kit::default()).start().await?;
    db.advance(days(30)).await?;
    durable.start(says_hello()).id("h").await?.result().await?;
    db.run_until_idle().await?;
    let workers: Vec<bool> =
        sqlx::query_scalar("select fenced_at is null from durable.worker").fetch_all(db.pool()).await?;
    assert_eq!(workers, [true]);
    Ok(())
}

#[tokio::test]
async fn two_tests_have_two_databases_which_end_with_them() -> Result<()> {
    const NAMES: &str = "select count(*) from pg_database where datname = any ($1)";
    let server = Db::new().await;
    let (one, other) = tokio::try_join!(kit_database(&server), kit_database(&server))?;
    sqlx::query("insert into item values ('only here')").execute(one.pool()).await?;
    let there: i64 = sqlx::query_scalar("select count(*) from item").fetch_one(other.pool()).await?;
    assert_eq!(there, 0);

    let mut names = Vec::new();
    for db in [&one, &other] {
        names.push(sqlx::query_scalar::<_, String>("select current_database()::text").fetch_one(db.pool()).await?);
    }
    let databases: i64 = sqlx::query_scalar(NAMES).bind(&names).fetch_one(&server.pool).await?;
    assert_eq!(databases, 2, "{names:?}");
    drop((one, other));
    let databases: i64 = sqlx::query_scalar(NAMES).bind(&names).fetch_one(&server.pool).await?;
    assert_eq!(databases, 0, "{names:?}");
    Ok(())
}

#[tokio::test]
async fn tables_that_cannot_be_made_are_told() -> Result<()> {
    let server = Db::new().await;
    let refused = TestDatabase::create(&server.pool, |_| async { bail!("no such migration") }).await;
    let error = refused.expect_err("the tables cannot be made");
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert_eq!(error.to_string(), "could not make the application's tables: no such migration");
    Ok(())
}
