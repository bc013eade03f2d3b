//! What a person reads of one workflow: everything that it did and decided, in order, and everything that was done to it.

use anyhow::{Result, ensure};
use durable::{Ctx, Event, Status, StepCtx, Stream, Topic, days, step, workflow};
use durable_tests::db::Db;
use durable_tests::island::Island;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;

const GO: Topic<i64> = Topic::new("go");
const STAGE: Event<String> = Event::new("stage");
const LINES: Stream<String> = Stream::new("lines");

#[step(retry(max_attempts = 2, first = "1ms"))]
async fn fails_once(step: &StepCtx, name: String) -> Result<String> {
    ensure!(step.attempt() > 1, "not yet");
    Ok(name)
}

#[step(retry(max_attempts = 1))]
async fn fails() -> Result<()> {
    anyhow::bail!("never")
}

#[workflow]
async fn child(ctx: &Ctx, n: i64) -> Result<i64> {
    let _ = ctx.id();
    Ok(n + 1)
}

/// One of everything that a history can hold.
#[workflow]
async fn everything(ctx: &Ctx) -> Result<i64> {
    ctx.run(fails_once("a".into())).await?;
    ctx.undo(work("undo".into())).await;
    if ctx.patched("new way").await {
        ctx.set_attribute("way", "new").await?;
    }
    ctx.sleep(std::time::Duration::from_millis(1)).await?;
    let sum = ctx.run(child(1)).await?;
    ctx.publish(STAGE, "half".into()).await?;
    ctx.stream(LINES).write("one line".into()).await?;
    ensure!(ctx.run(fails()).await.is_err());
    let came = durable::select! { ctx,
        go = ctx.receive(GO) => go?,
        slept = ctx.sleep(days(9)) => { slept?; 0 },
    };
    Ok(sum + came)
}

/// Inputs, attempts, failures, outputs and decisions, in the order of the body; and beside them what operators did.
#[tokio::test]
async fn a_history_tells_all_that_a_workflow_did_and_decided_in_order() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().register(everything).register(child).state(kit).start().await?;
    let handle = durable.start(everything()).id("w").await?;
    db.until("select status = 'suspended' and waits is not null and exists (
                  select from durable.step where workflow_id = 'w' and name = 'fails') from durable.workflow where id = 'w'")
        .await;
    durable.pause("w").reason("look").await?;
    durable.set_deadline("w", days(30)).await?;
    durable.resume("w").reason("looked").await?;
    durable.send("w", GO, 40).await?;
    assert_eq!(handle.soon().await?, 42);

    // Lane by lane, each in the order of its body.
    let steps = handle.history().await?.steps;
    let told: Vec<_> = steps.iter().map(|s| (&*s.lane, s.seq, &*s.kind, &*s.name, s.output.as_deref())).collect();
    let expected = [
        ("", 0, "step", "fails_once", Some("\"a\"")),
        ("", 1, "undo", "work", Some("null")),
        ("", 2, "patch", "new way", Some("null")),
        ("", 3, "transaction", "set attribute", Some("null")),
        ("", 4, "sleep", "sleep", Some("{\"slept_ms\":1}")),
        ("", 5, "start", "child", Some("{\"id\":\"w/5\"}")),
        ("", 6, "child", "child", Some("2")),
        ("", 7, "publish", "stage", Some("null")),
        ("", 8, "stream", "lines", Some("0")),
        ("", 9, "step", "fails", None),
        ("", 10, "race", "race", Some("{\"winner\":0}")),
        ("10.0", 0, "receive", "go", Some("{\"message\" : 40}")),
    ];
    assert_eq!(told, expected);
    assert_eq!(steps[0].input.as_deref(), Some("\"a\""));
    assert_eq!(steps[0].failed_attempts.len(), 1);
    assert_eq!((steps[6].input.as_deref(), steps[7].input.as_deref()), (Some("\"w/5\""), Some("\"half\"")));
    assert!(steps[9].failure.as_ref().is_some_and(|failure| failure.message().contains("never")));
    // And the same in the order in which it was recorded.
    let mut by_time = handle.steps().await?;
    assert!(by_time.is_sorted_by_key(|step| step.recorded_at));
    by_time.sort_by(|a, b| (&a.lane, a.seq).cmp(&(&b.lane, b.seq)));
    assert_eq!(format!("{by_time:?}"), format!("{steps:?}"));

    let operations = handle.operations().await?;
    let did: Vec<_> = operations.iter().map(|did| (&*did.act, did.stood, did.reason.as_deref())).collect();
    let expected = [
        ("pause", Some(Status::Suspended), Some("look")),
        ("deadline", Some(Status::Blocked), None),
        ("resume", Some(Status::Blocked), Some("looked")),
    ];
    assert_eq!(did, expected);
    assert!(operations.iter().all(|did| !did.done_by.is_empty()));
    assert_eq!(handle.attributes().await?.len(), 1);
    handle.input::<()>().await?;
    Ok(())
}

#[workflow]
async fn held(ctx: &Ctx) -> Result<String> {
    Ok(ctx.run(gated("held".into())).await?)
}

/// Which workers a workflow has lost stands between what operators did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_tells_which_workers_it_has_lost() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let builder = || db.builder().lease(std::time::Duration::from_secs(1)).register(held).state(kit.clone());
    let first = Island::start(builder()).await;
    first.durable().start(held()).id("h").await?;
    kit.gate.reached().await;
    let owner = db.text("select owner::text from durable.workflow").await;
    first.durable().set_deadline("h", days(1)).await?;
    first.sink().await;
    let second = builder().start().await?;
    kit.gate.reached().await;
    second.set_deadline("h", days(2)).await?;
    kit.gate.open();
    let handle = second.workflow::<String>("h");
    handle.soon().await?;
    let operations = handle.operations().await?;
    let did: Vec<_> = operations.iter().map(|did| (&*did.act, did.stood)).collect();
    let running = Some(Status::Running);
    assert_eq!(did, [("deadline", running), ("recover", running), ("deadline", running)]);
    let lost = operations[1].reason.as_deref().unwrap_or_default();
    assert!(lost.starts_with(&format!("worker {owner} was lost (process {} on ", std::process::id())), "{lost}");
    Ok(())
}
