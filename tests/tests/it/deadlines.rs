//! Deadlines that come, change or go while a workflow lives: from Rust and from SQL, and what is told of them.

use anyhow::Result;
use durable::testing::TestDatabase;
use durable::{
    Ctx, Durable, ErrorKind, FailureKind, Handle, Status, StepCtx, Topic, days, hours, minutes, seconds, step, workflow,
};
use durable_tests::db::Db;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;
use durable_tests::wire::{Lost, Wire};
use sqlx::{Connection, PgConnection};

use super::from_sql::{refusal, run, text};

const GO: Topic<bool> = Topic::new("go");

#[workflow]
async fn waits(ctx: &Ctx) -> Result<String> {
    ctx.receive(GO).await?;
    Ok("went".to_owned())
}

#[workflow]
async fn held(ctx: &Ctx) -> Result<String> {
    Ok(ctx.run(gated("held".into())).await?)
}

/// Starts a child that has the deadline of this, one with a nearer one, and one that goes its own way.
#[workflow]
async fn parent(ctx: &Ctx) -> Result<String> {
    let same = ctx.start(grandparent()).id("same").await?;
    ctx.start(waits()).id("nearer").deadline(minutes(30)).await?;
    ctx.start(waits()).id("detached").detached().await?;
    Ok(ctx.result(&same).await?)
}

#[workflow]
async fn grandparent(ctx: &Ctx) -> Result<String> {
    Ok(ctx.run(waits()).id("below").await?)
}

#[step]
async fn undo(step: &StepCtx) -> Result<()> {
    let kit = step.state::<Kit>();
    kit.gate.pass().await;
    Ok(())
}

#[workflow]
async fn undone(ctx: &Ctx) -> Result<String> {
    ctx.undo(undo()).await;
    ctx.receive(GO).await?;
    Ok("went".to_owned())
}

/// Starts a child after it was held.
#[workflow]
async fn late_parent(ctx: &Ctx) -> Result<String> {
    ctx.run(gated("held".into())).await?;
    Ok(ctx.run(waits()).id("late").await?)
}

async fn worker(db: &Db, kit: &Kit) -> Result<Durable> {
    let builder = db.builder().register(waits).register(held).register(parent).register(grandparent);
    Ok(builder.register(undone).register(late_parent).state(kit.clone()).start().await?)
}

async fn moved() -> Result<(Db, TestDatabase, Durable)> {
    let server = Db::new().await;
    let db = TestDatabase::create(&server.pool, |_| async { Ok(()) }).await?;
    let durable = db.builder().register(waits).register(parent).register(grandparent).start().await?;
    Ok((server, db, durable))
}

async fn kind_of<T: serde::de::DeserializeOwned>(handle: Handle<T>) -> Result<FailureKind> {
    let error = handle.soon().await.map(drop).unwrap_err();
    Ok(error.failure().expect("a failure").kind())
}

/// P11: given, moved away, moved near and taken away, it is the last one that counts.
#[tokio::test]
async fn the_last_deadline_that_was_set_is_the_one_that_holds() -> Result<()> {
    let (_server, db, durable) = moved().await?;
    for id in ["given", "none"] {
        durable.start(waits()).id(id).await?;
    }
    for id in ["away", "near", "gone"] {
        durable.start(waits()).id(id).deadline(hours(2)).await?;
    }
    db.run_until_idle().await?;
    let at = durable.set_deadline("given", hours(1)).await?;
    assert_eq!(durable.workflow::<()>("given").info().await?.deadline_at, at);
    durable.set_deadline("away", days(2)).reason("they are late").await?;
    durable.set_deadline("near", minutes(30)).await?;
    assert_eq!(durable.set_deadline("gone", None).await?, None);
    assert_eq!(durable.set_deadline("none", None).await?, None);

    let failed = async |ids: &[&str]| {
        for id in ["given", "none", "away", "near", "gone"] {
            let expected = if ids.contains(&id) { Status::Failed } else { Status::Suspended };
            assert_eq!(durable.workflow::<()>(id).status().await?, expected, "{id}");
        }
        anyhow::Ok(())
    };
    for (advance, ids) in [
        (minutes(31), &["near"][..]),
        (minutes(31), &["near", "given"]),
        (days(1), &["near", "given"]),
        (days(1), &["near", "given", "away"]),
    ] {
        db.advance(advance).await?;
        db.run_until_idle().await?;
        failed(ids).await?;
    }
    for id in ["near", "given", "away"] {
        assert_eq!(kind_of(durable.workflow::<String>(id)).await?, FailureKind::Deadline, "{id}");
    }
    durable.send("gone", GO, true).await?;
    assert_eq!(durable.workflow::<String>("gone").soon().await?, "went");
    Ok(())
}

