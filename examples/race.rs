//! Whichever comes first: the model's answer, a person who takes over, or the end of somebody's patience.
//!
//! ```text
//! cargo run -p durable-examples --bin race              # the fast model answers
//! cargo run -p durable-examples --bin race -- slow      # both models are slow, and patience ends
//! cargo run -p durable-examples --bin race -- person    # a person answers before either of them
//! ```

use std::time::Duration;

use anyhow::Result;
use durable::{Ctx, Durable, Handle, Topic, seconds, step, workflow};
use sqlx::PgPool;

const BY_HAND: Topic<String> = Topic::new("by hand");

/// Stands for a call to a model.
#[step]
async fn ask(model: String, question: String, ms: u64) -> Result<String> {
    println!("asking the {model} model");
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Ok(format!("{question} Yes, says the {model} model."))
}

/// The good model gets a second before the fast one is asked as well; the first answer counts, and the other call is dropped.
#[workflow]
async fn answer(ctx: &Ctx, question: String, good_ms: u64, fast_ms: u64) -> Result<String> {
    let models = async |ctx: &Ctx| {
        let good = ctx.race().or(async |ctx: &Ctx| ctx.run(ask("good".into(), question.clone(), good_ms)).await);
        let first = good.or(async |ctx: &Ctx| {
            ctx.sleep(seconds(1)).await?;
            ctx.run(ask("fast".into(), question.clone(), fast_ms)).await
        });
        first.await
    };
    // What has won is recorded: a crash from here on does not ask anybody again.
    Ok(durable::select! { ctx,
        by_hand = ctx.receive(BY_HAND) => format!("{question} {}", by_hand?),
        answer = models(ctx) => answer?,
        over = ctx.sleep(seconds(5)) => {
            over?;
            format!("{question} Nobody knows.")
        }
    })
}

#[tokio::main]
async fn main() -> Result<()> {
    let database = durable_dev::Database::dev("race")?;
    let pool = PgPool::connect(database.url()).await?;
    let durable = Durable::builder(pool).register(answer).start().await?;

    let case = std::env::args().nth(1).unwrap_or_default();
    let ms = if case == "slow" { 60_000 } else { 2_000 };
    let question: Handle<String> = durable.start(answer("Is tea better than coffee?".into(), 60_000, ms)).await?;
    if case == "person" {
        durable.send(question.id(), BY_HAND, "It depends.".into()).await?;
    }
    println!("{}", question.result().await?);

    durable.shutdown(seconds(5)).await;
    Ok(())
}
