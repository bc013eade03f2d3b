//! Many agents and one model provider: a queue that keeps all of them, in all processes together, to what the provider allows, and
//! gives each customer a fair share.
//!
//! ```text
//! cargo run -p durable-examples --bin queue
//! ```
//!
//! One customer has 40 questions and another one has 3. At most four are asked at a time, two of each customer, and ten in any three
//! seconds. Start it in two terminals: the limits are those of both together.

use std::time::{Duration, Instant};

use anyhow::Result;
use durable::{Ctx, Durable, Queue, StepCtx, seconds, step, workflow};
use sqlx::PgPool;

#[step]
async fn ask_model(step: &StepCtx, question: String) -> Result<String> {
    let began_at: &Instant = step.state();
    println!("{:>5.1} s  {question}", began_at.elapsed().as_secs_f64());
    tokio::time::sleep(Duration::from_millis(300)).await;
    Ok(format!("{question}? Yes."))
}

#[workflow]
async fn agent(ctx: &Ctx, question: String) -> Result<String> {
    Ok(ctx.run(ask_model(question)).await?)
}

#[tokio::main]
async fn main() -> Result<()> {
    let database = durable_dev::Database::dev("queue")?;
    let pool = PgPool::connect(database.url()).await?;
    let model = Queue::new("model").concurrency(4).concurrency_per_partition(2).rate(10, seconds(3));
    let durable = Durable::builder(pool).register(agent).state(Instant::now()).serve(model).start().await?;

    let mut agents = Vec::new();
    for (customer, questions) in [("large", 40), ("small", 3)] {
        for n in 1..=questions {
            let start = durable.start(agent(format!("{customer} customer's question {n}")));
            agents.push(start.queue("model").partition(customer).await?);
        }
    }
    for queue in durable.queues().await? {
        println!("queue {:?}: {} run, {} wait", queue.queue.name(), queue.running, queue.waiting);
    }
    // While it runs, from here or with psql: update durable.queue set rate = 20 where name = 'model'
    for agent in agents {
        agent.result().await?;
    }
    durable.shutdown(seconds(10)).await;
    Ok(())
}
