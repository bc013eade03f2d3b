//! Ends that do not come from the body: deadlines, cancellations with a reason, and what is undone on the way.

use anyhow::{Result, ensure};
use durable::testing::{TestDatabase, every_crash};
use durable::{
    Builder, Ctx, Durable, ErrorKind, FailureKind, PgConnection, Status, StepCtx, Topic, days, hours, minutes, seconds,
    step, workflow,
};
use durable_tests::db::Db;
use durable_tests::island::Island;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;
use sqlx::PgPool;

const GO: Topic<bool> = Topic::new("go");

#[step]
async fn undo(step: &StepCtx, name: String) -> Result<()> {
    step.state::<Kit>().log.note(format!("undo {name}"));
    Ok(())
}

/// Books two things and waits for somebody.
#[workflow]
async fn trip(ctx: &Ctx) -> Result<String> {
    for part in ["flight", "hotel"] {
        ctx.undo(undo(part.into())).await;
        ctx.run(work(part.into())).await?;
    }
    ctx.receive(GO).await?;
    ctx.run(work("went".into())).await?;
    Ok("there".to_owned())
}

/// The same, held in a step.
#[workflow]
async fn held_trip(ctx: &Ctx) -> Result<String> {
    ctx.undo(undo("flight".into())).await;
    ctx.run(work("flight".into())).await?;
    ctx.undo(undo("held".into())).await;
    Ok(ctx.run(gated("held".into())).await?)
}

#[workflow]
async fn waits(ctx: &Ctx) -> Result<String> {
    ctx.receive(GO).await?;
    Ok("went".to_owned())
}

/// A parent of a trip and of what has nothing to undo.
#[workflow]
async fn journey(ctx: &Ctx) -> Result<String> {
    ctx.undo(undo("journey".into())).await;
    let (trip, other) = tokio::join!(ctx.run(trip()).id("trip"), ctx.run(waits()).id("other"));
    Ok(trip? + &other?)
}

fn everything(builder: Builder) -> Builder {
    builder.register(trip).register(held_trip).register(waits).register(journey)
}

async fn worker(db: &Db, kit: &Kit) -> Result<Durable> {
    Ok(everything(db.builder()).state(kit.clone()).start().await?)
}

async fn moved(kit: &Kit) -> Result<(Db, TestDatabase, Durable)> {
    let server = Db::new().await;
    let db = TestDatabase::create(&server.pool, |_| async { Ok(()) }).await?;
    let durable = everything(db.builder()).state(kit.clone()).start().await?;
    Ok((server, db, durable))
}

/// P13: with what it has done, a cancelled workflow is undone, and only then over.
#[tokio::test]
async fn a_suspended_workflow_that_was_cancelled_is_undone() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let handle = durable.start(trip()).id("t").await?;
    db.until_status("t", "suspended").await;
    durable.cancel("t").reason("no time").await?;
    let error = handle.soon().await.unwrap_err();
    assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Cancelled, "workflow t was cancelled: no time"));
    let failure = error.failure().expect("the reason");
    assert_eq!((failure.kind(), &*failure.message()), (FailureKind::Cancelled, "no time"));
    assert_eq!(kit.log.entries(), ["flight", "hotel", "undo hotel", "undo flight"]);
    let info = handle.info().await?;
    assert_eq!((info.status, info.finished_at.is_some()), (Status::Cancelled, true));
    // Again, and nothing happens.
    durable.cancel("t").reason("another").await?;
    assert_eq!(handle.soon().await.unwrap_err().to_string(), "workflow t was cancelled: no time");
    Ok(())
}

/// P13: the step that runs is stopped first; its effect may be there, and is undone.
#[tokio::test]
async fn a_running_workflow_is_stopped_before_it_is_undone() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let handle = durable.start(held_trip()).id("t").await?;
    kit.gate.reached().await;
    db.client().await.cancel("t").await?;
    assert_eq!(handle.soon().await.unwrap_err().to_string(), "workflow t was cancelled");
    assert_eq!(kit.log.entries(), ["flight", "held", "undo held", "undo flight"]);
    Ok(())
}

