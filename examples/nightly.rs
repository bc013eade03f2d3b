//! A report for each night, and one every few seconds so that there is something to see.
//!
//! ```text
//! cargo run -p durable-examples --bin nightly     # ^C ends it; start it again and see what it makes up for
//! psql .. -c "select name, next_at, last_at, started, missed, skipped from durable.schedule"
//! ```

use std::time::Duration;

use anyhow::Result;
use durable::{CatchUp, Ctx, Durable, Overlap, Schedule, days, hours, minutes, seconds, step, workflow};
use sqlx::PgPool;

#[step(retry(max_attempts = 5, first = "1s"))]
async fn collect(of: String, until: String) -> Result<i64> {
    println!("  collecting {of} until {until}");
    Ok(until.len() as i64)
}

#[workflow]
async fn report(ctx: &Ctx, of: String) -> Result<i64> {
    // The time that the report is for: the same on every run, however late it was started.
    let until = ctx.scheduled_at().unwrap_or_else(|| ctx.now());
    Ok(ctx.run(collect(of, until.to_rfc3339())).await?)
}

#[workflow]
async fn pulse(ctx: &Ctx) -> Result<()> {
    println!("pulse of {:?}", ctx.scheduled_at());
    // Longer than what lies between two ticks: the one that comes meanwhile waits.
    Ok(ctx.sleep(seconds(4)).await?)
}

#[tokio::main]
async fn main() -> Result<()> {
    let database = durable_dev::Database::dev("nightly")?;
    let pool = PgPool::connect(database.url()).await?;

    // Every process of a fleet declares the same; what is as it was changes nothing.
    let nightly = Schedule::new("nightly", report("sales".into()))
        .cron("0 30 2 * * *", "Europe/Berlin") // also on the nights when half past two comes twice, or not at all
        .catch_up(CatchUp::all(7).within(days(7)))
        .overlap(Overlap::QueueAll)
        .jitter(minutes(10))
        .deadline(hours(6));
    let often = Schedule::new("pulse", pulse()).every(seconds(3)).overlap(Overlap::QueueOne).catch_up(CatchUp::skip());
    let durable =
        Durable::builder(pool).register(report).register(pulse).schedule(nightly).schedule(often).start().await?;

    for info in durable.schedules().await? {
        println!("{}: next at {:?}, {} started, {} missed", info.name, info.next_at, info.started, info.missed);
    }
    // Nobody waits until tomorrow night to see whether it works. It is refused while a night's report is still being written.
    let id = durable.schedule("nightly").trigger().await?;
    println!("{id} gave {}", durable.workflow::<i64>(&id).result().await?);

    let some_seconds = tokio::time::sleep(Duration::from_secs(15));
    tokio::select! {
        () = some_seconds => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    let info = durable.schedule("pulse").info().await?.expect("it is declared");
    println!("pulse: {} started, {} skipped, {} waiting", info.started, info.skipped, info.waiting);
    durable.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
