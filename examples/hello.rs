//! The first workflow: two steps, and a result that outlives the process.
//!
//! Run it twice. The second time prints the same greeting at once, from the database, because the
//! workflow of that id is already complete. `cargo run -p durable-examples --bin hello`

use anyhow::Result;
use durable::{Ctx, Durable, Handle, seconds, step, workflow};
use sqlx::PgPool;

#[step]
async fn look_up(name: String) -> Result<String> {
    println!("looking up {name}");
    Ok(format!("Dr. {name}"))
}

#[step]
async fn compose(title: String) -> Result<String> {
    println!("composing for {title}");
    Ok(format!("Hello, {title}!"))
}

#[workflow]
async fn greet(ctx: &Ctx, name: String) -> Result<String> {
    let title = ctx.run(look_up(name)).await?;
    Ok(ctx.run(compose(title)).await?)
}

#[tokio::main]
async fn main() -> Result<()> {
    let database = durable_dev::Database::dev("hello")?;
    let pool = PgPool::connect(database.url()).await?;
    let durable = Durable::builder(pool).register(greet).start().await?;

    // The id is yours. Starting it again is safe: there is one workflow "greet-ada".
    let greeting: Handle<String> = durable.start(greet("Ada".to_owned())).id("greet-ada").await?;
    println!("{}", greeting.result().await?);

    durable.shutdown(seconds(5)).await;
    Ok(())
}
