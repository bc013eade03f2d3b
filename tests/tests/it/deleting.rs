//! Beginning again, and deleting: nothing of the former life is left, and nothing of it comes later.

use std::sync::LazyLock;

use anyhow::Result;
use durable::{Ctx, Durable, ErrorKind, Status, Topic, workflow};
use durable_tests::db::Db;
use durable_tests::gate::Gate;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;
use sqlx::{AssertSqlSafe, PgPool};

use super::operating::{House, WORD, order};

const OTHER: Topic<String> = Topic::new("other");

#[workflow]
async fn listens(ctx: &Ctx) -> Result<String> {
    let heard = ctx.receive(WORD).await?;
    ctx.run(work(format!("heard {heard}"))).await?;
    Ok(format!("{heard}, at {}", ctx.now().timestamp_micros()))
}

#[workflow]
async fn parent(ctx: &Ctx) -> Result<String> {
    Ok(ctx.run(listens()).await?)
}

async fn listener(db: &Db, kit: &Kit) -> Result<Durable> {
    Ok(db.builder().register(listens).register(parent).state(kit.clone()).start().await?)
}

/// Rows about a workflow in every table of the library that tells whose its rows are.
async fn rows_about(pool: &PgPool, id: &str) -> Result<Vec<String>> {
    let columns: Vec<(String, String)> = sqlx::query_as(
        "select c.table_name::text, c.column_name::text
         from information_schema.columns c
         join information_schema.tables t using (table_schema, table_name)
         where c.table_schema = 'durable' and t.table_type = 'BASE TABLE'
           and c.column_name in ('id', 'workflow_id', 'parent') and c.data_type = 'text' order by 1, 2",
    )
    .fetch_all(pool)
    .await?;
    assert!(columns.len() >= 8, "{columns:?}");
    let mut found = Vec::new();
    for (table, column) in columns {
        let count = format!("select count(*) from durable.{table} where {column} = $1");
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(count)).bind(id).fetch_one(pool).await?;
        if rows > 0 {
            found.push(format!("{table}.{column}"));
        }
    }
    Ok(found)
}

#[tokio::test]
async fn a_restarted_workflow_does_all_of_it_again() -> Result<()> {
    let House { db, durable, kit, mended } = House::with_a_failed_order().await?;
    mended.mend();
    durable.restart("o").reason("the tea was bad").await?;
    assert_eq!(durable.workflow::<String>("o").soon().await?, "ship tea");
    durable.restart("o").await?;
    assert_eq!(durable.workflow::<String>("o").soon().await?, "ship tea");
    let entries = kit.log.entries();
    assert_eq!(entries[..2], ["reserve tea", "try tea"]);
    assert_eq!(entries[2..5], ["reserve tea", "try tea", "ship tea"]);
    assert_eq!(entries[5..], entries[2..5]);
    assert_eq!(db.count("select count(*) from durable.step where workflow_id = 'o'").await, 3);
    let done = durable.workflow::<()>("o").operations().await?;
    let told: Vec<_> = done.iter().map(|o| (o.act.as_str(), o.stood, o.reason.as_deref())).collect();
    let expected =
        [("restart", Some(Status::Failed), Some("the tea was bad")), ("restart", Some(Status::Completed), None)];
    assert_eq!(told, expected);
    Ok(())
}

/// What was received is part of what it did; what was not is not. The time of its start is that of the restart.
#[tokio::test]
async fn a_restarted_workflow_keeps_the_messages_that_it_has_not_received() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = listener(&db, &kit).await?;
    durable.start(listens()).id("l").await?;
    durable.send("l", WORD, "one".to_owned()).key("k").await?;
    db.until_status("l", "completed").await;
    let first = durable.workflow::<String>("l").soon().await?;
    durable.restart("l").await?;
    db.until_status("l", "suspended").await;
    durable.send("l", OTHER, "kept".to_owned()).await?;
    durable.cancel("l").await?;
    durable.restart("l").await?;
    assert_eq!(db.count("select count(*) from durable.message where workflow_id = 'l'").await, 1);
    // The key of a message that it has received is free again.
    durable.send("l", WORD, "one".to_owned()).key("k").await?;
    let second = durable.workflow::<String>("l").soon().await?;
    assert!(second.starts_with("one, at ") && second > first, "{first} {second}");
    assert_eq!(kit.log.count("heard one"), 2);
    Ok(())
}

#[tokio::test]
async fn of_a_deleted_workflow_nothing_is_left_and_its_id_is_free() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = listener(&db, &kit).await?;
    durable.start(parent()).id("p").await?;
    db.until("select count(*) = 2 from durable.workflow where status = 'suspended'").await;
    let child = db.text("select id from durable.child").await;
    let refused = durable.delete(&child).await.unwrap_err();
    assert!(refused.is_conflict() && refused.to_string().contains("a child of p, which has not ended"), "{refused}");

    durable.pause("p").await?;
    durable.send("p", WORD, "never read".to_owned()).await?;
    let fork = durable.fork::<String>("p", 0).id("f").await?;
    db.until_status("f", "suspended").await;
    let about = rows_about(&db.pool, "p").await?;
    assert!(about.len() >= 5, "{about:?}");
    durable.delete("p").await?;
    assert_eq!(rows_about(&db.pool, "p").await?, [""; 0]);
    assert!(durable.workflow::<()>("p").status().await.unwrap_err().is_not_found());
    assert_eq!(durable.send("p", WORD, String::new()).await.unwrap_err().kind(), ErrorKind::NotFound);
    // Children and forks are workflows of their own.
    durable.send(&child, WORD, "on my own".to_owned()).await?;
    assert!(durable.workflow::<String>(&child).soon().await?.starts_with("on my own"));
    durable.cancel(fork.id()).await?;
    durable.delete(fork.id()).await?;
    assert_eq!(rows_about(&db.pool, "f").await?, [""; 0]);

    let again = durable.start(listens()).id("p").await?;
    assert!(!again.existed());
    durable.send("p", WORD, "anew".to_owned()).await?;
    assert!(again.soon().await?.starts_with("anew"));
    Ok(())
}

