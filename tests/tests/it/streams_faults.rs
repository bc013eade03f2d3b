//! Streams whose workers die, whose replies are lost, and whose writers have lost their workflow: no gap, no offset twice,
//! and nothing of a body twice.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use durable::testing::{TestDatabase, every_crash};
use durable::{Builder, Ctx, Durable, StepCtx, step, workflow};
use durable_dev::ServerOptions;
use durable_tests::db::Db;
use durable_tests::island::Island;
use durable_tests::kit::Kit;
use durable_tests::soon::Soon;
use futures::StreamExt;
use sqlx::PgPool;

use super::faults::{Cutter, Own, hang_commits, let_commits_go};
use super::streams::{WORDS, all};

#[step]
async fn recites(step: &StepCtx, words: usize) -> Result<()> {
    let stream = step.stream(WORDS);
    for n in 0..words {
        stream.write(format!("word {n}")).await?;
        // Each goes out alone.
        stream.flush().await?;
    }
    Ok(())
}

#[workflow]
async fn poem(ctx: &Ctx) -> Result<()> {
    ctx.stream(WORDS).write("title".into()).await?;
    ctx.run(recites(3)).await?;
    ctx.stream(WORDS).write("end".into()).await?;
    Ok(())
}

const STORED: &str = "select n, value::text, attempt is null, coalesce(claims, 0) from durable.stream_value
                      where workflow_id = 'p' order by n";

/// What a poem may have left, however often its step was attempted.
async fn check(pool: &PgPool) -> Result<()> {
    let values: Vec<(i64, String, bool, i32)> = sqlx::query_as(STORED).fetch_all(pool).await?;
    ensure!(values.iter().map(|(n, ..)| *n).eq(0..i64::try_from(values.len())?), "gaps: {values:?}");
    let of_body: Vec<&str> = values.iter().filter(|value| value.2).map(|value| value.1.as_str()).collect();
    ensure!(of_body == ["\"title\"", "\"end\""], "{values:?}");
    ensure!(values.first().is_some_and(|first| first.2) && values.last().is_some_and(|last| last.2), "{values:?}");
    // Each attempt from its beginning, in order, once; the last one to its end.
    let mut attempts: Vec<(i32, Vec<&str>)> = Vec::new();
    for (_, value, _, claims) in values.iter().filter(|value| !value.2) {
        match attempts.last_mut() {
            Some((of, words)) if of == claims => words.push(value),
            _ => attempts.push((*claims, vec![value])),
        }
    }
    let whole = ["\"word 0\"", "\"word 1\"", "\"word 2\""];
    ensure!(attempts.iter().all(|(_, words)| whole.starts_with(words)), "{values:?}");
    ensure!(attempts.is_sorted_by(|a, b| a.0 < b.0), "{values:?}");
    ensure!(attempts.last().is_some_and(|(_, words)| *words == whole), "{values:?}");
    let next: i64 = sqlx::query_scalar("select next from durable.stream").fetch_one(pool).await?;
    ensure!(next == i64::try_from(values.len())?, "{next} of {values:?}");
    Ok(())
}

/// P8, P9.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_outlive_a_crash_at_every_point() -> Result<()> {
    let server = Db::new().await;
    let db = TestDatabase::create(&server.pool, |_| async { Ok(()) }).await?;
    let worker = |builder: Builder, _| builder.register(poem);
    let begin = |durable: Durable| async move {
        durable.start(poem()).id("p").await?;
        Ok(())
    };
    let report = every_crash(db, worker, begin, |pool| async move { check(&pool).await }).await?;
    report.assert_clean();
    for place in ["before", "after"] {
        let point = format!("{place} a call: write to streams");
        assert!(report.points.contains(&point), "{:#?}", report.points);
    }
    Ok(())
}

/// P8: no reply to any write ever comes, and each value is there once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_none_of_whose_writes_is_answered_has_each_value_once() -> Result<()> {
    let own = Arc::new(Own::start(ServerOptions::new()).await?);
    // No takeover may help: what the worker does not find out by itself, nobody finds out.
    let durable = own.builder().register(poem).lease(Duration::from_secs(3_600)).start().await?;
    hang_commits(&own).await?;
    let cutter = Cutter::begin(&own);
    durable.start(poem()).id("p").await?;
    let ended = durable.workflow::<()>("p").soon().await;
    let cuts = cutter.end().await?;
    let_commits_go(&own).await?;
    ended?;
    assert!(cuts >= 5, "{cuts} commits without an answer");
    let values: Vec<(i64, String, bool, i32)> = sqlx::query_as(STORED).fetch_all(&own.outside).await?;
    assert_eq!(values.len(), 5, "{values:?}");
    check(&own.outside).await
}

/// Says a word, comes to the gate, and says another one.
#[step]
async fn falters(step: &StepCtx) -> Result<()> {
    let (words, kit) = (step.stream(WORDS), step.state::<Kit>());
    words.write(format!("one of claim {}", kit.log.entries().len())).await?;
    words.flush().await?;
    kit.log.note("came");
    kit.gate.pass().await;
    let other = words.write("other".into()).await;
    let other = match other {
        Ok(()) => words.flush().await,
        refused => refused,
    };
    kit.log.note(other.map_or_else(|failure| failure.to_string(), |()| "written".to_owned()));
    Ok(())
}

#[workflow]
async fn faltering(ctx: &Ctx) -> Result<()> {
    ctx.run(falters()).await?;
    ctx.stream(WORDS).write("end".into()).await?;
    Ok(())
}

