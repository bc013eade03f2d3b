//! Children: started once for each position, awaited as one row, and what their ends and the parent's do to each other.
//!
//! Many of them at a time are `children_many`, crashes and lost replies `children_faults`, cancelling `children_cancelling`.

use std::time::Duration;

use anyhow::Result;
use durable::{Child, Ctx, Durable, FailureKind, Status, StepError, Topic, hours, seconds, step, terminal, workflow};
use durable_tests::db::Db;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;

#[workflow]
pub(super) async fn twice(ctx: &Ctx, n: i64) -> Result<i64> {
    ctx.run(work(format!("twice {n}"))).await?;
    Ok(2 * n)
}

/// Waits for a child, and shows its id.
#[workflow]
async fn waits(ctx: &Ctx, n: i64) -> Result<i64> {
    Ok(ctx.run(twice(n)).await? + 1)
}

#[workflow]
async fn held_child(ctx: &Ctx, name: String) -> Result<String> {
    Ok(ctx.run(gated(name)).await?)
}

#[workflow]
async fn waits_for_held(ctx: &Ctx, name: String) -> Result<String> {
    Ok(ctx.run(held_child(name)).await?)
}

async fn worker(db: &Db, kit: &Kit) -> Result<Durable> {
    let builder = db.builder().register(twice).register(waits).register(held_child).register(waits_for_held);
    let builder = builder.register(later).register(declined).register(tells_failure).register(fails_by_child);
    let builder = builder.register(names_child).register(grandparent).register(in_branches);
    Ok(builder.register(starts_options).register(unread).state(kit.clone()).start().await?)
}

