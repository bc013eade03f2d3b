//! Many agents that share a model's rate: each of them thinks, asks, and thinks again, and only the asking is limited, for all processes
//! together.
//!
//! ```text
//! cargo run -p durable-examples --bin limit
//! ```
//!
//! At most three calls at a time, and ten in any two seconds. Who waits longer than a second for its turn is a row meanwhile. Start it in
//! two terminals: the limit is that of both together.

use std::time::{Duration, Instant};

use anyhow::Result;
use durable::{Ctx, Durable, Limit, StepCtx, seconds, step, workflow};
use sqlx::PgPool;

#[step(limit = "model")]
async fn ask_model(step: &StepCtx, question: String) -> Result<String> {
    let began_at: &Instant = step.state();
    println!("{:>5.1} s  {question}", began_at.elapsed().as_secs_f64());
    tokio::time::sleep(Duration::from_millis(200)).await;
    Ok(format!("{question}? Yes."))
}

#[workflow]
async fn agent(ctx: &Ctx, name: String) -> Result<String> {
    let first = ctx.run(ask_model(format!("{name} asks"))).await?;
    Ok(ctx.run(ask_model(format!("{name} asks again after {:?}", first.len()))).await?)
}

#[tokio::main]
async fn main() -> Result<()> {
    let database = durable_dev::Database::dev("limit")?;
    let pool = PgPool::connect(database.url()).await?;
    let model = Limit::new("model").concurrency(3).rate(10, seconds(2));
    let durable = Durable::builder(pool).register(agent).state(Instant::now()).limit(model).start().await?;

    let mut agents = Vec::new();
    for n in 1..=20 {
        agents.push(durable.start(agent(format!("agent {n}"))).await?);
    }
    for limit in durable.limits().await? {
        println!("limit {:?}: {} calls run", limit.limit.name(), limit.running);
    }
    // While it runs, from here or with psql: update durable.step_limit set rate = 20 where name = 'model'
    for agent in agents {
        agent.result().await?;
    }
    durable.shutdown(seconds(10)).await;
    Ok(())
}
