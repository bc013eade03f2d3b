//! Cancelling a parent, a child, and both at the moment at which one starts the other.

use std::time::Duration;

use anyhow::Result;
use durable::{Ctx, Durable, ErrorKind, FailureKind, Status, Topic, hours, workflow};
use durable_tests::db::Db;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;
use futures::future::{join_all, try_join_all};

const END: Topic<()> = Topic::new("end");

#[workflow]
async fn leaf(ctx: &Ctx, name: String) -> Result<()> {
    ctx.run(gated(name.clone())).await?;
    ctx.run(work(format!("{name} goes on"))).await?;
    Ok(())
}

#[workflow]
async fn sleeper(ctx: &Ctx) -> Result<()> {
    Ok(ctx.sleep(hours(9)).await?)
}

/// A child that runs, one that sleeps, one that is detached, and one that has children of its own.
#[workflow]
async fn tree(ctx: &Ctx, depth: u32) -> Result<()> {
    let running = ctx.start(leaf(ctx.id().to_owned())).await?;
    ctx.start(sleeper()).await?;
    ctx.start(sleeper()).detached().await?;
    if depth > 0 {
        ctx.start(tree(depth - 1)).await?;
    }
    Ok(ctx.result(&running).await?)
}

async fn worker(db: &Db, kit: &Kit) -> Result<Durable> {
    let builder = db.builder().register(leaf).register(sleeper).register(tree).register(tells).register(spawns);
    Ok(builder.register(ends_first).state(kit.clone()).start().await?)
}

const STANDS: &str = "select string_agg(id || ' ' || status, ', ' order by id) from durable.workflow";

/// P13, for all of them: after it has answered, no step of any begins.
#[tokio::test]
async fn cancelling_a_parent_cancels_its_children_and_theirs_but_no_detached_ones() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    durable.start(tree(1)).id("p").await?;
    kit.gate.reached().await;
    kit.gate.reached().await;
    db.until("select count(*) = 6 from durable.workflow where status = 'suspended'").await;

    durable.cancel("p").await?;
    let stands = "p cancelled, p/0 cancelled, p/1 cancelled, p/2 suspended, p/3 cancelled, p/3/0 cancelled, \
                  p/3/1 cancelled, p/3/2 suspended";
    assert_eq!(db.text(STANDS).await, stands);
    assert_eq!(db.count("select count(*) from durable.workflow where stopping is not null").await, 0);
    kit.gate.open();
    kit.gate.open();
    // The worker has gone through what it had to do since.
    durable.start(leaf("later".into())).id("later").await?;
    kit.gate.reached().await;
    kit.gate.open();
    kit.gate.open();
    durable.workflow::<()>("later").soon().await?;
    let went_on: Vec<_> = kit.log.entries().into_iter().filter(|entry| entry.ends_with("goes on")).collect();
    assert_eq!(went_on, ["later goes on"]);
    // Once more is no error, and changes nothing.
    durable.cancel("p").await?;
    assert_eq!(durable.workflow::<()>("p/2").status().await?, Status::Suspended);
    Ok(())
}

/// From another process, and in a transaction that decides.
#[tokio::test]
async fn a_cascade_is_part_of_the_callers_transaction_and_reaches_other_workers() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let client = db.client().await;
    durable.start(tree(0)).id("p").await?;
    kit.gate.reached().await;
    db.until("select count(*) = 3 from durable.workflow where status = 'suspended'").await;
    let before = db.text(STANDS).await;

    let mut tx = db.pool.begin().await?;
    client.cancel("p").in_tx(&mut tx).await?;
    tx.rollback().await?;
    assert_eq!(db.text(STANDS).await, before);

    let mut tx = db.pool.begin().await?;
    client.cancel("p").in_tx(&mut tx).await?;
    tx.commit().await?;
    assert_eq!(db.text(STANDS).await, "p cancelled, p/0 cancelled, p/1 cancelled, p/2 suspended");
    // The worker that runs it notices by its heartbeat.
    db.until("select count(*) = 0 from durable.workflow where stopping is not null").await;
    assert_eq!(kit.log.count("p goes on"), 0);
    Ok(())
}