#[tokio::test]
async fn a_child_is_a_workflow_of_its_own_named_after_its_parent_and_position() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let parent = durable.start(waits(21)).id("p").await?;

    assert_eq!(parent.soon().await?, 43);
    let child = durable.workflow::<i64>("p/0");
    assert_eq!(child.soon().await?, 42);
    assert_eq!(child.info().await?.name, "twice");
    let steps = parent.steps().await?;
    let told: Vec<_> = steps.iter().map(|step| (&*step.kind, &*step.name, step.seq)).collect();
    assert_eq!(told, [("start", "twice", 0), ("child", "twice", 1)]);
    assert_eq!(steps[0].output.as_deref(), Some(r#"{"id":"p/0"}"#));
    assert_eq!((steps[1].input.as_deref(), steps[1].output.as_deref()), (Some(r#""p/0""#), Some("42")));
    Ok(())
}

/// A parent that waits has no owner, no memory and no timer; the commit that ends the child makes it due.
#[tokio::test]
async fn a_parent_that_waits_is_one_row_until_the_child_ends() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let parent = durable.start(waits_for_held("held".into())).id("p").await?;
    kit.gate.reached().await;
    db.until_status("p", "suspended").await;
    let row = "select count(*) from durable.workflow where id = 'p' and owner is null and due_at is null";
    assert_eq!(db.count(row).await, 1);
    let waits = "select waits_for || ' ' || (until is null) from durable.waiting where id = 'p'";
    assert_eq!(db.text(waits).await, "child true");
    let claims = db.count("select claims::bigint from durable.workflow where id = 'p'").await;

    kit.gate.open();
    assert_eq!(parent.soon().await?, "held");
    assert_eq!(db.count("select claims::bigint from durable.workflow where id = 'p'").await, claims + 1);
    Ok(())
}

/// The handle is a value: it can be awaited later, from elsewhere, more than once, or never.
#[workflow]
async fn later(ctx: &Ctx) -> Result<Vec<i64>> {
    let first = ctx.start(twice(1)).await?;
    let _nobody_waits = ctx.start(twice(2)).id("unawaited").await?;
    let third: Child<i64> = ctx.branch(async |ctx: &Ctx| ctx.start(twice(3)).await).await?;
    ctx.run(work("between".into())).await?;
    let in_branch = ctx.branch(async |ctx: &Ctx| ctx.result(&first).await).await?;
    ctx.sleep(Duration::from_millis(1)).await?;
    Ok(vec![in_branch, ctx.result(&third).await?, ctx.result(&first).await?])
}

#[tokio::test]
async fn a_started_child_can_be_awaited_later_elsewhere_again_or_never() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    assert_eq!(durable.start(later()).id("p").await?.soon().await?, [2, 6, 2]);
    assert_eq!(durable.workflow::<i64>("unawaited").soon().await?, 4);
    assert_eq!(durable.workflow::<i64>("p/2.0").soon().await?, 6);
    assert_eq!(db.count("select count(*) from durable.child where parent = 'p'").await, 3);
    Ok(())
}

#[workflow]
async fn in_branches(ctx: &Ctx) -> Result<i64> {
    let sums = ctx.fan_out(1..=3, 2, async |ctx: &Ctx, n: i64| ctx.run(waits(n)).await).await;
    Ok(sums.into_iter().sum::<Result<i64, _>>()?)
}

#[tokio::test]
async fn children_in_branches_have_children_too() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    assert_eq!(durable.start(in_branches()).id("p").await?.soon().await?, 3 + 5 + 7);
    let ids = "select string_agg(id, ' ' order by id) from durable.child";
    assert_eq!(db.text(ids).await, "p/0.0.0 p/0.0.0/0 p/0.1.0 p/0.1.0/0 p/0.2.0 p/0.2.0/0");
    Ok(())
}

#[step]
async fn charge(card: String) -> Result<(), StepError> {
    Err(terminal(anyhow::anyhow!("no card {card}")).with_data(&51))
}

#[workflow]
async fn declined(ctx: &Ctx, card: String) -> Result<i64> {
    ctx.run(charge(card)).await?;
    Ok(0)
}

/// What the body is told of a child that fails.
#[workflow]
async fn tells_failure(ctx: &Ctx) -> Result<(String, Option<String>, Option<String>, bool, Option<i64>)> {
    let failure = ctx.run(declined("4000".into())).await.expect_err("it fails");
    // On the first run as on every later one.
    ctx.sleep(Duration::from_millis(30)).await?;
    let child = failure.child().map(str::to_owned);
    let step = failure.step().map(str::to_owned);
    Ok((failure.to_string(), child, step, failure.is_terminal(), failure.data()))
}

#[workflow]
async fn fails_by_child(ctx: &Ctx) -> Result<i64> {
    Ok(ctx.run(declined("4000".into())).await?)
}

#[workflow]
async fn grandparent(ctx: &Ctx) -> Result<String> {
    let failure = ctx.run(fails_by_child()).await.expect_err("it fails");
    Ok(format!("{:?} {failure}", failure.child()))
}

#[tokio::test]
async fn a_childs_failure_reaches_its_parent_with_all_that_was_recorded_of_it() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().short_wait(Duration::from_millis(10));
    let durable = durable.register(tells_failure).register(declined).register(fails_by_child).register(grandparent);
    let durable = durable.state(kit.clone()).start().await?;

    let told = durable.start(tells_failure()).id("p").await?.soon().await?;
    let text = r#"child "p/0" failed: step "charge" failed: no card 4000"#.to_owned();
    assert_eq!(told, (text, Some("p/0".into()), Some("charge".into()), true, Some(51)));

    let error = durable.start(fails_by_child()).id("q").await?.soon().await.unwrap_err();
    let failure = error.failure().expect("the failure");
    assert_eq!((failure.child(), failure.step(), failure.kind()), (Some("q/0"), Some("charge"), FailureKind::Error));

    let through = durable.start(grandparent()).id("g").await?.soon().await?;
    assert_eq!(through, r#"Some("g/0") child "g/0" failed: step "charge" failed: no card 4000"#);
    Ok(())
}

/// Starts a child with this id, and tells what came of it.
#[workflow]
async fn names_child(ctx: &Ctx, id: String) -> Result<(i64, String)> {
    match ctx.run(twice(4)).id(id).await {
        Ok(n) => Ok((n, String::new())),
        Err(failure) => Ok((-1, format!("{:?}, {}: {failure}", failure.kind(), failure.is_terminal()))),
    }
}

#[tokio::test]
async fn an_id_that_is_not_this_childs_is_a_failure_that_names_it() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    durable.start(waits(1)).id("another").await?.soon().await?;
    durable.start(twice(1)).id("same-workflow").await?.soon().await?;
    let (n, _) = durable.start(names_child("mine".into())).id("p-0").await?.soon().await?;
    assert_eq!(n, 8);

    let belongs = "which was not started at this position of this workflow: give the child another id";
    for (parent, id, problem) in [
        ("p-1", "another", format!(r#"its id belongs to workflow "waits" version 1, {belongs}"#)),
        ("p-2", "same-workflow", format!(r#"its id belongs to workflow "twice" version 1, {belongs}"#)),
        ("p-3", "mine", format!(r#"its id belongs to workflow "twice" version 1, {belongs}"#)),
        ("p-4", "p-4", "that is the id of this workflow itself: give the child another id".to_owned()),
    ] {
        let (_, told) = durable.start(names_child(id.into())).id(parent).await?.soon().await?;
        assert_eq!(told, format!("Conflict, true: could not start child {id:?}: {problem}"));
    }
    for (parent, id, problem) in [
        ("p-5", String::new(), "the workflow id is empty"),
        ("p-6", "x".repeat(513), "513 bytes"),
        ("p-7", "a\nb".to_owned(), "control character"),
    ] {
        let (_, told) = durable.start(names_child(id)).id(parent).await?.soon().await?;
        assert!(told.starts_with("Error, true: could not start a child: ") && told.contains(problem), "{told}");
    }
    // Nothing was started for any of them.
    assert_eq!(db.count("select count(*) from durable.child where parent like 'p-%'").await, 1);
    let refused = "select count(*) from durable.step where kind = 'start' and failure is not null";
    assert_eq!(db.count(refused).await, 7);
    Ok(())
}

#[workflow]
async fn starts_options(ctx: &Ctx) -> Result<i64> {
    let slow = ctx.start(twice(1)).queue("elsewhere").priority(7).delay(seconds(600)).detached().await?;
    let inherits = ctx.start(twice(2)).await?;
    ctx.run(work(slow.id().to_owned())).await?;
    Ok(ctx.result(&inherits).await?)
}

#[tokio::test]
async fn a_child_has_the_queue_and_priority_of_its_parent_unless_it_is_given_others() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    assert_eq!(durable.start(starts_options()).id("p").priority(-3).await?.soon().await?, 4);
    let slow = durable.workflow::<i64>("p/0").info().await?;
    assert_eq!((&*slow.queue, slow.priority, slow.status), ("elsewhere", 7, Status::Queued));
    assert!(slow.due_at > Some(slow.created_at + chrono::TimeDelta::seconds(599)));
    let inherits = durable.workflow::<i64>("p/1").info().await?;
    assert_eq!((&*inherits.queue, inherits.priority), ("default", -3));
    assert_eq!(db.text("select string_agg(id, ' ') from durable.child where detached").await, "p/0");
    Ok(())
}

/// A child that no worker knows waits, and its parent with it; nothing fails, and both go on when one does.
#[tokio::test]
async fn a_child_that_nobody_has_registered_waits_for_one_who_has() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let without = db.builder().register(waits).state(kit.clone()).start().await?;
    let parent = without.start(waits(5)).id("p").await?;
    db.until_status("p", "suspended").await;
    db.until_status("p/0", "queued").await;
    let _with = db.builder().register(twice).state(kit.clone()).start().await?;
    assert_eq!(parent.soon().await?, 11);
    Ok(())
}

/// Two processes, as far as the library knows: the parent can only run in one, the child only in the other.
#[tokio::test]
async fn parent_and_child_run_on_different_workers_and_queues() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let parents = db.builder().register(elsewhere).poll_every(seconds(60)).start().await?;
    let children = db.builder().register(twice).queue("children").poll_every(seconds(60)).state(kit.clone());
    let _children = children.start().await?;
    // Polls would come too late: hints bring the child to its worker and its end back.
    assert_eq!(parents.start(elsewhere(8)).await?.soon().await?, 16);
    Ok(())
}

#[workflow]
async fn elsewhere(ctx: &Ctx, n: i64) -> Result<i64> {
    Ok(ctx.run(twice(n)).queue("children").await?)
}

const WORD: Topic<String> = Topic::new("word");

#[workflow]
async fn starts_then_receives(ctx: &Ctx) -> Result<String> {
    ctx.run(gated("before".into())).await?;
    let child = ctx.start(twice(1)).queue("nobody's").await?;
    let word = ctx.receive(WORD).await?;
    Ok(format!("{word} beside {}", child.id()))
}

/// The start tells the body's worker how often the workflow was woken, and with it that there is mail which nobody told it of.
#[tokio::test]
async fn a_message_that_came_before_a_child_was_started_is_received() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().hints(false).register(starts_then_receives).state(kit.clone()).start().await?;
    let elsewhere = db.builder().hints(false).client().await?;
    let parent = durable.start(starts_then_receives()).id("p").await?;
    kit.gate.reached().await;
    elsewhere.send("p", WORD, "word".to_owned()).await?;
    kit.gate.open();
    assert_eq!(parent.soon().await?, "word beside p/1");
    Ok(())
}

/// Two races: one that a child wins, and one that it loses to a short sleep.
#[workflow]
async fn races(ctx: &Ctx) -> Result<Vec<String>> {
    let (quick, slow) = (ctx.start(twice(1)).await?, ctx.start(held_child("slow".into())).await?);
    let mut told = vec![durable::select! { ctx,
        n = ctx.result(&quick) => format!("child {}", n?),
        _ = ctx.sleep(hours(1)) => "sleep".to_owned(),
    }];
    told.push(durable::select! { ctx,
        name = ctx.result(&slow) => name?,
        _ = ctx.sleep(Duration::from_millis(30)) => "sleep".to_owned(),
    });
    // What was decided stays so, however the body comes here again.
    ctx.run(gated("hold".into())).await?;
    told.push(ctx.result(&slow).await?);
    Ok(told)
}

/// Each wait is a suspension, and after it the body runs from its top: what a race has come to is the same every time.
#[tokio::test]
async fn a_child_that_lost_a_race_goes_on_and_can_be_awaited_again() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let builder = || db.builder().short_wait(Duration::from_millis(10)).register(races).register(twice);
    let first = builder().register(held_child).state(kit.clone()).start().await?;
    first.start(races()).id("p").await?;
    // The child that is held, and the body.
    for _ in 0..2 {
        kit.gate.reached().await;
    }
    first.shutdown(Duration::ZERO).await;
    let second = builder().register(held_child).state(kit.clone()).start().await?;
    for _ in 0..2 {
        kit.gate.reached().await;
    }
    (0..2).for_each(|_| kit.gate.open());
    assert_eq!(second.workflow::<Vec<String>>("p").soon().await?, ["child 2", "sleep", "slow"]);
    let children = "select string_agg(w.id || ' ' || w.status, ', ' order by w.id)
                    from durable.child c join durable.workflow w using (bucket, id)";
    db.until("select count(*) = 2 from durable.workflow where status = 'completed' and id like 'p/%'").await;
    assert_eq!(db.text(children).await, "p/0 completed, p/1 completed");
    Ok(())
}

/// The same name and version, with another output.
#[workflow(name = "twice")]
async fn twice_as_text(_ctx: &Ctx, _n: i64) -> Result<String> {
    anyhow::bail!("never run")
}

/// P20: what a child gave and the parent's code cannot read blocks the parent, loudly, until code comes that can.
#[workflow]
async fn unread(ctx: &Ctx) -> Result<String> {
    Ok(ctx.run(twice_as_text(3)).await?)
}

#[tokio::test]
async fn an_output_that_the_parent_cannot_read_blocks_it() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let parent = durable.start(unread()).id("p").await?;
    db.until_status("p", "blocked").await;
    let failure = parent.info().await?.failure.expect("why it is blocked");
    assert_eq!(failure.kind(), FailureKind::Mismatch);
    let told = failure.to_string();
    assert!(told.starts_with(r#"the output of child "p/0", awaited at 1, does not decode as"#), "{told}");
    Ok(())
}
