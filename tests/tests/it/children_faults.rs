//! Parents and children whose workers die, whose replies are lost, and whose connections are cut: each child is there once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use durable::testing::{TestDatabase, every_crash};
use durable::{Builder, Ctx, Durable, Status, workflow};
use durable_dev::ServerOptions;
use durable_tests::db::{APPLICATION_TABLES, Db, PATIENCE};
use durable_tests::family::{check, family, sum_of};
use durable_tests::island::Island;
use durable_tests::journey::{self, Outside, SHORT_WAIT};
use durable_tests::kit::{Kit, gated};
use durable_tests::soon::Soon;
use durable_tests::victim::{Orders, Victim};
use sqlx::PgPool;

use super::faults::{Cutter, Own, hang_commits, let_commits_go};

const VICTIM: &str = env!("CARGO_BIN_EXE_victim");

/// P1, P2, P6: a worker dies at each crash point of a family in turn, and another one finishes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_family_outlives_a_crash_at_every_point() -> Result<()> {
    let server = Db::new().await;
    let tables = |pool: PgPool| async move {
        sqlx::raw_sql(APPLICATION_TABLES).execute(&pool).await?;
        Ok(())
    };
    let db = TestDatabase::create(&server.pool, tables).await?;
    let worker = |builder: Builder, pool: PgPool| {
        durable_tests::family::register(builder).short_wait(SHORT_WAIT).state(Outside(pool))
    };
    let begin = |durable: Durable| async move {
        durable.start(family(0)).id("f").await?;
        Ok(())
    };
    let report = every_crash(db, worker, begin, |pool| async move { check(&pool, 1).await }).await?;
    report.assert_clean();
    for act in ["start children", "look at children", "commit what needs locks"] {
        for place in ["before", "after"] {
            let point = format!("{place} a call: {act}");
            assert!(report.points.contains(&point), "{point} in {:#?}", report.points);
        }
    }
    Ok(())
}

/// P6: no reply to any commit of theirs ever comes: not of a start, an end, a wake-up. Each stands, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_family_none_of_whose_commits_is_answered_has_each_child_once() -> Result<()> {
    const FAMILIES: i64 = 3;
    let own = Arc::new(Own::start(ServerOptions::new()).await?);
    // No takeover may help: what the worker does not find out by itself, nobody finds out.
    let durable = own.builder().lease(Duration::from_secs(3_600)).start().await?;
    hang_commits(&own).await?;
    let cutter = Cutter::begin(&own);
    for n in 0..FAMILIES {
        durable.start(family(n)).id(format!("f-{n}")).await?;
    }
    let mut sums = Vec::new();
    for n in 0..FAMILIES {
        sums.push(durable.workflow::<i64>(format!("f-{n}")).soon().await);
    }
    // Nobody waits for the orphans.
    let open = "select count(*) from durable.workflow where status in ('queued', 'running', 'suspended')";
    let began_at = Instant::now();
    while sqlx::query_scalar::<_, i64>(open).fetch_one(&own.outside).await? > 0 {
        assert!(began_at.elapsed() < PATIENCE, "some never end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let cuts = cutter.end().await?;
    let_commits_go(&own).await?;
    println!("commits without an answer: {cuts}");

    for (n, sum) in (0..).zip(sums) {
        assert_eq!(sum?, sum_of(n));
    }
    assert!(cuts > 30, "{cuts} commits without an answer");
    check(&own.outside, FAMILIES).await
}

/// P6: two processes that share a queue are killed again and again at random moments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_killed_at_random_lose_and_repeat_no_child() -> Result<()> {
    const KILLS: i64 = 8;
    const AT_ONCE: i64 = 3;
    let db = Db::new().await;
    let client = db.client().await;
    let orders = Orders { lease: Duration::from_millis(500), ..Orders::new(db.url()) };
    let mut victims = [Victim::begin(VICTIM, &orders).at_work().await, Victim::begin(VICTIM, &orders).at_work().await];
    for kill in 0..KILLS {
        let fresh = Victim::begin(VICTIM, &orders).at_work().await;
        for n in kill * AT_ONCE..(kill + 1) * AT_ONCE {
            client.start(family(n)).id(format!("f-{n}")).await?;
        }
        // The moment of death is what is random here; nothing is waited for.
        tokio::time::sleep(Duration::from_micros(uuid::Uuid::new_v4().as_u64_pair().0 % 300_000)).await;
        std::mem::replace(&mut victims[usize::from(kill % 2 == 1)], fresh).kill().await;
    }
    for n in 0..KILLS * AT_ONCE {
        // What has lost several workers in a row waits longer each time, up to a minute, and its parent with it.
        let family = client.workflow::<i64>(format!("f-{n}"));
        let Ok(sum) = tokio::time::timeout(PATIENCE * 3, family.result()).await else {
            let open = "select string_agg(row_to_json(w)::text, ' ') from (
                            select id, status, due_at, wakes, claims, recoveries, owner, waits from durable.workflow
                            where status not in ('completed', 'failed') order by id) as w";
            panic!("family {n} never ends: {}", db.text(open).await);
        };
        assert_eq!(sum?, sum_of(n));
    }
    db.until("select count(*) = 0 from durable.workflow where status in ('queued', 'running', 'suspended')").await;
    let lost = db.count("select count(*) from durable.workflow where recoveries > 0").await;
    let most = db.count("select max(recoveries)::bigint from durable.workflow").await;
    println!(
        "kills: {KILLS}; workflows that lost a worker after their last suspension: {lost}, at most {most} in a row"
    );
    check(&db.pool, KILLS * AT_ONCE).await
}

