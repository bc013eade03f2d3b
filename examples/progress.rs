//! Progress that a web page can ask for: a workflow publishes how far it is, and anybody reads it.
//!
//! ```text
//! cargo run -p durable-examples --bin progress
//! curl -X POST localhost:3001/imports/7 -d rows=50
//! curl localhost:3001/imports/7          # 12 of 50, also from another process, and after a restart
//! curl localhost:3001/imports/7/done     # waits until it is through, a minute at most
//! ```

use std::time::Duration;

use anyhow::Result;
use axum::{
    Form, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use durable::{Ctx, Durable, Event, minutes, step, workflow};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

#[derive(Serialize, Deserialize)]
struct Progress {
    done: u32,
    of: u32,
}

const PROGRESS: Event<Progress> = Event::new("progress");
const DONE: Event<String> = Event::new("done");

#[step]
async fn import_row(row: u32) -> Result<()> {
    println!("row {row}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    Ok(())
}

#[workflow]
async fn import(ctx: &Ctx, rows: u32) -> Result<()> {
    for row in 0..rows {
        ctx.run(import_row(row)).await?;
        // Published once for each row, however often the body is run again after a crash.
        ctx.publish(PROGRESS, Progress { done: row + 1, of: rows }).await?;
    }
    ctx.publish(DONE, format!("{rows} rows are in")).await?;
    Ok(())
}

#[derive(Deserialize)]
struct NewImport {
    rows: u32,
}

type Reply = Result<String, (StatusCode, String)>;

async fn begin(durable: State<Durable>, Path(id): Path<i64>, Form(new): Form<NewImport>) -> Reply {
    durable.start(import(new.rows)).id(format!("import-{id}")).await.map_err(refused)?;
    Ok(format!("import {id} has begun\n"))
}

async fn progress(durable: State<Durable>, Path(id): Path<i64>) -> Reply {
    let import = durable.workflow::<()>(format!("import-{id}"));
    let at = import.event(PROGRESS).await.map_err(refused)?;
    Ok(at.map_or("not begun\n".to_owned(), |at| format!("{} of {}\n", at.done, at.of)))
}

async fn done(durable: State<Durable>, Path(id): Path<i64>) -> Reply {
    let import = durable.workflow::<()>(format!("import-{id}"));
    let done = import.event(DONE).wait(minutes(1)).await.map_err(refused)?;
    Ok(done.map_or("not yet\n".to_owned(), |done| done + "\n"))
}

fn refused(error: durable::Error) -> (StatusCode, String) {
    (StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n"))
}

#[tokio::main]
async fn main() -> Result<()> {
    let database = durable_dev::Database::dev("progress")?;
    let pool = PgPool::connect(database.url()).await?;
    let durable = Durable::builder(pool).register(import).start().await?;

    let app = Router::new()
        .route("/imports/{id}", post(begin).get(progress))
        .route("/imports/{id}/done", get(done))
        .with_state(durable.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3001").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(async { tokio::signal::ctrl_c().await.unwrap_or_default() })
        .await?;
    durable.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
