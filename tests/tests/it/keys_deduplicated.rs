//! P12: of the starts of one key at most one workflow is open. What gathers starts is `keys_gathered`, what faults do `keys_faults`.

use std::time::{Duration, Instant};

use anyhow::Result;
use durable::{Batch, Ctx, Debounce, Durable, ErrorKind, IfOpen, Status, StepCtx, Topic, seconds, step, workflow};
use durable_tests::db::{Db, PATIENCE};
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;
use futures::future::{join_all, try_join_all};

const GO: Topic<()> = Topic::new("go");

#[step]
async fn undo(step: &StepCtx, what: String) -> Result<()> {
    let kit = step.state::<Kit>();
    kit.log.note(what);
    kit.gate.pass().await;
    Ok(())
}

/// Waits for a word, and has to be undone if it gets none.
#[workflow]
pub(super) async fn sync(ctx: &Ctx, account: u64) -> Result<u64> {
    ctx.undo(undo(format!("{} undoes", ctx.id()))).await;
    ctx.run(work(format!("{} begins", ctx.id()))).await?;
    ctx.receive(GO).await?;
    Ok(account)
}

/// Has the same keys, and nothing to do with them.
#[workflow]
async fn other(ctx: &Ctx, account: u64) -> Result<u64> {
    ctx.receive(GO).await?;
    Ok(account)
}

/// Holds its worker in the middle of a step.
#[workflow]
async fn holds(ctx: &Ctx, _account: u64) -> Result<()> {
    ctx.run(gated(ctx.id().to_owned())).await?;
    Ok(())
}

#[workflow]
pub(super) async fn list(_ctx: &Ctx, of: Vec<u64>) -> Result<Vec<u64>> {
    Ok(of)
}

async fn worker(db: &Db, kit: &Kit) -> Result<Durable> {
    let builder = db.builder().register(sync).register(other).register(holds).register(list);
    Ok(builder.state(kit.clone()).start().await?)
}

async fn let_go(durable: &Durable, id: &str) -> Result<()> {
    durable.send(id, GO, ()).await?;
    durable.workflow::<u64>(id).soon().await?;
    Ok(())
}

#[tokio::test]
async fn while_one_is_open_starts_of_its_key_join_it_and_after_its_end_there_is_another() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let first = durable.start(sync(7)).deduplicate("account-7").await?;
    assert!(!first.existed() && !first.input_differs());
    let same = durable.start(sync(7)).deduplicate("account-7").await?;
    let differs = durable.start(sync(8)).deduplicate("account-7").id("mine").await?;
    assert_eq!((same.id(), same.existed(), same.input_differs()), (first.id(), true, false));
    assert_eq!((differs.id(), differs.existed(), differs.input_differs()), (first.id(), true, true));
    // Neither another key nor another workflow has to do with it.
    let other_key = durable.start(sync(7)).deduplicate("account-8").await?;
    let other_name = durable.start(other(7)).deduplicate("account-7").await?;
    assert!(!other_key.existed() && !other_name.existed());
    // Waiting and paused it is still open.
    durable.pause(first.id()).await?;
    assert_eq!(durable.start(sync(7)).deduplicate("account-7").await?.id(), first.id());
    durable.resume(first.id()).await?;

    let_go(&durable, first.id()).await?;
    let second = durable.start(sync(7)).deduplicate("account-7").await?;
    assert!(!second.existed() && second.id() != first.id());
    assert_eq!(db.count("select count(*) from durable.workflow").await, 4);
    assert_eq!(db.count("select count(*) from durable.start_key").await, 3);
    Ok(())
}

#[tokio::test]
async fn an_open_one_can_be_a_reason_to_refuse_and_the_error_names_it() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let first = durable.start(sync(7)).deduplicate("a").if_open(IfOpen::Refuse).await?;
    let error = durable.start(sync(7)).deduplicate("a").if_open(IfOpen::Refuse).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let told =
        format!("could not start \"sync\" with key \"a\": workflow {} has that key and has not ended", first.id());
    assert_eq!(error.to_string(), told);
    let_go(&durable, first.id()).await?;
    durable.start(sync(7)).deduplicate("a").if_open(IfOpen::Refuse).await?;
    Ok(())
}

