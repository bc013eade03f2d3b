//! Every shape of a step, called as its definition says, less the contexts.

#![allow(unused_qualifications, reason = "contexts are recognised by any path")]

use anyhow::Result;
use durable::{PgConnection, Step, StepCtx, step};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    lines: Vec<String>,
}

/// An error of the application's own.
#[derive(Debug)]
struct Declined;

impl std::fmt::Display for Declined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("declined")
    }
}

impl std::error::Error for Declined {}

type Fallible<T, E = Declined> = std::result::Result<T, E>;

#[step]
async fn nothing() -> Result<()> {
    Ok(())
}

#[step]
async fn one(mut order: Order) -> Result<Order> {
    order.lines.sort();
    Ok(order)
}

#[step]
#[expect(clippy::too_many_arguments, reason = "as many as there may be")]
async fn many(a: i8, b: i16, c: i32, d: i64, e: u8, f: u16, g: u32, h: String) -> Fallible<String> {
    if h.is_empty() {
        return Err(Declined);
    }
    Ok(format!("{a}{b}{c}{d}{e}{f}{g}{h}"))
}

#[step]
async fn patterns((a, b): (i32, i32), [c, _]: [i32; 2], _: String) -> Result<i32> {
    Ok(a + b + c)
}

#[step]
async fn with_context(step: &StepCtx, name: String) -> Result<String> {
    Ok(format!("{}/{}/{name}", step.key(), step.attempt()))
}

#[step]
async fn full_paths(_: &durable::StepCtx) -> std::result::Result<(), std::io::Error> {
    Ok(())
}

// Names that the expansion uses itself.
#[step]
async fn names_of_the_expansion(step: &StepCtx, tx: i32, ctx: i32, arg1: i32, input: i32) -> Result<i32> {
    Ok(tx + ctx + arg1 + input + step.attempt() as i32)
}

#[step(tx)]
async fn in_transaction(tx: &mut PgConnection) -> Result<i32> {
    Ok(sqlx::query_scalar("select 1").fetch_one(tx).await?)
}

#[step(tx)]
async fn in_transaction_with_context(tx: &mut PgConnection, step: &StepCtx, n: i32) -> Fallible<i32, sqlx::Error> {
    sqlx::query_scalar("select $1 + $2").bind(step.attempt() as i32).bind(n).fetch_one(&mut *tx).await
}

#[step(tx, retry(max_attempts = 1), timeout = "5s", name = "all options")]
async fn in_transaction_with_more(tx: &mut sqlx::PgConnection, mut a: Order, b: i32) -> Result<()> {
    a.lines.push(b.to_string());
    sqlx::query("select $1").bind(a.lines).execute(tx).await?;
    Ok(())
}

#[step]
async fn r#match(r#type: String) -> Result<String> {
    Ok(r#type)
}

mod research {
    use super::{Result, step};

    #[step]
    pub(crate) async fn research(lead: String) -> Result<String> {
        Ok(lead)
    }
}
use research::research;

#[test]
fn a_step_is_a_function_from_its_arguments_to_a_described_step() {
    let _: fn() -> Step<()> = nothing;
    let _: fn(Order) -> Step<Order> = one;
    let _: Step<String> = many(1, 2, 3, 4, 5, 6, 7, String::new());
    let _: fn((i32, i32), [i32; 2], String) -> Step<i32> = patterns;
    let _: fn(String) -> Step<String> = with_context;
    let _: fn() -> Step<()> = full_paths;
    let _: fn(i32, i32, i32, i32) -> Step<i32> = names_of_the_expansion;
    let _: fn() -> Step<i32> = in_transaction;
    let _: fn(i32) -> Step<i32> = in_transaction_with_context;
    let _: fn(Order, i32) -> Step<()> = in_transaction_with_more;
    let _: fn(String) -> Step<String> = r#match;
    let _: fn(String) -> Step<String> = research;
}

#[test]
fn a_step_can_be_defined_inside_a_function() {
    #[derive(Serialize, Deserialize)]
    struct Local(i32);

    #[step]
    async fn local(n: Local) -> Result<Local> {
        Ok(Local(n.0 + 1))
    }

    let _: fn(Local) -> Step<Local> = local;
}
