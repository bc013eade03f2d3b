//! The timeline: every change of how a workflow stood, with its history, in one order. Histories for bodies are `history`.

use std::time::Duration;

use anyhow::{Result, bail};
use durable::{
    Ctx, Durable, ErrorKind, Handle, StepCtx, TimelineEntry, Topic, Transition, hours, step, terminal, workflow,
};
use durable_tests::db::Db;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;

const GO: Topic<()> = Topic::new("go");
const OTHER: Topic<()> = Topic::new("other");

#[step(retry(max_attempts = 2, first = "1ms"))]
async fn flaky(step: &StepCtx) -> Result<()> {
    if step.attempt() == 1 {
        bail!("not yet");
    }
    Ok(())
}

/// It fails an attempt, waits, works for long, and waits again.
#[workflow]
async fn eventful(ctx: &Ctx) -> Result<()> {
    ctx.run(flaky()).await?;
    ctx.receive(GO).await?;
    ctx.run(gated("long".into())).await?;
    ctx.receive(GO).await?;
    Ok(())
}

/// All of it, in pages of so many.
async fn read<T>(handle: &Handle<T>, limit: u32) -> Result<Vec<TimelineEntry>> {
    let mut page = handle.timeline().limit(limit).await?;
    let mut entries = std::mem::take(&mut page.entries);
    while let Some(next) = page.next {
        page = handle.timeline().limit(limit).after(next).await?;
        entries.append(&mut page.entries);
    }
    Ok(entries)
}

/// What stands in it, without times, workers and roles.
async fn lines<T>(handle: &Handle<T>) -> Result<Vec<String>> {
    let entries = read(handle, 1_000).await?;
    assert!(entries.is_sorted_by_key(|entry| entry.at), "{entries:#?}");
    let lines: Vec<String> = entries.iter().map(line).collect();
    for limit in [1, 3] {
        let paged: Vec<String> = read(handle, limit).await?.iter().map(line).collect();
        assert_eq!(paged, lines, "in pages of {limit}");
    }
    Ok(lines)
}

fn line(entry: &TimelineEntry) -> String {
    let line = entry.what.to_string();
    let line = line.split(", by worker").next().unwrap_or_default();
    let Transition::Operated(operation) = &entry.what else { return line.to_owned() };
    if operation.act == "recover" {
        "recover".to_owned()
    } else {
        line.replace(&format!(" by {}", operation.done_by), "")
    }
}

async fn worker(db: &Db, kit: &Kit) -> Result<Durable> {
    Ok(db.builder().register(eventful).state(kit.clone()).start().await?)
}

/// What happens when a worker is lost: it is fenced, finds that, and begins again.
async fn lose_the_worker(db: &Db) -> Result<()> {
    sqlx::query("update durable.worker set fenced_at = durable.now()").execute(&db.pool).await?;
    Ok(())
}

#[tokio::test]
async fn every_transition_of_a_workflow_stands_in_its_timeline_in_order() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let clock = db.clock().await;
    let durable = worker(&db, &kit).await?;
    let handle = durable.start(eventful()).id("t").delay(hours(1)).await?;
    assert_eq!(lines(&handle).await?, ["created"], "delayed");
    clock.advance(hours(1)).await?;
    db.until_status("t", "suspended").await;
    durable.send("t", GO, ()).await?;
    kit.gate.reached().await;
    lose_the_worker(&db).await?;
    db.until("select claims = 3 and status = 'running' from durable.workflow").await;
    durable.pause("t").reason("lunch").await?;
    durable.resume("t").await?;
    kit.gate.open();
    db.until("select count(*) = 3 from durable.step").await;
    db.until_status("t", "suspended").await;
    durable.cancel("t").reason("enough").await?;

    let expected = [
        "created",
        "began, at the latest",
        "attempt 1 of step \"flaky\" failed, at 0",
        "recorded: step \"flaky\", at 0",
        "waits: receive \"go\", at 1",
        "claimed: claim 2",
        "recorded: receive \"go\", at 1",
        "recover",
        "claimed: claim 3",
        "pause: lunch",
        "resume",
        "claimed",
        "recorded: step \"gated\", at 2",
        "waits: receive \"go\", at 3",
        "cancel: enough",
        "cancelled",
    ];
    assert_eq!(lines(&handle).await?, expected);
    // It tells no claim that came to a wait, but how many there were.
    assert_eq!(handle.info().await?.claims, 4);
    Ok(())
}

#[workflow]
async fn fails_with_a_nul(ctx: &Ctx) -> Result<()> {
    ctx.run(breaks()).await?;
    Ok(())
}

#[step(retry(max_attempts = 3, first = "1h", max = "1h"))]
async fn breaks(step: &StepCtx) -> Result<()> {
    if step.attempt() == 2 {
        return Err(terminal(anyhow::anyhow!("broken\0 for good")).into());
    }
    bail!("broken\0 once")
}

