//! Operating on all workflows of a list: in batches, each as if it were alone, and safe to repeat.

use std::time::Duration;

use anyhow::Result;
use durable::{ErrorKind, Status};
use durable_tests::soon::Soon;

use super::operating::{House, order, sleeps_then_receives, two_steps};

/// More than a batch has.
const MANY: usize = 230;

#[tokio::test]
async fn all_that_failed_are_resumed_in_batches_and_nothing_else_is() -> Result<()> {
    let House { db, durable, kit, mended } = House::new().await?;
    let calls = (0..MANY).map(|n| (format!("o{n}"), order(format!("tea {n}"))));
    durable.start_many(calls).attribute("bank", "north").await?;
    durable.start(order("south".into())).id("south").attribute("bank", "south").await?;
    let failed = "select count(*) from durable.workflow where status = 'failed'";
    let all = i64::try_from(MANY)? + 1;
    db.until_count(failed, |count| count == all).await;
    mended.mend();

    let north = || durable.workflows().status(Status::Failed).attribute("bank", "north");
    let done = north().resume().reason("the north is back").await?;
    assert_eq!((done.done, done.skipped, done.problem), (MANY as u64, 0, None));
    let completed = "select count(*) from durable.workflow where status = 'completed'";
    db.until_count(completed, |count| count == all - 1).await;
    assert_eq!(db.count(failed).await, 1);
    assert_eq!(kit.log.count("reserve tea 7"), 1);
    assert_eq!(kit.log.count("ship tea 7"), 1);
    let told = "select count(*) from durable.operation where act = 'resume' and reason = 'the north is back'";
    assert_eq!(db.count(told).await, all - 1);

    // Done again, there is nothing left to do.
    assert_eq!(north().resume().await?.done, 0);
    let done = durable.workflows().id_prefix("o").status(Status::Completed).restart().await?;
    assert_eq!(done.done, MANY as u64);
    db.until_count(completed, |count| count == all - 1).await;
    assert_eq!(kit.log.count("reserve tea 7"), 2);
    let done = durable.workflows().name("order").delete().await?;
    assert_eq!(done.done, MANY as u64 + 1);
    for table in ["workflow", "step", "attribute", "operation"] {
        let left: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from durable.{table}")))
            .fetch_one(&db.pool)
            .await?;
        assert_eq!(left, 0, "{table}");
    }
    Ok(())
}

/// P13: each has stopped once the call has answered, whoever ran it.
#[tokio::test]
async fn what_runs_waits_and_sleeps_is_paused_resumed_and_cancelled_together() -> Result<()> {
    let House { db, durable, kit, .. } = House::new().await?;
    let elsewhere = db.client().await;
    for n in 0..3 {
        durable.start(two_steps()).id(format!("all-run{n}")).await?;
        durable.start(sleeps_then_receives()).id(format!("all-sleep{n}")).await?;
        durable.start(order("x".into())).id(format!("all-later{n}")).delay(Duration::from_secs(900)).await?;
    }
    for _ in 0..3 {
        kit.gate.reached().await;
    }
    db.until("select count(*) = 3 from durable.workflow where status = 'suspended'").await;
    let all = || elsewhere.workflows().id_prefix("all-");
    assert_eq!(all().pause().reason("the auditor").await?.done, 9);
    assert_eq!(
        db.count("select count(*) from durable.workflow where status <> 'blocked' or stopping is not null").await,
        0
    );
    assert_eq!(all().pause().await?.done, 0);
    let paused = all().await?.workflows;
    assert!(paused.len() == 9 && paused.iter().all(durable::WorkflowInfo::is_paused), "{paused:?}");

    assert_eq!(all().resume().await?.done, 9);
    for _ in 0..3 {
        kit.gate.reached().await;
    }
    assert_eq!(all().cancel().reason("enough").await?.done, 9);
    assert_eq!(all().cancel().await?.done, 0);
    assert_eq!(db.count("select count(*) from durable.operation where act = 'cancel' and reason = 'enough'").await, 9);
    // Resumed at once after that, by the same worker.
    assert_eq!(elsewhere.workflows().id_prefix("all-run").resume().await?.done, 3);
    for _ in 0..3 {
        kit.gate.reached().await;
        kit.gate.open();
    }
    for n in 0..3 {
        assert_eq!(durable.workflow::<String>(format!("all-run{n}")).soon().await?, "third");
    }
    assert_eq!((kit.log.count("first"), kit.log.count("third")), (3, 3));
    Ok(())
}

/// Two operators who do the same at once do it once to each.
#[tokio::test]
async fn operators_at_once_share_what_there_is_to_do() -> Result<()> {
    let House { db, durable, kit, mended } = House::new().await?;
    let calls = (0..MANY).map(|n| (format!("o{n}"), order(format!("tea {n}"))));
    durable.start_many(calls).await?;
    let all = i64::try_from(MANY)?;
    db.until_count("select count(*) from durable.workflow where status = 'failed'", |count| count == all).await;
    mended.mend();
    let clients = [db.client().await, db.client().await, db.client().await];
    let tries = clients.iter().map(|client| client.workflows().status(Status::Failed).resume().into_future());
    let mut done = 0;
    for tried in futures::future::join_all(tries).await {
        done += tried?.done;
    }
    assert_eq!(done, MANY as u64);
    db.until_count("select count(*) from durable.workflow where status = 'completed'", |count| count == all).await;
    assert_eq!(kit.log.entries().iter().filter(|entry| entry.starts_with("ship")).count(), MANY);
    Ok(())
}

#[tokio::test]
async fn what_may_be_a_mistake_is_refused_and_what_cannot_be_is_skipped() -> Result<()> {
    let House { db, durable, .. } = House::with_a_failed_order().await?;
    durable.start(super::operating::undoes()).id("undone").await?;
    db.until_status("undone", "failed").await;
    for (refused, told) in [
        (durable.workflows().delete(), "the list has no condition: add one, or .all()"),
        (durable.workflows().name("order").limit(5).delete(), "limit and after are for reading pages"),
        (durable.workflows().name("order").after("newest.1.x").cancel(), "limit and after are for reading pages"),
        (
            durable.workflows().status(Status::Failed).status(Status::Completed).resume(),
            "none that is completed can be: ask for those that are blocked or failed or cancelled",
        ),
        (durable.workflows().status(Status::Running).delete(), "none that is running can be"),
        (durable.workflows().name("").cancel(), "empty"),
        (durable.workflows().name("order").pause().reason("x".repeat(1_001)), "1001 bytes"),
    ] {
        let error = refused.await.unwrap_err();
        assert!(error.kind() == ErrorKind::Usage && error.to_string().contains(told), "{error}");
    }
    assert_eq!(db.count("select count(*) from durable.workflow where status = 'failed'").await, 2);
    let done = durable.workflows().resume().all().await?;
    assert_eq!((done.done, done.skipped), (1, 1));
    assert!(done.problem.is_some_and(|problem| problem.contains("workflow undone: its undo steps have run")));
    Ok(())
}
