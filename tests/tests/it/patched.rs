//! Patches: workflows that have passed the place go the old way, others the new one, on every run; and how a patch retires.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use durable::testing::{TestDatabase, every_crash};
use durable::{Builder, Ctx, Durable, FailureKind, PgConnection, StepCtx, Topic, days, hours, step, workflow};
use durable_dev::ServerOptions;
use durable_tests::db::{APPLICATION_TABLES, Db};
use durable_tests::island::Island;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;
use sqlx::{AssertSqlSafe, PgPool};

use super::faults::{Cutter, Own, hang_commits, let_commits_go};

const WORD: Topic<String> = Topic::new("word");

/// The code of five deploys, each under the name and version of the first.
mod deploys {
    use super::*;

    #[workflow(name = "sell")]
    pub async fn first(ctx: &Ctx) -> Result<String> {
        ctx.run(work("pack".to_owned())).await?;
        let held = ctx.run(gated("hold".to_owned())).await?;
        ctx.run(work("charge".to_owned())).await?;
        Ok(format!("{held}, the old way"))
    }

    #[workflow(name = "sell")]
    pub async fn patched(ctx: &Ctx) -> Result<String> {
        ctx.run(work("pack".to_owned())).await?;
        let way = if ctx.patched("check").await {
            ctx.run(work("check".to_owned())).await?;
            "new"
        } else {
            "old"
        };
        let held = ctx.run(gated("hold".to_owned())).await?;
        ctx.run(work("charge".to_owned())).await?;
        Ok(format!("{held}, the {way} way"))
    }

    #[workflow(name = "sell")]
    pub async fn deprecated(ctx: &Ctx) -> Result<String> {
        ctx.run(work("pack".to_owned())).await?;
        ctx.deprecate_patch("check").await;
        ctx.run(work("check".to_owned())).await?;
        let held = ctx.run(gated("hold".to_owned())).await?;
        ctx.run(work("charge".to_owned())).await?;
        Ok(format!("{held}, without the old way"))
    }

    #[workflow(name = "sell")]
    pub async fn retired(ctx: &Ctx) -> Result<String> {
        ctx.run(work("pack".to_owned())).await?;
        ctx.run(work("check".to_owned())).await?;
        let held = ctx.run(gated("hold".to_owned())).await?;
        ctx.run(work("charge".to_owned())).await?;
        Ok(format!("{held}, without the patch"))
    }
}

/// A worker with some code, whose workflow is left behind held in its gated step.
async fn leave_behind(db: &Db, kit: &Kit, register: impl Fn(Builder) -> Builder, id: &str) -> Result<()> {
    let island = Island::start(register(db.builder()).state(kit.clone())).await;
    island.durable().start(deploys::first()).id(id).await?;
    kit.gate.reached().await;
    island.sink().await;
    Ok(())
}

/// Take a workflow up with some code, and see it to its end.
async fn go_on(db: &Db, kit: &Kit, register: impl Fn(Builder) -> Builder, id: &str) -> Result<String> {
    let durable = register(db.builder()).state(kit.clone()).start().await?;
    kit.gate.reached().await;
    kit.gate.open();
    let end = durable.workflow::<String>(id).soon().await?;
    durable.shutdown(hours(1)).await;
    Ok(end)
}

#[tokio::test]
async fn a_workflow_that_has_passed_the_place_goes_the_old_way() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    // Recorded beyond the place: the gated step is not, but the one after it will be.
    let old = db.builder().register(deploys::first).state(kit.clone()).start().await?;
    old.start(deploys::first()).id("s").await?;
    kit.gate.reached().await;
    kit.gate.open();
    old.workflow::<String>("s").soon().await?;
    old.shutdown(hours(1)).await;
    sqlx::raw_sql(
        "update durable.workflow set status = 'queued', due_at = now(), output = null, finished_at = null;
         delete from durable.step where seq = 2",
    )
    .execute(&db.pool)
    .await?;
    let new = db.builder().register(deploys::patched).state(kit.clone()).start().await?;
    assert_eq!(new.workflow::<String>("s").soon().await?, "hold, the old way");
    assert_eq!(kit.log.entries(), ["pack", "hold", "charge", "charge"]);
    assert_eq!(db.count("select count(*) from durable.step where kind = 'patch'").await, 0);
    Ok(())
}

