//! The kit for users' tests: a crash at every point of a workflow, and mistakes that it must find.

use anyhow::{Result, ensure};
use durable::testing::{TestDatabase, every_crash};
use durable::{Builder, Ctx, Durable, ErrorKind, PgConnection, StepCtx, Topic, hours, step, workflow};
use durable_tests::db::Db;
use sqlx::PgPool;

const APPROVED: Topic<bool> = Topic::new("approved");

#[step(tx)]
async fn debit(tx: &mut PgConnection, account: i64, cents: i64) -> Result<()> {
    Ok(add(tx, account, -cents).await?)
}

#[step(tx)]
async fn credit(tx: &mut PgConnection, account: i64, cents: i64) -> Result<()> {
    Ok(add(tx, account, cents).await?)
}

/// The mistake: what is not in the step's transaction happens again.
#[step]
async fn careless_debit(step: &StepCtx, account: i64, cents: i64) -> Result<()> {
    let mut connection = step.state::<PgPool>().acquire().await?;
    Ok(add(&mut connection, account, -cents).await?)
}

async fn add(connection: &mut PgConnection, account: i64, cents: i64) -> sqlx::Result<()> {
    let update = sqlx::query("update account set cents = cents + $2 where id = $1");
    update.bind(account).bind(cents).execute(connection).await?;
    Ok(())
}

#[step]
async fn mail(step: &StepCtx, text: String) -> Result<()> {
    let insert = sqlx::query("insert into letter values ($1, $2)").bind(step.key()).bind(text);
    insert.execute(step.state::<PgPool>()).await?;
    Ok(())
}

/// With a wait for a person and one for time, and with money on its way.
#[workflow]
async fn transfer(ctx: &Ctx, from: i64, to: i64, cents: i64) -> Result<()> {
    if ctx.receive(APPROVED).timeout(hours(1)).await? != Some(true) {
        return Ok(());
    }
    ctx.run(debit(from, cents)).await?;
    ctx.sleep(hours(24)).await?;
    ctx.run(credit(to, cents)).await?;
    ctx.run(mail(format!("{cents} have come"))).await?;
    Ok(())
}

#[workflow]
async fn careless_transfer(ctx: &Ctx, from: i64, to: i64, cents: i64) -> Result<()> {
    ctx.run(careless_debit(from, cents)).await?;
    ctx.run(credit(to, cents)).await?;
    Ok(())
}

async fn bank(server: &Db) -> Result<TestDatabase> {
    let tables = |pool: PgPool| async move {
        let tables = "create table account (id bigint primary key, cents bigint not null);
                      create table letter (key text not null, text text not null);
                      insert into account values (1, 1000), (2, 1000)";
        sqlx::raw_sql(tables).execute(&pool).await?;
        Ok(())
    };
    Ok(TestDatabase::create(&server.pool, tables).await?)
}

fn worker(builder: Builder, pool: PgPool) -> Builder {
    builder.register(transfer).register(careless_transfer).state(pool)
}

async fn begin(durable: Durable) -> Result<()> {
    durable.start(transfer(1, 2, 300)).id("t").await?;
    durable.send("t", APPROVED, true).key("approval").await?;
    Ok(())
}

async fn begin_carelessly(durable: Durable) -> Result<()> {
    durable.start(careless_transfer(1, 2, 300)).id("t").await?;
    Ok(())
}

async fn no_cent_is_lost(pool: PgPool) -> Result<()> {
    let cents: Vec<i64> = sqlx::query_scalar("select cents from account order by id").fetch_all(&pool).await?;
    ensure!(cents == [700, 1300], "the accounts are {cents:?}");
    Ok(())
}

async fn and_letters_have_one_key(pool: PgPool) -> Result<()> {
    no_cent_is_lost(pool.clone()).await?;
    let keys: Vec<String> = sqlx::query_scalar("select distinct key from letter").fetch_all(&pool).await?;
    ensure!(keys == ["t/4"], "letters went out under {keys:?}");
    Ok(())
}

#[tokio::test]
async fn a_transfer_outlives_a_crash_at_every_point() -> Result<()> {
    let server = Db::new().await;
    let report = every_crash(bank(&server).await?, worker, begin, and_letters_have_one_key).await?;
    report.assert_clean();
    assert!(report.points.len() >= 40, "{:#?}", report.points);
    // What a worker does of itself, and whether the approval is there before it is waited for, differs between runs.
    for missed in &report.missed {
        assert!(!missed.contains("body of a step") && !missed.contains("transactional step"), "{:#?}", report.missed);
    }
    let count = |point: &str| report.points.iter().filter(|at| **at == point).count();
    for step in ["debit", "credit", "mail"] {
        assert_eq!(count(&format!("before the body of a step: {step}")), 1, "{:#?}", report.points);
        assert_eq!(count(&format!("after the body of a step: {step}")), 1, "{:#?}", report.points);
    }
    assert_eq!(count("after a call: the COMMIT of a transactional step"), 2, "{:#?}", report.points);
    assert_eq!(count("after a call: send \"approved\" to workflow t"), 1, "{:#?}", report.points);
    Ok(())
}

#[tokio::test]
async fn every_crash_finds_a_debit_that_is_not_in_its_steps_transaction() -> Result<()> {
    let server = Db::new().await;
    let report = every_crash(bank(&server).await?, worker, begin_carelessly, no_cent_is_lost).await?;
    println!("{report}");
    // From the body on, until its record was written.
    let found: Vec<_> = report.violations.iter().map(|found| &*found.point).collect();
    for point in ["after the body of a step: careless_debit", "before a call: commit what workflows have come to"] {
        assert!(found.contains(&point), "{report}");
    }
    // Beside it, at most looks for work were under way.
    assert!(found.len() <= 6, "{report}");
    assert!(report.violations.iter().all(|found| found.problem == "the accounts are [400, 1300]"), "{report}");
    Ok(())
}

/// A customer who starts again without an id has two transfers.
#[tokio::test]
async fn every_crash_finds_a_start_without_an_id() -> Result<()> {
    let server = Db::new().await;
    let begin = |durable: Durable| async move {
        durable.start(transfer(1, 2, 300)).await?;
        Ok(())
    };
    let report = every_crash(bank(&server).await?, worker, begin, |_| async { Ok(()) }).await?;
    let twice = r#"workflows ended as ["2 transfer completed"], and without a crash as ["1 transfer completed"]"#;
    assert!(report.violations.iter().any(|found| found.problem == twice), "{report}");
    Ok(())
}

#[tokio::test]
async fn an_assertion_that_panics_is_a_violation() -> Result<()> {
    let server = Db::new().await;
    let wrong = every_crash(bank(&server).await?, worker, begin, |_| async { panic!("not rich") }).await;
    let error = wrong.expect_err("it is wrong without a crash, too");
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert_eq!(error.to_string(), "wrong even without a crash: panicked: not rich");
    Ok(())
}
