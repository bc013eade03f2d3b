//! Starting workflows: one per id, in the caller's transaction or not, alone or by the thousand.

use anyhow::Result;
use durable::{Ctx, ErrorKind, IfExists, Status, workflow};
use durable_tests::db::Db;
use durable_tests::kit::{Kit, work};
use durable_tests::soon::Soon;
use futures::future::{join_all, try_join_all};

#[workflow]
async fn twice(ctx: &Ctx, word: String) -> Result<String> {
    let word = ctx.run(work(word)).await?;
    Ok(format!("{word} {word}"))
}

#[workflow]
async fn other(ctx: &Ctx) -> Result<String> {
    Ok(ctx.id().to_owned())
}

/// P4: however many start an id at once, in the worker's process and outside it, one body runs.
#[tokio::test]
async fn fifty_starts_of_one_id_run_one_body_and_all_get_its_output() -> Result<()> {
    let db = Db::new().await;
    let kit = Kit::default();
    let here = db.builder().register(twice).state(kit.clone()).start().await?;
    let outside = db.client().await;

    let starts = (0..50).map(|n| {
        let door = if n % 2 == 0 { &here } else { &outside };
        door.start(twice("one".into())).id("same").into_future()
    });
    let handles = try_join_all(starts).await?;

    assert_eq!(handles.iter().filter(|h| !h.existed()).count(), 1, "one start made it");
    assert!(handles.iter().all(|h| !h.input_differs()));
    for output in join_all(handles.iter().map(|h| h.soon())).await {
        assert_eq!(output?, "one one");
    }
    assert_eq!(kit.log.entries(), ["one"]);
    assert_eq!(db.count("select count(*) from durable.workflow").await, 1);
    Ok(())
}

/// P4: the same without a worker anywhere near, from two clients.
#[tokio::test]
async fn fifty_starts_from_two_clients_make_one_row() -> Result<()> {
    let db = Db::new().await;
    let (one, two) = (db.client().await, db.client().await);

    let starts = (0..50).map(|n| {
        let door = if n % 2 == 0 { &one } else { &two };
        door.start(twice("w".into())).id("same").into_future()
    });
    let handles = try_join_all(starts).await?;

    assert_eq!(handles.iter().filter(|h| !h.existed()).count(), 1);
    assert_eq!(db.text("select status || claims from durable.workflow").await, "queued0");
    Ok(())
}

/// P4: the caller is told when the workflow was there before, and when its input was another one.
#[tokio::test]
async fn a_repeated_start_tells_whether_it_existed_and_whether_its_input_differs() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    client.start(twice("a".into())).id("x").await?;

    let same = client.start(twice("a".into())).id("x").await?;
    assert!(same.existed() && !same.input_differs());
    let differs = client.start(twice("b".into())).id("x").await?;
    assert!(differs.existed() && differs.input_differs());
    assert_eq!(db.text("select input::text from durable.workflow").await, "\"a\"", "the first input stands");
    Ok(())
}

/// P4: the policy decides what a repeated start comes to.
#[tokio::test]
async fn a_repeated_start_is_refused_by_policy() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    client.start(twice("a".into())).id("x").if_exists(IfExists::Refuse).await?;

    let same = client.start(twice("a".into())).id("x").if_exists(IfExists::ReturnSameInput).await?;
    assert!(same.existed());
    let differs = client.start(twice("b".into())).id("x").if_exists(IfExists::ReturnSameInput).await;
    let differs = differs.unwrap_err();
    assert!(differs.is_conflict() && differs.to_string().contains("another input"), "{differs}");
    let refused = client.start(twice("a".into())).id("x").if_exists(IfExists::Refuse).await.unwrap_err();
    assert!(refused.is_conflict() && refused.to_string().contains("started before"), "{refused}");
    Ok(())
}

/// P4: an id belongs to one workflow, whatever the policy.
#[tokio::test]
async fn the_id_of_another_workflow_is_a_conflict() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    client.start(twice("a".into())).id("x").await?;

    let error = client.start(other()).id("x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("\"twice\"") && error.to_string().contains("\"other\""), "{error}");
    assert!(!error.is_transient());
    Ok(())
}

/// P4: a start that repeats after the end gives the output of then.
#[tokio::test]
async fn a_start_after_the_end_gives_the_same_output_and_runs_nothing() -> Result<()> {
    let db = Db::new().await;
    let kit = Kit::default();
    let durable = db.builder().register(twice).state(kit.clone()).start().await?;
    durable.start(twice("a".into())).id("x").await?.soon().await?;

    let again = durable.start(twice("b".into())).id("x").await?;

    assert!(again.existed() && again.input_differs());
    assert_eq!(again.soon().await?, "a a");
    assert_eq!(kit.log.entries(), ["a"]);
    Ok(())
}

#[tokio::test]
async fn a_start_without_an_id_gets_one_of_its_own() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(other).start().await?;
    let (one, two) = (durable.start(other()).await?, durable.start(other()).await?);
    assert_ne!(one.id(), two.id());
    assert_eq!(one.soon().await?, one.id());
    Ok(())
}

