//! Workflows that share a statement: what is wrong with one of them is its own affair. And what stands already is not
//! written over, however it came there.
//!
//! Whole processes and servers that fail are `under_load`; how many statements there are is `batches`.

use std::time::Duration;

use anyhow::{Result, ensure};
use durable::{Builder, Ctx, Handle, StepCtx, hours, step, workflow};
use durable_tests::crowd::{CROWD, ids};
use durable_tests::db::{Db, PATIENCE};
use durable_tests::kit::{Kit, gated, work};
use sqlx::AssertSqlSafe;

/// One step that is held, and what the workflow does with its outcome.
#[workflow]
async fn asks(ctx: &Ctx, then: String) -> Result<String> {
    let answer = ctx.run(gated("own".into())).await?;
    match &*then {
        "a step" => Ok(ctx.run(work(answer)).await?),
        "a sleep" => {
            ctx.sleep(Duration::from_millis(50)).await?;
            Ok(answer)
        }
        "a failure" => {
            ensure!(answer == "former", "ended with the wrong outcome");
            Ok(answer)
        }
        _ => Ok(answer),
    }
}

/// P2, P9, P14: a former owner's record comes in while the step is in flight, under the same owner. The workflow goes on
/// from what stands there, whatever it was about to do with its own outcome: also to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_came_in_between_is_what_the_workflow_goes_on_from() -> Result<()> {
    const THEN: [&str; 4] = ["a step", "a sleep", "a failure", "its end"];
    let (db, kit) = (Db::new().await, Kit::default());
    let builder = db.builder().short_wait(Duration::from_millis(10)).lease(Duration::from_secs(600));
    let durable = builder.register(asks).state(kit.clone()).start().await?;
    let handles = durable.start_many(THEN.map(|then| (then, asks(then.to_owned())))).await?;
    for _ in THEN {
        kit.gate.reached().await;
    }
    let former = "insert into durable.step (bucket, workflow_id, lane, seq, kind, name, output, started_at)
                  select bucket, id, '', 0, 'step', 'gated', '\"former\"', durable.now() from durable.workflow";
    sqlx::query(former).execute(&db.pool).await?;
    THEN.iter().for_each(|_| kit.gate.open());

    for (handle, then) in handles.iter().zip(THEN) {
        assert_eq!(tokio::time::timeout(PATIENCE, handle.result()).await??, "former", "before {then}");
    }
    // Nobody began anything with the other outcome, and no body of a step ran again.
    assert_eq!((kit.log.count("own"), kit.log.count("former")), (THEN.len(), 1));
    let outcomes = "select string_agg(distinct output::text, ',') from durable.step where name in ('gated', 'work')";
    assert_eq!(db.text(outcomes).await, "\"former\"");
    assert_eq!(db.count("select count(*) from durable.step").await, THEN.len() as i64 + 2);
    assert_eq!(db.count("select max(recoveries)::bigint from durable.workflow").await, 0, "nobody was lost");
    Ok(())
}

#[step]
async fn refused(step: &StepCtx) -> Result<()> {
    step.state::<Kit>().gate.pass().await;
    Ok(())
}

/// Two steps that give the name back, the first of them held; or one that the database will not record.
#[workflow]
async fn one_of_many(ctx: &Ctx, name: String) -> Result<String> {
    if name == "refused" {
        ctx.run(refused()).await?;
    }
    let name = ctx.run(gated(name)).await?;
    Ok(ctx.run(work(name)).await?)
}

/// A worker with a crowd that stands at its gate. It hears nothing from its heartbeat for minutes.
async fn standing(db: &Db, kit: &Kit, ids: &[String]) -> Result<Vec<Handle<String>>> {
    let builder: Builder = db.builder().lease(Duration::from_secs(600)).max_recoveries(3);
    let durable = builder.register(one_of_many).state(kit.clone()).start().await?;
    let handles = durable.start_many(ids.iter().map(|id| (id.clone(), one_of_many(id.clone())))).await?;
    for _ in ids {
        kit.gate.reached().await;
    }
    Ok(handles)
}

async fn all_give_their_own(handles: &[Handle<String>], except: &[&str]) -> Result<()> {
    for handle in handles.iter().filter(|handle| !except.contains(&handle.id())) {
        assert_eq!(tokio::time::timeout(PATIENCE, handle.result()).await??, handle.id());
    }
    Ok(())
}

/// P16: an outcome that the database refuses parks its own workflow; those that came into the same statement complete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_cannot_be_recorded_takes_no_other_with_it() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let refuse = "alter table durable.step add constraint some_rule check (name <> 'refused')";
    sqlx::query(refuse).execute(&db.pool).await?;
    let mut ids = ids();
    ids[CROWD / 2] = "refused".to_owned();
    let handles = standing(&db, &kit, &ids).await?;
    // It comes to its gate again before it is parked.
    (0..CROWD * 2).for_each(|_| kit.gate.open());

    all_give_their_own(&handles, &["refused"]).await?;
    db.until_status("refused", "blocked").await;
    assert_eq!(db.text("select failure ->> 'kind' from durable.workflow where id = 'refused'").await, "poison");
    assert_eq!(db.count("select count(*) from durable.step where workflow_id = 'refused'").await, 0);
    let again = "select count(*) from durable.workflow where id <> 'refused' and (claims > 1 or recoveries > 0)";
    assert_eq!(db.count(again).await, 0, "workflows that did nothing wrong began again");
    Ok(())
}

/// Writes itself as JSON only until somebody minds.
#[derive(serde::Deserialize)]
struct Explosive(bool);

