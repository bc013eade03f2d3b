//! Failing: attempts and their delays, time-outs, panics, and what is recorded of all that.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use durable::{
    Ctx, Failure, FailureKind, PgConnection, Retry, StepCtx, hours, minutes, retry_after, seconds, step, terminal,
    workflow,
};
use durable_tests::db::Db;
use durable_tests::island::Island;
use durable_tests::kit::{Kit, Log};
use durable_tests::soon::Soon;
use serde::{Deserialize, Serialize};

const QUICK: Retry = Retry { max_attempts: 4, first: Duration::from_millis(1), ..Retry::DEFAULT };

/// Fails until an attempt.
#[step(retry(max_attempts = 4, first = "1ms"))]
async fn works_at(step: &StepCtx, attempt: u32) -> Result<String> {
    step.state::<Log>().note(format!("{} attempt {}", step.key(), step.attempt()));
    if step.attempt() < attempt {
        return Err(anyhow!("cause {}", step.attempt())).context("not yet");
    }
    Ok(format!("worked at {attempt}"))
}

#[workflow]
async fn tries(ctx: &Ctx, attempt: u32) -> Result<String> {
    Ok(ctx.run(works_at(attempt)).await?)
}

#[tokio::test]
async fn failed_attempts_are_counted_and_shown_in_the_record() -> Result<()> {
    let db = Db::new().await;
    let log = Log::default();
    let durable = db.builder().register(tries).state(log.clone()).start().await?;
    let handle = durable.start(tries(3)).id("r").await?;
    assert_eq!(handle.soon().await?, "worked at 3");

    let steps = handle.steps().await?;
    let attempts = &steps[0].failed_attempts;
    let shown: Vec<_> = attempts.iter().map(|a| (a.attempt, a.failure.message())).collect();
    assert_eq!(shown, [(1, "not yet: cause 1".to_owned()), (2, "not yet: cause 2".to_owned())]);
    assert!(attempts.iter().all(|a| a.failure.kind() == FailureKind::Error));
    assert!(attempts.is_sorted_by_key(|a| a.failed_at));
    assert!(steps[0].failure.is_none());
    assert_eq!(log.entries(), ["r/0 attempt 1", "r/0 attempt 2", "r/0 attempt 3"], "one key");
    Ok(())
}

#[tokio::test]
async fn a_step_that_has_used_its_attempts_up_fails() -> Result<()> {
    let db = Db::new().await;
    let log = Log::default();
    let durable = db.builder().register(tries).state(log.clone()).start().await?;
    let handle = durable.start(tries(99)).id("r").await?;
    let error = handle.soon().await.unwrap_err();
    let failure = error.failure().context("a failure")?;
    assert_eq!((failure.step(), failure.attempts()), (Some("works_at"), 4));
    assert!(!failure.is_terminal());
    assert!(error.to_string().contains("not yet: cause 4"), "{error}");
    let steps = handle.steps().await?;
    assert_eq!(steps[0].failed_attempts.len(), 4);
    assert_eq!(steps[0].failure.as_ref().map(Failure::attempts), Some(4));
    assert_eq!(log.entries().len(), 4);
    Ok(())
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Declined {
    code: u32,
    note: Option<String>,
}

#[step(retry(max_attempts = 9, first = "1ms"))]
async fn declines(step: &StepCtx) -> Result<()> {
    step.state::<Log>().note("declines");
    Err(terminal(anyhow!("declined")).with_data(&Declined { code: 51, note: None })).context("charging")?
}

/// The body reads the typed failure on each run, and passes it on at its end.
#[workflow]
async fn charges(ctx: &Ctx) -> Result<()> {
    let failure = ctx.run(declines()).await.expect_err("declined");
    ctx.sleep(hours(1)).await?;
    let data: Declined = failure.data().context("no data")?;
    if data.code != 51 || failure.data::<Vec<String>>().is_some() {
        bail!("other data");
    }
    Err(failure.into())
}

#[tokio::test]
async fn a_terminal_error_stops_the_attempts_and_brings_its_data() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let log = Log::default();
    let durable = db.builder().register(charges).state(log.clone()).start().await?;
    let handle = durable.start(charges()).id("c").await?;
    db.until_status("c", "suspended").await;
    clock.advance(hours(2)).await?;
    let error = handle.soon().await.unwrap_err();
    let failure = error.failure().context("a failure")?;
    assert!(failure.is_terminal());
    assert!(failure.message().contains("charging: declined"), "{failure}");
    assert_eq!(failure.data::<Declined>(), Some(Declined { code: 51, note: None }));
    assert_eq!(log.entries(), ["declines"]);
    Ok(())
}