/// The key is about others; the id says which one it is.
#[tokio::test]
async fn an_id_that_is_there_is_that_workflow_whoever_has_the_key() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    durable.start(sync(7)).deduplicate("a").id("first").await?;
    let_go(&durable, "first").await?;
    durable.start(sync(7)).deduplicate("a").id("second").await?;
    let again = durable.start(sync(7)).deduplicate("a").id("first").await?;
    assert_eq!((again.id(), again.existed(), again.soon().await?), ("first", true, 7));
    let error = durable.start(other(7)).deduplicate("a").id("first").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("the id first belongs to workflow \"sync\" version 1"), "{error}");
    let differs =
        durable.start(sync(9)).deduplicate("a").id("first").if_exists(durable::IfExists::ReturnSameInput).await;
    assert!(differs.unwrap_err().to_string().contains("workflow first was started with another input"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_starts_at_the_same_moment_make_one() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let clients = [db.client().await, db.client().await, durable];
    for round in 0..5 {
        let key = format!("round-{round}");
        let starts = (0..30).map(|n| clients[n % 3].start(sync(7)).deduplicate(&key).into_future());
        let handles = try_join_all(starts).await?;
        assert_eq!(handles.iter().filter(|handle| !handle.existed()).count(), 1);
        assert!(handles.iter().all(|handle| handle.id() == handles[0].id()));
    }
    assert_eq!(db.count("select count(*) from durable.workflow").await, 5);
    Ok(())
}

/// Whoever ends at the same moment: there is never a second one beside one that has not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_ends_race_with_starts_no_two_are_open() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let starts = join_all((0..6).map(|_| async {
        for _ in 0..20 {
            let handle = durable.start(list(vec![1])).deduplicate("k").await?;
            handle.soon().await?;
        }
        anyhow::Ok(())
    }));
    starts.await.into_iter().collect::<Result<Vec<_>>>()?;
    // A claim comes after the start's commit, which comes after the end of the one before.
    let beside = "select count(*) from durable.workflow a join durable.workflow b on b.id > a.id
                  where b.claimed_at < a.finished_at and a.claimed_at < b.finished_at";
    let workflows = db.count("select count(*) from durable.workflow").await;
    println!("120 starts, {workflows} workflows");
    assert!(workflows > 10);
    assert_eq!(db.count(beside).await, 0);
    Ok(())
}

#[tokio::test]
async fn in_a_transaction_the_key_is_free_again_when_that_is_rolled_back() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let mut tx = db.pool.begin().await?;
    durable.start(sync(7)).deduplicate("a").id("never").in_tx(&mut tx).await?;
    // Somebody else waits for what becomes of it.
    let waits = tokio::spawn({
        let durable = durable.clone();
        async move {
            let handle = durable.start(sync(7)).deduplicate("a").id("after").await?;
            Ok::<_, durable::Error>((handle.id().to_owned(), handle.existed()))
        }
    });
    db.until(
        "select exists (select from pg_stat_activity where wait_event_type = 'Lock' and query like '%start_keyed%')",
    )
    .await;
    tx.rollback().await?;
    assert_eq!(waits.await??, ("after".to_owned(), false));

    let mut tx = db.pool.begin().await?;
    let joined = durable.start(sync(7)).deduplicate("a").in_tx(&mut tx).await?;
    assert_eq!(joined.id(), "after");
    tx.commit().await?;
    Ok(())
}

#[tokio::test]
async fn one_that_replaces_begins_once_the_other_has_ended_with_its_undo_steps() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let replace =
        |id: &'static str| durable.start(sync(7)).deduplicate("a").if_open(IfOpen::Replace).id(id).into_future();
    replace("first").await?;
    db.until_status("first", "suspended").await;
    let second = replace("second").await?;
    assert!(!second.existed());
    kit.gate.reached().await;
    // A third does not wait for the second, which has not begun, but for the first.
    replace("third").await?;
    assert_eq!(durable.workflow::<u64>("second").status().await?, Status::Cancelled);
    assert_eq!(durable.workflow::<u64>("third").status().await?, Status::Queued);
    assert_eq!(kit.log.entries(), ["first begins", "first undoes"]);
    kit.gate.open();
    db.until_status("third", "suspended").await;
    let error = durable.workflow::<u64>("first").soon().await.unwrap_err();
    assert_eq!(error.to_string(), "workflow first was cancelled: replaced by second");
    assert_eq!(kit.log.entries(), ["first begins", "first undoes", "third begins"]);
    let_go(&durable, "third").await?;
    assert_eq!(db.count("select count(*) from durable.held_start").await, 0);
    Ok(())
}