impl serde::Serialize for Explosive {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(!self.0, "the type of an argument panics");
        serializer.serialize_bool(self.0)
    }
}

#[step]
async fn takes(_explosive: Explosive) -> Result<()> {
    Ok(())
}

/// Alone, and beside another step.
#[workflow]
async fn gives(ctx: &Ctx, explosives: Vec<bool>) -> Result<()> {
    let steps = explosives.into_iter().map(|explodes| ctx.run(takes(Explosive(explodes))).into_future());
    futures::future::try_join_all(steps).await?;
    Ok(())
}

/// P16: what panics where the library itself calls the user's code, beside the bodies of steps, parks its own workflow.
#[tokio::test]
async fn an_argument_that_panics_when_it_is_written_parks_its_workflow_and_no_other() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().max_recoveries(1).register(gives).start().await?;
    durable.start(gives(vec![true])).id("explodes").await?;
    durable.start(gives(vec![false, true])).id("explodes beside another").await?;
    let other = durable.start(gives(vec![false])).id("does not").await?;

    for explodes in ["explodes", "explodes beside another"] {
        db.until_status(explodes, "blocked").await;
    }
    tokio::time::timeout(PATIENCE, other.result()).await??;
    let told = "select count(*) from durable.workflow where failure::text like '%the types of a step panicked%'";
    assert_eq!(db.count(told).await, 2);
    Ok(())
}

/// P9, P13: what was cancelled, and what another worker took over, without the committer's knowing, is left alone; and
/// those that came into the same statement get their own answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_outcome_does_not_touch_the_neighbours() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let handles = standing(&db, &kit, &ids()).await?;
    let (client, cancelled) = (db.client().await, "w-7");
    // It is answered when the worker has heard of it, and that is minutes away.
    let cancel = tokio::spawn(async move { client.cancel(cancelled).await });
    db.until_status(cancelled, "cancelled").await;
    let taken_over = "with other as (
                          insert into durable.worker (id, lease_until, host, pid, queue)
                          values (gen_random_uuid(), durable.now() + interval '1 h', 'elsewhere', 1, 'default')
                          returning id
                      )
                      update durable.workflow w set owner = other.id, claims = w.claims + 1
                      from other where w.id = 'w-9'";
    sqlx::query(taken_over).execute(&db.pool).await?;
    (0..CROWD).for_each(|_| kit.gate.open());

    all_give_their_own(&handles, &[cancelled, "w-9"]).await?;
    cancel.abort();
    assert_eq!(db.text("select status from durable.workflow where id = 'w-7'").await, "cancelled");
    assert_eq!(db.text("select status from durable.workflow where id = 'w-9'").await, "running");
    let theirs = "select count(*) from durable.step where workflow_id in ('w-7', 'w-9')";
    assert_eq!(db.count(theirs).await, 0);
    // Each is told of its own outcome: with a neighbour's answer they would have begun their second step.
    assert_eq!((kit.log.count("w-7"), kit.log.count("w-9")), (1, 1));
    assert_eq!(db.count("select count(*) from durable.step").await, 2 * (CROWD as i64 - 2));
    Ok(())
}

const LARGE: usize = 30 * 1024 * 1024;

#[step]
async fn large() -> Result<String> {
    Ok("x".repeat(LARGE))
}

#[workflow]
async fn produces(ctx: &Ctx) -> Result<usize> {
    Ok(ctx.run(large()).await?.len())
}

#[workflow]
async fn naps(ctx: &Ctx) -> Result<()> {
    Ok(ctx.sleep(hours(1)).await?)
}

/// P17: while the server takes its time with tens of megabytes of one workflow, all others go on, and the lease is
/// renewed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_output_holds_up_nobody_else() -> Result<()> {
    const OTHERS: usize = 200;
    let (db, kit) = (Db::new().await, Kit::default());
    let hold = "create function hold_large() returns trigger language plpgsql
                as $$ begin perform pg_advisory_xact_lock(1); return new; end $$;
                create trigger hold_large before insert on durable.step
                for each row when (new.name = 'large') execute function hold_large();";
    sqlx::raw_sql(AssertSqlSafe(hold)).execute(&db.pool).await?;
    let mut server = db.pool.acquire().await?;
    sqlx::query("select pg_advisory_lock(1)").execute(&mut *server).await?;
    let builder = db.builder().lease(Duration::from_secs(2)).state(kit.clone());
    let durable = builder.register(produces).register(one_of_many).register(naps).start().await?;
    let large = durable.start(produces()).id("large").await?;
    let held = "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'advisory'";
    db.until_count(held, |count| count == 1).await;

    let others = (0..OTHERS).map(|n| (format!("w-{n}"), one_of_many(format!("w-{n}"))));
    let handles = durable.start_many(others).await?;
    let sleeper = durable.start(naps()).await?;
    (0..OTHERS).for_each(|_| kit.gate.open());
    all_give_their_own(&handles, &[]).await?;
    db.until_status(sleeper.id(), "suspended").await;
    let lease = db.text("select max(lease_until)::text from durable.worker").await;
    while db.text("select max(lease_until)::text from durable.worker").await == lease {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(db.count(held).await, 1, "it is still held");

    sqlx::query("select pg_advisory_unlock(1)").execute(&mut *server).await?;
    assert_eq!(tokio::time::timeout(PATIENCE, large.result()).await??, LARGE);
    assert_eq!(db.count("select max(claims)::bigint from durable.workflow").await, 1);
    assert_eq!(db.count("select count(*) from durable.worker where fenced_at is not null").await, 0);
    Ok(())
}
