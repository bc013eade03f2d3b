//! A wrong value in the middle of a history: the workflow is forked from there, with another output in its place. What was done
//! before is not done again, what comes after is done anew, and the first workflow stays as it is.
//!
//! ```text
//! cargo run -p durable-examples --bin fork
//! ```

use anyhow::{Result, ensure};
use durable::{Ctx, Durable, Handle, seconds, step, workflow};
use sqlx::PgPool;

#[step]
async fn read_meter(house: String) -> Result<i64> {
    println!("  reading the meter of {house}, which takes a man and a car");
    Ok(1_204)
}

/// A price list that had a slip in it.
#[step]
async fn look_up_price() -> Result<i64> {
    println!("  looking up the price");
    Ok(3_000)
}

#[step(retry(max_attempts = 1))]
async fn bill(house: String, cents: i64) -> Result<String> {
    ensure!(cents < 100_000, "{cents} cents for {house} cannot be right");
    println!("  billing {cents} cents");
    Ok(format!("{house} pays {cents} cents"))
}

#[workflow]
async fn yearly_bill(ctx: &Ctx, house: String) -> Result<String> {
    let units = ctx.run(read_meter(house.clone())).await?; // position 0
    let price = ctx.run(look_up_price()).await?; //           position 1
    Ok(ctx.run(bill(house, units * price)).await?) //         position 2
}

async fn show(of: &Handle<String>) -> Result<()> {
    for step in of.steps().await? {
        let output = step.output.as_deref().unwrap_or("failed");
        println!("  {} at {}: {output}", step.name, step.seq);
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let database = durable_dev::Database::dev("fork")?;
    let pool = PgPool::connect(database.url()).await?;
    let durable = Durable::builder(pool).register(yearly_bill).start().await?;

    println!("the first try:");
    let first = durable.start(yearly_bill("Elm Street 7".into())).await?;
    let failed = first.result().await.unwrap_err();
    println!("  {failed}");
    println!("its history:");
    show(&first).await?;

    // From position 2 on, as if the step at position 1 had returned 30. Nobody drives to the meter again.
    println!("a fork from position 2, with a price of 30:");
    let fork = durable.fork::<String>(first.id(), 2).output(1, &30_i64).reason("a slip in the price list").await?;
    println!("  {}", fork.result().await?);
    println!("its history:");
    show(&fork).await?;

    let info = fork.info().await?;
    println!("it is a fork of the first: {}", info.forked_from.as_deref() == Some(first.id()));
    println!("the first one is still {}", first.status().await?);

    // A mistake is refused before anything is written.
    let beyond = durable.fork::<String>(first.id(), 9).await.unwrap_err();
    println!("beyond the history: {beyond}");
    durable.shutdown(seconds(5)).await;
    Ok(())
}
