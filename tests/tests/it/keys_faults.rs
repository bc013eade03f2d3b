//! P12 under faults: starts with keys whose answers never come, and workers that die at any point. Nothing is started twice, no input
//! is lost, and none is in two batches.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use durable::testing::{TestDatabase, every_crash};
use durable::{Batch, Builder, Ctx, Debounce, Durable, IfOpen, PgConnection, StepCtx, Topic, seconds, step, workflow};
use durable_dev::ServerOptions;
use durable_tests::db::{APPLICATION_TABLES, Db};
use durable_tests::effects;
use durable_tests::soon::Soon;
use sqlx::PgPool;

use super::faults::{Cutter, Own, hang_commits, let_commits_go};

const GO: Topic<()> = Topic::new("go");

#[step(tx)]
async fn trace(tx: &mut PgConnection, step: &StepCtx, what: String) -> Result<()> {
    effects::write(tx, step, "trace", &what).await?;
    Ok(())
}

/// Traces everything that it was given.
#[workflow]
async fn collect(ctx: &Ctx, of: Vec<u64>) -> Result<()> {
    for one in of {
        ctx.run(trace(one.to_string())).await?;
    }
    Ok(())
}

/// Traces its text.
#[workflow]
async fn index(ctx: &Ctx, text: String) -> Result<()> {
    Ok(ctx.run(trace(text)).await?)
}

/// Waits for a word, and has to be undone.
#[workflow]
async fn holds(ctx: &Ctx) -> Result<()> {
    ctx.undo(trace(format!("{} undone", ctx.id()))).await;
    ctx.run(trace(format!("{} begun", ctx.id()))).await?;
    ctx.receive(GO).await?;
    Ok(())
}

async fn traces(pool: &PgPool, of: &'static str) -> Result<Vec<String>> {
    let sql =
        "select e.value from effect e join durable.workflow w on w.id = e.workflow_id where w.name = $1 order by e.at";
    Ok(sqlx::query_scalar(sql).bind(of).fetch_all(pool).await?)
}

/// No reply to any commit ever comes: what was asked for is there once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_with_keys_none_of_whose_commits_is_answered_happen_once() -> Result<()> {
    let own = Arc::new(Own::start(ServerOptions::new()).await?);
    let builder = || own.builder().lease(Duration::from_secs(3_600)).register(collect).register(index).register(holds);
    let durable = builder().client().await?;
    hang_commits(&own).await?;
    let cutter = Cutter::begin(&own);
    // Nobody runs anything yet.
    for n in 0..12 {
        durable.start(collect(vec![n])).batch("k", Batch::new(5, seconds(2))).await?;
        durable.start(index(n.to_string())).debounce("k", Debounce::new(Duration::from_millis(500))).await?;
        durable.start(holds()).deduplicate(format!("key-{}", n % 3)).await?;
    }
    let replaced = durable.start(holds()).deduplicate("key-0").if_open(IfOpen::Replace).await?;
    ensure!(!replaced.existed(), "it is another one");
    let cuts = cutter.end().await?;
    let_commits_go(&own).await?;
    println!("commits without an answer: {cuts}");
    // Nine starts found their answer and wrote nothing.
    ensure!(cuts >= 28, "{cuts} commits without an answer");

    let worker = builder().start().await?;
    let statuses = "select string_agg(name || ' ' || many, ', ' order by name) from (
                        select name, count(*) as many from durable.workflow group by name) t";
    let told: String = sqlx::query_scalar(statuses).fetch_one(&own.outside).await?;
    // Three keys and the one that replaces; 5, 5 and 2 inputs; one that was put off again and again.
    assert_eq!(told, "collect 3, holds 4, index 1");
    let open = "select id from durable.workflow where name <> 'holds'";
    for id in sqlx::query_scalar::<_, String>(open).fetch_all(&own.outside).await? {
        worker.workflow::<()>(id).soon().await?;
    }
    let mut numbers: Vec<u64> =
        traces(&own.outside, "collect").await?.iter().map(|n| n.parse()).collect::<Result<_, _>>()?;
    numbers.sort_unstable();
    assert_eq!(numbers, (0..12).collect::<Vec<_>>());
    assert_eq!(traces(&own.outside, "index").await?, ["11"]);
    Ok(())
}

/// A batch that is full, one whose time comes, one that replaces another: with a worker that dies at each of its points in turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_with_keys_outlive_a_crash_at_every_point() -> Result<()> {
    let server = Db::new().await;
    let tables = |pool: PgPool| async move {
        sqlx::raw_sql(APPLICATION_TABLES).execute(&pool).await?;
        Ok(())
    };
    let db = TestDatabase::create(&server.pool, tables).await?;
    let worker = |builder: Builder, _: PgPool| builder.register(collect).register(holds);
    let begin = |durable: Durable| async move {
        durable.start(holds()).deduplicate("k").id("first").await?;
        for n in 1..=3 {
            let batch = Batch::new(2, seconds(60));
            durable.start(collect(vec![n])).batch("k", batch).id(format!("input-{n}")).await?;
        }
        durable.start(holds()).deduplicate("k").if_open(IfOpen::Replace).id("second").await?;
        durable.send("second", GO, ()).key("once").await?;
        Ok(())
    };
    let check = |pool: PgPool| async move {
        let mut inputs = traces(&pool, "collect").await?;
        inputs.sort();
        ensure!(inputs == ["1", "2", "3"], "{inputs:?}");
        let held = traces(&pool, "holds").await?;
        // The first may have been replaced before it began, or got as far as having something to undo.
        let whole = ["first begun", "first undone", "second begun"];
        let stands = "select string_agg(format('%s %s %s', id, status, failure), ', ' order by id) from durable.workflow where name = 'holds'";
        let stands: String = sqlx::query_scalar(stands).fetch_one(&pool).await?;
        ensure!((0..=2).any(|n| held == whole[n..]), "{held:?}: {stands}");
        let batches: i64 =
            sqlx::query_scalar("select count(*) from durable.workflow where name = 'collect'").fetch_one(&pool).await?;
        ensure!(batches == 2, "{batches} batches");
        Ok(())
    };
    let report = every_crash(db, worker, begin, check).await?;
    report.assert_clean();
    for point in ["before a call: let begin what was held back", "after a call: start \"collect\" with key \"k\""] {
        ensure!(report.points.iter().any(|known| known == point), "{point} in {:#?}", report.points);
    }
    Ok(())
}

/// Whoever dies between the transaction's end and the look for it: the next look finds it.
#[tokio::test]
async fn a_batch_of_a_transaction_is_there_with_its_commit_and_not_without() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(collect).start().await?;
    let batch = Batch::new(10, Duration::from_millis(50));
    for commits in [false, true] {
        let mut tx = db.pool.begin().await?;
        durable.start(collect(vec![1])).batch("k", batch).in_tx(&mut tx).await?;
        sqlx::query("insert into application_row (name) values ('row')").execute(&mut *tx).await?;
        if commits { tx.commit().await? } else { tx.rollback().await? }
    }
    db.until("select exists (select from durable.workflow where status = 'completed')").await;
    assert_eq!(traces(&db.pool, "collect").await?, ["1"]);
    assert_eq!(db.count("select count(*) from application_row").await, 1);
    assert_eq!(db.count("select count(*) from durable.workflow").await, 1);
    Ok(())
}
