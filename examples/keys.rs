//! Starts that belong together: a button that is pressed twice, somebody who types, many small inputs for one call of a model.
//!
//! ```text
//! cargo run -p durable-examples --bin keys
//! ```

use anyhow::Result;
use durable::{Batch, Ctx, Debounce, Durable, IfOpen, seconds, step, workflow};
use futures::future::try_join_all;
use sqlx::PgPool;

/// Takes a while, and must not run twice for an account at the same time.
#[workflow]
async fn sync(ctx: &Ctx, account: u64) -> Result<()> {
    ctx.sleep(seconds(1)).await?;
    println!("account {account} is in sync");
    Ok(())
}

#[workflow]
async fn index(ctx: &Ctx, text: String) -> Result<()> {
    Ok(ctx.run(add_to_index(text)).await?)
}

#[step]
async fn add_to_index(text: String) -> Result<()> {
    println!("indexed: {text}");
    Ok(())
}

#[workflow]
async fn embed(ctx: &Ctx, texts: Vec<String>) -> Result<usize> {
    Ok(ctx.run(ask_model(texts)).await?)
}

#[step]
async fn ask_model(texts: Vec<String>) -> Result<usize> {
    println!("one call of the model for {} texts", texts.len());
    Ok(texts.len())
}

#[tokio::main]
async fn main() -> Result<()> {
    let database = durable_dev::Database::dev("keys")?;
    let pool = PgPool::connect(database.url()).await?;
    let durable = Durable::builder(pool).register(sync).register(index).register(embed).start().await?;

    // Deduplicated: while one is open, there is no other one.
    let first = durable.start(sync(7)).deduplicate("account-7").await?;
    let second = durable.start(sync(7)).deduplicate("account-7").await?;
    println!("pressed twice: {}", if second.id() == first.id() { "one workflow" } else { "two" });
    // Or the other way round: what runs is out of date, start over once it has stopped.
    let third = durable.start(sync(7)).deduplicate("account-7").if_open(IfOpen::Replace).await?;

    // Debounced: with the last input, once they have come to rest.
    let debounce = Debounce::new(seconds(1)).max_wait(seconds(10));
    let mut typed = Vec::new();
    for text in ["d", "dur", "durable"] {
        typed.push(durable.start(index(text.to_owned())).debounce("document-42", debounce).await?);
    }

    // A batch: a hundred of them at a time, or what has come within a second.
    let batch = Batch::new(100, seconds(1));
    let starts = (0..250).map(|n| {
        let start = durable.start(embed(vec![format!("text {n}")]));
        start.batch("tenant-7", batch).into_future()
    });
    let embedded = try_join_all(starts).await?;

    third.result().await?;
    typed[0].result().await?;
    for handle in &embedded {
        handle.result().await?;
    }
    durable.shutdown(seconds(10)).await;
    Ok(())
}
