//! What a step is: its key, its state, and the transaction of a transactional one.

use anyhow::{Context, Result, bail};
use durable::{Ctx, FailureKind, PgConnection, StepCtx, step, workflow};
use durable_tests::db::Db;
use durable_tests::effects;
use durable_tests::kit::{Kit, Log};
use durable_tests::soon::Soon;
use sqlx::Connection;

#[step]
async fn tells_its_key(step: &StepCtx) -> Result<String> {
    Ok(step.key().to_owned())
}

#[workflow]
async fn keys(ctx: &Ctx) -> Result<Vec<String>> {
    let mut keys = vec![ctx.run(tells_its_key()).await?];
    keys.push(ctx.branch(async |ctx: &Ctx| ctx.run(tells_its_key()).await).await?);
    for key in ctx.fan_out(0..2, 2, async |ctx: &Ctx, _| ctx.run(tells_its_key()).await).await {
        keys.push(key?);
    }
    Ok(keys)
}

#[workflow]
async fn keys_of_a_branch(ctx: &Ctx) -> Result<Vec<String>> {
    Ok(vec![ctx.branch(async |ctx: &Ctx| ctx.run(tells_its_key()).await).await?])
}

/// Services take the key for one call: two steps with one key would be one charge.
#[tokio::test]
async fn no_two_steps_have_one_key() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(keys).register(keys_of_a_branch).start().await?;
    let mut all = durable.start(keys_of_a_branch()).id("a").await?.soon().await?;
    for id in ["a/0", "a/0/0", "a/1", "0"] {
        all.extend(durable.start(keys()).id(id).await?.soon().await?);
    }
    let count = all.len();
    all.sort();
    let listed = format!("{all:?}");
    all.dedup();
    assert_eq!(all.len(), count, "{listed}");
    Ok(())
}

#[step(tx)]
async fn insert(tx: &mut PgConnection, step: &StepCtx, name: String) -> Result<i64> {
    effects::write(tx, step, "insert", &name).await?;
    sqlx::query("insert into application_row (name) values ($1)").bind(name).execute(&mut *tx).await?;
    Ok(sqlx::query_scalar("select count(*) from application_row").fetch_one(tx).await?)
}

#[step(tx, retry(max_attempts = 2, first = "1ms"))]
async fn inserts_then_fails(tx: &mut PgConnection, step: &StepCtx) -> Result<()> {
    effects::write(tx, step, "insert", "").await?;
    step.state::<Log>().note(format!("attempt {}", step.attempt()));
    bail!("no luck")
}

#[workflow]
async fn fails_in_a_transaction(ctx: &Ctx) -> Result<(String, u32)> {
    let failure = ctx.run(inserts_then_fails()).await.expect_err("it fails");
    Ok((failure.message(), failure.attempts()))
}

/// P1: nothing of a failed attempt stays.
#[tokio::test]
async fn an_error_rolls_its_transaction_back() -> Result<()> {
    let db = Db::new().await;
    let log = Log::default();
    let durable = db.builder().register(fails_in_a_transaction).state(log.clone()).start().await?;
    let got = durable.start(fails_in_a_transaction()).id("t").await?.soon().await?;
    assert_eq!(got, ("no luck".to_owned(), 2));
    assert_eq!(log.entries(), ["attempt 1", "attempt 2"]);
    assert_eq!(db.count("select count(*) from effect").await, 0);
    assert_eq!(db.text("select kind from durable.step").await, "transaction");
    Ok(())
}

#[step(tx)]
async fn smuggles(tx: &mut PgConnection, step: &StepCtx, statement: String) -> Result<()> {
    step.state::<Log>().note(statement.clone());
    effects::write(tx, step, "before", "").await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone())).execute(&mut *tx).await?;
    if statement.ends_with("fail") {
        bail!("and fails");
    }
    Ok(())
}

#[workflow]
async fn smuggler(ctx: &Ctx, statement: String) -> Result<()> {
    Ok(ctx.run(smuggles(statement)).retry(5).await?)
}

/// P1: a step that ends the engine's transaction is found out, and not tried again.
#[tokio::test]
async fn a_commit_or_rollback_of_the_steps_own_is_found_out() -> Result<()> {
    let db = Db::new().await;
    let log = Log::default();
    let durable = db.builder().register(smuggler).state(log.clone()).start().await?;
    let statements =
        ["commit", "rollback", "commit; begin", "rollback; begin", "commit -- and fail", "rollback -- and fail"];
    for statement in statements {
        let handle = durable.start(smuggler(statement.into())).await?;
        let failure = handle.soon().await.unwrap_err().failure().cloned().context("a failure")?;
        assert_eq!(failure.kind(), FailureKind::Transaction, "{statement}: {failure}");
        assert!(failure.message().contains("use a savepoint"), "{failure}");
        assert!(failure.is_terminal() && failure.attempts() == 1, "{failure:?}");
        assert_eq!(log.count(statement), 1, "{statement} was tried again");
    }
    db.until(
        "select count(*) = 0 from pg_stat_activity
         where datname = current_database() and state like 'idle in transaction%'",
    )
    .await;
    Ok(())
}

