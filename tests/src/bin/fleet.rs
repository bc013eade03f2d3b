//! A worker process of one of two releases, for the test that rolls a fleet from the one to the other. It ends in order when it
//! is terminated, and at once when its standard input closes, so that none is left when a test is gone.

use std::io::Read;
use std::time::Duration;

use anyhow::{Context, Result};
use durable::Durable;
use durable_tests::db::PATIENCE;
use durable_tests::fleet::Release;
use sqlx::postgres::PgPoolOptions;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    durable_tests::db::log_if_asked();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, release] = &arguments[..] else { anyhow::bail!("usage: fleet DATABASE-URL First|Second") };
    let release = if release == "Second" { Release::Second } else { Release::First };
    let mut told_to_end = signal(SignalKind::terminate())?;
    std::thread::spawn(|| {
        // Its end is what counts.
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        std::process::exit(1);
    });
    let pool = PgPoolOptions::new().max_connections(2).connect_lazy(url)?;
    let builder = Durable::builder(pool)
        .lease(Duration::from_secs(1))
        .poll_every(Duration::from_millis(50))
        .short_wait(Duration::from_millis(10))
        .concurrency(16)
        .migrate(false);
    let durable = release.register(builder).start().await?;
    println!("at work");
    told_to_end.recv().await.context("the signal")?;
    durable.shutdown(PATIENCE).await;
    std::process::exit(0)
}