/// P10: nor is it forgotten when that worker is lost before it has stopped it.
#[tokio::test]
async fn what_a_dead_worker_had_to_stop_is_undone_by_another() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let clock = db.clock().await;
    let first = Island::start(everything(db.builder()).state(kit.clone())).await;
    let client = db.client().await;
    client.start(held_trip()).id("t").await?;
    kit.gate.reached().await;
    // It hears nothing any more.
    first.sink().await;
    let mut tx = db.pool.begin().await?;
    client.cancel("t").in_tx(&mut tx).await?;
    tx.commit().await?;
    let second = worker(&db, &kit).await?;
    clock.advance(minutes(1)).await?;
    assert_eq!(second.workflow::<String>("t").soon().await.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(kit.log.entries(), ["flight", "held", "undo held", "undo flight"]);
    db.until("select count(*) = 0 from durable.ending").await;
    Ok(())
}

/// A message that comes meanwhile does not let it go on.
#[tokio::test]
async fn a_cancelled_workflow_does_not_go_on_for_a_message() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let client = db.client().await;
    client.start(trip()).id("t").await?;
    let first = Island::start(everything(db.builder()).state(kit.clone())).await;
    db.until_status("t", "suspended").await;
    first.sink().await;
    client.cancel("t").await?;
    client.send("t", GO, true).await?;
    let worker = worker(&db, &kit).await?;
    assert_eq!(worker.workflow::<String>("t").soon().await.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(kit.log.count("went"), 0);
    assert_eq!(kit.log.entries()[2..], ["undo hotel", "undo flight"]);
    Ok(())
}

/// P5.
#[tokio::test]
async fn a_cancellation_that_is_rolled_back_undoes_nothing() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let handle = durable.start(trip()).id("t").await?;
    db.until_status("t", "suspended").await;
    let mut tx = db.pool.begin().await?;
    durable.cancel("t").in_tx(&mut tx).await?;
    tx.rollback().await?;
    durable.send("t", GO, true).await?;
    assert_eq!(handle.soon().await?, "there");
    assert_eq!(kit.log.entries(), ["flight", "hotel", "went"]);
    Ok(())
}

#[step(tx)]
async fn book(tx: &mut PgConnection) -> Result<()> {
    sqlx::query("insert into application_row (name) values ('booked')").execute(tx).await?;
    Ok(())
}

#[step(tx)]
async fn unbook(tx: &mut PgConnection) -> Result<()> {
    sqlx::query("delete from application_row where name = 'booked'").execute(tx).await?;
    Ok(())
}

/// Is held before there is anything to undo.
#[workflow]
async fn late_trip(ctx: &Ctx) -> Result<()> {
    ctx.run(gated("ready".into())).await?;
    ctx.undo(unbook()).await;
    ctx.run(book()).await?;
    ctx.receive(GO).await?;
    Ok(())
}

/// A cancellation that has found nothing to undo, and takes its time to commit: what is registered meanwhile waits for it, and then is
/// not begun.
#[tokio::test]
async fn what_begins_while_a_cancellation_commits_is_not_left_without_being_undone() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().register(late_trip).state(kit.clone()).start().await?;
    let handle = durable.start(late_trip()).id("t").await?;
    kit.gate.reached().await;
    let mut tx = db.pool.begin().await?;
    durable.cancel("t").in_tx(&mut tx).await?;
    kit.gate.open();
    db.until(
        "select exists (select from application_row)
             or exists (select from pg_stat_activity where wait_event_type = 'Lock' and query like '%for a batch of which not all went well%')",
    )
    .await;
    tx.commit().await?;
    handle.soon().await.unwrap_err();
    db.until("select exists (select from durable.workflow where status = 'cancelled' and stopping is null)").await;
    assert_eq!(db.count("select count(*) from application_row").await, 0);
    Ok(())
}

#[tokio::test]
async fn cancelling_a_parent_undoes_it_and_its_children() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let handle = durable.start(journey()).id("j").await?;
    for id in ["trip", "other", "j"] {
        db.until_status(id, "suspended").await;
    }
    durable.cancel("j").reason("rain").await?;
    assert_eq!(handle.soon().await.unwrap_err().to_string(), "workflow j was cancelled: rain");
    for id in ["trip", "other"] {
        let error = durable.workflow::<String>(id).soon().await.unwrap_err();
        assert_eq!(error.to_string(), format!("workflow {id} was cancelled: with j, which had started it"));
    }
    let log = kit.log.entries();
    let undone = |name: &str| log.iter().position(|entry| entry == name).unwrap_or_else(|| panic!("{name}: {log:?}"));
    assert!(undone("undo hotel") < undone("undo flight"));
    undone("undo journey");
    Ok(())
}

