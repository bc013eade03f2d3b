//! Starting in the caller's transaction: it happens if, and only if, that commits.

use std::time::Duration;

use anyhow::Result;
use durable::{Ctx, ErrorKind, Topic, workflow};
use durable_tests::db::{Db, PATIENCE};
use durable_tests::soon::Soon;

const WORD: Topic<String> = Topic::new("word");

#[workflow]
async fn listens(ctx: &Ctx) -> Result<String> {
    Ok(ctx.receive(WORD).await?)
}

#[workflow]
async fn answers(ctx: &Ctx, word: String) -> Result<String> {
    Ok(format!("{} {word}", ctx.id()))
}

/// P5: nothing stays of a start, a message and a cancellation that were rolled back.
#[tokio::test]
async fn a_rollback_leaves_nothing() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(listens).register(answers).start().await?;
    let mut tx = db.pool.begin().await?;
    let handle = durable.start(answers("x".into())).id("a").in_tx(&mut tx).await?;
    durable.start_many([("b", listens()), ("c", listens())]).in_tx(&mut tx).await?;
    durable.send("b", WORD, "x".into()).in_tx(&mut tx).await?;
    durable.cancel("c").in_tx(&mut tx).await?;
    sqlx::query("insert into application_row (name) values ('x')").execute(&mut *tx).await?;
    tx.rollback().await?;

    assert!(handle.soon().await.unwrap_err().is_not_found());
    let left = "select (select count(*) from durable.workflow) + (select count(*) from durable.message)
                     + (select count(*) from application_row)";
    assert_eq!(db.count(left).await, 0);
    // The ids are free.
    assert!(!durable.start(answers("y".into())).id("a").await?.existed());
    Ok(())
}

/// P5: they happen together when it commits, also on a bare connection that is in a transaction.
#[tokio::test]
async fn a_commit_makes_all_of_it_happen() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(listens).register(answers).start().await?;
    let mut connection = db.pool.acquire().await?;
    sqlx::query("begin").execute(&mut *connection).await?;
    let a = durable.start(answers("x".into())).id("a").in_tx(&mut connection).await?;
    let many = durable.start_many([("b", listens()), ("c", listens())]).in_tx(&mut connection).await?;
    durable.send("b", WORD, "sent".into()).in_tx(&mut connection).await?;
    durable.cancel("c").in_tx(&mut connection).await?;
    assert!(a.status().await.unwrap_err().is_not_found(), "not before the commit");
    sqlx::query("commit").execute(&mut *connection).await?;

    assert_eq!(a.soon().await?, "a x");
    assert_eq!(many[0].soon().await?, "sent");
    assert_eq!(many[1].soon().await.unwrap_err().kind(), ErrorKind::Cancelled);
    Ok(())
}

/// P5: the worker of the same process does not wait for its poll.
#[tokio::test]
async fn what_a_transaction_started_is_picked_up_without_waiting_for_a_poll() -> Result<()> {
    let db = Db::new().await;
    let minute = Duration::from_secs(60);
    let durable = db.builder().poll_every(minute).register(answers).register(listens).start().await?;
    // Half of the poll, so that a worker that waited for it would be found out.
    tokio::time::timeout(minute / 2, async {
        for n in 0..5 {
            let mut tx = db.pool.begin().await?;
            let handle = durable.start(answers("x".into())).id(format!("a{n}")).in_tx(&mut tx).await?;
            tx.commit().await?;
            assert_eq!(handle.soon().await?, format!("a{n} x"));
        }
        let handle = durable.start(listens()).id("l").await?;
        db.until_status("l", "suspended").await;
        let mut tx = db.pool.begin().await?;
        durable.send("l", WORD, "sent".into()).in_tx(&mut tx).await?;
        tx.commit().await?;
        assert_eq!(handle.soon().await?, "sent");
        anyhow::Ok(())
    })
    .await?
}

/// P4, P5: a start waits for the transaction that started the same id, and takes its place if that rolls back.
#[tokio::test]
async fn a_start_waits_for_another_transactions_decision() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(answers).start().await?;
    for commits in [true, false] {
        let id = format!("commits-{commits}");
        let mut tx = db.pool.begin().await?;
        durable.start(answers("first".into())).id(&id).in_tx(&mut tx).await?;
        let second = tokio::spawn({
            let (durable, id) = (durable.clone(), id.clone());
            async move { durable.start(answers("second".into())).id(id).await }
        });
        db.until(
            "select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()",
        )
        .await;
        if commits {
            tx.commit().await?;
        } else {
            tx.rollback().await?;
        }
        let second = tokio::time::timeout(PATIENCE, second).await???;
        assert_eq!((second.existed(), second.input_differs()), (commits, commits));
        let word = if commits { "first" } else { "second" };
        assert_eq!(second.soon().await?, format!("{id} {word}"));
    }
    Ok(())
}

/// A refused start does not break the caller's transaction.
#[tokio::test]
async fn a_conflict_leaves_the_callers_transaction_usable() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    client.start(listens()).id("a").await?;
    let mut tx = db.pool.begin().await?;
    assert!(client.start(answers("x".into())).id("a").in_tx(&mut tx).await.unwrap_err().is_conflict());
    assert!(client.send("nobody", WORD, "x".into()).in_tx(&mut tx).await.unwrap_err().is_not_found());
    client.start(answers("x".into())).id("b").in_tx(&mut tx).await?;
    tx.commit().await?;
    assert_eq!(db.count("select count(*) from durable.workflow").await, 2);
    Ok(())
}
