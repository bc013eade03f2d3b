//! Streams: values in order, without a gap, read while they are written. What faults do to them is `streams_faults`.

use std::time::Duration;

use anyhow::Result;
use durable::{
    Builder, Ctx, Durable, Error, ErrorKind, FailureKind, PgConnection, StepCtx, Stream, StreamValue, Topic, step,
    workflow,
};
use durable_tests::db::Db;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;
use durable_tests::wire::Wire;
use futures::StreamExt;

pub(super) const WORDS: Stream<String> = Stream::new("words");
/// The same stream, taken for one of numbers.
const WORDS_AS_NUMBERS: Stream<i64> = Stream::new("words");
const GO: Topic<()> = Topic::new("go");

/// Writes a word and comes to the gate, as often as it is told to.
#[step]
async fn says(step: &StepCtx, words: Vec<String>) -> Result<usize> {
    let stream = step.stream(WORDS);
    for word in &words {
        stream.write(word.clone()).await?;
        step.state::<Kit>().gate.pass().await;
    }
    Ok(words.len())
}

#[workflow]
async fn talks(ctx: &Ctx) -> Result<()> {
    let first = ctx.stream(WORDS).write("hello".into()).await?;
    ctx.run(says(vec!["my".into(), "dear".into()])).await?;
    let last = ctx.stream(WORDS).write("world".into()).await?;
    anyhow::ensure!((first, last) == (0, 3), "{first} {last}");
    Ok(())
}

async fn worker(db: &Db, kit: &Kit, register: impl Fn(Builder) -> Builder) -> Result<Durable> {
    Ok(register(db.builder()).state(kit.clone()).start().await?)
}

/// The values and offsets of all that a stream has now.
pub(super) async fn all(durable: &Durable, id: &str) -> Result<Vec<(u64, String)>> {
    let values: Vec<Result<StreamValue<String>, Error>> =
        durable.workflow::<()>(id).stream(WORDS).without_waiting().collect().await;
    values.into_iter().map(|value| value.map(|value| (value.offset, value.value)).map_err(Into::into)).collect()
}

fn numbered(words: &[&str]) -> Vec<(u64, String)> {
    (0..).zip(words.iter().map(|word| (*word).to_owned())).collect()
}

/// P8.
#[tokio::test]
async fn values_of_a_body_and_its_steps_are_read_while_they_are_written() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit, |builder| builder.register(talks)).await?;
    let handle = durable.start(talks()).id("t").await?;
    // From another process, as far as it can be told here.
    let mut reader = db.client().await.workflow::<()>("t").stream(WORDS);
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(reader.next().await.expect("a value")?);
    }
    // The step still runs: it stands at the gate.
    kit.gate.reached().await;
    kit.gate.open();
    seen.push(reader.next().await.expect("a value")?);
    kit.gate.open();
    handle.soon().await?;
    while let Some(value) = reader.next().await {
        seen.push(value?);
    }
    let words: Vec<_> = seen.iter().map(|seen| (seen.offset, seen.value.clone())).collect();
    assert_eq!(words, numbered(&["hello", "my", "dear", "world"]));
    // The body's are there once, the step's say whose they are.
    let attempts: Vec<_> =
        seen.iter().map(|seen| seen.attempt.as_ref().map(|by| (by.step.as_str(), by.attempt))).collect();
    assert_eq!(attempts, [None, Some(("1", 1)), Some(("1", 1)), None]);
    let sql = "select string_agg(n || value::text, ' ' order by n) from durable.stream_value
               where workflow_id = 't' and key = 'words'";
    assert_eq!(db.text(sql).await, r#"0"hello" 1"my" 2"dear" 3"world""#);
    Ok(())
}

