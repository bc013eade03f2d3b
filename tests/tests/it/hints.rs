//! What one process does, another one notices at once, although its next poll is minutes away; and by that poll when
//! nobody listens.
//!
//! Each `Durable` here counts as a process: they share nothing but the database.

use std::time::{Duration, Instant};

use anyhow::Result;
use durable::{Builder, Ctx, Durable, ErrorKind, Handle, StepCtx, Topic, step, workflow};
use durable_tests::db::{Db, PATIENCE};
use durable_tests::gate::Gate;
use durable_tests::soon::Soon;
use durable_tests::wire::Wire;

/// The longest poll that there is, and a bound well below it.
const POLL: Duration = Duration::from_secs(60);
const BEFORE_THE_POLL: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3_600);

const NUDGE: Topic<i64> = Topic::new("nudge");

/// Whether anybody listens.
const LISTENING: &str = "select count(*) > 0 from pg_stat_activity
                         where datname = current_database() and query ilike 'listen %'";

#[workflow]
async fn quick(ctx: &Ctx, n: i64) -> Result<i64> {
    let _ = ctx.now();
    Ok(n)
}

#[workflow]
async fn ask(ctx: &Ctx) -> Result<i64> {
    Ok(ctx.receive(NUDGE).await?)
}

#[step]
async fn through_the_gate(step: &StepCtx) -> Result<()> {
    step.state::<Gate>().pass().await;
    Ok(())
}

#[workflow]
async fn gated(ctx: &Ctx) -> Result<i64> {
    ctx.run(through_the_gate()).await?;
    Ok(7)
}

/// A worker that looks for work on its own only once in a long while.
fn deaf(db: &Db) -> Builder {
    db.builder().lease(HOUR).poll_every(POLL).register(quick).register(ask).register(gated).state(Gate::default())
}

/// The result, if it comes before anybody polls.
async fn at_once<T: serde::de::DeserializeOwned>(handle: &Handle<T>) -> Result<T> {
    Ok(tokio::time::timeout(BEFORE_THE_POLL, handle.result()).await??)
}

/// How many NOTIFYs have passed a wire.
fn told(wire: &Wire) -> usize {
    wire.flights().iter().flat_map(|flight| &flight.statements).filter(|text| text.contains("pg_notify")).count()
}

