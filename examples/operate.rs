//! A night in operations: the bank was down, orders have failed. They are found by an attribute, resumed together once the
//! bank is back, and go on at the payment; what they had reserved is not reserved again. New ones are paused meanwhile.
//!
//! ```text
//! cargo run -p durable-examples --bin operate
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use durable::{Ctx, Durable, ListWorkflows, Status, StepCtx, hours, step, workflow};
use sqlx::PgPool;

/// Stands for a bank that is there or not.
#[derive(Clone, Default)]
struct Bank(Arc<AtomicBool>);

#[step]
async fn reserve(item: String) -> Result<()> {
    println!("  reserving {item}");
    Ok(())
}

#[step(retry(max_attempts = 1))]
async fn pay(step: &StepCtx, cents: i64) -> Result<()> {
    ensure!(step.state::<Bank>().0.load(Ordering::SeqCst), "the bank does not answer");
    println!("  paying {cents} cents with the key {}", step.key());
    Ok(())
}

#[workflow]
async fn order(ctx: &Ctx, item: String, cents: i64) -> Result<String> {
    ctx.run(reserve(item.clone())).await?;
    ctx.run(pay(cents)).await?;
    ctx.set_attribute("stage", "paid").await?;
    Ok(format!("{item} is on its way"))
}

/// Wait until as many stand so.
async fn until(list: ListWorkflows<'_>, count: usize) -> Result<()> {
    while list.clone().await?.workflows.len() < count {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let database = durable_dev::Database::dev("operate")?;
    let pool = PgPool::connect(database.url()).await?;
    let bank = Bank::default();
    let durable = Durable::builder(pool).register(order).state(bank.clone()).start().await?;
    // What is left of an earlier run.
    durable.workflows().id_prefix("night-").cancel().await?;
    durable.workflows().id_prefix("night-").delete().await?;

    println!("the bank is down:");
    for (n, item) in ["tea", "milk", "sugar"].into_iter().enumerate() {
        let start = durable.start(order(item.to_owned(), 500)).id(format!("night-{n}"));
        start.attribute("bank", "north").attribute("cents", 500).await?;
    }
    let ours = || durable.workflows().id_prefix("night-").attribute("bank", "north").attribute_from("cents", 100);
    until(ours().status(Status::Failed), 3).await?;
    for failed in ours().status(Status::Failed).oldest_first().await?.workflows {
        println!("  {} has failed: {}", failed.id, failed.failure.map(|f| f.to_string()).unwrap_or_default());
    }
    durable.cancel("night-2").await.unwrap_err(); // it has ended already
    durable.restart("night-2").reason("look into it in the morning").await?;
    until(ours().status(Status::Failed), 3).await?;

    // Those that have not begun are kept from it, all that are found by a filter at once.
    durable
        .start(order("coffee".into(), 700))
        .id("night-3")
        .attribute("bank", "north")
        .attribute("cents", 700)
        .delay(hours(9))
        .await?;
    let paused = ours().status(Status::Queued).pause().reason("the bank is down").await?;
    println!("  {} paused", paused.done);

    println!("the bank is back:");
    durable.resume("night-3").await?; // it waits for its time
    bank.0.store(true, Ordering::SeqCst);
    let done = ours().status(Status::Failed).resume().reason("the bank is back").await?;
    println!("  {} go on, {} do not", done.done, done.skipped);
    until(durable.workflows().id_prefix("night-").attribute("stage", "paid").status(Status::Completed), 3).await?;

    let last = durable.workflow::<String>("night-2");
    println!("night-2: {}", last.result().await?);
    for entry in last.timeline().await?.entries {
        println!("  {entry}");
    }
    durable.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