/// The three deploys that bring a patch in and out again, each with a workflow that the one before has left behind.
#[tokio::test]
async fn a_patch_comes_and_goes_in_three_deploys() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    // Nothing is recorded yet at the place: it is passed for the first time.
    leave_behind(&db, &kit, |b| b.register(deploys::patched), "one").await?;
    let markers = "select count(*) from durable.step where kind = 'patch' and name = 'check' and seq = 1";
    assert_eq!(db.count(markers).await, 1);
    assert_eq!(go_on(&db, &kit, |b| b.register(deploys::patched), "one").await?, "hold, the new way");

    leave_behind(&db, &kit, |b| b.register(deploys::patched), "two").await?;
    assert_eq!(go_on(&db, &kit, |b| b.register(deploys::deprecated), "two").await?, "hold, without the old way");

    leave_behind(&db, &kit, |b| b.register(deploys::deprecated), "three").await?;
    assert_eq!(db.count(markers).await, 2, "the second deploy marks nothing");
    assert_eq!(go_on(&db, &kit, |b| b.register(deploys::retired), "three").await?, "hold, without the patch");
    assert_eq!(kit.log.count("check"), 3);
    Ok(())
}

/// P15: and the failure says what to put back; with that, it goes on.
#[tokio::test]
async fn code_that_has_lost_a_patch_too_early_is_blocked_with_advice() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    leave_behind(&db, &kit, |b| b.register(deploys::patched), "s").await?;
    let durable = db.builder().register(deploys::retired).state(kit.clone()).start().await?;
    db.until_status("s", "blocked").await;
    let failure = durable.workflow::<String>("s").info().await?.failure.expect("a failure");
    assert_eq!(failure.kind(), FailureKind::Mismatch);
    let message = failure.message();
    assert!(
        message.contains("at position 1 the history has patch \"check\", the code asks for step \"work\""),
        "{message}"
    );
    assert!(message.contains("put ctx.deprecate_patch(\"check\")"), "{message}");
    durable.shutdown(hours(1)).await;

    let mended = db.builder().register(deploys::deprecated).state(kit.clone()).start().await?;
    // Unless the start of the mended code has done so.
    drop(mended.resume("s").await);
    kit.gate.reached().await;
    kit.gate.open();
    assert_eq!(mended.workflow::<String>("s").soon().await?, "hold, without the old way");
    Ok(())
}

#[workflow(name = "wait")]
async fn waits_first(ctx: &Ctx, for_word: bool) -> Result<String> {
    if for_word {
        return Ok(ctx.receive(WORD).await?);
    }
    ctx.sleep(days(7)).await?;
    Ok("slept".to_owned())
}

#[workflow(name = "wait")]
async fn waits_patched(ctx: &Ctx, for_word: bool) -> Result<String> {
    let way = if ctx.patched("wait").await { "the new way" } else { "the old way" };
    if for_word {
        return Ok(format!("{} {way}", ctx.receive(WORD).await?));
    }
    ctx.sleep(days(7)).await?;
    Ok(format!("slept {way}"))
}

