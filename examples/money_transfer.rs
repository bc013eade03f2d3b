//! A money transfer, and its test: a crash at every point, and no cent is lost or made.
//!
//! `cargo test -p durable-examples --test money-transfer -- --nocapture`

use anyhow::{Result, ensure};
use durable::testing::{TestDatabase, every_crash};
use durable::{Ctx, Durable, PgConnection, StepCtx, hours, step, workflow};
use durable_dev::{Template, TestDb};
use sqlx::PgPool;

#[step(tx)]
async fn debit(tx: &mut PgConnection, account: i64, cents: i64) -> Result<()> {
    let update = sqlx::query("update account set cents = cents - $2 where id = $1 and cents >= $2");
    let updated = update.bind(account).bind(cents).execute(tx).await?;
    ensure!(updated.rows_affected() == 1, "account {account} has less than {cents}");
    Ok(())
}

#[step(tx)]
async fn credit(tx: &mut PgConnection, account: i64, cents: i64) -> Result<()> {
    sqlx::query("update account set cents = cents + $2 where id = $1").bind(account).bind(cents).execute(tx).await?;
    Ok(())
}

/// The post office is outside of the transaction: it sees a letter again after a crash, under the same key.
#[step]
async fn mail(step: &StepCtx, text: String) -> Result<()> {
    let insert = sqlx::query("insert into letter (key, text) values ($1, $2)");
    insert.bind(step.key()).bind(text).execute(step.state::<PgPool>()).await?;
    Ok(())
}

#[workflow]
async fn transfer(ctx: &Ctx, from: i64, to: i64, cents: i64) -> Result<()> {
    ctx.run(debit(from, cents)).await?;
    ctx.sleep(hours(24)).await?;
    ctx.run(credit(to, cents)).await?;
    ctx.run(mail(format!("{cents} have come"))).await?;
    Ok(())
}

/// What the application's migrations would make, and what the test begins with.
async fn tables(pool: PgPool) -> Result<()> {
    let tables = "create table account (id bigint primary key, cents bigint not null);
                  create table letter (key text not null, text text not null);
                  insert into account values (1, 1000), (2, 1000)";
    sqlx::raw_sql(tables).execute(&pool).await?;
    Ok(())
}

/// It is called again after the crash, as by a customer who got no answer.
async fn begin(durable: Durable) -> Result<()> {
    durable.start(transfer(1, 2, 300)).id("transfer-1").await?;
    Ok(())
}

/// What must be true, wherever a worker died.
async fn check(pool: PgPool) -> Result<()> {
    let cents: Vec<i64> = sqlx::query_scalar("select cents from account order by id").fetch_all(&pool).await?;
    ensure!(cents == [700, 1300], "the accounts are {cents:?}");
    let keys: Vec<String> = sqlx::query_scalar("select distinct key from letter").fetch_all(&pool).await?;
    ensure!(keys.len() == 1, "letters went out under {keys:?}");
    Ok(())
}

#[tokio::test]
async fn no_crash_loses_or_makes_a_cent() -> Result<()> {
    // A private server; yours would be PgPool::connect(&std::env::var("DATABASE_URL")?).
    let server = TestDb::create(&Template::new::<&str>("server", &[]))?;
    let db = TestDatabase::create(&PgPool::connect(server.url()).await?, tables).await?;
    let report = every_crash(db, |worker, pool| worker.register(transfer).state(pool), begin, check).await?;
    report.assert_clean();
    Ok(())
}