/// The same from psql: the rows say what was cancelled.
#[tokio::test]
async fn a_cascade_from_sql_says_what_it_has_cancelled() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    durable.start(tree(0)).id("p").await?;
    kit.gate.reached().await;
    db.until("select count(*) = 3 from durable.workflow where status = 'suspended'").await;
    let cancel = "select string_agg(id || ' ' || cancelled, ', ' order by id) from durable.cancel('p')";
    assert_eq!(db.text(cancel).await, "p true, p/0 true, p/1 true");
    db.until("select count(*) = 0 from durable.workflow where stopping is not null").await;
    assert_eq!(db.count("select count(*) from durable.cancel('p')").await, 0);
    assert_eq!(db.count("select count(*) from durable.cancel('nobody')").await, 0);
    Ok(())
}

/// What the body is told of a child that is cancelled.
#[workflow]
async fn tells(ctx: &Ctx) -> Result<String> {
    let failure = ctx.run(sleeper()).await.expect_err("it is cancelled");
    ctx.run(work("after".into())).await?;
    assert_eq!((failure.kind(), failure.child(), failure.is_terminal()), (FailureKind::Cancelled, Some("p/0"), true));
    Ok(failure.to_string())
}

#[tokio::test]
async fn a_cancelled_child_wakes_its_parent_and_is_a_failure_there() -> Result<()> {
    for from_sql in [false, true] {
        let (db, kit) = (Db::new().await, Kit::default());
        let durable = worker(&db, &kit).await?;
        let parent = durable.start(tells()).id("p").await?;
        db.until_status("p", "suspended").await;
        db.until_status("p/0", "suspended").await;
        if from_sql {
            assert_eq!(db.text("select parent || ' ' || parent_queue from durable.cancel('p/0')").await, "p default");
        } else {
            durable.cancel("p/0").await?;
        }
        assert_eq!(parent.soon().await?, r#"child "p/0" failed: it was cancelled"#);
    }
    Ok(())
}

/// Ends with two children that go on: one awaited by nobody, and one whose start made room for a grandchild.
#[workflow]
async fn ends_first(ctx: &Ctx) -> Result<()> {
    ctx.start(leaf("left".into())).await?;
    Ok(())
}

#[tokio::test]
async fn a_parent_that_ends_leaves_its_children_alone() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    durable.start(ends_first()).id("p").await?.soon().await?;
    kit.gate.reached().await;
    // There is nothing to cancel any more, and nothing is.
    assert_eq!(durable.cancel("p").await.unwrap_err().kind(), ErrorKind::Finished);
    assert_eq!(db.text(STANDS).await, "p completed, p/0 running");
    kit.gate.open();
    durable.workflow::<()>("p/0").soon().await?;
    Ok(())
}

/// Three generations that all end when they are told to, nobody waiting for anybody.
#[workflow]
async fn generation(ctx: &Ctx, below: u32) -> Result<()> {
    for _ in 0..2 {
        if below > 0 {
            ctx.start(generation(below - 1)).await?;
        }
    }
    ctx.receive(END).timeout(hours(1)).await?;
    Ok(())
}

/// Ends of children that wake parents, which end themselves, are sent messages and are cancelled: rows are locked in one order
/// by all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_messages_and_cancellations_of_one_family_do_not_deadlock() -> Result<()> {
    const FAMILIES: i64 = 30;
    let db = Db::new().await;
    let builder = || db.builder().register(generation).poll_every(Duration::from_millis(10));
    let (one, other) = (builder().start().await?, builder().start().await?);
    one.start_many((0..FAMILIES).map(|n| (format!("p-{n}"), generation(2)))).await?;
    db.until("select count(*) = 210 from durable.workflow where status = 'suspended'").await;
    let ids: Vec<String> =
        sqlx::query_scalar("select id from durable.workflow order by md5(id)").fetch_all(&db.pool).await?;

    let sends = ids.iter().map(|id| {
        let one = one.clone();
        // One that was cancelled before takes no message.
        async move { drop(one.send(id, END, ()).await) }
    });
    let cancels = (0..FAMILIES).filter(|n| n % 2 == 0).map(|n| {
        let other = other.clone();
        async move { drop(other.cancel(format!("p-{n}")).await) }
    });
    tokio::join!(join_all(sends), join_all(cancels));
    db.until("select count(*) = 0 from durable.workflow where status in ('queued', 'running', 'suspended')").await;
    one.shutdown(Duration::from_secs(10)).await;
    other.shutdown(Duration::from_secs(10)).await;

    let stands = "select string_agg(status || ' ' || n, ', ' order by status) from
                  (select status, count(*) > 0 as n from durable.workflow group by status) as t";
    println!("{}", db.text(stands).await);
    drop((one, other));
    assert_no_deadlock(&db).await;
    Ok(())
}