/// P8: as after a reconnect.
#[tokio::test]
async fn a_reader_goes_on_from_an_offset_and_ends_with_the_workflow() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit, |builder| builder.register(talks)).await?;
    let handle = durable.start(talks()).id("t").await?;
    let mut reader = handle.stream(WORDS);
    reader.next().await.expect("a value")?;
    let last = reader.next().await.expect("a value")?.offset;
    drop(reader);
    for _ in 0..2 {
        kit.gate.open();
    }
    handle.soon().await?;
    let rest: Vec<_> = handle.stream(WORDS).from(last + 1).map(|value| value.expect("a value").value).collect().await;
    assert_eq!(rest, ["dear", "world"]);
    // One who has seen everything sees the end.
    assert!(handle.stream(WORDS).from(4).next().await.is_none());
    Ok(())
}

#[tokio::test]
async fn a_reader_may_be_there_before_the_first_value_and_for_what_stands_now() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let client = db.client().await;
    let handle = client.start(talks()).id("t").await?;
    assert!(handle.stream(WORDS).without_waiting().next().await.is_none());
    let mut reader = handle.stream(WORDS);
    let (first, _worker) = tokio::join!(reader.next(), worker(&db, &kit, |builder| builder.register(talks)));
    assert_eq!(first.expect("a value")?.value, "hello");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_read_says_why_and_ends() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit, |builder| builder.register(talks)).await?;
    let handle = durable.start(talks()).id("t").await?;
    kit.gate.reached().await;
    let refused = async |mut reader: durable::ReadStream<String>| {
        let error = reader.next().await.expect("an error").expect_err("no error");
        assert!(reader.next().await.is_none());
        (error.kind(), error.to_string())
    };
    let nobody = refused(durable.workflow::<()>("nobody").stream(WORDS)).await;
    assert_eq!(nobody, (ErrorKind::NotFound, "there is no workflow nobody".to_owned()));
    // While it runs, and once it has ended.
    for _ in 0..2 {
        for from in [5, u64::MAX] {
            let (kind, says) = refused(handle.stream(WORDS).from(from)).await;
            assert_eq!(kind, ErrorKind::Usage);
            assert!(says.contains(&format!("cannot be read from offset {from}: begin with 0")), "{says}");
        }
        for _ in 0..2 {
            kit.gate.open();
        }
        handle.soon().await?;
    }
    let (kind, says) = refused(handle.stream(Stream::new(""))).await;
    assert_eq!(
        (kind, says.as_str()),
        (ErrorKind::Usage, "the name of a stream is empty: give it at least one character")
    );
    // Another type spoils no other value.
    let mut numbers = handle.stream(WORDS_AS_NUMBERS).from(2);
    for offset in 2..4 {
        let error = numbers.next().await.expect("an error").expect_err("no error");
        assert_eq!(error.kind(), ErrorKind::Decode);
        assert!(
            error.to_string().starts_with(&format!("value {offset} of stream \"words\" of workflow t does not decode"))
        );
    }
    assert!(numbers.next().await.is_none());
    Ok(())
}

#[step]
async fn writes_one(step: &StepCtx, case: String) -> Result<()> {
    let written = match case.as_str() {
        "name" => step.stream(Stream::<i64>::new("a\nb")).write(1).await,
        "size" => step.stream(WORDS).write("x".repeat(2_000_000)).await,
        _ => step.stream(Stream::<f64>::new("ratio")).write(f64::NAN).await,
    };
    Ok(written?)
}

#[workflow]
async fn refused(ctx: &Ctx, case: String) -> Result<String> {
    let in_body = match case.as_str() {
        "name" => ctx.stream(Stream::<i64>::new("a\nb")).write(1).await,
        "size" => ctx.stream(WORDS).write("x".repeat(2_000_000)).await,
        _ => ctx.stream(Stream::<f64>::new("ratio")).write(f64::NAN).await,
    };
    let in_body = in_body.expect_err("written");
    let in_step = ctx.run(writes_one(case)).await.expect_err("written");
    anyhow::ensure!(in_step.attempts() == 1, "it was tried again");
    Ok(format!("{:?}: {in_body}; {:?}: {in_step}", in_body.kind(), in_step.kind()))
}

