//! How queues stand, as people and autoscalers see it; and what workers say of queues that nobody serves, or several differently.

use std::time::{Duration, Instant};

use anyhow::Result;
use durable::{Builder, Ctx, Durable, ErrorKind, Queue, QueueMetrics, Topic, WaitsFor, hours, minutes, workflow};
use durable_tests::db::{Db, PATIENCE};
use durable_tests::kit::{Kit, gated};
use durable_tests::traced::Traced;
use sqlx::Row;
use tracing::Level;

const GO: Topic<()> = Topic::new("go");

#[workflow]
async fn held(ctx: &Ctx) -> Result<()> {
    ctx.run(gated("held".into())).await?;
    Ok(())
}

#[workflow]
async fn listens(ctx: &Ctx) -> Result<()> {
    ctx.receive(GO).await?;
    Ok(())
}

/// No worker here has it.
#[workflow]
async fn unknown(ctx: &Ctx) -> Result<String> {
    Ok(ctx.id().to_owned())
}

fn builder(db: &Db, kit: &Kit) -> Builder {
    db.builder().register(held).register(listens).state(kit.clone())
}

async fn start(durable: &Durable, queue: &str, many: usize) -> Result<()> {
    for n in 0..many {
        durable.start(held()).queue(queue).id(format!("{queue}-{n}")).await?;
    }
    Ok(())
}

/// How many are due, run, are suspended and delayed.
fn counts(metrics: &QueueMetrics) -> [u64; 4] {
    [metrics.depth, metrics.running, metrics.suspended, metrics.delayed]
}

/// But for its age, which never comes out the same twice.
fn ageless(mut metrics: QueueMetrics) -> QueueMetrics {
    metrics.oldest = None;
    metrics
}

/// Wait until a queue stands so.
async fn until(durable: &Durable, queue: &str, stands: impl Fn(&QueueMetrics) -> bool) -> Result<QueueMetrics> {
    for _ in 0..1_000 {
        let metrics = durable.metrics_of_queue(queue).await?;
        if stands(&metrics) {
            return Ok(metrics);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::bail!("never as wanted: {:?}", durable.metrics_of_queue(queue).await?)
}

#[tokio::test]
async fn every_queue_tells_what_is_due_since_when_what_runs_sleeps_and_is_delayed() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let clock = db.clock().await;
    let client = db.client().await;
    start(&client, "mail", 2).await?;
    clock.advance(minutes(5)).await?;
    client.start(held()).queue("mail").priority(7).await?;
    client.start(held()).queue("mail").priority(7).delay(hours(1)).await?;
    client.start(held()).queue("ahead").delay(hours(1)).await?;
    // A queue without limits, whose worker has one place.
    let durable = builder(&db, &kit).queue("jobs").concurrency(1).start().await?;
    durable.start(listens()).id("listens").await?;
    db.until_status("listens", "suspended").await;
    start(&durable, "jobs", 3).await?;
    kit.gate.reached().await;

    let all = durable.queue_metrics().await?;
    let names: Vec<&str> = all.iter().map(|metrics| metrics.queue.as_str()).collect();
    assert_eq!(names, ["ahead", "jobs", "mail"]);
    assert_eq!(all.iter().map(counts).collect::<Vec<_>>(), [[0, 0, 0, 1], [2, 1, 1, 0], [3, 0, 0, 1]]);
    let told: Vec<_> = all.iter().map(|metrics| (metrics.workers, metrics.waits_for)).collect();
    assert_eq!(told, [(0, None), (1, Some(WaitsFor::Slot)), (0, Some(WaitsFor::Worker))]);
    assert!(all.iter().all(|metrics| !metrics.has_limits && !metrics.is_paused && metrics.without_code == 0));
    // The oldest one of any priority.
    let oldest = all[2].oldest.expect("something is due");
    assert!(oldest >= minutes(5) && oldest < minutes(6), "{oldest:?}");
    assert!(all[0].oldest.is_none() && all[1].oldest.is_some_and(|oldest| oldest < minutes(1)));
    for metrics in &all {
        assert_eq!(ageless(durable.metrics_of_queue(&metrics.queue).await?), ageless(metrics.clone()));
    }
    // What an autoscaler asks.
    let wanted = "select ceil((depth + running) / 2.0)::bigint from durable.queue_metrics('jobs')";
    assert_eq!(db.count(wanted).await, 2);
    // What wakes is due.
    durable.send("listens", GO, ()).await?;
    assert_eq!(counts(&durable.metrics_of_queue("jobs").await?), [3, 1, 0, 0]);
    (0..3).for_each(|_| kit.gate.open());
    Ok(())
}

#[tokio::test]
async fn a_queue_of_which_there_is_nothing_is_told_as_empty_and_no_name_of_one_is_refused() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    assert!(client.queue_metrics().await?.is_empty());
    let nothing = client.metrics_of_queue("nothing").await?;
    assert_eq!((counts(&nothing), nothing.oldest, nothing.waits_for, nothing.workers), ([0; 4], None, None, 0));
    assert_eq!(client.metrics_of_queue("").await.unwrap_err().kind(), ErrorKind::Usage);
    Ok(())
}