/// A sleep has no record before it is over. It would start over behind a marker.
#[tokio::test]
async fn a_workflow_that_waits_at_the_place_has_passed_it() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let old = db.builder().register(waits_first).start().await?;
    old.start(waits_first(false)).id("sleeps").await?;
    old.start(waits_first(true)).id("listens").await?;
    db.until_status("sleeps", "suspended").await;
    db.until_status("listens", "suspended").await;
    old.shutdown(hours(1)).await;
    clock.advance(days(6)).await?;

    let new = db.builder().register(waits_patched).start().await?;
    new.send("listens", WORD, "word".into()).await?;
    assert_eq!(new.workflow::<String>("listens").soon().await?, "word the old way");
    clock.advance(days(1)).await?;
    assert_eq!(new.workflow::<String>("sleeps").soon().await?, "slept the old way");

    let fresh = new.start(waits_patched(false)).id("fresh").await?;
    db.until_status("fresh", "suspended").await;
    assert_eq!(db.count("select count(*) from durable.step where kind = 'patch'").await, 1, "written before it waits");
    clock.advance(days(7)).await?;
    assert_eq!(fresh.soon().await?, "slept the new way");
    Ok(())
}

#[workflow(name = "loop")]
async fn rounds(ctx: &Ctx, rounds: i64) -> Result<Vec<bool>> {
    let mut ways = Vec::new();
    for n in 0..rounds {
        let patched = ctx.patched("round").await;
        ways.push(patched);
        if patched {
            ctx.run(work(format!("check {n}"))).await?;
        }
        ctx.run(work(n.to_string())).await?;
    }
    Ok(ways)
}

/// The same place again and again, with a history of several pages, and one that was written by code without the patch.
#[tokio::test]
async fn each_round_of_a_loop_is_asked_for_itself_however_long_the_history_is() -> Result<()> {
    const OLD: i64 = 3_000;
    let (db, kit) = (Db::new().await, Kit::default());
    let script = format!(
        "insert into durable.step (bucket, workflow_id, lane, seq, kind, name, output, started_at)
         select durable.bucket('l'), 'l', '', n, 'step', 'work', to_json(n::text), now() from generate_series(0, {OLD} - 1) n;
         insert into durable.workflow (bucket, id, name, version, queue, status, due_at, claims, input)
         values (durable.bucket('l'), 'l', 'loop', 1, 'default', 'queued', now(), 1, '{}')",
        OLD + 3
    );
    sqlx::raw_sql(AssertSqlSafe(script)).execute(&db.pool).await?;
    let durable = db.builder().register(rounds).state(kit.clone()).start().await?;
    let expected: Vec<bool> = (0..OLD + 3).map(|n| n >= OLD).collect();
    assert_eq!(durable.workflow::<Vec<bool>>("l").soon().await?, expected);
    assert_eq!(kit.log.entries().len(), 6);

    // With the markers, from the history alone.
    sqlx::query("update durable.workflow set status = 'queued', due_at = now(), output = null, finished_at = null")
        .execute(&db.pool)
        .await?;
    assert_eq!(durable.workflow::<Vec<bool>>("l").soon().await?, expected);
    assert_eq!(kit.log.entries().len(), 6);
    Ok(())
}

/// Items of a fan-out, side by side, each with a place of its own.
async fn item(ctx: &Ctx, n: i64, asks: bool) -> Result<bool> {
    ctx.run(work(format!("{n} begins"))).await?;
    let patched = asks && ctx.patched("item").await;
    if patched {
        ctx.run(work(format!("{n} is checked"))).await?;
    }
    let held = ctx.run(gated(format!("{n} ends"))).await?;
    ensure!(held == format!("{n} ends"), "{held}");
    Ok(patched)
}

#[workflow(name = "items")]
async fn items(ctx: &Ctx, count: i64) -> Result<Vec<bool>> {
    ctx.fan_out(0..count, 2, async |ctx: &Ctx, n: i64| item(ctx, n, false).await).await.into_iter().collect()
}

#[workflow(name = "items")]
async fn items_patched(ctx: &Ctx, count: i64) -> Result<Vec<bool>> {
    ctx.fan_out(0..count, 2, async |ctx: &Ctx, n: i64| item(ctx, n, true).await).await.into_iter().collect()
}

