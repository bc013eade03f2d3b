//! Values: what is stored can be read, and what cannot be read again is refused before it is stored.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use durable::{Ctx, ErrorKind, FailureKind, StepCtx, Topic, hours, minutes, retry_after, step, terminal, workflow};
use durable_tests::db::Db;
use durable_tests::kit::Log;
use durable_tests::soon::Soon;
use serde::{Deserialize, Serialize};

/// What JSON can and cannot hold.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
struct Bounds {
    least: i128,
    most: u128,
    long: u64,
    short: i64,
    text: String,
    bytes: Vec<u8>,
    nothing: Option<()>,
    doubles: Vec<f64>,
    map: BTreeMap<String, char>,
}

fn bounds() -> Bounds {
    let mut seed = 1_u64;
    let mut double = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from_bits(0x3ff0_0000_0000_0000 | (seed >> 12))
    };
    Bounds {
        least: i128::MIN,
        most: u128::MAX,
        long: u64::MAX,
        short: i64::MIN,
        text: "NUL \0, quote \", backslash \\u0000, line\u{2028}, crab 🦀, \u{10ffff}".into(),
        bytes: (0..=255).collect(),
        nothing: None,
        doubles: [0.1, f64::MIN_POSITIVE, f64::MAX, -0.0].into_iter().chain((0..500).map(|_| double())).collect(),
        map: [("\0".to_owned(), '\0'), (String::new(), '\u{10ffff}')].into(),
    }
}

const BOUNDS: Topic<Bounds> = Topic::new("bounds");

#[step]
async fn echo(value: Bounds) -> Result<Bounds> {
    Ok(value)
}

#[step(tx)]
async fn echo_in_tx(tx: &mut durable::PgConnection, value: Bounds) -> Result<Bounds> {
    sqlx::query("select 1").execute(tx).await?;
    Ok(value)
}

#[workflow]
async fn carries(ctx: &Ctx, value: Bounds) -> Result<Bounds> {
    let value = ctx.run(echo(value)).await?;
    let value = ctx.run(echo_in_tx(value)).await?;
    let sent = ctx.receive(BOUNDS).await?;
    assert_eq!(sent, value);
    Ok(value)
}

/// P20: the bounds of the number types, NUL characters and every double survive inputs, outputs and messages.
#[tokio::test]
async fn values_at_their_bounds_come_back_as_they_were() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(carries).start().await?;
    let handle = durable.start(carries(bounds())).id("v").await?;
    db.until_status("v", "suspended").await;
    durable.send("v", BOUNDS, bounds()).await?;
    assert_eq!(handle.soon().await?, bounds());
    Ok(())
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
struct Deep(Option<Box<Deep>>, Vec<u8>);

fn deep(levels: usize) -> Deep {
    (0..levels).fold(Deep::default(), |inner, _| Deep(Some(Box::new(inner)), vec![]))
}

/// A type whose own JSON it does not read: a field is left out and then missing.
#[derive(Serialize, Deserialize, Clone, Debug)]
struct Lopsided {
    #[serde(skip_serializing)]
    #[allow(dead_code, reason = "only its absence matters")]
    secret: String,
}

fn lopsided() -> Lopsided {
    Lopsided { secret: "x".into() }
}

#[step(retry(max_attempts = 5, first = "1ms"))]
async fn gives_nan(step: &StepCtx, value: String) -> Result<f64> {
    step.state::<Log>().note(value.clone());
    Ok(value.parse()?)
}

#[step(retry(max_attempts = 5, first = "1ms"))]
async fn gives_deep(step: &StepCtx, levels: usize) -> Result<Deep> {
    step.state::<Log>().note("deep");
    Ok(deep(levels))
}

#[step(retry(max_attempts = 5, first = "1ms"))]
async fn gives_much(step: &StepCtx, bytes: usize) -> Result<String> {
    step.state::<Log>().note("much");
    Ok("x".repeat(bytes))
}

#[step(retry(max_attempts = 5, first = "1ms"))]
async fn gives_lopsided(step: &StepCtx) -> Result<Lopsided> {
    step.state::<Log>().note("lopsided");
    Ok(lopsided())
}

#[step]
async fn takes_nan(step: &StepCtx, value: f64) -> Result<f64> {
    step.state::<Log>().note("takes nan");
    Ok(value)
}

#[workflow]
async fn gives_what_cannot_be_stored(ctx: &Ctx) -> Result<Vec<String>> {
    let failures = [
        ctx.run(gives_nan("NaN".into())).await.map(drop),
        ctx.run(gives_nan("inf".into())).await.map(drop),
        ctx.run(gives_deep(200)).await.map(drop),
        ctx.run(gives_much(33 * 1024 * 1024)).await.map(drop),
        ctx.run(gives_lopsided()).await.map(drop),
        ctx.run(takes_nan(f64::NAN)).await.map(drop),
    ]
    .map(|result| result.expect_err("it cannot be stored"));
    assert!(failures.iter().all(|f| f.kind() == FailureKind::Value && f.is_terminal() && f.attempts() == 1));
    Ok(failures.map(|f| f.message()).to_vec())
}

