//! A trip that may come to nothing: what is booked is given back, in reverse order, whether a step fails, the traveller cancels,
//! or nobody pays in time.
//!
//! ```text
//! cargo run -p durable-examples --bin trip
//! ```

use anyhow::{Result, bail};
use durable::{Ctx, Durable, Handle, Topic, seconds, step, workflow};
use sqlx::PgPool;

const PAID: Topic<i64> = Topic::new("paid");

#[step(retry(max_attempts = 1))]
async fn book(what: String) -> Result<()> {
    if what.contains("overbooked") {
        bail!("the {what} is full");
    }
    println!("  booked the {what}");
    Ok(())
}

/// Itself durable: a crash in the middle does not forget it, and it is tried again until it is done.
#[step]
async fn give_back(what: String) -> Result<()> {
    println!("  gave back the {what}");
    Ok(())
}

#[workflow]
async fn trip(ctx: &Ctx, parts: Vec<String>) -> Result<String> {
    for part in parts {
        // Registered before the step: if that was done and its worker died before it said so, it is given back all the same.
        ctx.undo(give_back(part.clone())).await;
        ctx.run(book(part)).await?;
    }
    let cents = ctx.receive(PAID).await?;
    Ok(format!("paid {cents} cents, have a good time"))
}

fn parts(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| (*part).to_owned()).collect()
}

/// Wait until it has booked what it wants to, and waits for the money.
async fn until_booked(trip: &Handle<String>, count: usize) -> Result<()> {
    while trip.steps().await?.iter().filter(|step| step.kind == "step").count() < count {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn tell(trip: &Handle<String>) -> Result<()> {
    let result = trip.result().await;
    let info = trip.info().await?;
    match result {
        Ok(output) => println!("  {}: {output}", info.status),
        // A deadline is a failure of a kind of its own; a cancellation is a status.
        Err(_) => println!("  {}: {}", info.status, info.failure.map(|f| f.to_string()).unwrap_or_default()),
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let database = durable_dev::Database::dev("trip")?;
    let pool = PgPool::connect(database.url()).await?;
    // A short lease, so that deadlines are looked for more often than every two seconds.
    let durable = Durable::builder(pool).lease(seconds(2)).register(trip).start().await?;

    println!("a step fails:");
    tell(&durable.start(trip(parts(&["flight", "overbooked hotel", "car"]))).await?).await?;

    println!("the traveller cancels:");
    let cancelled = durable.start(trip(parts(&["flight", "hotel"]))).await?;
    until_booked(&cancelled, 2).await?;
    durable.cancel(cancelled.id()).reason("a broken leg").await?;
    tell(&cancelled).await?;

    println!("nobody pays in time:");
    tell(&durable.start(trip(parts(&["ferry", "tent"]))).deadline(seconds(1)).await?).await?;

    println!("the traveller is given more time, and pays:");
    let patient = durable.start(trip(parts(&["train"]))).deadline(seconds(2)).await?;
    until_booked(&patient, 1).await?;
    durable.set_deadline(patient.id(), seconds(3_600)).reason("the bank is on holiday").await?;
    tokio::time::sleep(seconds(3)).await;
    durable.send(patient.id(), PAID, 12_000).await?;
    tell(&patient).await?;

    durable.shutdown(seconds(5)).await;
    Ok(())
}