#[step(retry(max_attempts = 5, first = "1ms"))]
async fn is_told_to_wait(step: &StepCtx) -> Result<u32> {
    step.state::<Log>().note(format!("attempt {}", step.attempt()));
    if step.attempt() < 3 {
        return Err(retry_after(anyhow!("429"), minutes(30)).with_data(&Declined { code: 429, note: None }).into());
    }
    Ok(step.attempt())
}

#[workflow]
async fn waits_as_told(ctx: &Ctx) -> Result<u32> {
    Ok(ctx.run(is_told_to_wait()).await?)
}

/// P11: a long delay suspends the workflow, and the attempt after it has the right number, on any worker.
#[tokio::test]
async fn retry_after_suspends_and_goes_on_with_the_right_attempt() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let log = Log::default();
    let builder = || db.builder().register(waits_as_told).state(log.clone());
    let first = Island::start(builder()).await;
    let handle = first.durable().start(waits_as_told()).id("w").await?;
    db.until_status("w", "suspended").await;
    let info = handle.info().await?;
    let due = info.due_at.context("a time")? - info.created_at;
    assert!(due >= chrono::TimeDelta::minutes(30), "never early: {due}");
    assert_eq!(db.text("select waits_for from durable.waiting").await, "retry");
    first.sink().await;

    clock.advance(minutes(31)).await?;
    let second = builder().start().await?;
    db.until("select status = 'suspended' and due_at > durable.now() from durable.workflow").await;
    clock.advance(minutes(31)).await?;
    let handle = second.workflow::<u32>("w");
    assert_eq!(handle.soon().await?, 3);
    assert_eq!(log.entries(), ["attempt 1", "attempt 2", "attempt 3"]);
    let attempts = handle.steps().await?[0].failed_attempts.clone();
    assert_eq!(attempts.iter().map(|a| a.attempt).collect::<Vec<_>>(), [1, 2]);
    let data = attempts[0].failure.data::<serde_json::Value>();
    assert_eq!(data, Some(serde_json::json!({"code": 429, "note": null})), "as it was before the wait");
    Ok(())
}

#[step(timeout = "20ms", retry(max_attempts = 2, first = "1ms"))]
async fn hangs(step: &StepCtx) -> Result<()> {
    step.state::<Log>().note("hangs");
    std::future::pending().await
}

#[step(tx, timeout = "20ms", retry(max_attempts = 2, first = "1ms"))]
async fn hangs_in_a_transaction(tx: &mut PgConnection, step: &StepCtx) -> Result<()> {
    step.state::<Log>().note("hangs in a transaction");
    sqlx::query("insert into application_row (name) values ('x')").execute(&mut *tx).await?;
    sqlx::query("select pg_sleep(60)").execute(tx).await?;
    Ok(())
}

#[workflow]
async fn times_out(ctx: &Ctx) -> Result<Vec<(String, u32)>> {
    let plain = ctx.run(hangs()).await.expect_err("too long");
    let tx = ctx.run(hangs_in_a_transaction()).await.expect_err("too long");
    for failure in [&plain, &tx] {
        assert_eq!(failure.kind(), FailureKind::Timeout);
    }
    Ok([plain, tx].map(|f| (f.message(), f.attempts())).to_vec())
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_a_failed_attempt() -> Result<()> {
    let db = Db::new().await;
    let log = Log::default();
    let durable = db.builder().register(times_out).state(log.clone()).start().await?;
    let handle = durable.start(times_out()).id("t").await?;
    for (message, attempts) in handle.soon().await? {
        assert_eq!((message.as_str(), attempts), ("took longer than 20ms", 2));
    }
    assert_eq!(log.count("hangs"), 2);
    assert_eq!(log.count("hangs in a transaction"), 2);
    assert_eq!(db.count("select count(*) from application_row").await, 0);
    Ok(())
}

#[workflow]
async fn overrides(ctx: &Ctx) -> Result<(u32, u32, FailureKind)> {
    let once = ctx.run(works_at(99)).retry(Retry::NEVER).await.expect_err("once");
    let policy = Retry { max_attempts: 6, ..QUICK };
    let six = ctx.run(works_at(99)).retry(policy).await.expect_err("six times");
    let timed = ctx.run(hangs()).timeout(Duration::from_millis(1)).retry(1).await.expect_err("too long");
    Ok((once.attempts(), six.attempts(), timed.kind()))
}

#[tokio::test]
async fn the_call_site_decides_over_the_steps_own_policy() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(overrides).state(Log::default()).start().await?;
    assert_eq!(durable.start(overrides()).await?.soon().await?, (1, 6, FailureKind::Timeout));
    Ok(())
}