#[tokio::test]
async fn what_was_done_to_a_deadline_stands_among_the_operations() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    client.start(waits()).id("w").deadline(hours(1)).await?;
    let first = client.workflow::<()>("w").info().await?.deadline_at;
    let second = client.set_deadline("w", hours(5)).reason("the supplier is late").await?;
    client.set_deadline("w", None).await?;
    client.pause("w").await?;
    client.set_deadline("w", seconds(0)).await?;
    let operations = client.workflow::<()>("w").operations().await?;
    let told: Vec<_> = operations.iter().map(|o| (&*o.act, o.stood, o.reason.as_deref())).collect();
    let expected = [
        ("deadline", Some(Status::Queued), Some("the supplier is late")),
        ("deadline", Some(Status::Queued), None),
        ("pause", Some(Status::Queued), None),
        ("deadline", Some(Status::Blocked), None),
    ];
    assert_eq!(told, expected);
    assert!(first.is_some() && second > first);
    assert_eq!((operations[0].deadline_was_at, operations[0].deadline_at), (first, second));
    assert_eq!((operations[1].deadline_was_at, operations[1].deadline_at), (second, None));
    assert_eq!((operations[2].deadline_was_at, operations[2].deadline_at), (None, None));
    assert_eq!((operations[3].deadline_was_at, operations[3].deadline_at.is_some()), (None, true));
    // And nothing of it in the next life of the id.
    client.delete("w").await?;
    assert_eq!(db.count("select count(*) from durable.deadline_change").await, 0);
    client.start(waits()).id("w").await?;
    client.set_deadline("w", None).await?;
    let operations = client.workflow::<()>("w").operations().await?;
    assert_eq!(operations.iter().map(|o| o.deadline_was_at).collect::<Vec<_>>(), [None]);
    Ok(())
}

/// As if it were started now: those below it have its deadline, or a nearer one of their own.
#[tokio::test]
async fn children_go_along_with_the_deadline_of_their_parent() -> Result<()> {
    let (_server, db, durable) = moved().await?;
    durable.start(parent()).id("p").deadline(hours(1)).await?;
    db.run_until_idle().await?;
    let deadline = async |id: &str| Ok::<_, durable::Error>(durable.workflow::<()>(id).info().await?.deadline_at);
    let nearer = deadline("nearer").await?;
    let at = durable.set_deadline("p", days(1)).await?;
    for (id, expected) in [("p", at), ("same", at), ("below", at), ("nearer", nearer), ("detached", None)] {
        assert_eq!(deadline(id).await?, expected, "{id}");
    }
    // Only what has changed is noted.
    for (id, operations) in [("p", 1), ("below", 1), ("nearer", 0), ("detached", 0)] {
        assert_eq!(durable.workflow::<()>(id).operations().await?.len(), operations, "{id}");
    }
    durable.set_deadline("p", None).await?;
    for (id, expected) in [("p", None), ("same", None), ("below", None), ("nearer", nearer), ("detached", None)] {
        assert_eq!(deadline(id).await?, expected, "{id}");
    }
    let at = durable.set_deadline("p", minutes(5)).await?;
    for (id, expected) in [("p", at), ("same", at), ("below", at), ("nearer", at), ("detached", None)] {
        assert_eq!(deadline(id).await?, expected, "{id}");
    }
    db.advance(minutes(6)).await?;
    db.run_until_idle().await?;
    assert_eq!(kind_of(durable.workflow::<String>("p")).await?, FailureKind::Deadline);
    for id in ["same", "below", "nearer"] {
        assert_eq!(durable.workflow::<()>(id).status().await?, Status::Cancelled, "{id}");
    }
    assert_eq!(durable.workflow::<()>("detached").status().await?, Status::Suspended);
    Ok(())
}

/// What it was forked from had its own time.
#[tokio::test]
async fn a_fork_has_no_deadline_until_it_is_given_one() -> Result<()> {
    let (_server, db, durable) = moved().await?;
    durable.start(waits()).id("w").deadline(hours(1)).await?;
    db.run_until_idle().await?;
    let fork = durable.fork::<String>("w", 0).id("again").await?;
    assert_eq!(fork.info().await?.deadline_at, None);
    let at = durable.set_deadline("again", hours(2)).await?;
    assert_eq!(fork.info().await?.deadline_at, at);
    Ok(())
}

