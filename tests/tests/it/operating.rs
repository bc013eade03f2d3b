//! Operating on one workflow: pausing, and resuming what is paused, failed or cancelled. Beginning again and deleting are
//! `deleting`; many at once are `bulk`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use durable::{Ctx, Durable, ErrorKind, Status, StepCtx, Topic, hours, step, workflow};
use durable_tests::db::Db;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;

pub(super) const WORD: Topic<String> = Topic::new("word");

/// Whether what failed has been mended.
#[derive(Clone, Default)]
pub(super) struct Mended(Arc<AtomicBool>);

impl Mended {
    pub(super) fn mend(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Fails until it is mended.
#[step(retry(max_attempts = 1))]
pub(super) async fn fragile(step: &StepCtx, name: String) -> Result<String> {
    step.state::<Kit>().log.note(format!("try {name}"));
    ensure!(step.state::<Mended>().0.load(Ordering::SeqCst), "{name} is broken");
    Ok(name)
}

#[workflow]
pub(super) async fn order(ctx: &Ctx, item: String) -> Result<String> {
    ctx.run(work(format!("reserve {item}"))).await?;
    let paid = ctx.run(fragile(item)).await?;
    Ok(ctx.run(work(format!("ship {paid}"))).await?)
}

#[workflow]
async fn fans_out(ctx: &Ctx) -> Result<usize> {
    let items = (0..4).collect::<Vec<i32>>();
    let done = ctx.fan_out(items, 1, async |ctx: &Ctx, n: i32| match n % 2 {
        0 => ctx.run(fragile(format!("item {n}"))).await,
        _ => ctx.run(work(format!("item {n}"))).await,
    });
    let done: Vec<String> = done.await.into_iter().collect::<Result<_, _>>()?;
    Ok(done.len())
}

#[workflow]
async fn finds_another_way(ctx: &Ctx) -> Result<String> {
    let way = match ctx.run(fragile("bridge".to_owned())).await {
        Ok(way) => way,
        Err(_) => ctx.run(work("ferry".to_owned())).await?,
    };
    Ok(way + &ctx.run(fragile("arrive".to_owned())).await?)
}

#[workflow]
pub(super) async fn undoes(ctx: &Ctx) -> Result<()> {
    ctx.undo(work("undo".to_owned())).await;
    ctx.run(fragile("do".to_owned())).await?;
    Ok(())
}

#[workflow]
pub(super) async fn two_steps(ctx: &Ctx) -> Result<String> {
    ctx.run(work("first".to_owned())).await?;
    ctx.run(gated("second".to_owned())).await?;
    Ok(ctx.run(work("third".to_owned())).await?)
}

#[workflow]
pub(super) async fn sleeps_then_receives(ctx: &Ctx) -> Result<String> {
    ctx.sleep(hours(9)).await?;
    ctx.run(work("awake".to_owned())).await?;
    Ok(ctx.receive(WORD).await?)
}

pub(super) struct House {
    pub(super) db: Db,
    pub(super) durable: Durable,
    pub(super) kit: Kit,
    pub(super) mended: Mended,
}

impl House {
    pub(super) async fn new() -> Result<Self> {
        let (db, kit, mended) = (Db::new().await, Kit::default(), Mended::default());
        let durable = worker(&db, &kit, &mended).await?;
        Ok(Self { db, durable, kit, mended })
    }

    /// With an order that has failed at its payment.
    pub(super) async fn with_a_failed_order() -> Result<Self> {
        let house = Self::new().await?;
        house.durable.start(order("tea".into())).id("o").await?;
        house.db.until_status("o", "failed").await;
        Ok(house)
    }
}

pub(super) async fn worker(db: &Db, kit: &Kit, mended: &Mended) -> Result<Durable> {
    let builder = db.builder().register(order).register(fans_out).register(finds_another_way).register(undoes);
    let builder = builder.register(two_steps).register(sleeps_then_receives);
    Ok(builder.state(kit.clone()).state(mended.clone()).start().await?)
}

#[tokio::test]
async fn a_failed_workflow_goes_on_from_its_last_completed_step() -> Result<()> {
    let House { db, durable, kit, mended } = House::with_a_failed_order().await?;
    mended.mend();

    durable.resume("o").reason("the bank is back").await?;

    assert_eq!(durable.workflow::<String>("o").soon().await?, "ship tea");
    assert_eq!(kit.log.entries(), ["reserve tea", "try tea", "try tea", "ship tea"]);
    let info = durable.workflow::<()>("o").info().await?;
    assert!(info.failure.is_none() && info.status == Status::Completed, "{info:?}");
    // What was tried again is told, with the attempt that failed.
    let done = durable.workflow::<()>("o").operations().await?;
    let [resumed] = &done[..] else { panic!("{done:?}") };
    assert_eq!((resumed.act.as_str(), resumed.stood), ("resume", Some(Status::Failed)));
    assert_eq!(resumed.reason.as_deref(), Some("the bank is back"));
    assert_eq!(resumed.done_by, db.text("select session_user::text").await);
    let [dropped] = &resumed.dropped[..] else { panic!("{resumed:?}") };
    assert_eq!((&*dropped.lane, dropped.seq, &*dropped.name), ("", 1, "fragile"));
    assert!(dropped.failure.to_string().contains("tea is broken"), "{dropped:?}");
    assert_eq!(dropped.attempts.as_ref().map(Vec::len), Some(1));
    Ok(())
}

/// A workflow may fail, and be resumed, as often as need be.
#[tokio::test]
async fn a_workflow_that_fails_again_is_resumed_again() -> Result<()> {
    let House { db, durable, kit, mended } = House::with_a_failed_order().await?;
    for n in 2..4 {
        durable.resume("o").await?;
        db.until_status("o", "failed").await;
        assert_eq!(kit.log.count("try tea"), n);
    }
    mended.mend();
    durable.resume("o").await?;
    assert_eq!(durable.workflow::<String>("o").soon().await?, "ship tea");
    assert_eq!(kit.log.count("reserve tea"), 1);
    assert_eq!(durable.workflow::<()>("o").operations().await?.len(), 3);
    Ok(())
}

/// Items of a fan-out are none of each other's: what came later in another item did not come after.
#[tokio::test]
async fn all_items_of_a_fan_out_that_failed_are_tried_again_and_no_other_is() -> Result<()> {
    let House { db, durable, kit, mended } = House::new().await?;
    durable.start(fans_out()).id("f").await?;
    db.until_status("f", "failed").await;
    mended.mend();
    durable.resume("f").await?;
    assert_eq!(durable.workflow::<usize>("f").soon().await?, 4);
    for (what, times) in [("try item 0", 2), ("item 1", 1), ("try item 2", 2), ("item 3", 1)] {
        assert_eq!(kit.log.count(what), times, "{what}: {:?}", kit.log.entries());
    }
    Ok(())
}

/// P15: were it tried again and succeeded, the body would not come by the ferry that it has taken.
#[tokio::test]
async fn a_failure_that_the_body_has_dealt_with_stands() -> Result<()> {
    let House { db, durable, kit, mended } = House::new().await?;
    durable.start(finds_another_way()).id("w").await?;
    db.until_status("w", "failed").await;
    mended.mend();
    durable.resume("w").await?;
    assert_eq!(durable.workflow::<String>("w").soon().await?, "ferryarrive");
    assert_eq!(kit.log.entries(), ["try bridge", "ferry", "try arrive", "try arrive"]);
    Ok(())
}

#[tokio::test]
async fn a_cancelled_workflow_goes_on_from_its_history() -> Result<()> {
    let House { db: _db, durable, kit, .. } = House::new().await?;
    durable.start(two_steps()).id("t").await?;
    kit.gate.reached().await;
    durable.cancel("t").reason("by mistake").await?;
    durable.resume("t").await?;
    kit.gate.reached().await;
    kit.gate.open();
    assert_eq!(durable.workflow::<String>("t").soon().await?, "third");
    assert_eq!(kit.log.entries(), ["first", "second", "second", "third"]);
    let acts: Vec<_> = durable.workflow::<()>("t").operations().await?.into_iter().map(|o| (o.act, o.reason)).collect();
    assert_eq!(acts, [("cancel".to_owned(), Some("by mistake".to_owned())), ("resume".to_owned(), None)]);
    Ok(())
}

/// P13: once the pause has answered, no later step begins; and what is resumed begins at once, by the worker that ran it before
/// as well, which must not take the resumed one for the one that it has just stopped.
#[tokio::test]
async fn a_running_workflow_is_paused_and_goes_on_where_it_was() -> Result<()> {
    let House { db, durable, kit, .. } = House::new().await?;
    let elsewhere = db.client().await;
    durable.start(two_steps()).id("t").await?;
    for n in 1..4 {
        kit.gate.reached().await;
        elsewhere.pause("t").reason("wait for the auditor").await?;
        let info = durable.workflow::<()>("t").info().await?;
        assert!(info.is_paused() && info.status == Status::Blocked, "{info:?}");
        assert_eq!(info.failure.map(|f| f.message()).as_deref(), Some("wait for the auditor"));
        assert_eq!(db.count("select count(*) from durable.workflow where stopping is not null").await, 0);
        assert_eq!((kit.log.count("second"), kit.log.count("third")), (n, 0));
        elsewhere.resume("t").await?;
    }
    kit.gate.reached().await;
    kit.gate.open();
    assert_eq!(durable.workflow::<String>("t").soon().await?, "third");
    assert_eq!(kit.log.count("first"), 1);
    Ok(())
}

/// P7, P11: messages that come while it is paused are kept; a timer goes on, and what was to be done then is done after.
#[tokio::test]
async fn messages_and_timers_wait_for_the_resumption() -> Result<()> {
    let House { db, durable, kit, .. } = House::new().await?;
    let clock = db.clock().await;
    durable.start(sleeps_then_receives()).id("s").await?;
    db.until_status("s", "suspended").await;
    durable.pause("s").await?;
    durable.send("s", WORD, "one".to_owned()).await?;
    clock.advance(hours(10)).await?;
    run_another(&durable).await?;
    assert_eq!(kit.log.count("awake"), 0);
    durable.resume("s").await?;
    assert_eq!(durable.workflow::<String>("s").soon().await?, "one");
    assert_eq!(kit.log.count("awake"), 1);
    Ok(())
}

/// A timer that is not over when the workflow is resumed is not shortened, nor started over.
#[tokio::test]
async fn a_timer_that_is_not_over_goes_on_after_the_resumption() -> Result<()> {
    let House { db, durable, .. } = House::new().await?;
    let clock = db.clock().await;
    durable.start(sleeps_then_receives()).id("s").await?;
    db.until_status("s", "suspended").await;
    let until = "select due_at::text from durable.workflow where id = 's'";
    let before = db.text(until).await;
    durable.pause("s").await?;
    clock.advance(hours(5)).await?;
    durable.resume("s").await?;
    db.until_status("s", "suspended").await;
    assert_eq!(db.text(until).await, before);
    Ok(())
}

#[tokio::test]
async fn one_that_is_paused_before_its_time_waits_for_it() -> Result<()> {
    let House { db, durable, kit, .. } = House::new().await?;
    durable.start(order("tea".into())).id("later").delay(Duration::from_secs(3_600)).await?;
    let due = "select due_at::text from durable.workflow where id = 'later'";
    let before = db.text(due).await;
    durable.pause("later").await?;
    durable.resume("later").await?;
    assert_eq!((db.text(due).await, kit.log.entries().len()), (before, 0));
    Ok(())
}

async fn run_another(durable: &Durable) -> Result<()> {
    let another = durable.start(order("milk".into())).await?;
    assert_eq!(another.soon().await.unwrap_err().kind(), ErrorKind::Failed);
    Ok(())
}

/// What stands in the way is named, and what to do.
#[tokio::test]
async fn what_cannot_be_done_says_why_and_changes_nothing() -> Result<()> {
    let House { db, durable, kit, .. } = House::with_a_failed_order().await?;
    durable.start(undoes()).id("undone").await?;
    durable.start(two_steps()).id("running").await?;
    durable.start(sleeps_then_receives()).id("suspended").await?;
    durable.start(order("x".into())).id("queued").delay(Duration::from_secs(3_600)).await?;
    durable.start(two_steps()).id("completed").await?;
    kit.gate.reached().await;
    kit.gate.reached().await;
    kit.gate.open();
    kit.gate.open();
    db.until_status("completed", "completed").await;
    db.until_status("running", "completed").await;
    durable.start(two_steps()).id("running-2").await?;
    kit.gate.reached().await;
    db.until_status("undone", "failed").await;
    db.until_status("suspended", "suspended").await;
    durable.start(order("x".into())).id("paused").delay(Duration::from_secs(3_600)).await?;
    durable.pause("paused").await?;
    let before = db.text("select string_agg(concat(w.*), ';' order by id) from durable.workflow w").await;
    for (refused, kind, told) in [
        (durable.resume("running-2"), ErrorKind::Conflict, "it is running, and goes on by itself"),
        (durable.resume("queued"), ErrorKind::Conflict, "it is queued, and goes on by itself"),
        (durable.resume("suspended"), ErrorKind::Conflict, "it is suspended, and goes on by itself"),
        (durable.resume("completed"), ErrorKind::Conflict, "it is completed, there is nothing left to do: restart it"),
        (durable.resume("undone"), ErrorKind::Conflict, "its undo steps have run"),
        (durable.resume("nobody"), ErrorKind::NotFound, "there is no such workflow"),
        (durable.resume(""), ErrorKind::Usage, "empty"),
        (durable.resume("o").reason("x".repeat(1_001)), ErrorKind::Usage, "1001 bytes, at most 1000"),
        (durable.resume("o").reason("a\0b"), ErrorKind::Usage, "a NUL"),
        (durable.pause("paused"), ErrorKind::Conflict, "it is paused already: resume it"),
        (durable.pause("completed"), ErrorKind::Conflict, "it is completed, and takes no step anyway"),
        (durable.pause("o"), ErrorKind::Conflict, "it is failed, and takes no step anyway"),
        (durable.pause("nobody"), ErrorKind::NotFound, "there is no such workflow"),
        (durable.restart("running-2"), ErrorKind::Conflict, "it is running: cancel or pause it first"),
        (durable.restart("queued"), ErrorKind::Conflict, "it is queued: cancel or pause it first"),
        (durable.restart("suspended"), ErrorKind::Conflict, "it is suspended: cancel or pause it first"),
        (durable.restart("nobody"), ErrorKind::NotFound, "there is no such workflow"),
        (durable.delete("running-2"), ErrorKind::Conflict, "it is running: cancel or pause it first"),
        (durable.delete("nobody"), ErrorKind::NotFound, "there is no such workflow"),
    ] {
        let error = refused.await.unwrap_err();
        assert!(error.kind() == kind && error.to_string().contains(told), "{error:?}, not {kind:?} {told}");
    }
    assert_eq!(db.text("select string_agg(concat(w.*), ';' order by id) from durable.workflow w").await, before);
    assert_eq!(db.count("select count(*) from durable.operation").await, 1);
    Ok(())
}

/// What is sent again because its answer was lost is known by its call, and is done once.
#[tokio::test]
async fn an_operation_that_is_sent_twice_is_done_once() -> Result<()> {
    let House { db, durable, mended, .. } = House::with_a_failed_order().await?;
    mended.mend();
    for _ in 0..2 {
        assert!(again_of(&db, "restart", "the call").await? && again_of(&db, "restart", "the call").await?);
        db.until_status("o", "completed").await;
    }
    // Twice sent, twice more sent under the same call: once done.
    assert_eq!(durable.workflow::<()>("o").operations().await?.len(), 1);
    assert_eq!(db.count("select count(*) from durable.step where workflow_id = 'o'").await, 3);

    durable.start(order("later".into())).id("p").delay(Duration::from_secs(3_600)).await?;
    for _ in 0..2 {
        let done: bool = sqlx::query_scalar("select done from durable.operate('pause', '{p}', null, md5('p')::uuid)")
            .fetch_one(&db.pool)
            .await?;
        assert!(done);
    }
    assert_eq!(durable.workflow::<()>("p").operations().await?.len(), 1);
    Ok(())
}

async fn again_of(db: &Db, act: &str, call: &str) -> Result<bool> {
    let again = sqlx::query_scalar("select done from durable.operate($1, '{o}', 'why', md5($2)::uuid)");
    Ok(again.bind(act).bind(call).fetch_one(&db.pool).await?)
}

/// Of operators who do the same at once, one does it.
#[tokio::test]
async fn of_operators_who_resume_at_once_one_does_it() -> Result<()> {
    let House { db, durable, kit, mended } = House::with_a_failed_order().await?;
    mended.mend();
    let clients = [db.client().await, db.client().await, db.client().await];
    let tried = futures::future::join_all(clients.iter().map(|client| client.resume("o").into_future())).await;
    assert_eq!(tried.iter().filter(|tried| tried.is_ok()).count(), 1, "{tried:?}");
    for refused in tried.into_iter().filter_map(Result::err) {
        assert!(refused.is_conflict(), "{refused:?}");
    }
    assert_eq!(durable.workflow::<String>("o").soon().await?, "ship tea");
    assert_eq!(kit.log.count("ship tea"), 1);
    Ok(())
}

/// P13: a cancellation that finds a workflow paused whose worker has not heard of it yet waits for that worker, too.
#[tokio::test]
async fn a_cancellation_on_top_of_a_pause_waits_for_the_worker() -> Result<()> {
    let House { db, durable, kit, .. } = House::new().await?;
    let client = db.client().await;
    durable.start(two_steps()).id("t").await?;
    kit.gate.reached().await;
    // From psql, which tells nobody.
    sqlx::query("select durable.pause('t', 'psql')").execute(&db.pool).await?;
    client.cancel("t").await?;
    kit.gate.open();
    let another = durable.start(order("x".into())).await?;
    assert_eq!(another.soon().await.unwrap_err().kind(), ErrorKind::Failed);
    assert_eq!(kit.log.count("third"), 0);
    assert_eq!(db.count("select count(*) from durable.workflow where stopping is not null").await, 0);
    assert_eq!(db.count("select count(*) from durable.step where workflow_id = 't' and seq > 0").await, 0);
    Ok(())
}

/// The same from psql: the functions are what the client calls.
#[tokio::test]
async fn a_person_with_psql_can_do_the_same_and_is_told_the_same() -> Result<()> {
    let House { db, durable, mended, .. } = House::with_a_failed_order().await?;
    mended.mend();
    for (call, told) in [
        ("select durable.pause('o')", "could not pause workflow o: it is failed, and takes no step anyway"),
        ("select durable.resume('nobody')", "could not resume workflow nobody: there is no such workflow"),
        ("select durable.resume('')", "the workflow id is empty"),
        ("begin isolation level repeatable read; select durable.resume('o')", "use READ COMMITTED"),
    ] {
        let mut connection = db.pool.acquire().await?;
        let error = sqlx::raw_sql(call).execute(&mut *connection).await.unwrap_err();
        let database = error.as_database_error().expect("refused by the database");
        let hint = database.downcast_ref::<sqlx::postgres::PgDatabaseError>().hint().unwrap_or_default();
        assert!(format!("{database} {hint}").contains(told), "{call}: {database}");
        sqlx::raw_sql("rollback").execute(&mut *connection).await?;
    }
    sqlx::query("select durable.resume('o', 'by hand')").execute(&db.pool).await?;
    assert_eq!(durable.workflow::<String>("o").soon().await?, "ship tea");
    sqlx::query("select durable.restart('o')").execute(&db.pool).await?;
    db.until_status("o", "completed").await;
    sqlx::query("select durable.cancel('o', 'too late')").execute(&db.pool).await?;
    let acts: Vec<String> = durable.workflow::<()>("o").operations().await?.into_iter().map(|o| o.act).collect();
    assert_eq!(acts, ["resume", "restart"]);
    sqlx::query("select durable.delete('o')").execute(&db.pool).await?;
    assert!(durable.workflow::<()>("o").status().await.unwrap_err().is_not_found());
    Ok(())
}