/// Whoever waits for the end of a workflow that is deleted is told.
#[tokio::test]
async fn who_waits_for_a_workflow_that_is_deleted_is_told() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = listener(&db, &kit).await?;
    let handle = durable.start(listens()).id("l").await?;
    let waits = tokio::spawn(async move { handle.soon().await });
    db.until_status("l", "suspended").await;
    durable.delete("l").await?;
    assert!(waits.await?.unwrap_err().is_not_found());
    Ok(())
}

/// Where bodies stand that have begun.
static BEGUN: LazyLock<Gate> = LazyLock::new(Gate::default);

#[workflow]
async fn slow_to_record(ctx: &Ctx) -> Result<String> {
    BEGUN.pass().await;
    Ok(ctx.run(gated("paid".to_owned())).await?)
}

const HELD_UP: &str = "select exists (select from pg_stat_activity where datname = current_database()
                       and wait_event_type = 'Lock' and application_name like 'durable commits %')";
const WAITS_FOR_WRITERS: &str = "select exists (select from pg_stat_activity where datname = current_database()
                                 and state = 'active' and wait_event = 'PgSleep'
                                 and application_name like 'durable calls%')";

/// P9: a commit of a living worker that was under way when it lost the workflow, and found in its snapshot that it still owned
/// it, is not recorded in the next life: whoever restarts, deletes or resumes waits for it. `act` does it, and `left` is what of
/// the history may be there afterwards, in which only that commit ever wrote.
async fn a_late_commit(act: &'static str, left: i64) -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let worker = db.builder().register(slow_to_record).state(kit.clone()).start().await?;
    let operator = db.client().await;
    worker.start(slow_to_record()).id("late").await?;
    BEGUN.reached().await;
    BEGUN.open();
    kit.gate.reached().await;
    // Its outcome has to wait for this.
    let mut rival = db.pool.begin().await?;
    let taken = "insert into durable.step (bucket, workflow_id, lane, seq, kind, name, started_at)
                 select bucket, id, '', 0, 'step', 'gated', now() from durable.workflow where id = 'late'";
    sqlx::query(taken).execute(&mut *rival).await?;
    kit.gate.open();
    db.until(HELD_UP).await;
    // It is cancelled, and its worker taken for one that has stopped: its connection broke, and the statement is still
    // under way in the server.
    sqlx::query("select durable.cancel('late')").execute(&db.pool).await?;
    sqlx::query("update durable.workflow set stopping = null").execute(&db.pool).await?;

    let operating = tokio::spawn(async move {
        match act {
            "restart" => operator.restart("late").await,
            "resume" => operator.resume("late").await,
            _ => operator.delete("late").await,
        }
    });
    db.until(WAITS_FOR_WRITERS).await;
    assert_eq!(db.count("select count(*) from durable.workflow where status = 'cancelled'").await, 1);
    rival.rollback().await?;
    operating.await??;
    db.until(
        "select not exists (select from pg_stat_activity where datname = current_database()
              and state = 'active' and application_name like 'durable commits %')",
    )
    .await;
    assert_eq!(db.count("select count(*) from durable.step").await, left, "{act}");
    if act != "delete" {
        BEGUN.reached().await;
        BEGUN.open();
        if act == "restart" {
            kit.gate.reached().await;
            kit.gate.open();
        }
        assert_eq!(worker.workflow::<String>("late").soon().await?, "paid");
        assert_eq!(kit.log.count("paid"), if act == "restart" { 2 } else { 1 });
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_under_way_is_not_recorded_in_the_next_life() -> Result<()> {
    // One after the other: they share a gate.
    a_late_commit("restart", 0).await?;
    a_late_commit("delete", 0).await?;
    a_late_commit("resume", 1).await
}

/// What is sent again because its answer was lost finds it deleted, and says that it was.
#[tokio::test]
async fn of_two_who_delete_at_once_one_is_told_that_there_is_nothing() -> Result<()> {
    let House { db, durable, .. } = House::with_a_failed_order().await?;
    durable.start(order("milk".into())).id("m").await?;
    db.until_status("m", "failed").await;
    let clients = [db.client().await, db.client().await];
    let tried = futures::future::join_all(clients.iter().map(|client| client.delete("o").into_future())).await;
    let refused: Vec<_> = tried.into_iter().filter_map(Result::err).collect();
    assert!(refused.len() == 1 && refused[0].is_not_found(), "{refused:?}");
    assert_eq!(db.count("select count(*) from durable.workflow where id = 'm'").await, 1);
    Ok(())
}