/// P8, P9: a reader on another worker sees both attempts, and can tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_reads_on_when_the_workflow_is_taken_over() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let builder = || db.builder().lease(Duration::from_secs(1)).register(faltering).state(kit.clone());
    let island = Island::start(builder()).await;
    island.durable().start(faltering()).id("p").await?;
    kit.gate.reached().await;
    let successor = builder().start().await?;
    let mut reader = successor.workflow::<()>("p").stream(WORDS);
    let first = reader.next().await.expect("a value")?;
    island.sink().await;
    kit.gate.reached().await;
    for _ in 0..2 {
        kit.gate.open();
    }
    let rest: Vec<_> = reader.map(|value| value.expect("a value")).collect().await;
    let words: Vec<_> = rest.iter().map(|value| (value.offset, value.value.as_str())).collect();
    assert_eq!(words, [(1, "one of claim 1"), (2, "other"), (3, "end")]);
    let (before, after) = (first.attempt.expect("a step's"), rest[0].attempt.clone().expect("a step's"));
    assert!(after.repeats(&before), "{after:?} {before:?}");
    Ok(())
}

/// P9: whoever has lost the workflow writes nothing more, and hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_whose_workflow_has_another_owner_writes_nothing() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().lease(Duration::from_secs(600)).register(faltering).state(kit.clone()).start().await?;
    durable.start(faltering()).id("p").await?;
    kit.gate.reached().await;
    // Another worker, as the row has it; it writes a value of its own.
    let taken = "
        update durable.workflow set owner = gen_random_uuid(), claims = claims + 1 where id = 'p';
        update durable.stream set next = next + 1, tag = 0 where workflow_id = 'p';
        insert into durable.stream_value (bucket, workflow_id, key, n, value, written_at)
        values (durable.bucket('p'), 'p', 'words', 1, '\"mine\"', now());";
    sqlx::raw_sql(taken).execute(&db.pool).await?;
    kit.gate.open();
    let began_at = std::time::Instant::now();
    while kit.log.entries().len() < 2 {
        assert!(began_at.elapsed() < durable_tests::db::PATIENCE, "it never hears");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(kit.log.entries()[1], "stream \"words\" is written by another worker by now");
    let stored: Vec<String> = all(&durable, "p").await?.into_iter().map(|(_, value)| value).collect();
    assert_eq!(stored, ["one of claim 0", "mine"]);
    Ok(())
}

/// P8: a stream that somebody has written to meanwhile is gone on with where it stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_stands_elsewhere_than_it_was_left_has_no_gap() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().register(faltering).state(kit.clone()).start().await?;
    let handle = durable.start(faltering()).id("p").await?;
    kit.gate.reached().await;
    // A write that the worker knows nothing of: of a claim before, which came late.
    let late = "
        update durable.stream set next = next + 1, tag = 0 where workflow_id = 'p';
        insert into durable.stream_value (bucket, workflow_id, key, n, value, written_at)
        values (durable.bucket('p'), 'p', 'words', 1, '\"late\"', now());";
    sqlx::raw_sql(late).execute(&db.pool).await?;
    kit.gate.open();
    handle.soon().await?;
    let stored = all(&durable, "p").await?;
    let words = ["one of claim 0", "late", "other", "end"].map(str::to_owned);
    assert_eq!(stored, (0..).zip(words).collect::<Vec<_>>());
    Ok(())
}

/// P8: the same, while that write is under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_who_write_at_the_same_moment_come_one_after_the_other() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().register(faltering).state(kit.clone()).start().await?;
    let handle = durable.start(faltering()).id("p").await?;
    kit.gate.reached().await;
    let mut late = db.pool.begin().await?;
    sqlx::raw_sql(
        "update durable.stream set next = next + 1, tag = 0 where workflow_id = 'p';
         insert into durable.stream_value (bucket, workflow_id, key, n, value, written_at)
         values (durable.bucket('p'), 'p', 'words', 1, '\"late\"', now());",
    )
    .execute(&mut *late)
    .await?;
    kit.gate.open();
    let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    db.until_count(waits, |count| count == 1).await;
    late.commit().await?;
    handle.soon().await?;
    let words = ["one of claim 0", "late", "other", "end"].map(str::to_owned);
    assert_eq!(all(&durable, "p").await?, (0..).zip(words).collect::<Vec<_>>());
    Ok(())
}

/// P8, P9: the record of a former owner, which was written after this one had read the history, is taken for what it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_a_former_owner_has_recorded_is_not_written_again() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().register(faltering).state(kit.clone()).start().await?;
    let handle = durable.start(faltering()).id("p").await?;
    kit.gate.reached().await;
    // The body's value at position 1, and one of the step's before it.
    sqlx::raw_sql(
        "update durable.stream set next = next + 1, tag = 0 where workflow_id = 'p';
         insert into durable.stream_value (bucket, workflow_id, key, n, value, written_at)
         values (durable.bucket('p'), 'p', 'words', 1, '\"end\"', now());
         insert into durable.step (bucket, workflow_id, lane, seq, kind, name, input, output, started_at)
         values (durable.bucket('p'), 'p', '', 1, 'stream', 'words', '\"end\"', '1', now());",
    )
    .execute(&db.pool)
    .await?;
    kit.gate.open();
    handle.soon().await?;
    let words = ["one of claim 0", "end", "other"].map(str::to_owned);
    assert_eq!(all(&durable, "p").await?, (0..).zip(words).collect::<Vec<_>>());
    Ok(())
}
