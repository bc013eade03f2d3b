//! Queues with limits while they are at work: limits that change, pauses, and what is done to those who wait for their turn.

use std::time::Duration;

use anyhow::Result;
use durable::{Durable, ErrorKind, Queue, hours, minutes};
use durable_tests::db::Db;
use durable_tests::kit::Kit;
use durable_tests::soon::Soon;

use super::queues::{RUNNING, call, drain, everything, ids, settles_at, worker};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_changed_while_everything_runs() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit, Queue::new("calls").concurrency(1)).await?;
    for id in ids(6) {
        durable.start(call()).queue("calls").id(id).await?;
    }
    settles_at(&db, &kit, 1).await;
    durable.set_queue(Queue::new("calls").concurrency(3)).await?;
    kit.gate.reached().await;
    kit.gate.reached().await;
    assert_eq!(db.count(RUNNING).await, 3);
    // Whoever has SQL does it, too.
    sqlx::query("update durable.queue set concurrency = 4 where name = 'calls'").execute(&db.pool).await?;
    kit.gate.reached().await;
    // Less than what runs: it goes on, and nobody comes in its place.
    durable.set_queue(Queue::new("calls").concurrency(2)).await?;
    for _ in 0..2 {
        kit.gate.open();
    }
    db.until_count(RUNNING, |running| running == 2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(db.count(RUNNING).await, 2);
    drain(&db, &kit, ids(6)).await
}

/// What was set meanwhile stands as long as the code does not change.
#[tokio::test]
async fn a_worker_declares_limits_once_and_again_when_they_change() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let limits = async |durable: &Durable| Ok::<_, anyhow::Error>(durable.queues().await?.remove(0).queue);
    let declared =
        Queue::new("calls").concurrency(5).rate(100, minutes(1)).rate_per_partition(7, hours(1)).suspended_count(true);
    let first = worker(&db, &kit, declared.clone()).await?;
    assert_eq!(limits(&first).await?, declared);
    let set = Queue::new("calls").concurrency_per_worker(9);
    first.set_queue(set.clone()).await?;
    let same = worker(&db, &kit, declared).await?;
    assert_eq!(limits(&same).await?, set);
    let changed = Queue::new("calls").concurrency(6);
    let other = worker(&db, &kit, changed.clone()).await?;
    assert_eq!(limits(&other).await?, changed);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_queue_begins_nothing_until_it_is_resumed() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit, Queue::new("calls").concurrency(2)).await?;
    durable.pause_queue("calls").await?;
    assert!(durable.queues().await?[0].is_paused);
    for id in ids(3) {
        durable.start(call()).queue("calls").id(id).await?;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(db.count(RUNNING).await, 0);
    durable.resume_queue("calls").await?;
    settles_at(&db, &kit, 2).await;
    drain(&db, &kit, ids(3)).await?;
    let error = durable.pause_queue("emails").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.to_string().contains("could not pause queue \"emails\": there is no such queue with limits"),
        "{error}"
    );
    Ok(())
}

/// P3: whatever is done to one that waits for its turn, it is not lost, and keeps nobody out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_turn_may_be_cancelled_paused_restarted_and_deleted() -> Result<()> {
    // In one line, as in a queue without limits; and in places, because there might be partitions.
    operate_on_those_who_wait(Queue::new("calls").concurrency(1), 0).await?;
    operate_on_those_who_wait(Queue::new("calls").concurrency(1).concurrency_per_partition(1), 5).await
}

async fn operate_on_those_who_wait(queue: Queue, in_places: i64) -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit, queue).await?;
    for id in ids(6) {
        durable.start(call()).queue("calls").id(id).await?;
    }
    settles_at(&db, &kit, 1).await;
    let waiting = "select count(*) from durable.place where due_at is not null and not is_held";
    db.until_count(waiting, |waiting| waiting == in_places).await;
    durable.cancel("w-1").await?;
    durable.pause("w-2").await?;
    durable.cancel("w-3").await?;
    durable.restart("w-3").await?;
    durable.pause("w-4").await?;
    durable.delete("w-4").await?;
    for _ in 0..1_000 {
        kit.gate.open();
    }
    for id in ["w-0", "w-3", "w-5"] {
        durable.workflow::<()>(id).soon().await?;
    }
    durable.resume("w-2").await?;
    durable.workflow::<()>("w-2").soon().await?;
    durable.restart("w-1").await?;
    durable.workflow::<()>("w-1").soon().await?;
    assert!(!kit.log.entries().contains(&"w-4".to_owned()));
    // With the next claim nothing is left of them.
    durable.start(call()).queue("calls").id("w-9").await?.soon().await?;
    durable.start(call()).queue("calls").id("w-10").await?.soon().await?;
    assert!(db.count("select count(*) from durable.place").await <= 1);
    assert_eq!(db.count("select count(*) from durable.workflow where priority <> 0").await, 0);
    Ok(())
}

/// P21: whatever becomes of it, a workflow belongs to its partition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_begins_again_and_who_is_forked_is_of_the_same_partition() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit, Queue::new("calls").concurrency_per_partition(1)).await?;
    durable.start(call()).queue("calls").partition("a").priority(7).id("a-0").await?;
    kit.gate.open();
    durable.workflow::<()>("a-0").soon().await?;
    durable.restart("a-0").await?;
    kit.gate.reached().await;
    kit.gate.reached().await;
    // While the one runs, its forks wait: from what runs, and from what waits itself.
    durable.fork::<()>("a-0", 0).id("a-1").await?;
    db.until("select count(*) = 1 from durable.place where due_at is not null and not is_held").await;
    durable.fork::<()>("a-1", 0).id("a-2").await?;
    db.until("select count(*) = 2 from durable.place where due_at is not null and not is_held").await;
    assert_eq!(db.count(RUNNING).await, 1);
    for _ in 0..3 {
        kit.gate.open();
    }
    for id in ["a-0", "a-1", "a-2"] {
        durable.workflow::<()>(id).soon().await?;
    }
    assert_eq!(db.text("select string_agg(distinct priority::text, ' ') from durable.workflow").await, "7");
    durable.delete("a-0").await?;
    assert_eq!(db.count("select count(*) from durable.place where id = 'a-0'").await, 0);
    Ok(())
}

/// P3: nobody who waits is lost with the limits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_whose_limits_are_removed_is_one_like_any_other() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let queue = Queue::new("calls").concurrency(1).rate(1, hours(1));
    let durable = everything(db.builder().queue("calls"), &kit, queue).start().await?;
    for (n, id) in ids(5).enumerate() {
        durable.start(call()).partition(format!("p-{n}")).id(id).await?;
    }
    settles_at(&db, &kit, 1).await;
    durable.remove_queue("calls").await?;
    for _ in 1..5 {
        kit.gate.reached().await;
    }
    drain(&db, &kit, ids(5)).await?;
    assert_eq!(db.count("select count(*) from durable.place").await, 0);
    let error = durable.remove_queue("calls").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    Ok(())
}