/// P10: a worker notices it like one of the start.
#[tokio::test]
async fn a_running_workflow_is_stopped_when_its_deadline_is_moved_near() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    let handle = durable.start(held()).id("h").deadline(hours(5)).await?;
    kit.gate.reached().await;
    db.client().await.set_deadline("h", seconds(0)).await?;
    assert_eq!(kind_of(handle).await?, FailureKind::Deadline);
    Ok(())
}

/// P5.
#[tokio::test]
async fn a_deadline_is_changed_if_and_only_if_the_transaction_commits() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    client.start(waits()).id("w").await?;
    let mut tx = db.pool.begin().await?;
    client.set_deadline("w", hours(1)).in_tx(&mut tx).await?;
    tx.rollback().await?;
    assert_eq!(client.workflow::<()>("w").info().await?.deadline_at, None);
    assert!(client.workflow::<()>("w").operations().await?.is_empty());
    let mut tx = db.pool.begin().await?;
    let at = client.set_deadline("w", hours(1)).in_tx(&mut tx).await?;
    // What cannot be done leaves the transaction as it is.
    assert!(client.set_deadline("nobody", hours(1)).in_tx(&mut tx).await.unwrap_err().is_not_found());
    tx.commit().await?;
    assert_eq!(client.workflow::<()>("w").info().await?.deadline_at, at);
    Ok(())
}

#[tokio::test]
async fn a_deadline_that_cannot_be_is_refused_and_nothing_changes() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    durable.start(waits()).id("done").await?;
    durable.send("done", GO, true).await?;
    durable.workflow::<String>("done").soon().await?;
    durable.start(undone()).id("undone").await?;
    db.until_status("undone", "suspended").await;
    durable.cancel("undone").await?;
    kit.gate.reached().await;
    durable.start(waits()).id("w").await?;
    for (id, reason, kind, problem) in [
        ("nobody", "", ErrorKind::NotFound, "could not set the deadline of workflow nobody: there is no such workflow"),
        ("done", "", ErrorKind::Finished, "could not set the deadline of workflow done: it is completed already"),
        (
            "undone",
            "",
            ErrorKind::Finished,
            "could not set the deadline of workflow undone: it is being undone already",
        ),
        ("w", &"x".repeat(1_001), ErrorKind::Usage, "1001 bytes"),
        ("w", "a\0b", ErrorKind::Usage, "NUL"),
        ("", "", ErrorKind::Usage, "empty"),
    ] {
        let error = durable.set_deadline(id, hours(1)).reason(reason).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(problem), "{error}");
    }
    assert_eq!(db.count("select count(*) from durable.deadline").await, 0);
    assert_eq!(db.count("select count(*) from durable.operation where act = 'deadline'").await, 0);
    kit.gate.open();
    // The furthest there is.
    assert!(durable.set_deadline("w", std::time::Duration::MAX).await?.is_some());
    for (call, code) in [
        ("select durable.set_deadline('w', '-1 s')", "22023"),
        ("select durable.set_deadline('', '1 s')", "22023"),
        ("select durable.set_deadline(null, '1 s')", "22004"),
        ("select durable.set_deadline('w', '1 s', repeat('x', 1001))", "22023"),
        ("select durable.set_deadline('nobody', '1 s')", "P0002"),
    ] {
        assert_eq!(refusal(&run(&db.pool, call).await.unwrap_err())?.0, code, "{call}");
    }
    Ok(())
}

/// A reply that was lost: the same call again is known, and does nothing more.
#[tokio::test]
async fn a_change_that_is_sent_twice_is_made_once() -> Result<()> {
    const CALL: &str = "
        select durable.change_deadline('w', '1 hour', null, '00000000-0000-0000-0000-000000000001')::text";
    let db = Db::new().await;
    let client = db.client().await;
    client.start(waits()).id("w").await?;
    let first = text(&db.pool, CALL).await?;
    assert_eq!(text(&db.pool, CALL).await?, first);
    assert_eq!(client.workflow::<()>("w").operations().await?.len(), 1);
    // Another operator comes between: the repetition does not undo that.
    let other = client.set_deadline("w", hours(9)).await?;
    text(&db.pool, CALL).await?;
    assert_eq!(client.workflow::<()>("w").info().await?.deadline_at, other);
    // And it is known after the end, too.
    client.cancel("w").await?;
    assert!(text(&db.pool, CALL).await?.ends_with(",,)"), "not refused");
    Ok(())
}