/// P4: a thousand in one statement, and those that were there are marked.
#[tokio::test]
async fn a_thousand_start_in_one_call_and_existing_ones_are_marked() -> Result<()> {
    let db = Db::new().await;
    let kit = Kit::default();
    let client = db.client().await;
    client.start(twice("7".into())).id("n7").await?;
    client.start(twice("another".into())).id("n8").await?;

    let calls = |range: std::ops::Range<u32>| range.map(|n| (format!("n{n}"), twice(n.to_string())));
    let handles = client.start_many(calls(0..500)).await?;
    let existed: Vec<_> = handles.iter().filter(|h| h.existed()).map(|h| (h.id(), h.input_differs())).collect();
    assert_eq!(existed, [("n7", false), ("n8", true)]);

    // The worker's own process starts the rest, which is more than it has room for.
    let durable = db.builder().register(twice).state(kit.clone()).concurrency(64).start().await?;
    let more = durable.start_many(calls(500..1_500)).await?;
    assert_eq!(more.len(), 1_000);
    assert!(more.iter().all(|h| !h.existed()));
    for (n, handle) in more.iter().enumerate() {
        assert_eq!(handle.id(), format!("n{}", n + 500), "handles are in the order of the calls");
    }
    assert_eq!(more[999].soon().await?, "1499 1499");
    db.until("select count(*) = 1500 from durable.workflow where status = 'completed'").await;
    let mut ran = kit.log.entries();
    ran.sort();
    ran.dedup();
    assert_eq!((ran.len(), kit.log.entries().len()), (1_500, 1_500), "each body ran once");
    Ok(())
}

#[tokio::test]
async fn an_id_that_is_twice_in_one_call_is_refused_and_nothing_is_written() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    let error = client.start_many([("a", other()), ("b", other()), ("a", other())]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("\"a\""), "{error}");
    assert_eq!(db.count("select count(*) from durable.workflow").await, 0);
    assert!(client.start_many([("a", other())].into_iter().take(0)).await?.is_empty());
    Ok(())
}

/// P3: one conflict among many leaves no workflow behind that nobody runs.
#[tokio::test]
async fn a_conflict_among_many_strands_none_of_them() -> Result<()> {
    let db = Db::new().await;
    let kit = Kit::default();
    let durable = db.builder().register(twice).register(other).state(kit).start().await?;
    durable.start(other()).id("taken").await?.soon().await?;

    let error = durable.start_many([("taken", twice("a".into())), ("free", twice("b".into()))]).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Conflict);

    // Either it was not written, as the documentation says, or it runs.
    let free = durable.start(twice("b".into())).id("free").await?;
    assert!(!free.existed(), "nothing is written when a call is refused");
    assert_eq!(free.soon().await?, "b b");
    Ok(())
}

/// P3: whoever stops waiting for the answer of a start does not strand the workflow.
#[tokio::test]
async fn a_start_that_its_caller_dropped_still_runs() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(twice).state(Kit::default()).start().await?;
    let mut blocker = db.pool.begin().await?;
    // Lets claims and heartbeats read, but holds up the statement that starts.
    sqlx::query("lock table durable.workflow in share row exclusive mode").execute(&mut *blocker).await?;

    let start = tokio::spawn({
        let durable = durable.clone();
        async move { durable.start(twice("a".into())).id("dropped").await.map(|_| ()) }
    });
    db.until(
        "select count(*) > 0 from pg_stat_activity
         where wait_event_type = 'Lock' and query like '-- Start workflows%' and datname = current_database()",
    )
    .await;
    start.abort();
    assert!(start.await.unwrap_err().is_cancelled());
    blocker.commit().await?;

    db.until("select count(*) = 1 from durable.workflow").await;
    db.until_status("dropped", "completed").await;
    Ok(())
}

/// P2, P4: a start that finds its workflow running here already does not run it a second time.
#[tokio::test]
async fn a_repeated_start_beside_a_claim_does_not_run_the_body_twice() -> Result<()> {
    use super::waiting_states::{GO, waits_then_works};
    let db = Db::new().await;
    let kit = Kit::default();
    let durable = db.builder().register(waits_then_works).state(kit.clone()).start().await?;
    let outside = db.client().await;
    durable.start(waits_then_works()).id("w").await?;
    durable.start(waits_then_works()).id("locked").await?;
    db.until_status("w", "suspended").await;
    db.until_status("locked", "suspended").await;

    // All connections for calls of this handle are busy, so that the start has to wait after it has looked
    // whether the workflow runs here.
    let mut lock = db.pool.begin().await?;
    sqlx::query("select from durable.workflow where id = 'locked' for update").execute(&mut *lock).await?;
    let busy: Vec<_> = (0..8)
        .map(|_| {
            let durable = durable.clone();
            tokio::spawn(async move { durable.send("locked", GO, ()).await })
        })
        .collect();
    db.until(
        "select count(*) = 8 from pg_stat_activity
         where wait_event_type = 'Lock' and datname = current_database()",
    )
    .await;
    let start = tokio::spawn({
        let durable = durable.clone();
        async move { durable.start(waits_then_works()).id("w").await }
    });
    tokio::task::yield_now().await;
    outside.send("w", GO, ()).await?;
    kit.gate.reached().await;
    lock.rollback().await?;
    for sent in busy {
        sent.await??;
    }
    let again = start.await??;

    assert!(again.existed());
    // "locked" comes to the gate as well.
    kit.gate.open();
    kit.gate.open();
    again.soon().await?;
    assert_eq!(kit.log.count("before w"), 1, "{:?}", kit.log.entries());
    assert_eq!(kit.log.count("after w"), 1, "{:?}", kit.log.entries());
    Ok(())
}

#[tokio::test]
async fn a_delayed_start_waits_by_the_databases_clock() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let durable = db.builder().register(other).start().await?;
    let handle = durable.start(other()).id("later").delay(durable::minutes(30)).await?;

    clock.advance(durable::minutes(29)).await?;
    // A workflow without a delay shows that the worker has looked at the queue since.
    durable.start(other()).id("now").in_tx(&mut *db.pool.acquire().await?).await?.soon().await?;
    assert_eq!(handle.status().await?, Status::Queued);

    clock.advance(durable::minutes(2)).await?;
    handle.soon().await?;
    Ok(())
}