/// P20: an output that could not be read again fails its step, at once and for good.
#[tokio::test]
async fn an_output_that_does_not_survive_being_stored_fails_its_step() -> Result<()> {
    let db = Db::new().await;
    let log = Log::default();
    let durable = db.builder().register(gives_what_cannot_be_stored).state(log.clone()).start().await?;
    let messages = durable.start(gives_what_cannot_be_stored()).await?.soon().await?;
    let parts = ["does not survive", "does not survive", "recursion", "at most 33554432", "missing field", "its input"];
    for (message, part) in messages.iter().zip(parts) {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    assert_eq!(log.entries(), ["NaN", "inf", "deep", "much", "lopsided"], "each once");
    Ok(())
}

#[workflow]
async fn large(ctx: &Ctx) -> Result<usize> {
    let much = ctx.run(gives_much(20 * 1024 * 1024)).await?;
    ctx.sleep(hours(1)).await?;
    Ok(much.len())
}

#[tokio::test]
async fn twenty_megabytes_are_recorded_and_read_again() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let durable = db.builder().register(large).state(Log::default()).start().await?;
    let handle = durable.start(large()).id("l").await?;
    db.until_status("l", "suspended").await;
    clock.advance(hours(2)).await?;
    assert_eq!(handle.soon().await?, 20 * 1024 * 1024);
    Ok(())
}

#[workflow]
async fn takes_anything(ctx: &Ctx, number: f64, deep: Deep, lopsided: Option<Lopsided>, text: String) -> Result<f64> {
    let _ = (ctx.id(), deep, lopsided, text);
    // What it gives has to survive as well.
    Ok(number / 0.0)
}

/// P20: a start whose input could not be read again is refused, and writes nothing.
#[tokio::test]
async fn an_input_that_does_not_survive_is_refused_at_the_start() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    let calls = [
        takes_anything(f64::NAN, deep(1), None, String::new()),
        takes_anything(1.0, deep(200), None, String::new()),
        takes_anything(1.0, deep(1), Some(lopsided()), String::new()),
        takes_anything(1.0, deep(1), None, "x".repeat(33 * 1024 * 1024)),
    ];
    for call in calls {
        let error = client.start(call).id("x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().starts_with("could not start workflow x: its input "), "{error}");
        assert!(!error.is_transient());
    }
    assert_eq!(db.count("select count(*) from durable.workflow").await, 0);

    let nan: Topic<f64> = Topic::new("nan");
    let error = client.send("x", nan, f64::NAN).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    Ok(())
}

/// P20: the same for what a workflow gives.
#[tokio::test]
async fn an_output_of_a_workflow_that_does_not_survive_fails_it() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(takes_anything).start().await?;
    let call = takes_anything(1.0, deep(1), None, String::new());
    let error = durable.start(call).await?.soon().await.unwrap_err();
    let failure = error.failure().context("a failure")?;
    assert_eq!(failure.kind(), FailureKind::Value);
    assert!(failure.message().starts_with("its output "), "{failure}");
    Ok(())
}

#[step(retry(max_attempts = 2))]
async fn fails_with_a_nul(step: &StepCtx) -> Result<u32> {
    if step.attempt() == 1 {
        return Err(retry_after(anyhow!("a NUL \0 in the text"), minutes(5)).into());
    }
    Ok(step.attempt())
}

#[workflow]
async fn retries_after_a_nul(ctx: &Ctx) -> Result<u32> {
    Ok(ctx.run(fails_with_a_nul()).await?)
}

/// P20: any text may stand in a failure, also while its step waits for the next attempt.
#[tokio::test]
async fn a_failure_with_a_nul_waits_for_its_retry() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let durable = db.builder().register(retries_after_a_nul).start().await?;
    let handle = durable.start(retries_after_a_nul()).id("n").await?;
    db.until("select status = 'suspended' or claims > 1 or due_at > created_at from durable.workflow").await;
    assert_eq!(db.text("select status from durable.workflow").await, "suspended");
    clock.advance(minutes(6)).await?;
    assert_eq!(handle.soon().await?, 2);
    assert_eq!(handle.steps().await?[0].failed_attempts[0].failure.message(), "a NUL \0 in the text");
    Ok(())
}

#[step]
async fn fails_with_deep_data(levels: usize) -> Result<()> {
    Err(terminal(anyhow!("deep")).with_data(&deep(levels)).into())
}

#[step]
async fn fails_with_much_data(bytes: usize) -> Result<()> {
    Err(terminal(anyhow!("much")).with_data(&"x".repeat(bytes)).into())
}

#[workflow]
async fn fails_deeply(ctx: &Ctx) -> Result<String> {
    let deep = ctx.run(fails_with_deep_data(200)).await.expect_err("it fails");
    let much = ctx.run(fails_with_much_data(40 * 1024 * 1024)).await.expect_err("it fails");
    ctx.sleep(hours(1)).await?;
    Ok(format!("{} {}", deep.message(), much.message()))
}

/// P20: what a failure carries is stored only if it can be read again; the failure itself always is.
#[tokio::test]
async fn failure_data_that_cannot_be_read_again_is_left_out() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let durable = db.builder().register(fails_deeply).start().await?;
    let handle = durable.start(fails_deeply()).id("d").await?;
    db.until_status("d", "suspended").await;
    clock.advance(hours(2)).await?;
    assert_eq!(handle.soon().await?, "deep much");
    assert!(db.count("select max(length(failure::text))::bigint from durable.step").await < 33 * 1024 * 1024);
    Ok(())
}

#[tokio::test]
async fn a_result_of_another_type_is_a_decode_error() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(large).register(carries).register(retries_after_a_nul).start().await?;
    let client = db.client().await;
    durable.start(carries(bounds())).id("v").await?;
    durable.send("v", BOUNDS, bounds()).await?;
    let error = client.workflow::<Vec<String>>("v").soon().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(error.to_string().contains("the output of workflow v does not decode as"), "{error}");
    assert!(!error.to_string().contains("crab"), "{error}");
    Ok(())
}