#[tokio::test]
async fn what_no_stream_can_take_fails_clearly() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit, |builder| builder.register(refused)).await?;
    for (case, kind, says) in [
        ("name", FailureKind::Error, "the name of a stream holds the control character"),
        ("size", FailureKind::Value, "a value of stream \"words\" has 2000002 bytes, at most 1048576 are allowed"),
        ("value", FailureKind::Value, "a value of stream \"ratio\" does not survive being stored"),
    ] {
        let said = durable.start(refused(case.to_owned())).await?.soon().await?;
        assert_eq!(said.matches(says).count(), 2, "{case}: {said}");
        assert!(said.starts_with(&format!("{kind:?}: ")), "{case}: {said}");
    }
    assert_eq!(db.count("select count(*) from durable.stream_value").await, 0);
    Ok(())
}

/// Writes, and fails at its first attempt.
#[step(retry(max_attempts = 2, first = "1ms"))]
async fn stammers(step: &StepCtx) -> Result<()> {
    let words = step.stream(WORDS);
    words.write("I".into()).await?;
    words.write(format!("am {}", step.attempt())).await?;
    anyhow::ensure!(step.attempt() > 1, "lost the thread");
    Ok(())
}

#[workflow]
async fn stammerer(ctx: &Ctx) -> Result<()> {
    Ok(ctx.run(stammers()).await?)
}

#[tokio::test]
async fn another_attempt_writes_again_and_a_reader_can_tell() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit, |builder| builder.register(stammerer)).await?;
    let handle = durable.start(stammerer()).id("s").await?;
    handle.soon().await?;
    let values: Vec<_> = handle.stream(WORDS).map(|value| value.expect("a value")).collect().await;
    let words: Vec<_> = values.iter().map(|value| value.value.as_str()).collect();
    assert_eq!(words, ["I", "am 1", "I", "am 2"]);
    let by: Vec<_> = values.iter().map(|value| value.attempt.clone().expect("a step's")).collect();
    assert!(by[2].repeats(&by[1]) && by[3].repeats(&by[0]));
    assert!(!by[1].repeats(&by[0]) && !by[1].repeats(&by[2]));
    Ok(())
}

#[step]
async fn counts(step: &StepCtx, to: usize) -> Result<()> {
    let words = step.stream(WORDS);
    for n in 0..to {
        words.write(n.to_string()).await?;
    }
    Ok(())
}

#[workflow]
async fn choir(ctx: &Ctx, voices: usize, to: usize) -> Result<()> {
    let steps = (0..voices).map(|_| ctx.run(counts(to)));
    let body = (0..voices).map(|n| ctx.stream(WORDS).write(format!("body {n}")));
    futures::future::try_join(futures::future::try_join_all(steps), futures::future::try_join_all(body)).await?;
    Ok(())
}

/// P8.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_write_to_one_stream_leave_no_gap_and_keep_their_order() -> Result<()> {
    const VOICES: usize = 10;
    const TO: usize = 100;
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit, |builder| builder.register(choir)).await?;
    let handle = durable.start(choir(VOICES, TO)).id("c").await?;
    let live: Vec<_> = handle.stream(WORDS).map(|value| value.expect("a value")).collect().await;
    handle.soon().await?;
    assert!(live.iter().map(|value| value.offset).eq(0..(VOICES * TO + VOICES) as u64));
    for voice in 0..VOICES {
        let position = voice.to_string();
        let of = live.iter().filter(|value| value.attempt.as_ref().is_some_and(|by| by.step == position));
        assert!(of.map(|value| value.value.clone()).eq((0..TO).map(|n| n.to_string())), "step {voice}");
    }
    assert_eq!(live.iter().filter(|value| value.attempt.is_none()).count(), VOICES);
    Ok(())
}

#[step(tx)]
async fn writes_and_rolls_back(tx: &mut PgConnection, step: &StepCtx) -> Result<()> {
    sqlx::query("create temporary table gone (n int)").execute(tx).await?;
    step.stream(WORDS).write("stands".into()).await?;
    anyhow::bail!("rolled back")
}

