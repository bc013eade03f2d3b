//! Limits around steps: how many calls run, how many begin in a time, and what becomes of those who wait.

use std::time::Duration;

use anyhow::{Result, ensure};
use durable::testing::{TestDatabase, every_crash};
use durable::{Builder, Ctx, Durable, ErrorKind, Limit, Status, StepCtx, minutes, seconds, step, workflow};
use durable_tests::calls::{self, LIMITED, limited_call};
use durable_tests::db::{Db, PATIENCE};
use durable_tests::journey::Outside;
use durable_tests::kit::Kit;
use durable_tests::soon::Soon;
use durable_tests::victim::{Orders, Victim};
use sqlx::PgPool;

const VICTIM: &str = env!("CARGO_BIN_EXE_victim");

/// Comes to the gate while it is let go by the limit.
#[step(limit = "model")]
async fn ask(step: &StepCtx, name: String) -> Result<()> {
    let kit: &Kit = step.state();
    kit.log.note(name);
    kit.gate.pass().await;
    Ok(())
}

#[workflow]
async fn agent(ctx: &Ctx) -> Result<()> {
    ctx.run(ask(ctx.id().to_owned())).await?;
    Ok(())
}

async fn worker(db: &Db, kit: &Kit, limit: Limit) -> Result<Durable> {
    Ok(db.builder().register(agent).state(kit.clone()).limit(limit).start().await?)
}

async fn start(durable: &Durable, many: usize) -> Result<()> {
    for n in 0..many {
        durable.start(agent()).id(format!("w-{n}")).await?;
    }
    Ok(())
}

async fn all_end(durable: &Durable, many: usize) -> Result<()> {
    for n in 0..many {
        durable.workflow::<()>(format!("w-{n}")).soon().await?;
    }
    Ok(())
}

/// P21.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_calls_run_at_once_than_the_limit_allows_over_all_workers() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let limit = || Limit::new("model").concurrency(3);
    let one = worker(&db, &kit, limit()).await?;
    let other = worker(&db, &kit, limit()).await?;
    start(&one, 5).await?;
    for n in 5..10 {
        other.start(agent()).id(format!("w-{n}")).await?;
    }
    for _ in 0..3 {
        kit.gate.reached().await;
    }
    // Long enough for several askings of each.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(kit.log.entries().len(), 3);
    let limits = one.limits().await?;
    assert_eq!((limits.len(), limits[0].running, &limits[0].limit), (1, 3, &limit()));
    for _ in 0..10 {
        kit.gate.open();
    }
    all_end(&one, 10).await?;
    db.until("select sum(held) = 0 from durable.step_permit").await;
    Ok(())
}

/// P21.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_runs_no_more_than_its_part_and_the_line_keeps_its_order() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit, Limit::new("model").concurrency_per_worker(1)).await?;
    for n in 0..6 {
        durable.start(agent()).id(format!("w-{n}")).await?;
        if n == 0 {
            kit.gate.reached().await;
        } else {
            // It has come into the line before the next one does.
            let id = format!("w-{n}");
            db.until_status(&id, "running").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(kit.log.entries(), ["w-0"]);
    for _ in 0..6 {
        kit.gate.open();
    }
    all_end(&durable, 6).await?;
    assert_eq!(kit.log.entries(), ["w-0", "w-1", "w-2", "w-3", "w-4", "w-5"]);
    Ok(())
}

/// Who waits for a rate is a row, costs few statements, and comes in turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_wait_long_for_a_rate_are_rows_and_have_turns() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    for _ in 0..100 {
        kit.gate.open();
    }
    let durable = worker(&db, &kit, Limit::new("model").rate(5, minutes(1))).await?;
    start(&durable, 20).await?;
    db.until("select count(*) = 15 from durable.workflow where status = 'suspended' and owner is null").await;
    assert_eq!(kit.log.entries().len(), 5);
    let turns = "select count(distinct due_at) from durable.workflow where status = 'suspended'";
    assert_eq!(db.count(turns).await, 15);
    let asked = "select sum(n)::bigint from durable.step_permit";
    let clock = db.clock().await;
    for minute in 0..10 {
        if db.count("select count(*) from durable.workflow where status <> 'completed'").await == 0 {
            break;
        }
        ensure!(minute < 9, "they never end");
        clock.advance(seconds(61)).await?;
        // Whoever may go has gone, or has another turn.
        db.until(
            "select count(*) = 0 from durable.workflow where status in ('queued', 'running')
                  or status = 'suspended' and due_at <= durable.now()",
        )
        .await;
    }
    all_end(&durable, 20).await?;
    assert!(db.count(asked).await <= 100, "{} askings for 20 calls", db.count(asked).await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_whose_limit_nobody_has_declared_blocks_its_workflow_until_somebody_does() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().register(agent).state(kit.clone()).start().await?;
    let handle = durable.start(agent()).id("w-0").await?;
    db.until_status("w-0", "blocked").await;
    let failure = db.text("select failure::text from durable.workflow").await;
    assert!(failure.contains("model") && failure.contains("Builder::limit"), "{failure}");
    assert!(kit.log.entries().is_empty());
    durable.set_limit(Limit::new("model").concurrency(1)).await?;
    kit.gate.open();
    durable.resume("w-0").await?;
    handle.soon().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_limit_lets_no_call_begin_and_a_cancellation_is_at_once() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit, Limit::new("model").concurrency(5)).await?;
    durable.pause_limit("model").await?;
    start(&durable, 2).await?;
    db.until("select count(*) = 2 from durable.workflow where status = 'suspended'").await;
    assert!(durable.limits().await?[0].is_paused && kit.log.entries().is_empty());
    durable.cancel("w-0").await?;
    db.until_status("w-0", "cancelled").await;
    durable.resume_limit("model").await?;
    db.clock().await.advance(seconds(60)).await?;
    kit.gate.open();
    durable.workflow::<()>("w-1").soon().await?;
    assert_eq!(kit.log.entries(), ["w-1"]);
    Ok(())
}