#[tokio::test]
async fn what_those_that_are_due_wait_for_is_told() -> Result<()> {
    let (db, kit) = (Db::new().await, Kit::default());
    let queues = [
        Queue::new("one").concurrency(1),
        Queue::new("each").concurrency_per_worker(1),
        Queue::new("slow").rate(1, hours(1)),
        Queue::new("parts").concurrency_per_partition(1),
        Queue::new("slow-parts").rate_per_partition(1, hours(1)),
        Queue::new("paused"),
    ];
    let names = ["one", "each", "slow", "parts", "slow-parts", "paused"];
    let durable = queues.into_iter().fold(builder(&db, &kit), Builder::serve).start().await?;
    durable.pause_queue("paused").await?;
    for queue in names {
        start(&durable, queue, 3).await?;
    }
    durable.start(unknown()).id("unknown").await?;
    let reasons = [
        WaitsFor::Concurrency,
        WaitsFor::Concurrency,
        WaitsFor::Rate,
        WaitsFor::ConcurrencyPerPartition,
        WaitsFor::RatePerPartition,
        WaitsFor::Resumption,
    ];
    for (queue, reason) in names.into_iter().zip(reasons) {
        let running = u64::from(queue != "paused");
        let metrics = until(&durable, queue, |m| m.waits_for == Some(reason) && m.running == running).await?;
        assert_eq!((metrics.depth, metrics.workers), (3 - running, 1), "{queue}");
        assert!(metrics.has_limits && metrics.is_paused == (queue == "paused"));
    }
    let without_code = durable.metrics_of_queue("default").await?;
    assert_eq!((without_code.depth, without_code.without_code, without_code.workers), (1, 1, 1));
    assert_eq!(without_code.waits_for, Some(WaitsFor::Code));

    // Nobody serves one that has limits but who says so, and nobody at all once the worker is gone.
    let other = builder(&db, &kit).queue("one").start().await?;
    assert_eq!(durable.metrics_of_queue("one").await?.workers, 1);
    durable.shutdown(Duration::ZERO).await;
    let left = other.metrics_of_queue("one").await?;
    assert_eq!((left.workers, left.waits_for), (0, Some(WaitsFor::Worker)));
    Ok(())
}

