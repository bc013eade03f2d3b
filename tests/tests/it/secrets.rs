//! What users store is nobody's to read in a log: no input, output, message or failure text is ever traced.

use std::time::Duration;

use anyhow::{Result, bail};
use durable::{Ctx, PgConnection, Topic, step, workflow};
use durable_tests::db::Db;
use durable_tests::soon::Soon;
use durable_tests::traced::Traced;

const SECRET: &str = "hush-4111-1111";
const WORD: Topic<String> = Topic::new("word");
const NUMBER: Topic<i64> = Topic::new("word");

#[step]
async fn echoes(secret: String) -> Result<String> {
    Ok(secret)
}

#[step(retry(max_attempts = 2, first = "1ms"))]
async fn fails(secret: String) -> Result<String> {
    bail!("no luck with {secret}")
}

#[step(retry(max_attempts = 2, first = "1ms"))]
async fn panics(secret: String) -> Result<String> {
    panic!("no luck with {secret}")
}

#[step(tx, retry(max_attempts = 1))]
async fn breaks_a_key(tx: &mut PgConnection, secret: String) -> Result<()> {
    sqlx::query("insert into unique_row (name) values ($1), ($1)").bind(secret).execute(tx).await?;
    Ok(())
}

#[workflow]
async fn keeps_a_secret(ctx: &Ctx, secret: String) -> Result<String> {
    ctx.run(echoes(secret.clone())).await?;
    assert!(ctx.run(fails(secret.clone())).await.is_err());
    assert!(ctx.run(panics(secret.clone())).await.is_err());
    let broken = ctx.run(breaks_a_key(secret.clone())).await.expect_err("a broken key");
    assert!(!broken.to_string().contains(SECRET), "the DETAIL holds the row: {broken}");
    assert!(ctx.receive(NUMBER).await.is_err());
    let word = ctx.receive(WORD).await?;
    ctx.sleep(Duration::from_millis(1)).await?;
    Ok(word + &secret)
}

#[workflow]
async fn fails_with_a_secret(ctx: &Ctx, secret: String) -> Result<()> {
    bail!("{} fails with {secret}", ctx.id())
}

#[workflow]
async fn panics_with_a_secret(ctx: &Ctx, secret: String) -> Result<()> {
    panic!("{} fails with {secret}", ctx.id())
}

mod changed {
    use super::*;

    #[step(name = "echoes")]
    async fn echoes_numbers() -> Result<i64> {
        Ok(1)
    }

    /// What is recorded no longer decodes, nor does the input.
    #[workflow(name = "keeps_a_secret")]
    pub(super) async fn wants_numbers(ctx: &Ctx, _secret: serde_json::Value) -> Result<i64> {
        Ok(ctx.run(echoes_numbers()).await?)
    }

    #[workflow(name = "fails_with_a_secret")]
    pub(super) async fn takes_a_number(ctx: &Ctx, number: i64) -> Result<usize> {
        Ok(ctx.id().len() + usize::try_from(number)?)
    }
}

#[tokio::test]
async fn nothing_that_users_store_is_traced() -> Result<()> {
    let (traced, _guard) = Traced::on_this_thread(tracing::Level::TRACE);
    let db = Db::new().await;
    sqlx::query("create table unique_row (name text unique)").execute(&db.pool).await?;
    let secret = || SECRET.to_owned();

    let durable = db.builder().register(keeps_a_secret).register(fails_with_a_secret).register(panics_with_a_secret);
    let durable = durable.start().await?;
    let kept = durable.start(keeps_a_secret(secret())).id("kept").await?;
    durable.start(keeps_a_secret(secret())).id("blocked").await?;
    durable.send("kept", WORD, secret()).await?;
    durable.send("kept", WORD, secret()).await?;
    assert_eq!(kept.soon().await?, SECRET.repeat(2));
    for handle in
        [durable.start(fails_with_a_secret(secret())).await?, durable.start(panics_with_a_secret(secret())).await?]
    {
        handle.soon().await.unwrap_err();
    }
    assert!(durable.start(fails_with_a_secret(secret())).id("kept").await.unwrap_err().is_conflict());
    db.until_status("blocked", "suspended").await;
    durable.shutdown(Duration::from_secs(10)).await;

    let client = db.client().await;
    client.start(fails_with_a_secret(secret())).id("no number").await?;
    let durable = db.builder().register(changed::wants_numbers).register(changed::takes_a_number).start().await?;
    let error = durable.workflow::<()>("no number").soon().await.unwrap_err();
    assert!(!error.to_string().contains(SECRET), "{error}");
    durable.send("blocked", WORD, secret()).await?;
    db.until_status("blocked", "blocked").await;
    let failure = durable.workflow::<()>("blocked").info().await?.failure.expect("a failure").to_string();
    assert!(!failure.contains(SECRET), "{failure}");
    let error = durable.workflow::<i64>("kept").soon().await.unwrap_err();
    assert!(!error.to_string().contains(SECRET), "{error}");
    durable.shutdown(Duration::from_secs(10)).await;

    let text = traced.text();
    assert!(text.contains("step will be tried again") && text.contains("workflow is blocked"), "nothing was traced");
    let leaks: Vec<_> = text.lines().filter(|line| line.contains(SECRET)).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
    Ok(())
}