#[step(tx)]
async fn uses_savepoints(tx: &mut PgConnection, step: &StepCtx) -> Result<()> {
    effects::write(tx, step, "outer", "").await?;
    let mut kept = tx.begin().await?;
    effects::write(&mut kept, step, "kept", "").await?;
    kept.commit().await?;
    let mut undone = tx.begin().await?;
    effects::write(&mut undone, step, "undone", "").await?;
    sqlx::query("select 1 / 0").execute(&mut *undone).await.expect_err("a division by zero");
    undone.rollback().await?;
    Ok(())
}

#[workflow]
async fn with_savepoints(ctx: &Ctx) -> Result<()> {
    Ok(ctx.run(uses_savepoints()).await?)
}

#[tokio::test]
async fn savepoints_work_inside_the_engines_transaction() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(with_savepoints).start().await?;
    durable.start(with_savepoints()).id("s").await?.soon().await?;
    assert_eq!(db.text("select string_agg(step, ',' order by step) from effect").await, "kept,outer");
    Ok(())
}

#[step(tx, retry(max_attempts = 1))]
async fn swallows_an_error(tx: &mut PgConnection, step: &StepCtx) -> Result<()> {
    effects::write(tx, step, "write", "").await?;
    sqlx::query("select 1 / 0").execute(tx).await.ok();
    Ok(())
}

#[step(tx, retry(max_attempts = 1))]
async fn breaks_a_key(tx: &mut PgConnection, name: String) -> Result<()> {
    let insert = "insert into unique_row (name) values ($1), ($1)";
    sqlx::query(insert).bind(name).execute(tx).await.context("saving the row")?;
    Ok(())
}

#[step(tx, retry(max_attempts = 2, first = "1ms"))]
async fn breaks_a_deferred_key(tx: &mut PgConnection, step: &StepCtx) -> Result<()> {
    step.state::<Log>().note("deferred");
    sqlx::query("insert into deferred_row (name) values ('x'), ('x')").execute(tx).await?;
    Ok(())
}

#[workflow]
async fn breaks(ctx: &Ctx, how: String) -> Result<()> {
    match how.as_str() {
        "swallowed" => ctx.run(swallows_an_error()).await?,
        "unique" => ctx.run(breaks_a_key("secret".into())).await?,
        "deferred" => ctx.run(breaks_a_deferred_key()).await?,
        other => bail!("unknown: {other}"),
    }
    Ok(())
}

async fn broken(db: &Db, log: &Log, how: &str) -> Result<durable::Failure> {
    sqlx::raw_sql(
        "create table unique_row (name text unique);
         create table deferred_row (name text unique deferrable initially deferred)",
    )
    .execute(&db.pool)
    .await?;
    let durable = db.builder().register(breaks).state(log.clone()).start().await?;
    let handle = durable.start(breaks(how.into())).id("b").await?;
    handle.soon().await.unwrap_err().failure().cloned().context("a failure")
}

/// P1: an error that the step's code swallowed cannot make its half of the work look whole.
#[tokio::test]
async fn a_swallowed_database_error_fails_the_step() -> Result<()> {
    let db = Db::new().await;
    let failure = broken(&db, &Log::default(), "swallowed").await?;
    assert!(failure.message().contains("25P02"), "{failure}");
    assert_eq!(db.count("select count(*) from effect").await, 0);
    Ok(())
}

#[tokio::test]
async fn a_constraint_violation_is_the_applications_error_without_its_detail() -> Result<()> {
    let db = Db::new().await;
    let failure = broken(&db, &Log::default(), "unique").await?;
    assert_eq!(failure.kind(), FailureKind::Error);
    assert!(failure.message().starts_with("saving the row: "), "{failure}");
    assert!(failure.message().contains("unique_row_name_key"), "{failure}");
    assert!(!failure.message().contains("secret"), "the DETAIL holds the row: {failure}");
    Ok(())
}

#[tokio::test]
async fn a_deferred_constraint_fails_the_step() -> Result<()> {
    let db = Db::new().await;
    let log = Log::default();
    let failure = broken(&db, &log, "deferred").await?;
    assert!(failure.message().contains("deferred_row_name_key"), "{failure}");
    assert_eq!(log.entries(), ["deferred", "deferred"], "two attempts");
    assert_eq!(db.count("select count(*) from deferred_row").await, 0);
    Ok(())
}

#[step(tx, retry(max_attempts = 1))]
async fn contends(tx: &mut PgConnection, step: &StepCtx, code: String) -> Result<u32> {
    let kit = step.state::<Kit>();
    effects::write(tx, step, "contends", &code).await?;
    kit.log.note(code.clone());
    if kit.log.count(&code) < 4 {
        let raise = format!("do $$ begin raise exception 'contended' using errcode = '{code}'; end $$");
        sqlx::raw_sql(sqlx::AssertSqlSafe(raise)).execute(tx).await.context("in some context")?;
    }
    Ok(step.attempt())
}

