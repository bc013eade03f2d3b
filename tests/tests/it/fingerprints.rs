//! The code that workers come with: what is said of live workflows whose code has changed, what is tried again with new code, and
//! what old code leaves to new code while both are there.

use std::sync::{Arc, Mutex};

use anyhow::Result;
use durable::{Builder, Ctx, FailureKind, days, hours, workflow};
use durable_tests::db::Db;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// The warnings of this thread about workflows whose code has changed: name and count.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<(String, i64)>>>);

#[derive(Default)]
struct Fields {
    workflow: Option<String>,
    count: Option<i64>,
    is_about_change: bool,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.is_about_change |= field.name() == "message" && format!("{value:?}").contains("has changed");
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "workflow" {
            self.workflow = Some(value.to_owned());
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == "count" {
            self.count = Some(value);
        }
    }
}

impl<S: tracing::Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let (Some(workflow), Some(count), true) = (fields.workflow, fields.count, fields.is_about_change) {
            self.0.lock().unwrap().push((workflow, count));
        }
    }
}

impl Warnings {
    fn take(&self) -> Vec<(String, i64)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[workflow(name = "trip")]
async fn trip(ctx: &Ctx, days_of_it: u64) -> Result<String> {
    ctx.run(work("pack".to_owned())).await?;
    ctx.sleep(days(days_of_it)).await?;
    ctx.run(work("unpack".to_owned())).await.map_err(Into::into)
}

/// Other code, which fits the same history.
#[workflow(name = "trip")]
async fn longer_trip(ctx: &Ctx, days_of_it: u64) -> Result<String> {
    let packed = ctx.run(work("pack".to_owned())).await?;
    ctx.sleep(days(days_of_it)).await?;
    ctx.run(work("unpack".to_owned())).await?;
    Ok(packed)
}

/// Code that does not fit it.
#[workflow(name = "trip")]
async fn other_trip(ctx: &Ctx, days_of_it: u64) -> Result<String> {
    ctx.run(gated("pack".to_owned())).await?;
    ctx.sleep(days(days_of_it)).await?;
    Ok("another".to_owned())
}

#[workflow(name = "trip", version = 2)]
async fn trip_2(_ctx: &Ctx, days_of_it: u64) -> Result<String> {
    Ok(days_of_it.to_string())
}

#[tokio::test]
async fn a_worker_says_once_which_live_workflows_its_code_has_changed() -> Result<()> {
    let (db, kit, warnings) = (Db::new().await, Kit::default(), Warnings::default());
    let _listening = tracing::subscriber::set_default(tracing_subscriber::registry().with(warnings.clone()));
    let start = |register: fn(Builder) -> Builder| register(db.builder()).state(kit.clone()).start();

    let old = start(|b| b.register(trip)).await?;
    old.start(trip(7)).id("one").await?;
    old.start(trip(7)).id("two").await?;
    db.until("select count(*) = 2 from durable.workflow where status = 'suspended'").await;
    assert_eq!(warnings.take(), [], "the first code");
    old.shutdown(hours(1)).await;

    // The very same code again, beside a new version, is no change.
    start(|b| b.register(trip).register(trip_2)).await?.shutdown(hours(1)).await;
    assert_eq!(warnings.take(), []);

    start(|b| b.register(longer_trip).register(trip_2)).await?.shutdown(hours(1)).await;
    assert_eq!(warnings.take(), [("trip".to_owned(), 2)]);

    // Workers of both kinds come and go during a deploy; both are known by now.
    start(|b| b.register(trip)).await?.shutdown(hours(1)).await;
    start(|b| b.register(longer_trip)).await?.shutdown(hours(1)).await;
    assert_eq!(warnings.take(), []);
    assert_eq!(db.count("select count(*) from durable.fingerprint where name = 'trip' and version = 1").await, 2);

    // Nothing is live any more.
    sqlx::query("update durable.workflow set status = 'cancelled', due_at = null").execute(&db.pool).await?;
    start(|b| b.register(other_trip)).await?.shutdown(hours(1)).await;
    assert_eq!(warnings.take(), []);
    Ok(())
}

/// Two workers that come at the same moment: one of them has brought the code.
#[tokio::test]
async fn the_same_code_of_many_workers_is_noted_once() -> Result<()> {
    let db = Db::new().await;
    let starts = (0..8).map(|_| db.builder().register(trip).state(Kit::default()).start());
    let workers = futures::future::try_join_all(starts).await?;
    assert_eq!(db.count("select count(*) from durable.fingerprint").await, 1);
    for worker in workers {
        worker.shutdown(hours(1)).await;
    }
    Ok(())
}

/// P15: what a wrong deploy has blocked, a right one sets going; and it does not go in circles.
#[tokio::test]
async fn a_deploy_of_code_that_fits_resumes_what_other_code_was_blocked_by() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let clock = db.clock().await;
    let start = |register: fn(Builder) -> Builder| register(db.builder()).state(kit.clone()).start();
    let old = start(|b| b.register(trip)).await?;
    let handle = old.start(trip(7)).id("t").await?;
    db.until_status("t", "suspended").await;
    old.shutdown(hours(1)).await;