/// What is looked at for it does not grow with what waits, sleeps or is dated ahead.
#[tokio::test]
async fn metrics_cost_the_same_however_many_wait_sleep_or_are_dated_ahead() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    let mut looked_at = Vec::new();
    for rows in [40_000, 80_000] {
        let fill = format!(
            "truncate durable.workflow;
             insert into durable.workflow (bucket, id, name, version, queue, priority, status, due_at, input)
             select n % 64, 'w-' || n, 'held', 1, 'many', n % 3, case n % 4 when 0 then 'suspended' else 'queued' end,
                    now() + case n % 4 when 1 then interval '-1 hour' else interval '1 hour' end, '1'
             from generate_series(1, {rows}) n"
        );
        for statement in fill.split(';') {
            sqlx::query(sqlx::AssertSqlSafe(statement.to_owned())).execute(&db.pool).await?;
        }
        // Not all of it is vacuumed while some session of the server has an old snapshot, as those have that just begin.
        let vacuumed = "select relallvisible = relpages from pg_class where oid = 'durable.workflow'::regclass";
        let began_at = Instant::now();
        while !sqlx::query_scalar::<_, bool>(vacuumed).fetch_one(&db.pool).await? {
            assert!(began_at.elapsed() < PATIENCE, "the table is never all visible");
            sqlx::query("vacuum analyze durable.workflow").execute(&db.pool).await?;
        }
        let metrics = client.metrics_of_queue("many").await?;
        let most = 10_000.min(rows / 4);
        assert_eq!(counts(&metrics), [most, 0, most, 10_000], "{rows} rows");
        assert_eq!(client.queue_metrics().await?.into_iter().map(ageless).collect::<Vec<_>>(), [ageless(metrics)]);
        let explain = "explain (analyze, buffers, format json) select * from durable.queue_metrics()";
        let plan = sqlx::raw_sql(explain).fetch_one(&db.pool).await?;
        let plan: serde_json::Value = serde_json::from_str(&plan.try_get_unchecked::<String, _>(0)?)?;
        let buffers = |kind: &str| plan[0]["Plan"][kind].as_u64().unwrap_or_default();
        looked_at.push(buffers("Shared Hit Blocks") + buffers("Shared Read Blocks"));
    }
    let [few, many] = looked_at[..] else { anyhow::bail!("two sizes") };
    assert!(few > 0 && many < few * 5 / 4, "{few} pages of 40,000 rows, {many} of 80,000");
    Ok(())
}

/// It is a name that was mistyped, more often than not.
#[tokio::test]
async fn a_worker_says_once_that_workflows_are_due_in_a_queue_that_nobody_serves() -> Result<()> {
    let (traced, _guard) = Traced::on_this_thread(Level::WARN);
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = builder(&db, &kit).lease(Duration::from_secs(1)).serve(Queue::new("served")).start().await?;
    durable.start(held()).queue("mial").attribute("secret", "hush").await?;
    durable.start(held()).queue("ahead").delay(hours(1)).await?;
    durable.start(held()).queue("served").await?;
    traced.until("no live worker takes from it").await;
    let said = traced.lines_with("no live worker");
    assert!(said[0].contains("mial") && !traced.text().contains("hush"), "{said:?}");
    assert!(traced.lines_with("ahead").is_empty() && traced.lines_with("served\"").is_empty(), "{}", traced.text());
    // It looks again and again, and says it once: another queue shows that it has looked since.
    durable.start(held()).queue("other").await?;
    traced.until("queue=\"other\"").await;
    assert_eq!(traced.lines_with("mial").len(), 1, "{}", traced.text());
    kit.gate.open();
    Ok(())
}

#[tokio::test]
async fn of_two_declarations_that_disagree_the_last_one_counts_and_a_warning_names_both() -> Result<()> {
    let (traced, _guard) = Traced::on_this_thread(Level::WARN);
    let (db, kit) = (Db::new().await, Kit::default());
    let calls = |most| builder(&db, &kit).serve(Queue::new("calls").concurrency(most));
    let first = calls(5).start().await?;
    let same = calls(5).start().await?;
    assert!(traced.lines_with("calls").is_empty(), "{}", traced.text());
    let other = calls(6).start().await?;
    let said = traced.lines_with("declared other limits");
    assert!(said.len() == 1 && said[0].contains(":5") && said[0].contains(":6"), "{}", traced.text());
    assert_eq!(other.queues().await?[0].queue, Queue::new("calls").concurrency(6));

    // Once no worker serves it, other limits are a deploy.
    for durable in [first, same, other] {
        durable.shutdown(Duration::ZERO).await;
    }
    calls(7).start().await?;
    assert_eq!(traced.lines_with("declared other limits").len(), 1);
    Ok(())
}