/// The parent learns of it once the child is undone.
#[tokio::test]
async fn a_parent_is_told_of_a_cancelled_child_when_that_is_undone() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let handle = durable.start(journey()).id("j").await?;
    for id in ["trip", "other", "j"] {
        db.until_status(id, "suspended").await;
    }
    durable.cancel("trip").reason("rain").await?;
    durable.send("other", GO, true).await?;
    let failure = handle.soon().await.unwrap_err().failure().cloned().expect("a failure");
    assert_eq!((failure.kind(), failure.child(), &*failure.message()), (FailureKind::Cancelled, Some("trip"), "rain"));
    assert_eq!(kit.log.entries()[2..], ["undo hotel", "undo flight", "undo journey"]);
    Ok(())
}

#[workflow(name = "trip")]
async fn other_trip(ctx: &Ctx) -> Result<String> {
    ctx.run(work("other".into())).await?;
    Ok("there".to_owned())
}

/// P15: code that does not get as far cannot undo; cancelled once more, it is over.
#[tokio::test]
async fn what_cannot_be_undone_is_blocked_until_it_is_cancelled_again() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let first = Island::start(everything(db.builder()).state(kit.clone())).await;
    first.durable().start(trip()).id("t").await?;
    db.until_status("t", "suspended").await;
    first.sink().await;
    let second = Island::start(db.builder().register(other_trip).state(kit.clone())).await;
    let cancelled = second.durable().cancel("t").await;
    cancelled?;
    db.until_status("t", "blocked").await;
    second.sink().await;
    // The code that fits gets it done, as soon as a worker comes with it.
    let _third = worker(&db, &kit).await?;
    db.until_status("t", "cancelled").await;
    assert_eq!(kit.log.entries()[2..], ["undo hotel", "undo flight"]);

    let again = Island::start(everything(db.builder().queue("q")).state(kit.clone())).await;
    again.durable().start(trip()).id("u").await?;
    db.until_status("u", "suspended").await;
    again.sink().await;
    let wrong = db.builder().queue("q").register(other_trip).state(kit.clone()).start().await?;
    wrong.cancel("u").await?;
    db.until_status("u", "blocked").await;
    wrong.cancel("u").await?;
    assert_eq!(wrong.workflow::<String>("u").status().await?, Status::Cancelled);
    Ok(())
}

/// A reply that was lost: to ask for the same again is not to ask for more.
#[tokio::test]
async fn a_cancellation_that_is_sent_twice_does_not_end_what_is_being_undone() -> Result<()> {
    const CALL: &str = "select count(*) from durable.cancel_once('t', 'rain', '00000000-0000-0000-0000-000000000001')";
    let (db, kit) = (Db::new().await, Kit::default());
    let first = Island::start(everything(db.builder()).state(kit.clone())).await;
    first.durable().start(trip()).id("t").await?;
    db.until_status("t", "suspended").await;
    first.sink().await;
    assert_eq!(db.count(CALL).await, 1);
    // Its undo steps cannot be run by this code.
    let second = Island::start(db.builder().register(other_trip).state(kit.clone())).await;
    db.until_status("t", "blocked").await;
    second.sink().await;
    assert_eq!(db.count(CALL).await, 0);
    let handle = db.client().await.workflow::<String>("t");
    assert_eq!(handle.status().await?, Status::Blocked);
    let operations = handle.operations().await?;
    let did: Vec<_> = operations.iter().map(|did| (&*did.act, did.stood, did.reason.as_deref())).collect();
    assert_eq!(did, [("cancel", Some(Status::Suspended), Some("rain"))]);
    let _third = worker(&db, &kit).await?;
    assert_eq!(handle.soon().await.unwrap_err().to_string(), "workflow t was cancelled: rain");
    assert_eq!(kit.log.entries()[2..], ["undo hotel", "undo flight"]);
    Ok(())
}

#[tokio::test]
async fn a_reason_that_cannot_be_kept_is_refused_and_nothing_is_cancelled() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    client.start(waits()).id("w").await?;
    for (reason, problem) in [("x".repeat(9_000), "9000 bytes"), ("a\0b".to_owned(), "NUL")] {
        let error = client.cancel("w").reason(reason).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains(problem), "{error}");
    }
    assert_eq!(client.workflow::<String>("w").status().await?, Status::Queued);
    Ok(())
}

