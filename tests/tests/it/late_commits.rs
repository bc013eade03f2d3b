//! What a worker's sessions still do in the server when the worker itself is gone: none of it comes too late to be seen.

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::Result;
use durable::{Ctx, Durable, workflow};
use durable_tests::db::Db;
use durable_tests::gate::Gate;
use durable_tests::kit::{Kit, gated};
use durable_tests::soon::Soon;
use durable_tests::wire::Wire;

/// Where bodies stand that have read their history and done nothing yet.
static READ: LazyLock<Gate> = LazyLock::new(Gate::default);

#[workflow]
async fn slow_to_record(ctx: &Ctx) -> Result<String> {
    READ.pass().await;
    Ok(ctx.run(gated("paid".to_owned())).await?)
}

/// Sessions that wait for a lock while they commit what workflows have come to.
const HELD_UP: &str = "select exists (select from pg_stat_activity where datname = current_database()
                       and wait_event_type = 'Lock' and application_name like 'durable commits %')";
const ALL_WRITTEN: &str = "select not exists (select from pg_stat_activity where datname = current_database()
                           and state = 'active' and application_name like 'durable commits %')";

/// P2, P9: a commit of a worker that is dead, under way when its workflow is taken over, is not recorded once the new owner
/// has read the history; so the step is not run again after it was recorded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_workers_commit_does_not_come_after_its_successor_has_read_the_history() -> Result<()> {
    let db = Db::new().await;
    let lease = Duration::from_secs(1);
    let (first, second) = (Kit::default(), Kit::default());
    let wire = Wire::to(&db);
    let cut_off = Durable::builder(wire.pool()).migrate(false).lease(lease).poll_every(Duration::from_millis(50));
    let cut_off = cut_off.register(slow_to_record).state(first.clone()).start().await?;
    cut_off.start(slow_to_record()).id("late").await?;
    READ.reached().await;
    READ.open();
    first.gate.reached().await;

    // Its outcome has to wait for this, and then the worker is cut off in the middle of it.
    let mut rival = db.pool.begin().await?;
    let taken = "insert into durable.step (bucket, workflow_id, lane, seq, kind, name, started_at)
                 select bucket, id, '', 0, 'step', 'gated', now() from durable.workflow where id = 'late'";
    sqlx::query(taken).execute(&mut *rival).await?;
    first.gate.open();
    db.until(HELD_UP).await;
    wire.cut();

    let successor = db.builder().lease(lease).register(slow_to_record).state(second.clone()).start().await?;
    READ.reached().await;
    rival.rollback().await?;
    db.until(ALL_WRITTEN).await;
    assert_eq!(
        db.count("select count(*) from durable.step").await,
        0,
        "recorded after its successor had read the history"
    );
    READ.open();
    second.gate.reached().await;
    second.gate.open();
    assert_eq!(successor.workflow::<String>("late").soon().await?, "paid");
    assert_eq!(db.count("select count(*) from durable.step").await, 1);
    assert_eq!((first.log.count("paid"), second.log.count("paid")), (1, 1));
    Ok(())
}

#[workflow]
async fn recorded_late(ctx: &Ctx) -> Result<String> {
    Ok(ctx.run(gated("paid".to_owned())).await?)
}

/// P9: a fenced worker that still reaches the server finds no way in: its sessions were ended, new ones are refused, and what
/// it did is the next owner's to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_worker_opens_no_session_under_its_old_name() -> Result<()> {
    let db = Db::new().await;
    let kit = Kit::default();
    let worker = db.builder().lease(Duration::from_secs(1)).register(recorded_late).state(kit.clone()).start().await?;
    worker.start(recorded_late()).id("fenced").await?;
    kit.gate.reached().await;
    sqlx::query("update durable.worker set fenced_at = now()").execute(&db.pool).await?;
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()
               and pid <> pg_backend_pid() and application_name like 'durable %'";
    sqlx::query(end).execute(&db.pool).await?;
    // Its workflow is still its own: nobody else is there to take it over.
    kit.gate.open();
    kit.gate.reached().await;
    assert_eq!(db.count("select count(*) from durable.step").await, 0, "recorded by a fenced worker");
    kit.gate.open();
    assert_eq!(worker.workflow::<String>("fenced").soon().await?, "paid");
    assert_eq!(kit.log.count("paid"), 2);
    Ok(())
}
