//! Queues with limits whose workers are killed, frozen, and lost: the limits hold, and nobody is forgotten.

use std::time::Duration;

use anyhow::{Result, ensure};
use durable::testing::{TestDatabase, every_crash};
use durable::{Builder, Durable, Queue};
use durable_tests::calls::{self, WATCH, call_once, call_twice};
use durable_tests::db::{Db, PATIENCE};
use durable_tests::island::Island;
use durable_tests::journey::{self, Outside};
use durable_tests::soon::Soon;
use durable_tests::victim::{Orders, Victim};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

const VICTIM: &str = env!("CARGO_BIN_EXE_victim");

/// Three processes that share the queue. One after the other is killed, and one is frozen past its lease.
struct Trio {
    orders: Orders,
    victims: Vec<Victim>,
}

impl Trio {
    async fn begin(db: &Db) -> Self {
        let orders = Orders { lease: Duration::from_millis(800), serves_calls: true, ..Orders::new(db.url()) };
        let begin = || async { Victim::begin(VICTIM, &orders).at_work().await };
        let victims = vec![begin().await, begin().await, begin().await];
        Self { orders, victims }
    }

    async fn suffer(&mut self, kills: usize) {
        for kill in 0..kills {
            // The moment of death is what is random here; nothing is waited for.
            tokio::time::sleep(Duration::from_micros(uuid::Uuid::new_v4().as_u64_pair().0 % 400_000)).await;
            if kill % 3 == 2 {
                self.victims[0].freeze().await;
                tokio::time::sleep(self.orders.lease * 2).await;
                self.victims[0].thaw().await;
            }
            self.victims.remove(1).kill().await;
            self.victims.push(Victim::begin(VICTIM, &self.orders).at_work().await);
        }
    }
}

/// Wait until all of them have ended.
async fn all_end(db: &Db, client: &Durable, ids: &[String]) -> Result<()> {
    for id in ids {
        let ended = tokio::time::timeout(PATIENCE * 2, client.workflow::<()>(id).result()).await;
        if ended.is_err() {
            let open = "select string_agg(row_to_json(w)::text, ' ') from (
                            select w.id, w.status, w.due_at, w.priority, w.owner, p.due_at as waits_since, p.is_held
                            from durable.workflow w left join durable.place p using (bucket, id)
                            where w.status not in ('completed', 'failed') order by w.id limit 5) as w";
            panic!("{id} never ends: {}", db.text(open).await);
        }
        ended??;
    }
    Ok(())
}

/// P21, P3: three processes share a queue. They are killed at random, and one is frozen past its lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_while_workers_are_killed_and_frozen() -> Result<()> {
    let db = Db::new().await;
    sqlx::raw_sql(WATCH).execute(&db.pool).await?;
    let client = db.client().await;
    client.set_queue(calls::queue()).await?;
    let mut trio = Trio::begin(&db).await;
    let ids: Vec<String> = (0..150).map(|n| format!("c-{n}")).collect();
    for (n, id) in ids.iter().enumerate() {
        client.start(call_twice()).queue("calls").partition(format!("p-{}", n % 7)).id(id).await?;
    }
    trio.suffer(6).await;
    all_end(&db, &client, &ids).await?;
    calls::check(&db.pool).await
}

/// P21, P3: the same for a queue in which nobody waits in a place, until somebody has been taken back from a dead worker or was suspended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_one_line_holds_while_workers_are_killed_and_frozen() -> Result<()> {
    const WAITING: &str = "select count(*) from durable.place where due_at is not null and not is_held";
    let db = Db::new().await;
    sqlx::raw_sql(WATCH).execute(&db.pool).await?;
    let client = db.client().await;
    let mut trio = Trio::begin(&db).await;
    // What the processes declare again when they are replaced leaves it as it is.
    client.set_queue(Queue::new("calls").concurrency(u32::try_from(calls::AT_ONCE)?)).await?;
    let first: Vec<String> = (0..400).map(|n| format!("a-{n}")).collect();
    client.start_many(first.iter().map(|id| (id, call_once()))).queue("calls").await?;
    db.until("select count(*) > 10 from run").await;
    assert_eq!(db.count(WAITING).await, 0, "somebody waits in a place");
    trio.suffer(3).await;
    let then: Vec<String> = (0..50).map(|n| format!("b-{n}")).collect();
    client.start_many(then.iter().map(|id| (id, call_twice()))).queue("calls").await?;
    trio.suffer(1).await;
    all_end(&db, &client, &first).await?;
    all_end(&db, &client, &then).await?;
    let most = calls::most_at_once(&db.pool).await?;
    println!("at most {most} of {} at once", calls::AT_ONCE);
    ensure!(most <= calls::AT_ONCE, "{most} ran at once");
    Ok(())
}

