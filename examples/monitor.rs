//! A monitor that goes on for ever, with a history that does not: it continues as new every few rounds, and keeps what it
//! knows as its input. A note that is sent meanwhile waits for the generation that reads it.
//!
//! ```text
//! cargo run -p durable-examples --bin monitor
//! ```

use anyhow::Result;
use durable::{Ctx, Durable, StepCtx, Topic, seconds, step, workflow};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

const NOTE: Topic<String> = Topic::new("note");

/// Rounds in one generation. A day of them would be as good.
const ROUNDS: u32 = 3;

/// What the monitor knows, from its first round on.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Seen {
    rounds: u32,
    slowest_ms: u64,
    notes: Vec<String>,
}

/// Stands for a request: how long did the site take?
#[step]
async fn measure(step: &StepCtx, site: String) -> Result<u64> {
    // The key of a step has its generation in it: a service that knows keys sees a new one.
    println!("measuring {site} as {}", step.key());
    Ok(made_up(step.key()) % 900)
}

fn made_up(text: &str) -> u64 {
    text.bytes().fold(7, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)))
}

#[workflow]
async fn monitor(ctx: &Ctx, site: String, mut seen: Seen) -> Result<Seen> {
    for _ in 0..ROUNDS {
        let took_ms = ctx.run(measure(site.clone())).await?;
        seen.rounds += 1;
        seen.slowest_ms = seen.slowest_ms.max(took_ms);
        match ctx.receive(NOTE).timeout(seconds(1)).await? {
            Some(note) if note == "stop" => return Ok(seen),
            Some(note) => seen.notes.push(note),
            None => {}
        }
    }
    // The history is forgotten, the id stays, and so do notes that nobody has read.
    ctx.continue_as_new(monitor(site, seen)).await
}

#[tokio::main]
async fn main() -> Result<()> {
    let database = durable_dev::Database::dev("monitor")?;
    let pool = PgPool::connect(database.url()).await?;
    let durable = Durable::builder(pool).register(monitor).start().await?;

    let id = "monitor example.org";
    let started = durable.start(monitor("example.org".into(), Seen::default())).id(id).await?;
    if started.existed() {
        println!("it has ended before: see its result, or drop the database");
    }
    for note in ["one", "two", "three", "four", "stop"] {
        durable.send(id, NOTE, note.into()).key(note).await?;
    }
    // Whoever waits for the result waits through all generations.
    let seen = started.result().await?;
    println!("{} rounds, the slowest took {} ms, notes: {:?}", seen.rounds, seen.slowest_ms, seen.notes);
    for step in started.steps().await? {
        println!("in the history: {}.{} {} {}", step.lane, step.seq, step.kind, step.name);
    }

    durable.shutdown(seconds(5)).await;
    Ok(())
}