/// What it tells of former lives of a workflow is that they were, and how they ended.
#[tokio::test]
async fn a_timeline_tells_how_a_workflow_ended_that_was_resumed_and_restarted() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let durable = db.builder().register(fails_with_a_nul).start().await?;
    let handle = durable.start(fails_with_a_nul()).id("t").await?;
    db.until_status("t", "suspended").await;
    let waits = lines(&handle).await?;
    assert_eq!(waits[2..], ["attempt 1 of step failed, at 0", "waits: retry, at 0"]);
    for claims in [2, 4] {
        clock.advance(hours(2)).await?;
        db.until_status("t", "failed").await;
        assert_eq!(handle.info().await?.claims, claims);
        if claims == 2 {
            durable.resume("t").await?;
            db.until_status("t", "suspended").await;
        }
    }
    let told = [
        "created",
        // Its first claim came to a wait, and the step that it began with was forgotten by the resumption.
        "began, at the latest",
        "claimed: claim 2, by a worker",
        "failed",
        "resume",
        "attempt 1 of step \"breaks\" failed, at 0",
        "claimed",
        "attempt 2 of step \"breaks\" failed, at 0",
        "failed: step \"breaks\", at 0",
        "failed",
    ];
    assert_eq!(lines(&handle).await?, told);

    durable.restart("t").await?;
    db.until_status("t", "suspended").await;
    let three_lives = lines(&handle).await?;
    let ends = three_lives.iter().filter(|line| *line == "failed").count();
    assert_eq!((ends, three_lives[0].as_str()), (2, "created"), "{three_lives:#?}");
    assert!(three_lives.contains(&"restart".to_owned()));
    // The reasons are what the failures said.
    let entries = read(&handle, 100).await?;
    let ends = entries.iter().filter(|entry| matches!(entry.what, Transition::Ended { .. })).count();
    let reasons = entries
        .iter()
        .filter_map(|entry| if let Transition::Ended { reason, .. } = &entry.what { reason.as_deref() } else { None });
    assert_eq!((ends, reasons.filter(|reason| reason.contains("for good")).count()), (2, 2));
    Ok(())
}

#[workflow]
async fn again_and_again(ctx: &Ctx, n: u32) -> Result<u32> {
    ctx.run(work(format!("work {n}"))).await?;
    if n == 2 {
        return Ok(n);
    }
    ctx.continue_as_new(again_and_again(n + 1)).await
}

#[workflow(name = "eventful")]
async fn other_code(ctx: &Ctx) -> Result<()> {
    ctx.run(work("other".into())).await?;
    Ok(())
}

#[tokio::test]
async fn continuing_as_new_stands_in_a_timeline() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(again_and_again).state(Kit::default()).start().await?;
    let handle = durable.start(again_and_again(0)).await?;
    assert_eq!(handle.soon().await?, 2);
    let told = lines(&handle).await?;
    assert_eq!(told[0], "created");
    assert!(told.contains(&"continued as new, for the 2. time".to_owned()), "{told:#?}");
    assert_eq!(told[told.len() - 2..], ["recorded: step \"work\", at g2.0", "completed"]);
    Ok(())
}

#[tokio::test]
async fn a_block_and_what_resumed_it_and_a_worker_that_stopped_stand_in_a_timeline() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let first = worker(&db, &kit).await?;
    let handle = first.start(eventful()).id("t").await?;
    db.until_status("t", "suspended").await;
    first.shutdown(Duration::from_secs(10)).await;

    let second = db.builder().register(other_code).state(kit.clone()).start().await?;
    second.send("t", GO, ()).await?;
    db.until_status("t", "blocked").await;
    second.shutdown(Duration::from_secs(10)).await;

    // It comes with the code that fits, and stops while a step of it is held.
    let third = worker(&db, &kit).await?;
    kit.gate.reached().await;
    third.shutdown(Duration::ZERO).await;
    let told = lines(&handle).await?;
    let rest = [
        "waits: receive \"go\", at 1",
        "claimed: claim 2",
        "blocked: its code does not fit its history",
        "resume: a worker came with other code",
        "claimed: claim 3",
        "recorded: receive \"go\", at 1",
        "given back: its worker has stopped",
    ];
    assert_eq!(told[told.len() - rest.len()..], rest);
    // What was done to it is a part of that: by people, and by those who took it over.
    let acts: Vec<String> = handle.operations().await?.into_iter().map(|operation| operation.act).collect();
    assert_eq!(acts, ["resume"]);
    Ok(())
}

/// What is told of a wait is since when the body waits, however often it was woken for nothing meanwhile.
#[tokio::test]
async fn a_wait_is_told_from_its_beginning() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let clock = db.clock().await;
    let durable = worker(&db, &kit).await?;
    let handle = durable.start(eventful()).id("t").await?;
    db.until_status("t", "suspended").await;
    for claims in 2..4 {
        clock.advance(hours(1)).await?;
        durable.send("t", OTHER, ()).await?;
        let claimed = "select (claims * case status when 'suspended' then 1 else 0 end)::bigint from durable.workflow";
        db.until_count(claimed, |n| n == claims).await;
    }
    clock.advance(hours(1)).await?;
    durable.send("t", GO, ()).await?;
    kit.gate.reached().await;
    let entries = read(&handle, 100).await?;
    let since = |lasts: &dyn Fn(&Transition) -> bool| entries.iter().find(|e| lasts(&e.what)).expect("an entry").at;
    let began = since(&|what| matches!(what, Transition::Waits { .. }));
    let over = since(&|what| matches!(what, Transition::Recorded(step) if step.kind == "receive"));
    let hours = (over - began).as_seconds_f64() / 3600.0;
    assert!((3.0..3.1).contains(&hours), "{hours} hours");
    kit.gate.open();
    Ok(())
}

#[tokio::test]
async fn a_page_of_a_timeline_that_cannot_be_is_refused_and_nothing_has_an_empty_one() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    let handle = client.workflow::<()>("nobody");
    for problem in [
        handle.timeline().limit(0).await.unwrap_err(),
        handle.timeline().limit(1_001).await.unwrap_err(),
        handle.timeline().after("yesterday").await.unwrap_err(),
    ] {
        assert_eq!(problem.kind(), ErrorKind::Usage, "{problem}");
    }
    let page = handle.timeline().await?;
    assert!(page.entries.is_empty() && page.next.is_none());
    Ok(())
}