/// P11: not before, and soon after, with a kind of its own.
#[tokio::test]
async fn a_workflow_fails_at_its_deadline_and_is_undone() -> Result<()> {
    let kit = Kit::default();
    let (_server, db, durable) = moved(&kit).await?;
    let undoes = durable.start(trip()).id("t").deadline(days(2)).await?;
    let plain = durable.start(waits()).id("w").deadline(days(2)).await?;
    let in_time = durable.start(waits()).id("i").deadline(days(2)).await?;
    db.run_until_idle().await?;
    db.advance(days(2) - seconds(60)).await?;
    db.run_until_idle().await?;
    durable.send("i", GO, true).await?;
    db.run_until_idle().await?;
    for id in ["t", "w"] {
        assert_eq!(durable.workflow::<String>(id).status().await?, Status::Suspended, "{id}");
    }
    db.advance(minutes(2)).await?;
    db.run_until_idle().await?;
    for handle in [&undoes, &plain] {
        let error = handle.result().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed);
        assert_eq!(error.failure().map(|failure| failure.kind()), Some(FailureKind::Deadline));
    }
    assert_eq!(in_time.result().await?, "went");
    assert_eq!(kit.log.entries(), ["flight", "hotel", "undo hotel", "undo flight"]);
    Ok(())
}

/// One in a transaction, one of many, one that is never taken up, and one that was there before.
#[tokio::test]
async fn every_way_to_start_has_deadlines() -> Result<()> {
    let kit = Kit::default();
    let (_server, db, durable) = moved(&kit).await?;
    let mut tx = db.pool().begin().await?;
    durable.start(waits()).id("tx").deadline(hours(1)).in_tx(&mut tx).await?;
    tx.commit().await?;
    durable.start_many(["a", "b"].map(|id| (id.to_owned(), waits()))).deadline(hours(1)).await?;
    durable.start(waits()).id("late").delay(days(1)).deadline(hours(1)).await?;
    durable.start(waits()).id("free").await?;
    durable.start(waits()).id("free").deadline(hours(1)).await?;
    db.run_until_idle().await?;
    db.advance(hours(2)).await?;
    db.run_until_idle().await?;
    for id in ["tx", "a", "b", "late"] {
        let failure = durable.workflow::<String>(id).result().await.unwrap_err().failure().cloned();
        assert_eq!(failure.expect("a failure").kind(), FailureKind::Deadline, "{id}");
    }
    assert_eq!(durable.workflow::<String>("free").status().await?, Status::Suspended);
    Ok(())
}

/// Starts a child with a deadline of its own, or none, or that goes its own way.
#[workflow]
async fn parent(ctx: &Ctx, child: String) -> Result<String> {
    let start = ctx.start(waits()).id(format!("{child}-child"));
    let child = match child.as_str() {
        "nearer" => start.deadline(hours(1)).await?,
        "detached" => start.detached().await?,
        "further" => start.deadline(days(9)).await?,
        _ => start.await?,
    };
    Ok(ctx.result(&child).await?)
}

#[tokio::test]
async fn children_have_the_deadline_of_their_parent_or_a_nearer_one() -> Result<()> {
    let server = Db::new().await;
    let db = TestDatabase::create(&server.pool, |_| async { Ok(()) }).await?;
    let durable = db.builder().register(parent).register(waits).start().await?;
    for child in ["nearer", "same", "further", "detached"] {
        durable.start(parent(child.to_owned())).id(child).deadline(days(1)).await?;
    }
    db.run_until_idle().await?;
    db.advance(hours(2)).await?;
    db.run_until_idle().await?;
    let failure =
        durable.workflow::<String>("nearer").result().await.unwrap_err().failure().cloned().expect("a failure");
    assert_eq!((failure.kind(), failure.child()), (FailureKind::Deadline, Some("nearer-child")));
    db.advance(days(1)).await?;
    db.run_until_idle().await?;
    for id in ["same", "further", "detached"] {
        let failure = durable.workflow::<String>(id).result().await.unwrap_err().failure().cloned().expect("a failure");
        assert_eq!((failure.kind(), failure.child()), (FailureKind::Deadline, None), "{id}");
    }
    for (child, status) in
        [("same", Status::Cancelled), ("further", Status::Cancelled), ("detached", Status::Suspended)]
    {
        assert_eq!(durable.workflow::<String>(format!("{child}-child")).status().await?, status, "{child}");
    }
    Ok(())
}

