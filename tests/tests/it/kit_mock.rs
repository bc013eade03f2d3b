//! The kit for users' tests: other bodies in the place of steps' own.

use std::sync::{Arc, Mutex};

use anyhow::{Result, bail, ensure};
use durable::{Ctx, ErrorKind, PgConnection, step, workflow};
use durable_tests::db::Db;

use super::kit_clock::kit_database;

#[step]
async fn ping() -> Result<u8> {
    bail!("there is no network in a test")
}

#[step]
async fn rate(currency: String) -> Result<f64> {
    bail!("there is no network in a test: {currency}")
}

#[step(name = "mail_v2", retry(max_attempts = 2, first = "1s"))]
async fn mail(to: String, text: String) -> Result<usize> {
    bail!("there is no post in a test: {to} {text}")
}

#[step(tx)]
async fn note(tx: &mut PgConnection, text: String) -> Result<i64> {
    sqlx::query("insert into item values ($1)").bind(text).execute(tx).await?;
    Ok(1)
}

/// The same names as above, one house further.
mod elsewhere {
    use durable::step;

    #[step]
    pub(super) async fn ping() -> anyhow::Result<u8> {
        Ok(200)
    }
}

#[workflow]
async fn reports(ctx: &Ctx) -> Result<String> {
    let (ping, other) = (ctx.run(ping()).await?, ctx.run(elsewhere::ping()).await?);
    let rate = ctx.run(rate("CHF".into())).await?;
    let sent = ctx.run(mail("ada".into(), format!("{rate}"))).await?;
    let noted = ctx.run(note("noted".into())).await?;
    Ok(format!("{ping} {other} {rate} {sent} {noted}"))
}

#[tokio::test]
async fn a_mock_takes_the_place_of_a_steps_body_and_of_nothing_else() -> Result<()> {
    let server = Db::new().await;
    let db = kit_database(&server).await?;
    let letters = Arc::new(Mutex::new(Vec::new()));
    let post = letters.clone();
    let builder = db.builder().register(reports);
    let builder = builder
        .mock(ping, |()| async { Ok(7) })
        .mock(rate, |currency| async move {
            ensure!(currency == "CHF");
            Ok(0.5)
        })
        .mock(mail, move |(to, text)| {
            let post = post.clone();
            async move {
                let mut letters = post.lock().expect("nobody panicked");
                letters.push(format!("{to}: {text}"));
                ensure!(letters.len() > 1, "the first letter is lost");
                Ok(letters.len())
            }
        });
    let durable = builder.start().await?;
    let handle = durable.start(reports()).id("r").await?;
    db.run_through_waits().await?;
    assert_eq!(handle.result().await?, "7 200 0.5 2 1");
    assert_eq!(*letters.lock().expect("nobody panicked"), ["ada: 0.5", "ada: 0.5"]);
    let steps = handle.steps().await?;
    let names: Vec<_> = steps.iter().map(|step| &*step.name).collect();
    assert_eq!(names, ["ping", "ping", "rate", "mail_v2", "note"]);
    assert_eq!(steps[3].failed_attempts.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_transactional_step_that_is_mocked_writes_its_record_and_nothing_else() -> Result<()> {
    let server = Db::new().await;
    let db = kit_database(&server).await?;
    let builder = db.builder().register(notes).mock(note, |text| async move { Ok(text.len() as i64) });
    let durable = builder.start().await?;
    assert_eq!(durable.start(notes()).id("n").await?.result().await?, 4);
    let items: i64 = sqlx::query_scalar("select count(*) from item").fetch_one(db.pool()).await?;
    assert_eq!(items, 0);
    Ok(())
}

#[workflow]
async fn notes(ctx: &Ctx) -> Result<i64> {
    Ok(ctx.run(note("four".into())).await?)
}

#[tokio::test]
async fn a_mock_that_panics_fails_its_attempt() -> Result<()> {
    let server = Db::new().await;
    let db = kit_database(&server).await?;
    let builder = db.builder().register(notes).mock(note, |text| async move { panic!("cannot write {text}") });
    let durable = builder.start().await?;
    let handle = durable.start(notes()).id("n").await?;
    db.run_through_waits().await?;
    let error = handle.result().await.expect_err("every attempt panicked");
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.to_string().contains("cannot write four"), "{error}");
    Ok(())
}