async fn until_told(wire: &Wire, times: usize) {
    let began_at = Instant::now();
    while told(wire) < times {
        assert!(began_at.elapsed() < PATIENCE, "{} hints were sent, not {times}", told(wire));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn on(wire: &Wire) -> Builder {
    Durable::builder(wire.pool()).migrate(false).lease(HOUR).poll_every(POLL)
}

#[tokio::test]
async fn a_start_in_one_process_is_noticed_in_another() -> Result<()> {
    let db = Db::new().await;
    let _worker = deaf(&db).start().await?;
    let client = db.client().await;
    for n in 0..30 {
        assert_eq!(at_once(&client.start(quick(n)).await?).await?, n);
    }
    let half_claimed_after = "select (1000 * percentile_cont(0.5) within group
                                  (order by extract(epoch from claimed_at - created_at)))::bigint
                              from durable.workflow";
    println!("half of the starts are claimed elsewhere after {} ms", db.count(half_claimed_after).await);
    let many = client.start_many((0..100).map(|n| (format!("m-{n}"), quick(n)))).await?;
    for (n, handle) in many.iter().enumerate() {
        assert_eq!(at_once(handle).await?, i64::try_from(n)?);
    }
    Ok(())
}

#[tokio::test]
async fn a_start_in_a_transaction_of_another_process_is_noticed_after_its_commit() -> Result<()> {
    let db = Db::new().await;
    let _worker = deaf(&db).start().await?;
    let client = db.client().await;
    let mut tx = db.pool.begin().await?;
    let handle = client.start(quick(1)).id("a").in_tx(&mut tx).await?;
    tx.commit().await?;
    assert_eq!(at_once(&handle).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_message_from_another_process_wakes_a_suspended_workflow() -> Result<()> {
    let db = Db::new().await;
    let worker = deaf(&db).start().await?;
    let client = db.client().await;
    for (id, in_tx) in [("a", false), ("b", true)] {
        let handle = worker.start(ask()).id(id).await?;
        db.until_status(id, "suspended").await;
        if in_tx {
            let mut tx = db.pool.begin().await?;
            client.send(id, NUDGE, 5).in_tx(&mut tx).await?;
            tx.commit().await?;
        } else {
            client.send(id, NUDGE, 5).await?;
        }
        assert_eq!(at_once(&handle).await?, 5);
    }
    Ok(())
}

#[tokio::test]
async fn a_resumed_workflow_is_noticed_in_another_process() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    let handle = client.start(quick(3)).id("a").await?;
    sqlx::query("update durable.workflow set status = 'blocked', due_at = null").execute(&db.pool).await?;
    let worker = deaf(&db).start().await?;
    // It has looked once it is through with something else.
    worker.start(quick(0)).await?.soon().await?;
    client.resume("a").await?;
    assert_eq!(at_once(&handle).await?, 3);
    Ok(())
}

#[tokio::test]
async fn a_cancellation_reaches_the_worker_of_another_process_before_its_heartbeat() -> Result<()> {
    let db = Db::new().await;
    let gate = Gate::default();
    let worker = deaf(&db).state(gate.clone()).start().await?;
    let handle = worker.start(gated()).id("a").await?;
    gate.reached().await;
    // Its next heartbeat is twenty minutes away, and the cancellation waits for it.
    tokio::time::timeout(BEFORE_THE_POLL, db.client().await.cancel("a").into_future()).await??;
    assert_eq!(handle.soon().await.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(db.count("select count(*) from durable.workflow where stopping is not null").await, 0);
    Ok(())
}

#[tokio::test]
async fn what_a_worker_hands_back_is_noticed_by_another() -> Result<()> {
    let db = Db::new().await;
    let (one, two) = (Gate::default(), Gate::default());
    let first = deaf(&db).state(one.clone()).start().await?;
    let handle = first.start(gated()).id("a").await?;
    one.reached().await;
    let second = deaf(&db).state(two.clone()).start().await?;
    second.start(quick(0)).await?.soon().await?;

    first.shutdown(Duration::ZERO).await;
    two.open();

    assert_eq!(at_once(&handle).await?, 7);
    Ok(())
}

#[tokio::test]
async fn a_lost_listener_comes_back_and_what_was_said_meanwhile_is_found() -> Result<()> {
    let db = Db::new().await;
    let _worker = deaf(&db).start().await?;
    let client = db.client().await;
    let killed = "select count(pg_terminate_backend(pid)) > 0 from pg_stat_activity
                  where datname = current_database() and query ilike 'listen %'";
    let mouths_killed = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                         where datname = current_database() and query like '%pg_notify(%' and pid <> pg_backend_pid()";
    for n in 0..3 {
        db.until(killed).await;
        assert!(db.count(mouths_killed).await >= i64::from(n > 0));
        assert_eq!(at_once(&client.start(quick(n)).await?).await?, n);
    }
    db.until(LISTENING).await;
    assert_eq!(at_once(&client.start(quick(4)).await?).await?, 4);
    Ok(())
}

#[tokio::test]
async fn without_hints_nothing_is_told_and_polls_find_everything() -> Result<()> {
    let db = Db::new().await;
    let (workers, clients) = (Wire::to(&db), Wire::to(&db));
    let poll = Duration::from_millis(20);
    let worker = on(&workers).poll_every(poll).lease(Duration::from_secs(1)).hints(false).register(quick).register(ask);
    let _worker = worker.start().await?;
    let client = on(&clients).hints(false).client().await?;

    assert_eq!(client.start(quick(1)).await?.soon().await?, 1);
    let waits = client.start(ask()).id("a").await?;
    db.until_status("a", "suspended").await;
    client.send("a", NUDGE, 2).await?;
    assert_eq!(waits.soon().await?, 2);
    client.start(ask()).id("b").await?;
    client.cancel("b").await?;

    assert_eq!(told(&workers) + told(&clients), 0);
    let listens = sqlx::query_scalar::<_, bool>(LISTENING).fetch_one(&db.pool).await?;
    assert!(!listens);
    Ok(())
}

#[tokio::test]
async fn a_process_that_takes_its_own_starts_tells_nobody() -> Result<()> {
    let db = Db::new().await;
    let wire = Wire::to(&db);
    let worker = on(&wire).register(quick).register(ask).start().await?;
    for n in 0..50 {
        worker.start(quick(n)).await?.soon().await?;
    }
    worker.start(ask()).id("a").await?;
    db.until_status("a", "suspended").await;
    worker.send("a", NUDGE, 1).await?;
    db.until_status("a", "completed").await;
    assert_eq!(told(&wire), 0);
    Ok(())
}

#[tokio::test]
async fn an_end_is_told_once_and_only_where_somebody_waits_for_it() -> Result<()> {
    let db = Db::new().await;
    let (workers, clients) = (Wire::to(&db), Wire::to(&db));
    let gate = Gate::default();
    let worker = on(&workers).register(gated).register(quick).state(gate.clone()).start().await?;
    worker.start(gated()).id("wanted").await?;
    gate.reached().await;

    let client = on(&clients).client().await?;
    let waiting = tokio::spawn(async move { client.workflow::<i64>("wanted").soon().await });
    until_told(&clients, 1).await;
    worker.start(quick(1)).await?.soon().await?;
    // The worker listens on a connection of its own, and may hear the wish only now; it is repeated.
    let began_at = Instant::now();
    while told(&clients) < 2 && began_at.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(told(&workers), 0);
    gate.open();

    assert_eq!(waiting.await??, 7);
    until_told(&workers, 1).await;
    for n in 0..20 {
        worker.start(quick(n)).await?.soon().await?;
    }
    assert_eq!(told(&workers), 1);
    Ok(())
}

#[tokio::test]
async fn many_words_are_one_notify() -> Result<()> {
    const STARTS: i64 = 300;
    let db = Db::new().await;
    let wire = Wire::to(&db);
    let client = on(&wire).client().await?;
    let began_at = Instant::now();
    for n in 0..STARTS {
        client.start(quick(n)).await?;
    }
    until_told(&wire, 1).await;
    let most = began_at.elapsed().as_millis() / 20 + 2;
    println!("{STARTS} starts: {} hints, at most {most}", told(&wire));
    assert!(told(&wire) as u128 <= most, "{} hints, {most} were allowed", told(&wire));
    Ok(())
}
