//! A deploy: a fleet of worker processes is rolled from one release to the next while work goes on. No workflow is lost, none is
//! blocked, nothing is done twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use anyhow::Result;
use durable::Durable;
use durable_tests::db::Db;
use durable_tests::fleet::FleetWorker;
use durable_tests::soon::Soon;

/// What the client has of each release: what is needed to start its workflows.
#[path = "../../src/bin/fleet_first/release.rs"]
#[expect(dead_code, reason = "a client registers nothing")]
mod first;
#[path = "../../src/bin/fleet_second/release.rs"]
#[expect(dead_code, reason = "a client registers nothing")]
mod second;

/// The programs of the workers, each with the code of its own release only.
const FIRST: &str = env!("CARGO_BIN_EXE_fleet_first");
const SECOND: &str = env!("CARGO_BIN_EXE_fleet_second");
const WORKERS: usize = 3;
const TICKERS: i64 = 5;

/// A client that goes on starting workflows, and is deployed itself in the middle.
struct Load {
    started: Arc<AtomicI64>,
    is_second: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
    going: tokio::task::JoinHandle<Result<()>>,
}

impl Load {
    fn begin(client: Durable) -> Self {
        let (started, is_second, is_over) =
            (Arc::<AtomicI64>::default(), Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (count, deployed, over) = (started.clone(), is_second.clone(), is_over.clone());
        let going = tokio::spawn(async move {
            for n in 0.. {
                if over.load(Ordering::Acquire) {
                    break;
                }
                if deployed.load(Ordering::Acquire) {
                    client.start(second::order()).id(format!("order-{n}")).await?;
                    client.start(second::visit()).id(format!("visit-{n}")).await?;
                } else {
                    client.start(first::order()).id(format!("order-{n}")).await?;
                    client.start(first::visit()).id(format!("visit-{n}")).await?;
                }
                count.fetch_add(1, Ordering::Release);
                // What the load is, not what anything is waited for.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(())
        });
        Self { started, is_second, is_over, going }
    }

    /// Wait until so many more of both kinds were started and as many have ended, so that the load meets whatever is next.
    async fn goes_on(&self, db: &Db) {
        let ended = "select count(*) from durable.workflow where status = 'completed'";
        let (more, before) = (self.started.load(Ordering::Acquire) + 20, db.count(ended).await);
        db.until_count(ended, |now| now >= before + 40 && self.started.load(Ordering::Acquire) >= more).await;
    }

    async fn end(self) -> Result<i64> {
        self.is_over.store(true, Ordering::Release);
        self.going.await??;
        Ok(self.started.load(Ordering::Acquire))
    }
}

/// P1, P3, P15, P19.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_is_rolled_under_load_and_no_workflow_is_lost_repeated_or_blocked() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    let mut fleet = Vec::new();
    for _ in 0..WORKERS {
        fleet.push(FleetWorker::begin(FIRST, db.url()).await);
    }
    for n in 0..TICKERS {
        client.start(first::ticker(1)).id(format!("ticker-{n}")).await?;
    }
    let load = Load::begin(client.clone());
    load.goes_on(&db).await;

    // One by one, as in a rolling deploy: the first new one comes before any old one goes, one of the old ones is killed.
    for (n, place) in fleet.iter_mut().enumerate() {
        let next = FleetWorker::begin(SECOND, db.url()).await;
        load.goes_on(&db).await;
        let old = std::mem::replace(place, next);
        if n == 1 {
            old.kill().await;
            // Now there are workers for it, the client is deployed as well.
            load.is_second.store(true, Ordering::Release);
        } else {
            old.terminate().await;
        }
        load.goes_on(&db).await;
    }
    let started = load.end().await?;
    db.until("select count(*) = 0 from durable.workflow where status not in ('completed', 'failed', 'cancelled')")
        .await;

    all_is_there_once(&db, started).await?;
    for n in 0..TICKERS {
        // Each has ticked from the first to the last round, through both versions.
        let last = client.workflow::<i64>(format!("ticker-{n}")).soon().await?;
        let ticks: i64 = sqlx::query_scalar("select count(distinct step) from effect where workflow_id = $1")
            .bind(format!("ticker-{n}"))
            .fetch_one(&db.pool)
            .await?;
        assert!(last > 2 && ticks == last, "ticker {n}: {ticks} ticks, the last is {last}");
    }
    for worker in fleet {
        worker.terminate().await;
    }
    Ok(())
}

async fn all_is_there_once(db: &Db, started: i64) -> Result<()> {
    let completed = "select count(*) from durable.workflow where status = 'completed'";
    assert_eq!(db.count(completed).await, 2 * started + TICKERS);
    let repeated: Vec<(String, String)> =
        sqlx::query_as("select workflow_id, step from effect group by 1, 2 having count(*) > 1")
            .fetch_all(&db.pool)
            .await?;
    assert_eq!(repeated, [], "done more than once");
    let wrong: Vec<(String, i32, Option<String>, Option<String>)> = sqlx::query_as(
        "select w.id, w.version, w.output::text, e.steps
         from durable.workflow w
         left join lateral (select string_agg(e.step, ' ' order by e.key collate \"C\") as steps
                            from effect e where e.workflow_id = w.id) e on true
         where (w.name, w.version, w.output::text, e.steps) not in (
             ('order', 1, '1', 'reserve charge'),
             ('order', 2, '2', 'reserve check charge receipt'),
             ('visit', 1, 'false', 'arrive leave'),
             ('visit', 1, 'true', 'arrive greet leave'))
           and w.name <> 'ticker'",
    )
    .fetch_all(&db.pool)
    .await?;
    assert_eq!(wrong, [], "neither the old way nor the new one");

    // Both ways were gone; and what the new client has started is all of the new version.
    for (name, version, output) in [("order", 1, "1"), ("order", 2, "2"), ("visit", 1, "false"), ("visit", 1, "true")] {
        let count: i64 = sqlx::query_scalar(
            "select count(*) from durable.workflow where name = $1 and version = $2 and output::text = $3",
        )
        .bind(name)
        .bind(version)
        .bind(output)
        .fetch_one(&db.pool)
        .await?;
        println!("{name} version {version} with {output}: {count}");
        assert!(count > 0, "no {name} of version {version} ended with {output}");
    }
    let mixed = db
        .count(
            "select count(*) from durable.workflow a, durable.workflow b
             where a.name = 'order' and b.name = 'order' and a.version = 2 and b.version = 1
               and a.created_at < b.created_at",
        )
        .await;
    assert_eq!(mixed, 0, "orders of version 1 after the client was deployed");
    let back = db.count("select count(*) from durable.workflow where failure::text like '%mismatch%'").await;
    assert_eq!(back, 0);
    Ok(())
}