#[workflow]
async fn contended(ctx: &Ctx, code: String) -> Result<u32> {
    Ok(ctx.run(contends(code)).await?)
}

/// P17: a deadlock or a serialization failure is not the step's failure: it is run again inside one attempt.
#[tokio::test]
async fn contention_is_tried_again_inside_one_attempt() -> Result<()> {
    let db = Db::new().await;
    let kit = Kit::default();
    let durable = db.builder().register(contended).state(kit.clone()).start().await?;
    for code in ["40001", "40P01"] {
        assert_eq!(durable.start(contended(code.into())).await?.soon().await?, 1);
        assert_eq!(kit.log.count(code), 4);
    }
    assert_eq!(db.count("select count(*) from effect").await, 2);
    Ok(())
}

#[step(tx, retry(max_attempts = 1))]
async fn locks_two(tx: &mut PgConnection, step: &StepCtx, first: String, second: String) -> Result<()> {
    let update = "update application_row set value = coalesce(value, '') || 'x' where name = $1";
    sqlx::query(update).bind(first).execute(&mut *tx).await?;
    step.state::<Kit>().gate.pass().await;
    sqlx::query(update).bind(second).execute(tx).await?;
    Ok(())
}

#[workflow]
async fn locks(ctx: &Ctx, first: String, second: String) -> Result<()> {
    Ok(ctx.run(locks_two(first, second)).await?)
}

/// P17: two workflows that deadlock in PostgreSQL both complete, each once.
#[tokio::test]
async fn a_real_deadlock_costs_nobody_an_attempt() -> Result<()> {
    let db = Db::new().await;
    let kit = Kit::default();
    sqlx::query("insert into application_row (name) values ('a'), ('b')").execute(&db.pool).await?;
    let durable = db.builder().register(locks).state(kit.clone()).start().await?;
    let one = durable.start(locks("a".into(), "b".into())).await?;
    let two = durable.start(locks("b".into(), "a".into())).await?;
    kit.gate.reached().await;
    kit.gate.reached().await;
    // Two to deadlock, one for the one that has to come again.
    for _ in 0..3 {
        kit.gate.open();
    }
    one.soon().await?;
    two.soon().await?;
    assert_eq!(db.text("select string_agg(value, ',') from application_row").await, "xx,xx");
    Ok(())
}

#[workflow]
async fn counts_rows(ctx: &Ctx) -> Result<Vec<i64>> {
    Ok(vec![ctx.run(insert("a".into())).await?, ctx.run(insert("b".into())).await?])
}

/// P1: a step sees what the one before it committed, and each is there once.
#[tokio::test]
async fn transactional_steps_commit_one_after_the_other() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(counts_rows).start().await?;
    assert_eq!(durable.start(counts_rows()).id("c").await?.soon().await?, [1, 2]);
    let keys = db.text("select string_agg(key, ',' order by key) from effect").await;
    assert_eq!(keys, "c/0,c/1");
    Ok(())
}

#[step(tx)]
async fn lifts_the_bound(tx: &mut PgConnection) -> Result<()> {
    sqlx::query("set idle_in_transaction_session_timeout = 0").execute(tx).await?;
    Ok(())
}

#[step(tx)]
async fn tells_the_bound(tx: &mut PgConnection) -> Result<String> {
    Ok(sqlx::query_scalar("select current_setting('idle_in_transaction_session_timeout')").fetch_one(tx).await?)
}

#[workflow]
async fn careless(ctx: &Ctx) -> Result<String> {
    ctx.run(lifts_the_bound()).await?;
    Ok(ctx.run(tells_the_bound()).await?)
}

/// P10: what a step does to its session does not take from the next one the bound that frees a lost worker's rows.
#[tokio::test]
async fn a_step_that_lifts_the_bound_on_idle_transactions_lifts_it_for_itself_alone() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().lease(durable::seconds(7)).register(careless).start().await?;
    assert_eq!(durable.start(careless()).id("c").await?.soon().await?, "7s");
    Ok(())
}

#[step]
async fn needs_state(step: &StepCtx) -> Result<String> {
    Ok(step.state::<Log>().entries().join(","))
}

#[workflow]
async fn lacks_state(ctx: &Ctx) -> Result<String> {
    Ok(ctx.run(needs_state()).retry(1).await?)
}

#[tokio::test]
async fn missing_state_fails_with_what_to_add() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(lacks_state).start().await?;
    let error = durable.start(lacks_state()).id("l").await?.soon().await.unwrap_err();
    let failure = error.failure().context("a failure")?;
    assert_eq!(failure.kind(), FailureKind::Panic);
    assert!(failure.message().contains("kit::Log") && failure.message().contains(".state("), "{failure}");
    Ok(())
}
