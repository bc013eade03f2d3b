//! Waiting for a person: an expense that somebody approves by a click, or that expires.
//!
//! ```text
//! cargo run -p durable-examples --bin approval
//! curl -X POST localhost:3000/expenses/7 -d cents=12900
//! curl -X POST localhost:3000/expenses/7/decision -d approved=true   # days later, or after a restart
//! curl localhost:3000/expenses/7                                     # waits for the end
//! ```

use std::time::Duration;

use anyhow::Result;
use axum::{
    Form, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::post,
};
use durable::{Ctx, Durable, Topic, days, step, workflow};
use serde::Deserialize;
use sqlx::PgPool;

const APPROVED: Topic<bool> = Topic::new("approved");

#[step]
async fn pay(expense: i64, cents: i64) -> Result<String> {
    println!("paying {cents} cents for expense {expense}");
    Ok("paid".to_owned())
}

#[workflow]
async fn expense(ctx: &Ctx, id: i64, cents: i64) -> Result<String> {
    // While it waits, this is a row in a table: no memory, no thread, no timer.
    match ctx.receive(APPROVED).timeout(days(7)).await? {
        Some(true) => Ok(ctx.run(pay(id, cents)).await?),
        Some(false) => Ok("rejected".to_owned()),
        None => Ok("expired".to_owned()),
    }
}

#[derive(Deserialize)]
struct NewExpense {
    cents: i64,
}

#[derive(Deserialize)]
struct Decision {
    approved: bool,
}

type Reply = Result<String, (StatusCode, String)>;

async fn submit(durable: State<Durable>, Path(id): Path<i64>, Form(new): Form<NewExpense>) -> Reply {
    let start = durable.start(expense(id, new.cents));
    start.id(format!("expense-{id}")).await.map_err(refused)?;
    Ok(format!("expense {id} waits for approval\n"))
}

async fn decide(durable: State<Durable>, Path(id): Path<i64>, Form(said): Form<Decision>) -> Reply {
    // The key makes a double click one message.
    let send = durable.send(format!("expense-{id}"), APPROVED, said.approved);
    send.key("decision").await.map_err(refused)?;
    Ok(format!("expense {id} is decided\n"))
}

async fn outcome(durable: State<Durable>, Path(id): Path<i64>) -> Reply {
    let expense = durable.workflow::<String>(format!("expense-{id}"));
    expense.result().await.map(|outcome| outcome + "\n").map_err(refused)
}

fn refused(error: durable::Error) -> (StatusCode, String) {
    (StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n"))
}

#[tokio::main]
async fn main() -> Result<()> {
    let database = durable_dev::Database::dev("approval")?;
    let pool = PgPool::connect(database.url()).await?;
    let durable = Durable::builder(pool).register(expense).start().await?;

    let app = Router::new()
        .route("/expenses/{id}", post(submit).get(outcome))
        .route("/expenses/{id}/decision", post(decide))
        .with_state(durable.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(async { tokio::signal::ctrl_c().await.unwrap_or_default() })
        .await?;
    durable.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