/// One that is cancelled while it waits in memory leaves its place to the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cancelled_in_the_line_leaves_nothing_behind() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = worker(&db, &kit, Limit::new("model").concurrency(1)).await?;
    start(&durable, 1).await?;
    kit.gate.reached().await;
    durable.start(agent()).id("w-1").await?;
    durable.start(agent()).id("w-2").await?;
    durable.cancel("w-1").await?;
    kit.gate.open();
    kit.gate.open();
    durable.workflow::<()>("w-2").soon().await?;
    db.until("select sum(held) = 0 from durable.step_permit").await;
    assert_eq!(kit.log.entries(), ["w-0", "w-2"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_change_while_everything_runs_and_a_declaration_changes_only_what_it_declared() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let declared = || Limit::new("model").concurrency(1);
    let durable = worker(&db, &kit, declared()).await?;
    start(&durable, 3).await?;
    kit.gate.reached().await;
    durable.set_limit(Limit::new("model").concurrency(3)).await?;
    kit.gate.reached().await;
    kit.gate.reached().await;
    let _same = worker(&db, &kit, declared()).await?;
    assert_eq!(durable.limits().await?[0].limit, Limit::new("model").concurrency(3));
    let _another = worker(&db, &kit, Limit::new("model").rate(7, seconds(1))).await?;
    assert_eq!(durable.limits().await?[0].limit, Limit::new("model").rate(7, seconds(1)));
    for _ in 0..3 {
        kit.gate.open();
    }
    all_end(&durable, 3).await?;
    durable.remove_limit("model").await?;
    assert_eq!(durable.remove_limit("model").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(durable.pause_limit("model").await.unwrap_err().kind(), ErrorKind::NotFound);
    Ok(())
}

#[tokio::test]
async fn limits_that_cannot_work_are_refused() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    for wrong in [
        Limit::new("x").concurrency(0),
        Limit::new("x").concurrency_per_worker(0),
        Limit::new("x").rate(0, seconds(1)),
        Limit::new("x").rate(1, Duration::ZERO),
        Limit::new("x").rate(1, Duration::from_secs(400 * 86_400)),
        Limit::new(""),
    ] {
        assert_eq!(client.set_limit(wrong.clone()).await.unwrap_err().kind(), ErrorKind::Usage, "{wrong:?}");
    }
    let twice = db.builder().register(agent).limit(Limit::new("x")).limit(Limit::new("x")).start().await;
    assert!(twice.err().is_some_and(|error| error.to_string().contains("declared twice")));
    Ok(())
}

/// An asking that comes late changes nothing, and one that is sent again takes nothing twice.
#[tokio::test]
async fn an_asking_whose_answer_was_lost_leaves_nothing_behind() -> Result<()> {
    let db = Db::new().await;
    db.client().await.set_limit(Limit::new("model").concurrency(2)).await?;
    sqlx::raw_sql(
        "insert into durable.worker (id, lease_until, host, pid, queue)
         values ('00000000-0000-0000-0000-000000000001', now() + interval '1 h', 'h', 1, 'q'),
                ('00000000-0000-0000-0000-000000000002', now() + interval '1 h', 'h', 2, 'q')",
    )
    .execute(&db.pool)
    .await?;
    let ask = async |worker: u32, n: i64, held: i32, wanted: i32| -> Result<(String, Option<i32>)> {
        let sql = "select state, newcomers_begin
                   from durable.ask_limit('model', lpad($1::text, 32, '0')::uuid, $2, $3, 0, 0, $4, null)";
        let worker = i32::try_from(worker)?;
        Ok(sqlx::query_as(sql).bind(worker).bind(n).bind(held).bind(wanted).fetch_one(&db.pool).await?)
    };
    assert_eq!(ask(1, 1, 0, 2).await?, ("asked".into(), Some(2)));
    // The answer was lost.
    assert_eq!(ask(1, 2, 0, 2).await?, ("asked".into(), Some(2)));
    assert_eq!(ask(1, 1, 0, 2).await?, ("stale".into(), None));
    assert_eq!(ask(2, 1, 0, 1).await?, ("asked".into(), Some(0)));
    // What a fenced worker held is free.
    sqlx::raw_sql("update durable.worker set fenced_at = now() where pid = 1").execute(&db.pool).await?;
    assert_eq!(ask(1, 3, 0, 1).await?, ("fenced".into(), None));
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(ask(2, 2, 0, 3).await?, ("asked".into(), Some(2)));
    Ok(())
}

/// P21, P3: three processes share a limit. They are killed at random, and one is frozen past its lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_steps_hold_while_workers_are_killed_and_frozen() -> Result<()> {
    const KILLS: usize = 5;
    const CALLS: usize = 150;
    let db = Db::new().await;
    sqlx::raw_sql(LIMITED).execute(&db.pool).await?;
    let client = db.client().await;
    let orders = Orders { lease: Duration::from_millis(800), serves_calls: true, ..Orders::new(db.url()) };
    let begin = || async { Victim::begin(VICTIM, &orders).at_work().await };
    let mut victims = vec![begin().await, begin().await, begin().await];
    let ids: Vec<String> = (0..CALLS).map(|n| format!("c-{n}")).collect();
    for id in &ids {
        client.start(limited_call()).id(id).await?;
    }
    for kill in 0..KILLS {
        // The moment of death is what is random here; nothing is waited for.
        tokio::time::sleep(Duration::from_micros(uuid::Uuid::new_v4().as_u64_pair().0 % 400_000)).await;
        if kill % 3 == 2 {
            victims[0].freeze().await;
            tokio::time::sleep(orders.lease * 2).await;
            victims[0].thaw().await;
        }
        victims.remove(1).kill().await;
        victims.push(begin().await);
    }
    for id in &ids {
        let ended = tokio::time::timeout(PATIENCE * 2, client.workflow::<()>(id).result()).await;
        ensure!(ended.is_ok(), "{id} never ends: {:?}", client.limits().await?);
        ended??;
    }
    calls::check_limited(&db.pool).await
}

/// P3, P21: a worker dies at each crash point in turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_outlives_a_crash_at_every_point() -> Result<()> {
    let server = Db::new().await;
    let tables = |pool: PgPool| async move {
        sqlx::raw_sql(LIMITED).execute(&pool).await?;
        Ok(())
    };
    let db = TestDatabase::create(&server.pool, tables).await?;
    let worker = |builder: Builder, pool: PgPool| {
        let limit = Limit::new("calls").concurrency(1).rate(2, seconds(60));
        builder.register(limited_call).state(Outside(pool)).limit(limit)
    };
    let begin = |durable: Durable| async move {
        for id in ["a", "b", "c"] {
            durable.start(limited_call()).id(id).await?;
        }
        Ok(())
    };
    let check = |pool: PgPool| async move {
        let left: i64 = sqlx::query_scalar("select count(*) from durable.workflow where status <> $1")
            .bind(Status::Completed.as_str())
            .fetch_one(&pool)
            .await?;
        ensure!(left == 0, "{left} have not completed");
        Ok(())
    };
    every_crash(db, worker, begin, check).await?.assert_clean();
    Ok(())
}