#[step(retry(max_attempts = 3, first = "1ms"))]
async fn panics_once(step: &StepCtx) -> Result<u32> {
    assert!(step.attempt() > 1, "boom {}", step.attempt());
    Ok(step.attempt())
}

#[workflow]
async fn survives_a_panic(ctx: &Ctx) -> Result<u32> {
    Ok(ctx.run(panics_once()).await?)
}

#[workflow]
async fn panics(ctx: &Ctx) -> Result<()> {
    panic!("the body of {} fell over", ctx.id())
}

/// P16: a panic in a step is a failed attempt, one in a body fails its workflow; the worker goes on.
#[tokio::test]
async fn a_panic_is_a_failure_and_nothing_worse() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().concurrency(1).register(survives_a_panic).register(panics).start().await?;
    for _ in 0..3 {
        let id = format!("p{}", uuid::Uuid::new_v4());
        let error = durable.start(panics()).id(&id).await?.soon().await.unwrap_err();
        let failure = error.failure().context("a failure")?;
        assert_eq!(failure.kind(), FailureKind::Panic);
        assert_eq!(failure.message(), format!("panicked: the body of {id} fell over"));
    }
    let handle = durable.start(survives_a_panic()).id("s").await?;
    assert_eq!(handle.soon().await?, 2);
    let attempts = handle.steps().await?[0].failed_attempts.clone();
    assert_eq!(attempts[0].failure.kind(), FailureKind::Panic);
    assert_eq!(attempts[0].failure.message(), "panicked: boom 1");
    Ok(())
}

#[step(retry(max_attempts = 30, first = "1ms", max = "1ms"))]
async fn fails_for_long(step: &StepCtx) -> Result<u32> {
    if step.attempt() < 30 {
        bail!("no");
    }
    Ok(step.attempt())
}

#[workflow]
async fn patient(ctx: &Ctx) -> Result<u32> {
    Ok(ctx.run(fails_for_long()).await?)
}

/// The record of a step stays small, and the count of its attempts right.
#[tokio::test]
async fn of_many_failed_attempts_the_first_and_the_latest_are_kept() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(patient).state(Kit::default()).start().await?;
    let handle = durable.start(patient()).id("p").await?;
    assert_eq!(handle.soon().await?, 30);
    let attempts: Vec<_> = handle.steps().await?[0].failed_attempts.iter().map(|a| a.attempt).collect();
    assert_eq!(attempts.len(), 20);
    assert_eq!((attempts[0], attempts[19]), (1, 29));
    assert!(attempts.is_sorted());
    Ok(())
}

/// A delay that has begun is not begun again by a message that wakes the workflow meanwhile.
#[tokio::test]
async fn a_message_does_not_start_a_delay_over() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let log = Log::default();
    let durable = db.builder().register(waits_as_told).state(log.clone()).start().await?;
    durable.start(waits_as_told()).id("w").await?;
    db.until_status("w", "suspended").await;
    let due = db.text("select due_at::text from durable.workflow").await;
    clock.advance(minutes(20)).await?;
    durable.send("w", durable::Topic::<()>::new("nudge"), ()).await?;
    db.until("select status = 'suspended' and claims >= 2 from durable.workflow").await;

    // Rounded up to the millisecond by each suspension, never down.
    let again = db.text("select due_at::text from durable.workflow").await;
    assert!(again >= due, "{again} is before {due}");
    assert!(db.count("select extract(epoch from due_at - durable.now())::bigint from durable.workflow").await <= 601);
    assert_eq!(log.entries(), ["attempt 1"]);
    clock.advance(minutes(11) + seconds(1)).await?;
    db.until("select (waits -> 0 -> 'attempts' -> 1) is not null from durable.workflow").await;
    assert_eq!(log.entries(), ["attempt 1", "attempt 2"]);
    Ok(())
}
