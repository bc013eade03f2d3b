//! What cannot be right is refused at once, with the fix; and nobody's data is in what is said about it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use durable::{Ctx, Durable, Error, ErrorKind, Status, Topic, workflow};
use durable_tests::db::Db;
use durable_tests::soon::Soon;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool};

const WORD: Topic<String> = Topic::new("word");

#[workflow]
async fn greets(ctx: &Ctx, name: String) -> Result<String> {
    Ok(format!("{}: hello {name}", ctx.id()))
}

mod namesake {
    use super::*;

    #[workflow(name = "greets")]
    pub(super) async fn other(ctx: &Ctx) -> Result<String> {
        Ok(ctx.id().to_owned())
    }

    #[workflow(name = "greets", version = 2)]
    pub(super) async fn newer(ctx: &Ctx, name: String) -> Result<String> {
        Ok(format!("{}: good day {name}", ctx.id()))
    }
}

#[workflow]
async fn empty_topic(ctx: &Ctx) -> Result<String> {
    Ok(ctx.receive(Topic::new("")).await?)
}

fn is_usage(error: &Error, part: &str) {
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    assert!(error.to_string().contains(part), "{part:?} is not in: {error}");
    assert!(!error.is_transient());
}

/// Names that a key cannot hold or a person cannot read, and what is said of each.
fn bad_names() -> [(String, &'static str); 5] {
    [
        (String::new(), "is empty"),
        ("x".repeat(513), "513 bytes"),
        ("a\0b".into(), "control character"),
        ("a\nb".into(), "control character"),
        ("a\u{85}b".into(), "control character"),
    ]
}

#[tokio::test]
async fn bad_names_are_refused_at_every_door() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    client.start(greets("x".into())).id("known").await?;
    for (bad, part) in bad_names() {
        is_usage(&client.start(greets("x".into())).id(&bad).await.unwrap_err(), part);
        is_usage(&client.start(greets("x".into())).queue(&bad).await.unwrap_err(), part);
        is_usage(
            &client.start_many([("fine", greets("x".into())), (&bad, greets("x".into()))]).await.unwrap_err(),
            part,
        );
        is_usage(&client.send(&bad, WORD, "x".into()).await.unwrap_err(), part);
        is_usage(&client.send("known", WORD, "x".into()).key(&bad).await.unwrap_err(), part);
        is_usage(&client.cancel(&bad).await.unwrap_err(), part);
        is_usage(&client.resume(&bad).await.unwrap_err(), part);
        is_usage(&client.workflow::<String>(&bad).soon().await.unwrap_err(), part);
        is_usage(&db.builder().queue(&bad).client().await.unwrap_err(), part);
    }
    for topic in [Topic::new(""), Topic::new("a\0b")] {
        assert_eq!(client.send("known", topic, "x".to_owned()).await.unwrap_err().kind(), ErrorKind::Usage);
    }
    assert_eq!(db.count("select count(*) + (select count(*) from durable.message) from durable.workflow").await, 1);

    // The longest names that are allowed do work, of whatever characters.
    let long = "ß".repeat(256);
    client.start(greets("x".into())).id(&long).queue(&long).await?;
    client.send(&long, WORD, "x".into()).key(&long).await?;
    client.cancel(&long).await?;
    Ok(())
}

#[tokio::test]
async fn a_receive_of_a_topic_that_cannot_be_fails() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(empty_topic).start().await?;
    let error = durable.start(empty_topic()).await?.soon().await.unwrap_err();
    assert!(error.failure().context("a failure")?.message().contains("topic is empty"), "{error}");
    Ok(())
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() -> Result<()> {
    let db = Db::new().await;
    let builder = || db.builder().register(greets);
    let ms = Duration::from_millis;
    is_usage(&db.builder().start().await.unwrap_err(), ".register(");
    is_usage(&builder().register(namesake::other).start().await.unwrap_err(), "\"greets\" version 1");
    is_usage(&builder().concurrency(0).start().await.unwrap_err(), "concurrency of 0");
    is_usage(&builder().lease(ms(10)).start().await.unwrap_err(), "500 ms to 1 h");
    is_usage(&builder().poll_every(ms(1)).start().await.unwrap_err(), "10 ms to 60 s");
    is_usage(&builder().short_wait(Duration::from_secs(61)).start().await.unwrap_err(), "at most 60 s");
    for schema in ["", "Durable", "2x", "a-b", "a\"; drop schema durable; --", "pg_x"] {
        is_usage(&builder().schema(schema).start().await.unwrap_err(), "cannot name the schema");
        is_usage(&durable::migrate(&db.pool, schema).await.unwrap_err(), "cannot name the schema");
    }
    assert_eq!(db.count("select count(*) from durable.worker").await, 0);
    Ok(())
}

#[tokio::test]
async fn two_versions_of_a_workflow_run_side_by_side() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(greets).register(namesake::newer).start().await?;
    let (one, two) = (durable.start(greets("A".into())).id("1"), durable.start(namesake::newer("B".into())).id("2"));
    assert_eq!(one.await?.soon().await?, "1: hello A");
    assert_eq!(two.await?.soon().await?, "2: good day B");
    assert!(durable.start(namesake::newer("A".into())).id("1").await.unwrap_err().is_conflict());
    Ok(())
}