/// P17: every connection is cut, again and again, and no body hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_reach_no_family() -> Result<()> {
    const FAMILIES: i64 = 20;
    let db = Db::new().await;
    let durable = journey::register(db.builder(), db.pool.clone()).start().await?;
    for n in 0..FAMILIES {
        durable.start(family(n)).id(format!("f-{n}")).await?;
    }
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity
               where datname = current_database() and pid <> pg_backend_pid()";
    let open = "select count(*) from durable.workflow where status in ('queued', 'running', 'suspended')";
    let (mut cuts, began_at) = (0, Instant::now());
    while db.count(open).await > 0 {
        assert!(began_at.elapsed() < PATIENCE, "some never end");
        cuts += sqlx::query_scalar::<_, i64>(cut).fetch_one(&db.pool).await?;
        // Some time between the cuts, or nothing would ever go on.
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    println!("connections cut: {cuts}");
    assert!(cuts > 10, "{cuts} connections were cut");
    check(&db.pool, FAMILIES).await
}

#[workflow]
async fn slow_member(ctx: &Ctx) -> Result<i64> {
    ctx.run(gated("slow".into())).await?;
    Ok(7)
}

#[workflow]
async fn patient_parent(ctx: &Ctx) -> Result<i64> {
    Ok(ctx.run(slow_member()).await?)
}

/// P9, P10: the worker of a child is lost. The child is taken over, ends on another worker, and wakes its parent there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_is_taken_over_wakes_its_parent_all_the_same() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let builder = || db.builder().lease(Duration::from_secs(1)).register(slow_member).register(patient_parent);
    let island = Island::start(builder().state(kit.clone())).await;
    island.durable().start(patient_parent()).id("p").await?;
    kit.gate.reached().await;
    db.until_status("p", "suspended").await;
    let successor = builder().state(kit.clone()).start().await?;
    island.sink().await;
    kit.gate.reached().await;
    kit.gate.open();
    assert_eq!(successor.workflow::<i64>("p").soon().await?, 7);
    Ok(())
}

/// A fork takes the recorded start over, and waits for the very same child, whose end wakes only its real parent.
#[tokio::test]
async fn a_fork_waits_for_the_child_of_its_source() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let clock = db.clock().await;
    let durable = db.builder().lease(Duration::from_secs(600)).register(slow_member).register(patient_parent);
    let durable = durable.state(kit.clone()).start().await?;
    durable.start(patient_parent()).id("p").await?;
    kit.gate.reached().await;
    db.until_status("p", "suspended").await;

    let fork = durable.fork::<i64>("p", 1).id("again").await?;
    db.until_status("again", "suspended").await;
    assert_eq!(db.count("select count(*) from durable.waiting where id = 'again' and until is not null").await, 1);
    // A cancellation of the fork does not reach it.
    let doomed = durable.fork::<i64>("p", 1).id("doomed").await?;
    db.until_status("doomed", "suspended").await;
    durable.cancel("doomed").await?;
    assert_eq!(durable.workflow::<i64>("p/0").status().await?, Status::Running);

    kit.gate.open();
    assert_eq!(durable.workflow::<i64>("p").soon().await?, 7);
    clock.advance(Duration::from_secs(6)).await?;
    assert_eq!(fork.soon().await?, 7);
    drop(doomed);
    // From before the start on it has a child of its own.
    let fresh = durable.fork::<i64>("p", 0).id("fresh").await?;
    kit.gate.reached().await;
    kit.gate.open();
    assert_eq!(fresh.soon().await?, 7);
    assert_eq!(db.text("select string_agg(id, ' ' order by id) from durable.child").await, "fresh/0 p/0");
    Ok(())
}
