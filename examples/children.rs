//! Children: a workflow that starts others, takes their answers as they come, and is one row in a table meanwhile.
//!
//! Stop it with Ctrl-C when some answers have come, and run it again: it goes on, and those come in the order in which they
//! came. Each shop is asked by a workflow of its own, which any worker may run. `cargo run -p durable-examples --bin children`

use std::time::Duration;

use anyhow::{Result, ensure};
use durable::{Children, Ctx, Durable, seconds, step, workflow};
use futures::future::try_join_all;
use sqlx::PgPool;

const SHOPS: [&str; 5] = ["Babbage & Sons", "Lovelace", "Difference Ltd", "The Loom", "Menabrea"];

/// A shop takes its time, and one of them is closed.
#[step(retry(max_attempts = 2, first = "500ms"))]
async fn ask(shop: String, item: String) -> Result<u64> {
    tokio::time::sleep(Duration::from_millis(300 * shop.len() as u64)).await;
    ensure!(shop != "The Loom", "nobody answers at {shop}");
    Ok((shop.len() * item.len()) as u64)
}

#[workflow]
async fn quote(ctx: &Ctx, shop: String, item: String) -> Result<u64> {
    let cents = ctx.run(ask(shop, item)).await?;
    // Shops think it over. The child is a row meanwhile, too.
    ctx.sleep(seconds(2)).await?;
    Ok(cents)
}

/// In a step, because what the body prints is printed again whenever it is run again.
#[step]
async fn tell(line: String) -> Result<()> {
    println!("{line}");
    Ok(())
}

#[step]
async fn place_order(shop: String, cents: u64) -> Result<String> {
    Ok(format!("ordered at {shop} for {cents} cents"))
}

#[workflow]
async fn order(ctx: &Ctx, shop: String, cents: u64) -> Result<String> {
    Ok(ctx.run(place_order(shop, cents)).await?)
}

#[workflow]
async fn buy(ctx: &Ctx, item: String) -> Result<String> {
    // Started together, each once, however often this body is run again.
    let starts = SHOPS.map(|shop| ctx.start(quote(shop.to_owned(), item.clone())).id(format!("{}/{shop}", ctx.id())));
    let mut open: Children<u64> = try_join_all(starts).await?.into_iter().collect();

    let mut best: Option<(u64, String)> = None;
    while let Some((child, answer)) = ctx.next(&mut open).await {
        let shop = child.id().rsplit('/').next().unwrap_or_default().to_owned();
        match answer {
            Ok(cents) => {
                ctx.run(tell(format!("{shop} asks for {cents} cents, {} still think", open.len()))).await?;
                best = Some(best.map_or((cents, shop.clone()), |best| best.min((cents, shop))));
            }
            // What the child failed with, and which child it was.
            Err(failure) => ctx.run(tell(failure.to_string())).await?,
        }
    }
    let Some((cents, shop)) = best else { anyhow::bail!("nobody has a {item}") };
    // Run and awaited in one go.
    Ok(ctx.run(order(shop, cents)).await?)
}

#[tokio::main]
async fn main() -> Result<()> {
    let database = durable_dev::Database::dev("children")?;
    let pool = PgPool::connect(database.url()).await?;
    let durable = Durable::builder(pool).register(buy).register(quote).register(order).start().await?;

    // A second purchase takes another id. Cancelling "purchase-1" would cancel what it has started, too.
    let purchase = durable.start(buy("steam engine".to_owned())).id("purchase-1").await?;
    println!("{}", purchase.result().await?);

    durable.shutdown(seconds(5)).await;
    Ok(())
}
