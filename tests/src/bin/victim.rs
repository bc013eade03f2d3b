//! The worker process that tests kill. Its orders come through the environment (`victim::Orders`), and it
//! ends when its standard input closes, so that none is left when a test is gone.

use std::time::Duration;

use anyhow::Result;
use durable::Durable;
use durable_tests::calls;
use durable_tests::db::PATIENCE;
use durable_tests::journey::{self, WORD, WORDS};
use durable_tests::victim::Orders;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("VICTIM_LOG").unwrap_or_default();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let orders = Orders::from_env();
    let outside = PgPoolOptions::new().max_connections(4).connect(&orders.url).await?;
    let pool = PgPoolOptions::new().max_connections(2).connect_lazy(&orders.url)?;
    durable::testing::crash_at(orders.crash_at);
    durable::testing::sabotage(orders.sabotage);
    let builder = Durable::builder(pool)
        .queue(&orders.queue)
        .lease(orders.lease)
        .max_recoveries(orders.max_recoveries)
        .poll_every(Duration::from_millis(50))
        .migrate(false);
    let builder = if orders.serves_calls { calls::register(builder).serve(calls::queue()) } else { builder };
    let durable = journey::register(builder, outside.clone()).start().await?;
    println!("at work");
    tokio::select! {
        shut_down = told_to_shut_down() => {
            if shut_down {
                durable.shutdown(PATIENCE).await;
            }
        }
        arrived = travel(&durable, &outside, orders.journey.as_deref()) => arrived?,
    }
    // Whatever still runs ends with the process, as in a deploy that lost its patience.
    std::process::exit(0)
}

/// Whether the test said so, or is gone.
async fn told_to_shut_down() -> bool {
    let (told, word) = tokio::sync::oneshot::channel();
    // A thread of its own, because a read of standard input cannot be given up.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line);
        told.send(read.is_ok() && line.trim() == "shut down").expect("the process waits for its word");
    });
    word.await.unwrap_or(false)
}

/// Start a journey, send it its words, the second one when it waits for that, and wait for its end. The looks
/// go past the library, so that they are no crash points.
async fn travel(durable: &Durable, outside: &PgPool, id: Option<&str>) -> Result<()> {
    let Some(id) = id else { return std::future::pending().await };
    durable.start(journey::journey(0)).id(id).await?;
    durable.send(id, WORD, WORDS[0].to_owned()).key(WORDS[0]).await?;
    // An earlier victim may have sent it.
    let waits = "select exists (select from durable.message where workflow_id = $1 and key = 'two')
                 or exists (select from durable.step where workflow_id = $1 and name = 'patient')
                 and exists (select from durable.waiting where id = $1 and waits_for = 'receive')";
    until(outside, waits, id).await?;
    durable.send(id, WORD, WORDS[1].to_owned()).key(WORDS[1]).await?;
    until(outside, "select exists (select from durable.workflow where id = $1 and status = 'completed')", id).await?;
    println!("arrived after {}", durable::testing::crash_points_passed());
    Ok(())
}

async fn until(outside: &PgPool, sql: &'static str, id: &str) -> Result<()> {
    while !sqlx::query_scalar::<_, bool>(sql).bind(id).fetch_one(outside).await? {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