#[workflow]
async fn transacts(ctx: &Ctx) -> Result<String> {
    Ok(ctx.run(writes_and_rolls_back()).retry(1).await.expect_err("it fails").to_string())
}

#[tokio::test]
async fn what_a_transactional_step_writes_is_not_rolled_back() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit, |builder| builder.register(transacts)).await?;
    durable.start(transacts()).id("t").await?.soon().await?;
    assert_eq!(all(&durable, "t").await?, numbered(&["stands"]));
    Ok(())
}

#[step]
async fn leaks(step: &StepCtx) -> Result<()> {
    let (words, kit) = (step.stream(WORDS), step.state::<Kit>().clone());
    words.write("in time".into()).await?;
    tokio::spawn(async move {
        kit.gate.pass().await;
        let late = words.write("late".into()).await;
        kit.log.note(late.map_or_else(|failure| failure.to_string(), |()| "written".to_owned()));
        kit.gate.pass().await;
    });
    Ok(())
}

#[workflow]
async fn leaky(ctx: &Ctx) -> Result<()> {
    ctx.run(leaks()).await?;
    ctx.receive(GO).await?;
    Ok(())
}

#[tokio::test]
async fn nothing_is_written_for_a_step_that_has_ended() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit, |builder| builder.register(leaky)).await?;
    durable.start(leaky()).id("l").await?;
    db.until_status("l", "suspended").await;
    for _ in 0..2 {
        kit.gate.open();
        kit.gate.reached().await;
    }
    assert_eq!(kit.log.entries(), ["a value came for stream \"words\" after its step had ended"]);
    assert_eq!(all(&durable, "l").await?, numbered(&["in time"]));
    Ok(())
}

/// Writes as fast as it may, and tells how far it is.
#[step]
async fn floods(step: &StepCtx, to: usize) -> Result<()> {
    let (words, kit) = (step.stream(WORDS), step.state::<Kit>());
    for n in 0..to {
        words.write(n.to_string()).await?;
        kit.log.note("written");
    }
    Ok(())
}

#[workflow]
async fn flood(ctx: &Ctx, to: usize) -> Result<()> {
    Ok(ctx.run(floods(to)).await?)
}

/// P17.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_writes_faster_than_the_database_waits() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    sqlx::query(
        "insert into durable.stream (bucket, workflow_id, key, first, next, tag) values (durable.bucket('f'), 'f', 'words', 0, 0, 0)",
    )
    .execute(&db.pool)
    .await?;
    let mut lock = db.pool.begin().await?;
    sqlx::query("select from durable.stream for update").execute(&mut *lock).await?;
    let durable = worker(&db, &kit, |builder| builder.register(flood)).await?;
    let handle = durable.start(flood(5_000)).id("f").await?;
    let began_at = std::time::Instant::now();
    while kit.log.entries().len() < 1_024 {
        assert!(began_at.elapsed() < durable_tests::db::PATIENCE, "it stands at {}", kit.log.entries().len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Were there no bound, it would be far beyond by now. Whoever is slow sees too little here, never too much.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(kit.log.entries().len(), 1_024);
    lock.rollback().await?;
    handle.soon().await?;
    assert!(all(&durable, "f").await?.into_iter().eq((0..5_000).map(|n| (n, n.to_string()))));
    Ok(())
}

/// The statement budget of those who write: one for a value of a body, and for a step as many as there are round trips.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_of_a_body_is_one_statement_and_those_of_a_step_go_together() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let wire = Wire::to(&db);
    let builder = Durable::builder(wire.pool()).migrate(false).register(talks).register(flood);
    let durable = builder.state(kit.clone()).start().await?;
    let of_streams = || {
        let flights = wire.flights().into_iter();
        flights.flat_map(|flight| flight.statements).filter(|sql| sql.contains("durable.stream")).count()
    };
    for _ in 0..2 {
        kit.gate.open();
    }
    durable.start(talks()).id("t").await?.soon().await?;
    assert!((3..=4).contains(&of_streams()), "two values of the body, two of a step: {}", of_streams());
    wire.forget();
    durable.start(flood(5_000)).id("f").await?.soon().await?;
    println!("5,000 values of a step: {} statements", of_streams());
    assert!(of_streams() < 250, "{} statements", of_streams());
    let told = wire.flights().into_iter().flat_map(|flight| flight.statements).filter(|sql| sql.contains("pg_notify"));
    assert!(told.count() < 5, "readers are not told of values");
    Ok(())
}