/// Two are under way when the code changes, the others come later; and twice in the middle the worker is lost.
#[tokio::test]
async fn lanes_side_by_side_are_asked_each_for_itself() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let old = Island::start(db.builder().register(items).state(kit.clone())).await;
    old.durable().start(items(6)).id("i").await?;
    for _ in 0..2 {
        kit.gate.reached().await;
    }
    kit.gate.open();
    // One of the first two has ended, the third has come to its end, which is not recorded.
    kit.gate.reached().await;
    db.until("select count(*) >= 4 from durable.step").await;
    old.sink().await;
    let ended = db.count("select count(*) from durable.step where name = 'gated'").await;
    assert_eq!(ended, 1);

    let second = Island::start(db.builder().register(items_patched).state(kit.clone())).await;
    for _ in 0..2 {
        kit.gate.reached().await;
    }
    second.sink().await;
    let third = db.builder().register(items_patched).state(kit.clone()).start().await?;
    for _ in 0..6 {
        kit.gate.open();
    }
    let ways = third.workflow::<Vec<bool>>("i").soon().await?;
    // Only the one whose end was recorded had passed the place.
    assert_eq!(ways.iter().filter(|new| **new).count(), 5, "{ways:?}");
    assert_eq!(db.count("select count(*) from durable.step where kind = 'patch'").await, 5);
    let checks = (0..6).filter(|n| kit.log.count(&format!("{n} is checked")) > 0).count();
    assert_eq!(checks, 5);
    Ok(())
}

#[workflow(name = "joined")]
async fn joined(ctx: &Ctx) -> Result<String> {
    let (first, second) = tokio::join!(ctx.run(gated("first".to_owned())), ctx.run(work("second".to_owned())));
    Ok(format!("{} and {}", first?, second?))
}

#[workflow(name = "joined")]
async fn joined_patched(ctx: &Ctx) -> Result<String> {
    if ctx.patched("before both").await {
        ctx.run(work("zeroth".to_owned())).await?;
    }
    let (first, second) = tokio::join!(ctx.run(gated("first".to_owned())), ctx.run(work("second".to_owned())));
    Ok(format!("{} and {}", first?, second?))
}

/// Of two that were begun together, the second one is recorded, and nothing at the place itself.
#[tokio::test]
async fn what_is_recorded_further_on_in_the_lane_shows_that_the_place_was_passed() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let old = Island::start(db.builder().register(joined).state(kit.clone())).await;
    old.durable().start(joined()).id("j").await?;
    kit.gate.reached().await;
    db.until("select count(*) = 1 from durable.step").await;
    old.sink().await;
    let new = db.builder().register(joined_patched).state(kit.clone()).start().await?;
    kit.gate.reached().await;
    kit.gate.open();
    assert_eq!(new.workflow::<String>("j").soon().await?, "first and second");
    assert_eq!(kit.log.count("zeroth"), 0);
    Ok(())
}

#[workflow]
async fn careless(ctx: &Ctx, how: String) -> Result<bool> {
    Ok(match &*how {
        "beside a step" => {
            let (patched, worked) = tokio::join!(ctx.patched("x"), ctx.run(work("w".to_owned())));
            worked?;
            patched
        }
        "two together" => {
            let (one, other) = tokio::join!(ctx.patched("x"), ctx.patched("y"));
            one && other
        }
        "without an id" => ctx.patched("").await,
        // Its position was taken when it was described, on every run.
        "behind a step" => {
            let step = ctx.run(work("w".to_owned()));
            let patched = ctx.patched("x").await;
            step.await?;
            patched
        }
        "twice" => ctx.patched("x").await && ctx.patched("x").await,
        _ => false,
    })
}