/// P21: what a dead worker ran counts until it is given back, and no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_of_a_lost_worker_are_free_within_its_lease() -> Result<()> {
    let db = Db::new().await;
    let queue = || Queue::new("calls").concurrency(2);
    let builder = || {
        let outside = PgPoolOptions::new().connect_lazy(db.url()).expect("the address of the database");
        journey::register(db.builder().lease(Duration::from_secs(1)), outside).serve(queue())
    };
    let island = Island::start(builder()).await;
    for id in ["a", "b", "c"] {
        island.durable().start(journey::held()).queue("calls").id(id).await?;
    }
    db.until("select count(*) = 2 from effect where step = 'hold'").await;
    let successor = builder().start().await?;
    island.sink().await;
    db.until("select count(*) = 4 from effect where step = 'hold'").await;
    for id in ["a", "b", "c"] {
        journey::open(&db.pool, id).await?;
    }
    for id in ["a", "b", "c"] {
        successor.workflow::<u32>(id).soon().await?;
    }
    Ok(())
}

/// P3, P21: a worker dies at each crash point in turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_outlives_a_crash_at_every_point() -> Result<()> {
    let server = Db::new().await;
    let tables = |pool: PgPool| async move {
        sqlx::raw_sql(durable_tests::db::APPLICATION_TABLES).execute(&pool).await?;
        sqlx::raw_sql(WATCH).execute(&pool).await?;
        Ok(())
    };
    let db = TestDatabase::create(&server.pool, tables).await?;
    let worker = |builder: Builder, pool: PgPool| {
        calls::register(builder)
            .state(Outside(pool))
            .serve(Queue::new("calls").concurrency(1).rate(2, Duration::from_secs(60)))
    };
    let begin = |durable: Durable| async move {
        for id in ["a", "b", "c"] {
            durable.start(call_twice()).queue("calls").partition(id).id(id).await?;
        }
        Ok(())
    };
    let check = |pool: PgPool| async move {
        let most = calls::most_at_once(&pool).await?;
        ensure!(most == 1, "{most} ran at once");
        let began: Vec<chrono::DateTime<chrono::Utc>> =
            sqlx::query_scalar("select begun_at from run where begins and is_first order by begun_at")
                .fetch_all(&pool)
                .await?;
        ensure!(began.len() == 3 && began[2] - began[0] >= chrono::TimeDelta::seconds(60), "{began:?}");
        let left: i64 = sqlx::query_scalar("select count(*) from durable.workflow where status <> 'completed'")
            .fetch_one(&pool)
            .await?;
        ensure!(left == 0, "{left} have not completed");
        Ok(())
    };
    every_crash(db, worker, begin, check).await?.assert_clean();
    Ok(())
}

/// P3, P21: the same where who runs is in the line, and has a place once he was suspended or taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_of_one_line_outlives_a_crash_at_every_point() -> Result<()> {
    let server = Db::new().await;
    let tables = |pool: PgPool| async move {
        sqlx::raw_sql(durable_tests::db::APPLICATION_TABLES).execute(&pool).await?;
        sqlx::raw_sql(WATCH).execute(&pool).await?;
        Ok(())
    };
    let db = TestDatabase::create(&server.pool, tables).await?;
    let worker = |builder: Builder, pool: PgPool| {
        calls::register(builder).state(Outside(pool)).serve(Queue::new("calls").concurrency(1))
    };
    let begin = |durable: Durable| async move {
        durable.start(call_once()).queue("calls").id("a").await?;
        durable.start(call_twice()).queue("calls").id("b").await?;
        Ok(())
    };
    let check = |pool: PgPool| async move {
        let most = calls::most_at_once(&pool).await?;
        ensure!(most == 1, "{most} ran at once");
        let left = "select count(*) from durable.workflow where status <> 'completed'";
        let left: i64 = sqlx::query_scalar(left).fetch_one(&pool).await?;
        ensure!(left == 0, "{left} have not completed");
        Ok(())
    };
    every_crash(db, worker, begin, check).await?.assert_clean();
    Ok(())
}