/// A worker leaves alone what it has no body for, and another one that has it takes it.
#[tokio::test]
async fn an_unregistered_workflow_waits_for_a_worker_that_has_it() -> Result<()> {
    let db = Db::new().await;
    let old = db.builder().register(greets).start().await?;
    let handle = old.start(namesake::newer("B".into())).id("new").await?;
    old.start(greets("A".into())).in_tx(&mut *db.pool.acquire().await?).await?.soon().await?;
    assert_eq!(handle.status().await?, Status::Queued);
    assert_eq!(handle.info().await?.claims, 0);

    let _new = db.builder().register(namesake::newer).start().await?;
    assert_eq!(handle.soon().await?, "new: good day B");
    Ok(())
}

async fn fails_quickly(options: PgConnectOptions) {
    let pool = PgPoolOptions::new().connect_lazy_with(options);
    let began_at = Instant::now();
    let errors = [
        Durable::builder(pool.clone()).client().await.unwrap_err(),
        Durable::builder(pool.clone()).register(greets).start().await.unwrap_err(),
        durable::migrate(&pool, "durable").await.unwrap_err(),
    ];
    // The promise is "at once"; the bound is far below the half minute that a pool waits by itself.
    assert!(began_at.elapsed() < Duration::from_secs(15), "{:?}", began_at.elapsed());
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("could not connect to the database: "), "{error}");
        assert!(!error.to_string().contains("pool timed out"), "it says why: {error}");
        assert!(!error.to_string().contains("hush"), "no password: {error}");
    }
}

#[tokio::test]
async fn a_port_where_nothing_listens_is_a_clear_error_at_once() {
    // Bound and closed again, so that nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    fails_quickly(PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port).username("u").password("hush"))
        .await;
}

#[tokio::test]
async fn a_socket_directory_that_is_not_there_is_a_clear_error_at_once() {
    fails_quickly(PgConnectOptions::new_without_pgpass().socket("/nonexistent/sockets").username("u").password("hush"))
        .await;
}

async fn has_no_schema(pool: &PgPool, schema: &str) {
    let error = Durable::builder(pool.clone()).schema(schema).migrate(false).client().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema);
    let command = format!("durable::migrate(&pool, {schema:?})");
    assert!(error.to_string().contains(&command), "{error}");
}

#[tokio::test]
async fn a_missing_schema_names_the_command_that_makes_it() -> Result<()> {
    let db = Db::empty().await;
    has_no_schema(&db.pool, "durable").await;
    has_no_schema(&db.pool, "agents_2").await;
    durable::migrate(&db.pool, "durable").await?;
    db.client().await;
    has_no_schema(&db.pool, "agents_2").await;
    Ok(())
}

/// P19: many processes that start at once migrate once.
#[tokio::test]
async fn concurrent_migrations_make_one_schema() -> Result<()> {
    let db = Db::empty().await;
    let migrations = (0..6).map(|_| durable::migrate(&db.pool, "durable"));
    futures::future::try_join_all(migrations).await?;
    let starts = (0..3).map(|_| Durable::builder(db.pool.clone()).schema("agents_2").register(greets).start());
    futures::future::try_join_all(starts).await?;
    let all = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations"))?.count();
    for applied in ["durable.migration", "agents_2.migration"] {
        let counts = format!("select array[count(*), count(distinct version)] from {applied}");
        let counts: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(counts)).fetch_one(&db.pool).await?;
        assert_eq!(counts, [i64::try_from(all)?; 2], "{applied}");
    }
    Ok(())
}

/// Another schema works from migration to end, and touches nothing outside it.
#[tokio::test]
async fn another_schema_works_end_to_end() -> Result<()> {
    use super::waiting_states::{GO, waits_then_works};
    use durable_tests::kit::Kit;
    let db = Db::empty().await;
    let kit = Kit::default();
    let builder = db.builder().schema("agents_2").migrate(true).register(waits_then_works).state(kit.clone());
    let durable = builder.start().await?;
    let clock = durable::testing::Clock::install(&db.pool, "agents_2").await?;
    let handle = durable.start(waits_then_works()).id("w").await?;
    db.until("select status = 'suspended' from agents_2.workflow").await;
    clock.advance(durable::hours(1)).await?;
    durable.send("w", GO, ()).key("k").await?;
    kit.gate.reached().await;
    kit.gate.open();
    assert_eq!(handle.soon().await?, "after w");
    assert_eq!(handle.steps().await?.len(), 3);
    durable.start(waits_then_works()).id("x").await?;
    durable.cancel("x").await?;
    durable.shutdown(Duration::from_secs(10)).await;
    let schemas = "select string_agg(nspname, ',' order by nspname) from pg_namespace
                   where nspname !~ '^pg_' and nspname not in ('information_schema', 'public')";
    assert_eq!(db.text(schemas).await, "agents_2");
    Ok(())
}