/// Many who read at the same time ask once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_streams_in_one_process_looks_together() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit, |builder| builder.register(talks)).await?;
    let ends = durable.start(talks()).id("t").await?;
    kit.gate.reached().await;
    let wire = Wire::to(&db);
    let outside = Durable::builder(wire.pool()).migrate(false).client().await?;
    let handle = outside.workflow::<()>("t");
    assert!(handle.stream(WORDS).next().await.expect("a value").is_ok());
    wire.forget();
    let readers: Vec<_> = (0..200)
        .map(|_| {
            let reader = handle.stream(WORDS);
            tokio::spawn(reader.map(|value| value.expect("a value").value).collect::<Vec<_>>())
        })
        .collect();
    // Long enough for ten looks of each.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..2 {
        kit.gate.open();
    }
    ends.soon().await?;
    for reader in readers {
        assert_eq!(reader.await?, ["hello", "my", "dear", "world"]);
    }
    let asked: usize = wire.flights().iter().map(|flight| flight.statements.len()).sum();
    println!("200 readers, one second: {asked} statements");
    assert!(asked < 700, "{asked} statements");
    Ok(())
}

#[workflow]
async fn generations(ctx: &Ctx, n: u32) -> Result<()> {
    ctx.stream(WORDS).write(format!("generation {n}")).await?;
    ctx.run(work(format!("work {n}"))).await?;
    if n < 2 {
        ctx.continue_as_new(generations(n + 1)).await;
    }
    Ok(())
}

/// P8: an offset is given once, however often a workflow begins.
#[tokio::test]
async fn a_stream_goes_on_when_its_workflow_begins_again_and_goes_with_it() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit, |builder| builder.register(generations)).await?;
    let handle = durable.start(generations(0)).id("g").await?;
    handle.soon().await?;
    let three = ["generation 0", "generation 1", "generation 2"];
    assert_eq!(all(&durable, "g").await?, numbered(&three));
    durable.restart("g").await?;
    durable.workflow::<()>("g").soon().await?;
    assert_eq!(all(&durable, "g").await?, numbered(&[three, three].concat()));
    durable.delete("g").await?;
    assert_eq!(db.count("select count(*) from durable.stream").await, 0);
    assert_eq!(db.count("select count(*) from durable.stream_value").await, 0);
    Ok(())
}

#[workflow]
async fn writes_and_holds(ctx: &Ctx) -> Result<u64> {
    let offset = ctx.stream(WORDS).write("first".into()).await?;
    ctx.run(gated("hold".into())).await?;
    Ok(offset + ctx.stream(WORDS).write("second".into()).await?)
}

#[tokio::test]
async fn a_fork_keeps_the_offsets_that_its_history_has_and_begins_with_an_empty_stream() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit, |builder| builder.register(writes_and_holds)).await?;
    for _ in 0..2 {
        kit.gate.open();
    }
    assert_eq!(durable.start(writes_and_holds()).id("w").await?.soon().await?, 1);
    assert_eq!(durable.fork::<u64>("w", 1).id("again").await?.soon().await?, 0);
    assert_eq!(all(&durable, "w").await?, numbered(&["first", "second"]));
    assert_eq!(all(&durable, "again").await?, numbered(&["second"]));
    Ok(())
}