/// A deadline that passes while somebody moves it: whoever has the workflow's row first decides, and nobody waits for the other
/// in a circle.
#[tokio::test]
async fn a_deadline_that_is_moved_while_it_passes_does_not_end_the_workflow() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    client.start(waits()).id("w").deadline(seconds(0)).await?;
    let mut operator = db.pool.begin().await?;
    // What an operation does first.
    run(&mut *operator, "select durable.pause('w')").await?;
    let url = db.url().to_owned();
    let expiry = tokio::spawn(async move {
        let mut worker = PgConnection::connect(&url).await?;
        sqlx::query("select id from durable.expire('w')").fetch_all(&mut worker).await
    });
    db.until("select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock' and query like '%expire%'")
        .await;
    client.set_deadline("w", hours(1)).in_tx(&mut operator).await?;
    operator.commit().await?;
    assert_eq!(expiry.await??.len(), 0);
    let info = client.workflow::<()>("w").info().await?;
    assert!(info.is_paused() && info.deadline_at.is_some(), "{info:?}");
    Ok(())
}

/// The start waits for the parent's row, which whoever changes the deadline has; and does not take the old one then.
#[tokio::test]
async fn a_child_that_is_started_while_the_deadline_is_changed_has_the_new_one() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit).await?;
    durable.start(late_parent()).id("p").deadline(hours(1)).await?;
    kit.gate.reached().await;
    let mut operator = db.pool.begin().await?;
    let at = durable.set_deadline("p", days(3)).in_tx(&mut operator).await?;
    kit.gate.open();
    let starting = "select count(*) > 0 from pg_stat_activity
                    where wait_event_type = 'Lock' and query like '-- Start workflows as children%'";
    db.until(starting).await;
    operator.commit().await?;
    db.until("select count(*) > 0 from durable.workflow where id = 'late'").await;
    assert_eq!(durable.workflow::<()>("late").info().await?.deadline_at, at);
    Ok(())
}

/// P5: with the start or not at all.
#[tokio::test]
async fn sql_starts_a_workflow_with_a_deadline() -> Result<()> {
    const TRIGGER: &str = "
        create function placed() returns trigger language plpgsql as $$ begin
            perform durable.start('waits', id => 'row-' || new.name);
            perform durable.set_deadline('row-' || new.name, interval '2 hours');
            return null;
        end $$;
        create trigger placed after insert on application_row for each row execute function placed();";
    let (db, kit) = (Db::new().await, Kit::default());
    let clock = db.clock().await;
    let durable = db.builder().lease(seconds(600)).register(waits).state(kit.clone()).start().await?;
    run(&db.pool, TRIGGER).await?;
    let mut tx = db.pool.begin().await?;
    run(&mut *tx, "insert into application_row values ('never')").await?;
    tx.rollback().await?;
    run(&db.pool, "insert into application_row values ('1'), ('2')").await?;
    let at =
        text(&db.pool, "select durable.set_deadline(durable.start('waits', id => 'one'), '2 hours')::text").await?;
    assert!(!at.is_empty());
    for id in ["row-1", "row-2", "one"] {
        db.until_status(id, "suspended").await;
    }
    durable.send("row-2", GO, true).await?;
    durable.workflow::<String>("row-2").soon().await?;
    // Repeated, when it has ended: there is nothing left to do.
    assert_eq!(
        text(&db.pool, "select durable.set_deadline(durable.start('waits', id => 'row-2'), '2 hours')::text").await?,
        ""
    );
    assert_eq!(db.count("select count(*) from durable.deadline").await, 3);
    clock.advance(hours(3)).await?;
    drop(durable);
    let durable = worker(&db, &kit).await?;
    for id in ["row-1", "one"] {
        assert_eq!(kind_of(durable.workflow::<String>(id)).await?, FailureKind::Deadline, "{id}");
    }
    Ok(())
}

/// The grants for deadlines, as the manual tells them.
fn grants() -> &'static str {
    let manual = include_str!("../../../durable-core/docs/from_sql.md");
    let (_, from) = manual.split_once("-- And to give deadlines.").expect("the grants in the manual");
    from.split("```").next().expect("their end")
}