    // The bad deploy.
    let bad = start(|b| b.register(other_trip)).await?;
    clock.advance(days(7)).await?;
    db.until_status("t", "blocked").await;
    let failure = handle.info().await?.failure.expect("a failure");
    assert_eq!(failure.kind(), FailureKind::Mismatch);
    bad.shutdown(hours(1)).await;
    let claims = "select claims::bigint from durable.workflow where id = 't'";
    let before = db.count(claims).await;
    // It comes again, and is still the same.
    let bad = start(|b| b.register(other_trip)).await?;
    bad.shutdown(hours(1)).await;
    assert_eq!((db.count(claims).await, handle.status().await?), (before, durable::Status::Blocked));

    // Somebody who wants to look first.
    let careful = start(|b| b.register(longer_trip).resume_mismatches(false)).await?;
    careful.shutdown(hours(1)).await;
    assert_eq!((db.count(claims).await, handle.status().await?), (before, durable::Status::Blocked));

    let good = start(|b| b.register(longer_trip)).await?;
    assert_eq!(good.workflow::<String>("t").soon().await?, "pack");
    assert_eq!(kit.log.entries(), ["pack", "unpack"]);
    Ok(())
}

/// Other reasons to be blocked are not mended by other code.
#[tokio::test]
async fn what_is_blocked_for_another_reason_or_in_another_queue_stays_blocked() -> Result<()> {
    let db = Db::new().await;
    sqlx::raw_sql(
        r#"insert into durable.workflow (bucket, id, name, version, queue, status, input, failure)
           select durable.bucket(id), id, 'trip', version, queue, 'blocked', '7', failure::json
           from (values ('poison', 1, 'default', '{"kind":"poison","messages":["\"kind\":\"mismatch\""]}'),
                        ('nul', 1, 'default', '{"kind":"poison","messages":["\u0000"]}'),
                        ('elsewhere', 1, 'other', '{"kind":"mismatch","messages":["x"]}'),
                        ('version', 2, 'default', '{"kind":"mismatch","messages":["x"]}'),
                        ('right', 1, 'default', '{"kind":"mismatch","messages":["\u0000"]}'))
                as b (id, version, queue, failure)"#,
    )
    .execute(&db.pool)
    .await?;
    let durable = db.builder().register(trip).state(Kit::default()).start().await?;
    db.until_status("right", "suspended").await;
    assert_eq!(db.count("select count(*) from durable.workflow where status = 'blocked'").await, 4);
    durable.shutdown(hours(1)).await;
    Ok(())
}

#[workflow(name = "mixed")]
async fn mixed(ctx: &Ctx) -> Result<String> {
    ctx.sleep(hours(1)).await?;
    Ok(ctx.run(work("old".to_owned())).await?)
}

#[workflow(name = "mixed")]
async fn mixed_patched(ctx: &Ctx) -> Result<String> {
    if ctx.patched("first").await {
        ctx.run(work("new".to_owned())).await?;
    }
    ctx.sleep(hours(1)).await?;
    Ok(ctx.run(work("old".to_owned())).await?)
}

/// P19: in the middle of a deploy, an old worker takes up what a new one has begun. It cannot go on with it, and it does not
/// block it either.
#[tokio::test]
async fn old_code_leaves_to_new_code_what_that_has_written() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let clock = db.clock().await;
    // Known first, and so the older one.
    let old = db.builder().register(mixed).state(kit.clone()).start().await?;
    old.shutdown(hours(1)).await;
    let new = db.builder().register(mixed_patched).state(kit.clone()).start().await?;
    let handle = new.start(mixed_patched()).id("m").await?;
    db.until_status("m", "suspended").await;
    new.shutdown(hours(1)).await;

    let old = db.builder().register(mixed).state(kit.clone()).start().await?;
    clock.advance(hours(1)).await?;
    db.until("select recoveries = 1 and status = 'queued' from durable.workflow").await;
    // It tries once more, later each time.
    clock.advance(hours(1)).await?;
    db.until("select recoveries = 2 and status = 'queued' from durable.workflow").await;
    old.shutdown(hours(1)).await;

    let new = db.builder().register(mixed_patched).state(kit.clone()).start().await?;
    clock.advance(hours(1)).await?;
    assert_eq!(new.workflow::<String>("m").soon().await?, "old");
    assert_eq!(kit.log.entries(), ["new", "old"]);
    assert!(handle.info().await?.failure.is_none());
    Ok(())
}

/// If no worker with the new code comes, it is blocked in the end: loudly, with what did not fit.
#[tokio::test]
async fn what_is_left_to_new_code_that_never_comes_is_blocked_in_the_end() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let clock = db.clock().await;
    let builder = || db.builder().state(kit.clone()).max_recoveries(2);
    builder().register(mixed).start().await?.shutdown(hours(1)).await;
    let new = builder().register(mixed_patched).start().await?;
    let handle = new.start(mixed_patched()).id("m").await?;
    db.until_status("m", "suspended").await;
    new.shutdown(hours(1)).await;
    let old = builder().register(mixed).start().await?;
    for recoveries in ["recoveries = 1", "recoveries = 2", "status = 'blocked'"] {
        clock.advance(hours(1)).await?;
        let is = format!("select count(*) from durable.workflow where {recoveries}");
        let began_at = std::time::Instant::now();
        while sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(is.clone())).fetch_one(&db.pool).await? == 0 {
            assert!(began_at.elapsed() < durable_tests::db::PATIENCE, "never {recoveries}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
    let failure = handle.info().await?.failure.expect("a failure");
    assert_eq!(failure.kind(), FailureKind::Mismatch);
    assert!(failure.message().contains("patch \"first\""), "{failure}");
    old.shutdown(hours(1)).await;
    Ok(())
}
