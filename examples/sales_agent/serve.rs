//! Serving for a person: the web application and the worker in one process, until Ctrl-C.
//!
//! Nothing is emptied: stop it, start it again, and every lead goes on where it was.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use durable::days;
use durable_dev::Database;
use tokio::{net::TcpListener, signal::ctrl_c};

use crate::{
    agent::Pace,
    database::{self, SERVE},
    internet::Internet,
    web::{self, App},
    worker::{self, Setup},
};

/// How long requests and steps get to end after Ctrl-C.
const GOODBYE: Duration = Duration::from_secs(10);

pub(crate) async fn run(port: u16) -> Result<ExitCode> {
    let database = tokio::task::spawn_blocking(|| Database::dev("sales_agent")).await??;
    let pool = database::connect(database.url(), SERVE, 10).await?;
    database::create(&mut *pool.acquire().await?, SERVE).await?;

    let listener =
        TcpListener::bind(("127.0.0.1", port)).await.with_context(|| format!("could not listen on port {port}"))?;
    let address = format!("http://{}", listener.local_addr()?);
    let internet = Internet::start(1, format!("{address}/webhooks/mail")).await?;
    let setup = Setup {
        schemas: SERVE,
        number: 1,
        pace: Pace { follow_up_after: days(3), follow_ups: 2 },
        lease: Duration::from_secs(15),
    };
    let durable = worker::start(pool.clone(), database.url(), internet.url(), setup).await?;

    println!("Serving on {address}. Upload examples/leads.csv there; Ctrl-C ends it.");
    let app = web::router(App { pool, durable: durable.clone() });
    axum::serve(listener, app).with_graceful_shutdown(async { ctrl_c().await.unwrap_or_default() }).await?;
    println!("Handing the work back.");
    durable.shutdown(GOODBYE).await;
    Ok(ExitCode::SUCCESS)
}