/// Sessions have told their statistics by the time that they are gone.
async fn assert_no_deadlock(db: &Db) {
    db.until(
        "select count(*) = 0 from pg_stat_activity
         where application_name like 'durable %' and datname = current_database() and pid <> pg_backend_pid()",
    )
    .await;
    assert_eq!(db.count("select deadlocks from pg_stat_database where datname = current_database()").await, 0);
}

#[workflow]
async fn ends_at_gate(ctx: &Ctx) -> Result<String> {
    Ok(ctx.run(gated("end".into())).await?)
}

#[workflow]
async fn awaits_end(ctx: &Ctx) -> Result<String> {
    Ok(ctx.run(ends_at_gate()).await?)
}

/// A cancellation waits for the parent's row, then the child ends, and then both may go on. The end has to ask for the parent's
/// row before it has the child's, where that is the order of their keys; or each would have what the other one waits for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_child_locks_its_parent_in_the_order_of_their_keys() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().lease(Duration::from_secs(60)).register(awaits_end).register(ends_at_gate);
    let durable = durable.state(kit.clone()).start().await?;
    let client = db.client().await;
    let parent_first = "select 'p-' || n from generate_series(1, 100) n
                        where durable.bucket('p-' || n) < durable.bucket('p-' || n || '/0') limit 1";
    let id = db.text(parent_first).await;
    durable.start(awaits_end()).id(&id).await?;
    kit.gate.reached().await;
    db.until_status(&id, "suspended").await;

    let mut holder = db.pool.begin().await?;
    sqlx::query("select from durable.workflow where id = $1 for update").bind(&id).execute(&mut *holder).await?;
    let wait = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let cancelling = tokio::spawn({
        let (client, id) = (client.clone(), id.clone());
        async move { client.cancel(id).await }
    });
    db.until_count(wait, |count| count == 1).await;
    kit.gate.open();
    db.until_count(wait, |count| count == 2).await;
    holder.commit().await?;

    cancelling.await??;
    assert_eq!(db.text(STANDS).await, format!("{id} cancelled, {id}/0 cancelled"));
    durable.shutdown(Duration::from_secs(10)).await;
    drop((durable, client));
    assert_no_deadlock(&db).await;
    Ok(())
}

/// Starts children one after the other, as quickly as it can, until it is stopped.
#[workflow]
async fn spawns(ctx: &Ctx) -> Result<()> {
    loop {
        try_join_all((0..3).map(|_| ctx.start(sleeper()))).await?;
    }
}

/// A start at the moment of a cancellation is either found by it or refused: no child is left alive by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_is_started_while_its_parent_is_cancelled_is_cancelled_or_never_was() -> Result<()> {
    const PARENTS: usize = 40;
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    durable.start_many((0..PARENTS).map(|n| (format!("p-{n}"), spawns()))).await?;
    db.until("select count(distinct parent) = 40 from durable.child").await;
    let cancelled = join_all((0..PARENTS).map(|n| {
        let durable = durable.clone();
        // At moments of their own, so that many of them fall beside a start.
        async move {
            tokio::time::sleep(Duration::from_millis(3 * n as u64)).await;
            durable.cancel(format!("p-{n}")).await
        }
    }));
    for answer in cancelled.await {
        answer?;
    }

    let alive = "select count(*) from durable.child c join durable.workflow w using (bucket, id)
                 where w.status <> 'cancelled'";
    assert_eq!(db.count(alive).await, 0);
    // And nothing is half there: each child has its record, and each record its child.
    let halves = "select count(*) from durable.child c
                  full join (select * from durable.step where kind = 'start') s
                    on s.workflow_id = c.parent and s.lane = c.lane and s.seq = c.seq
                  where c.id is null or s.seq is null";
    assert_eq!(db.count(halves).await, 0);
    println!("children: {}", db.count("select count(*) from durable.child").await);
    Ok(())
}
