//! An answer that is shown while it is written: a step streams a model's tokens, a web handler sends them on, and a browser that
//! was cut off goes on where it was.
//!
//! ```text
//! cargo run -p durable-examples --bin tokens
//! curl -N -X POST localhost:3002/chats/7 -d question='What is a workflow?'
//! curl -N localhost:3002/chats/7                         # all of it again, also after a restart, or while it is written
//! curl -N localhost:3002/chats/7 -H 'last-event-id: 12'  # what comes after the twelfth token, as EventSource asks for it
//! ```

use std::{convert::Infallible, time::Duration};

use anyhow::Result;
use axum::{
    Form, Router,
    extract::{Path, State},
    http::HeaderMap,
    response::sse::{Event, KeepAlive, Sse},
    routing::post,
};
use durable::{Ctx, Durable, Error, StepCtx, Stream, StreamValue, step, workflow};
use futures::{StreamExt, stream::BoxStream};
use serde::Deserialize;
use sqlx::PgPool;

const TOKENS: Stream<String> = Stream::new("tokens");

/// In place of a model: it answers a word at a time.
#[step]
async fn ask_model(step: &StepCtx, question: String) -> Result<String> {
    let tokens = step.stream(TOKENS);
    let answer =
        format!("You ask: {question} It is a function that goes on where it was, whatever happens to its process.");
    for token in answer.split_inclusive(' ') {
        tokio::time::sleep(Duration::from_millis(150)).await;
        tokens.write(token.to_owned()).await?;
    }
    Ok(answer)
}

#[workflow]
async fn chat(ctx: &Ctx, question: String) -> Result<usize> {
    let answer = ctx.run(ask_model(question)).await?;
    // The body's own values are there once, whatever crashes.
    ctx.stream(TOKENS).write("\n".into()).await?;
    Ok(answer.len())
}

#[derive(Deserialize)]
struct NewChat {
    question: String,
}

type Events = Sse<axum::response::sse::KeepAliveStream<BoxStream<'static, Result<Event, Infallible>>>>;

async fn begin(durable: State<Durable>, Path(id): Path<i64>, Form(new): Form<NewChat>) -> Result<Events, String> {
    let started = durable.start(chat(new.question)).id(format!("chat-{id}")).await;
    started.map_err(|error| error.to_string())?;
    Ok(read(durable, Path(id), HeaderMap::new()).await)
}

async fn read(durable: State<Durable>, Path(id): Path<i64>, headers: HeaderMap) -> Events {
    let last: Option<u64> = headers.get("last-event-id").and_then(|last| last.to_str().ok()?.parse().ok());
    let tokens = durable.workflow::<usize>(format!("chat-{id}")).stream(TOKENS);
    let tokens = tokens.from(last.map_or(0, |last| last + 1));
    let events = tokens.map(|token| Ok(token.map_or_else(refused, event))).boxed();
    Sse::new(events).keep_alive(KeepAlive::default())
}

fn event(token: StreamValue<String>) -> Event {
    // After a crash the model is asked again. A page that sees another try clears what it has of the one before.
    let by = token.attempt.map_or_else(|| "body".to_owned(), |by| format!("try {}.{}", by.claim, by.attempt));
    Event::default().id(token.offset.to_string()).event(by).json_data(token.value).expect("a text is JSON")
}

fn refused(error: Error) -> Event {
    Event::default().event("refused").data(error.to_string())
}

#[tokio::main]
async fn main() -> Result<()> {
    let database = durable_dev::Database::dev("tokens")?;
    let pool = PgPool::connect(database.url()).await?;
    let durable = Durable::builder(pool).register(chat).start().await?;

    let app = Router::new().route("/chats/{id}", post(begin).get(read)).with_state(durable.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3002").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(async { tokio::signal::ctrl_c().await.unwrap_or_default() })
        .await?;
    durable.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