#[tokio::test]
async fn what_stands_next_is_not_known_before_a_patch_has_answered() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().register(careless).state(kit.clone()).start().await?;
    for (how, advice) in
        [("beside a step", "still under way"), ("two together", "still under way"), ("without an id", "is empty")]
    {
        durable.start(careless(how.into())).id(how).await?;
        db.until_status(how, "blocked").await;
        let failure = durable.workflow::<bool>(how).info().await?.failure.expect("a failure");
        assert!(failure.message().contains(advice), "{how}: {failure}");
    }
    for how in ["behind a step", "twice"] {
        assert!(durable.start(careless(how.into())).id(how).await?.soon().await?);
    }
    assert_eq!(db.count("select count(*) from durable.step where kind = 'patch' and workflow_id = 'twice'").await, 2);
    Ok(())
}

#[step(tx)]
async fn book(tx: &mut PgConnection, step: &StepCtx, what: String) -> Result<()> {
    sqlx::query("insert into application_row values ($1, $2)").bind(what).bind(step.key()).execute(tx).await?;
    Ok(())
}

/// The new way begins with what records itself, so that a marker which is not written before that would be missed.
#[workflow]
async fn booked(ctx: &Ctx, pause_ms: u64) -> Result<()> {
    if ctx.patched("first").await {
        ctx.run(book("first".to_owned())).await?;
    }
    ctx.sleep(Duration::from_millis(pause_ms)).await?;
    let branched = ctx.branch(async |ctx: &Ctx| {
        if ctx.patched("second").await {
            ctx.run(book("second".to_owned())).await?;
        }
        anyhow::Ok(())
    });
    branched.await?;
    if ctx.patched("third").await {
        ctx.receive(WORD).await?;
    }
    ctx.run(book("last".to_owned())).await?;
    Ok(())
}

async fn all_was_booked(pool: PgPool) -> Result<()> {
    let booked: Vec<(String, String)> =
        sqlx::query_as("select name, value from application_row where name <> 'probe' order by value")
            .fetch_all(&pool)
            .await?;
    let shown: Vec<String> = booked.iter().map(|(name, key)| format!("{name} {key}")).collect();
    ensure!(shown == ["first b/1", "second b/3.1", "last b/6"], "{shown:?}");
    let markers: i64 =
        sqlx::query_scalar("select count(*) from durable.step where kind = 'patch'").fetch_one(&pool).await?;
    ensure!(markers == 3, "{markers} markers");
    Ok(())
}

async fn begin_booking(durable: Durable, pause_ms: u64) -> Result<()> {
    durable.start(booked(pause_ms)).id("b").await?;
    durable.send("b", WORD, "go".into()).key("k").await?;
    Ok(())
}

/// P1, P15: wherever a worker dies, the next one goes the way that the first one went.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_patched_workflow_outlives_a_crash_at_every_point() -> Result<()> {
    let server = Db::new().await;
    let tables = |pool: PgPool| async move {
        sqlx::raw_sql(APPLICATION_TABLES).execute(&pool).await?;
        Ok(())
    };
    let db = TestDatabase::create(&server.pool, tables).await?;
    let worker = |builder: Builder, _: PgPool| builder.register(booked);
    let begin = |durable: Durable| begin_booking(durable, 3_600_000);
    let report = every_crash(db, worker, begin, all_was_booked).await?;
    report.assert_clean();
    assert!(report.points.len() >= 40, "{:#?}", report.points);
    Ok(())
}

/// The same when no reply to any commit ever comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn markers_whose_commits_are_not_answered_are_there_once() -> Result<()> {
    let own = Arc::new(Own::start(ServerOptions::new()).await?);
    let builder = own.builder().register(booked).short_wait(Duration::from_secs(5));
    let durable = builder.lease(hours(1)).start().await?;
    hang_commits(&own).await?;
    let cutter = Cutter::begin(&own);
    begin_booking(durable.clone(), 10).await?;
    let end = durable.workflow::<()>("b").soon().await;
    let cuts = cutter.end().await?;
    let_commits_go(&own).await?;
    end?;
    assert!(cuts > 5, "{cuts} commits without an answer");
    all_was_booked(own.outside.clone()).await
}