/// P10, and without the clock of the kit.
#[tokio::test]
async fn a_running_workflow_is_stopped_at_its_deadline() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let clock = db.clock().await;
    let durable = worker(&db, &kit).await?;
    let handle = durable.start(held_trip()).id("t").deadline(hours(5)).await?;
    kit.gate.reached().await;
    // Not so far that the leases end.
    sqlx::query("update durable.deadline set at = durable.now() + interval '1 second'").execute(&db.pool).await?;
    clock.advance(seconds(1)).await?;
    let failure = handle.soon().await.unwrap_err().failure().cloned().expect("a failure");
    assert_eq!((failure.kind(), &*failure.message()), (FailureKind::Deadline, "its deadline has passed"));
    assert_eq!(kit.log.entries(), ["flight", "held", "undo held", "undo flight"]);
    Ok(())
}

#[step(tx)]
async fn add(tx: &mut PgConnection, account: i64, cents: i64) -> Result<()> {
    let update = sqlx::query("update account set cents = cents + $2 where id = $1");
    update.bind(account).bind(cents).execute(tx).await?;
    Ok(())
}

/// Holds money until somebody agrees, who never does.
#[workflow]
async fn escrow(ctx: &Ctx) -> Result<()> {
    for account in [1, 2] {
        ctx.run(add(account, -300)).await?;
        ctx.undo(add(account, 300)).await;
    }
    ctx.receive(GO).await?;
    ctx.run(add(3, 600)).await?;
    Ok(())
}

async fn bank(server: &Db) -> Result<TestDatabase> {
    let tables = |pool: PgPool| async move {
        let tables = "create table account (id bigint primary key, cents bigint not null);
                      insert into account values (1, 1000), (2, 1000), (3, 0)";
        sqlx::raw_sql(tables).execute(&pool).await?;
        Ok(())
    };
    Ok(TestDatabase::create(&server.pool, tables).await?)
}

/// All of it was given back, or nothing was taken.
async fn no_cent_is_held(pool: PgPool) -> Result<()> {
    let cents: Vec<i64> = sqlx::query_scalar("select cents from account order by id").fetch_all(&pool).await?;
    ensure!(cents == [1000, 1000, 0], "the accounts are {cents:?}");
    Ok(())
}

/// P1, P13: wherever a worker dies.
#[tokio::test]
async fn a_deadline_outlives_a_crash_at_every_point() -> Result<()> {
    let server = Db::new().await;
    let worker = |builder: Builder, pool: PgPool| builder.register(escrow).state(pool);
    let begin = |durable: Durable| async move {
        durable.start(escrow()).id("e").deadline(hours(1)).await?;
        Ok(())
    };
    let report = every_crash(bank(&server).await?, worker, begin, no_cent_is_held).await?;
    report.assert_clean();
    let count = |point: &str| report.points.iter().filter(|at| **at == point).count();
    assert_eq!(count("before the body of a step: add"), 4, "{:#?}", report.points);
    Ok(())
}

#[workflow]
async fn deposit(ctx: &Ctx) -> Result<()> {
    ctx.run(add(1, -300)).await?;
    ctx.undo(add(1, 300)).await;
    ctx.receive(GO).await?;
    Ok(())
}

/// The same of a deadline that comes near later: a worker dies, and with it whoever changes the deadline, at each point of that and of
/// the end that follows.
#[tokio::test]
async fn a_deadline_that_is_changed_outlives_a_crash_at_every_point() -> Result<()> {
    let server = Db::new().await;
    let worker = |builder: Builder, pool: PgPool| builder.register(deposit).state(pool);
    let begin = |durable: Durable| async move {
        durable.start(deposit()).id("e").deadline(days(30)).await?;
        match durable.set_deadline("e", hours(1)).await {
            // It has ended after a crash, by the deadline that was set before that.
            Err(error) if error.kind() == ErrorKind::Finished => {}
            set => ensure!(set?.is_some(), "there is a deadline now"),
        }
        Ok(())
    };
    let ended_within_the_hour = |pool: PgPool| async move {
        let early = "select count(*) from durable.workflow where status = 'failed' and finished_at - created_at < interval '1 day'";
        let early: i64 = sqlx::query_scalar(early).fetch_one(&pool).await?;
        ensure!(early == 1, "it has not ended by the deadline that was set last");
        no_cent_is_held(pool).await
    };
    let report = every_crash(bank(&server).await?, worker, begin, ended_within_the_hour).await?;
    report.assert_clean();
    let count = |part: &str| report.points.iter().filter(|at| at.contains(part)).count();
    assert!(count("set the deadline of workflow") >= 2, "{:#?}", report.points);
    assert!(count("deadline") >= 4, "and the end that follows: {:#?}", report.points);
    Ok(())
}