/// The one that is replaced is in the middle of a step, in another process, which hears of it with its next heartbeat.
#[tokio::test]
async fn one_that_replaces_a_running_one_begins_after_that_was_stopped() -> Result<()> {
    const TOO_EARLY: &str = "select count(*) from durable.workflow a, durable.workflow b
                             where a.id = 'first' and a.stopping is not null and b.id = 'second' and b.status <> 'queued'";
    let (db, kit) = (Db::new().await, Kit::default());
    let _worker = db.builder().hints(false).register(holds).state(kit.clone()).start().await?;
    let client = db.client().await;
    client.start(holds(7)).deduplicate("a").id("first").await?;
    kit.gate.reached().await;
    client.start(holds(7)).deduplicate("a").if_open(IfOpen::Replace).id("second").await?;
    let began_at = Instant::now();
    while db.count("select count(*) from durable.workflow where id = 'second' and claims = 0").await == 1 {
        assert_eq!(db.count(TOO_EARLY).await, 0);
        assert!(began_at.elapsed() < PATIENCE, "the second one never begins");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(db.count(TOO_EARLY).await, 0);
    kit.gate.reached().await;
    kit.gate.open();
    client.workflow::<()>("second").soon().await?;
    assert_eq!(client.workflow::<()>("first").status().await?, Status::Cancelled);
    Ok(())
}

/// One that waits for nobody any more is let go by itself, whatever worker looks: here the one of a later process.
#[tokio::test]
async fn one_that_waits_for_a_dead_workers_workflow_begins_once_that_is_known() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let island = durable_tests::island::Island::start(
        db.builder().lease(Duration::from_millis(500)).register(holds).state(kit.clone()),
    )
    .await;
    island.durable().start(holds(7)).deduplicate("a").id("first").await?;
    kit.gate.reached().await;
    island.sink().await;
    let client = db.client().await;
    client.start(holds(7)).deduplicate("a").if_open(IfOpen::Replace).id("second").await?;
    let _worker = worker(&db, &kit).await?;
    kit.gate.reached().await;
    kit.gate.open();
    client.workflow::<()>("second").soon().await?;
    Ok(())
}

#[tokio::test]
async fn a_key_goes_with_its_workflow() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    durable.start(sync(7)).deduplicate("a").id("gone").await?;
    let_go(&durable, "gone").await?;
    durable.start(list(vec![1])).batch("a", Batch::new(10, seconds(3_600))).await?;
    durable.start(list(vec![1])).debounce("a", Debounce::new(seconds(3_600))).await?;
    for id in sqlx::query_scalar::<_, String>("select id from durable.workflow").fetch_all(&db.pool).await? {
        if id != "gone" {
            durable.cancel(&id).await?;
        }
        durable.delete(&id).await?;
    }
    for table in ["start_key", "held_start", "batch_input"] {
        let left = sqlx::AssertSqlSafe(format!("select count(*) from durable.{table}"));
        assert_eq!(sqlx::query_scalar::<_, i64>(left).fetch_one(&db.pool).await?, 0, "{table}");
    }
    assert!(!durable.start(sync(7)).deduplicate("a").await?.existed());
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_nothing_is_started() -> Result<()> {
    let db = Db::new().await;
    let durable = db.client().await;
    let debounce = Debounce::new(seconds(5));
    let refused = |start: Result<durable::Handle<Vec<u64>>, durable::Error>, told: &str| {
        let error = start.expect_err(told);
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        assert!(error.to_string().contains(told), "{error}");
    };
    let start = || durable.start(list(vec![1]));
    refused(start().deduplicate("").await, "the key is empty");
    refused(start().deduplicate("a\n").await, "the key holds the control character");
    refused(start().if_open(IfOpen::Replace).await, "if_open is for a start with .deduplicate(key)");
    refused(start().deduplicate("a").debounce("a", debounce).await, "a start has one key");
    refused(start().debounce("a", debounce).id("x").await, "a debounced start has no id of its own");
    refused(start().debounce("a", debounce).delay(seconds(1)).await, "it has a delay and a debounce");
    refused(start().debounce("a", Debounce::new(Duration::ZERO)).await, "waits 1 ms or more");
    refused(start().debounce("a", debounce.max_wait(seconds(4))).await, "its max_wait is no shorter");
    refused(start().batch("a", Batch::new(0, seconds(5))).await, "a batch of at most 0: give 1 to 10000");
    refused(start().batch("a", Batch::new(10_001, seconds(5))).await, "a batch of at most 10001");
    refused(start().batch("a", Batch::new(10, Duration::ZERO)).await, "a batch waits 1 ms or more");
    refused(start().batch("a", Batch::new(10, seconds(5))).delay(seconds(1)).await, "it has a delay and a batch");
    let of = |many| durable.start(list(vec![1; many])).batch("a", Batch::new(10, seconds(5)));
    refused(of(0).await, "0 inputs for a batch of at most 10: give at least 1");
    refused(of(11).await, "11 inputs for a batch of at most 10");
    for table in ["workflow", "start_key"] {
        let left = sqlx::AssertSqlSafe(format!("select count(*) from durable.{table}"));
        assert_eq!(sqlx::query_scalar::<_, i64>(left).fetch_one(&db.pool).await?, 0, "{table}");
    }
    Ok(())
}
