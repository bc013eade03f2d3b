//! What only types can show: the compiler's errors are at the user's parameter, return type or function.

use std::rc::Rc;

use anyhow::Result;
use durable::{Ctx, PgConnection, StepCtx, step, workflow};

/// Can be written, but not read.
#[derive(serde::Serialize)]
struct Order;

#[derive(serde::Serialize, serde::Deserialize)]
struct Receipt;

#[step]
async fn no_result(n: i32) -> i32 {
    n
}

#[step(tx)]
async fn no_result_in_transaction(_tx: &mut PgConnection) -> Option<i32> {
    None
}

#[workflow]
async fn no_result_body(_ctx: &Ctx) -> i32 {
    1
}

#[step]
async fn argument(order: Order) -> Result<()> {
    drop(order);
    Ok(())
}

#[step]
async fn second_argument(step: &StepCtx, n: i32, order: Order) -> Result<()> {
    drop((step.key().len(), n, order));
    Ok(())
}

#[step(tx)]
async fn argument_in_transaction(_tx: &mut PgConnection, order: Order) -> Result<()> {
    drop(order);
    Ok(())
}

#[workflow]
async fn argument_of_body(_ctx: &Ctx, n: i32, order: Order) -> Result<()> {
    drop((n, order));
    Ok(())
}

#[step]
async fn output(n: i32) -> Result<Order> {
    drop(n);
    Ok(Order)
}

#[workflow]
async fn output_of_body(_ctx: &Ctx) -> Result<Order> {
    Ok(Order)
}

#[step]
async fn error(n: i32) -> Result<Receipt, String> {
    Err(n.to_string())
}

#[step]
async fn not_send(n: i32) -> Result<i32> {
    let n = Rc::new(n);
    tokio::task::yield_now().await;
    Ok(*n)
}

#[step(tx)]
async fn not_send_in_transaction(_tx: &mut PgConnection, n: i32) -> Result<i32> {
    let n = Rc::new(n);
    tokio::task::yield_now().await;
    Ok(*n)
}

#[workflow]
async fn not_send_body(_ctx: &Ctx, n: i32) -> Result<i32> {
    let n = Rc::new(n);
    tokio::task::yield_now().await;
    Ok(*n)
}

fn main() {}