/// It gives one where there is none; and cannot move or take away what somebody else gave.
#[tokio::test]
async fn a_role_with_the_grants_of_the_manual_gives_deadlines_and_moves_none() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    client.start(waits()).id("has one").deadline(hours(1)).await?;
    let mut tx = db.pool.begin().await?;
    run(&mut *tx, "create role order_desk").await?;
    run(&mut *tx, super::from_sql_schema::grants()).await?;
    run(&mut *tx, grants()).await?;
    let gives = "select durable.set_deadline(durable.start('waits', id => 'new'), '1 hour', 'soon')";
    let mut tried = 0;
    for grant in grants().split(';').filter(|grant| grant.contains('(')) {
        let (right, rest) = grant.trim().split_once('(').expect("the columns of a grant");
        let (columns, on) = rest.split_once(')').expect("the columns of a grant");
        for column in columns.split(',') {
            let revoke = format!("{right} ({column}) {on}").replace("grant", "revoke").replace(" to ", " from ");
            let mut inner = tx.begin().await?;
            let without = format!("{revoke}; set local role order_desk; {gives}");
            let done = run(&mut *inner, &without).await;
            let refused = done.as_ref().err().map(refusal).transpose()?.map(|refused| refused.0);
            assert_eq!(refused.as_deref(), Some("42501"), "not needed: {revoke}");
            inner.rollback().await?;
            tried += 1;
        }
    }
    assert!(tried > 10, "{tried}");
    run(&mut *tx, "set local role order_desk").await?;
    for (call, may) in [
        (gives, true),
        ("select durable.set_deadline('has one', '9 hours')", false),
        ("select durable.set_deadline('has one', null)", false),
        ("delete from durable.deadline", false),
        ("select reason from durable.operation", false),
        ("select * from durable.deadline_change", false),
    ] {
        let mut inner = tx.begin().await?;
        let done = run(&mut *inner, call).await;
        inner.rollback().await?;
        assert_eq!(
            done.as_ref().err().map(refusal).transpose()?.map(|r| r.0),
            (!may).then(|| "42501".into()),
            "{call}"
        );
    }
    tx.rollback().await?;
    Ok(())
}

/// A handle and a list tell the same.
#[tokio::test]
async fn a_workflow_tells_its_parent_its_generation_and_its_deadline() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().register(rounds).register(waits).state(kit.clone()).start().await?;
    durable.start(rounds(2)).id("r").deadline(hours(1)).await?;
    db.until_status("child", "suspended").await;
    db.until_status("r", "suspended").await;
    let deadline = durable.workflow::<()>("r").info().await?.deadline_at;
    assert!(deadline.is_some());
    for (id, parent, generation) in [("r", None, 2), ("child", Some("r"), 0)] {
        let listed = durable.workflows().status(Status::Suspended).id_prefix(id).await?.workflows;
        for info in [durable.workflow::<()>(id).info().await?, listed[0].clone()] {
            assert_eq!(
                (info.parent.as_deref(), info.generation, info.deadline_at),
                (parent, generation, deadline),
                "{id}"
            );
        }
    }
    Ok(())
}

/// Begins anew so many times, and has a child in the end.
#[workflow]
async fn rounds(ctx: &Ctx, left: i64) -> Result<String> {
    ctx.run(work(format!("round {left}"))).await?;
    if left > 0 { ctx.continue_as_new(rounds(left - 1)).await } else { Ok(ctx.run(waits()).id("child").await?) }
}

/// The connection breaks in the middle: it is done once, and told as it is, whether it was done before that or not.
#[tokio::test]
async fn a_deadline_whose_reply_or_request_is_lost_is_set_once_and_told_as_it_is() -> Result<()> {
    let db = Db::new().await;
    let wire = Wire::to(&db);
    let durable = Durable::builder(wire.pool()).migrate(false).client().await?;
    for (id, lost) in [("request", Lost::Request), ("reply", Lost::Reply)] {
        durable.start(waits()).id(id).deadline(hours(9)).await?;
        for (reason, within) in [("sooner", Some(hours(1))), ("never", None)] {
            wire.forget();
            wire.lose("durable.change_deadline", lost);
            let at = durable.set_deadline(id, within).reason(reason).await?;
            let asked =
                wire.flights().iter().flat_map(|f| &f.statements).filter(|s| s.contains("change_deadline")).count();
            assert_eq!(asked, 2, "{id}: sent again");
            assert_eq!((durable.workflow::<()>(id).info().await?.deadline_at, at.is_some()), (at, within.is_some()));
        }
        let told = durable.workflow::<()>(id).operations().await?;
        let told: Vec<_> = told.iter().map(|o| (&*o.act, o.reason.as_deref(), o.deadline_at.is_some())).collect();
        assert_eq!(told, [("deadline", Some("sooner"), true), ("deadline", Some("never"), false)], "{id}");
    }
    // What it cannot be done to is told as well, however often it is asked.
    durable.cancel("reply").await?;
    for id in ["reply", "nobody"] {
        wire.lose("durable.change_deadline", Lost::Reply);
        let error = durable.set_deadline(id, hours(1)).await.unwrap_err();
        assert_eq!(error.kind(), if id == "reply" { ErrorKind::Finished } else { ErrorKind::NotFound });
    }
    Ok(())
}
