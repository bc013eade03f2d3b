//! Functions that are not of the shape of a step or a workflow: one error each, at the token that is wrong.

use anyhow::Result;
use durable::{Ctx, step, workflow};

#[step]
async fn generic<T: Send>(value: T) -> Result<()> {
    drop(value);
    Ok(())
}

#[step]
async fn opaque(value: impl ToString) -> Result<String> {
    Ok(value.to_string())
}

#[workflow]
async fn lifetimes<'a>(ctx: &'a Ctx) -> Result<&'static str> {
    ctx.run(generic(1)).await?;
    Ok("done")
}

#[workflow]
async fn named_context<'a>(ctx: &'a Ctx, n: i32) -> Result<i32> {
    ctx.run(opaque(n)).await?;
    Ok(n)
}

#[step]
fn blocking(n: i32) -> Result<i32> {
    Ok(n)
}

#[workflow]
fn blocking_body(ctx: &Ctx) -> Result<i32> {
    Ok(ctx.run(blocking(1)).await?)
}

#[step]
const async fn constant() -> Result<i32> {
    Ok(1)
}

#[step]
async unsafe fn dangerous() -> Result<i32> {
    Ok(1)
}

#[step]
async extern "C" fn foreign() -> Result<i32> {
    Ok(1)
}

#[step]
async fn no_return_type(n: i32) {
    if n > 1 {
        return Err(anyhow::anyhow!("too many"));
    }
    Ok(())
}

#[workflow]
async fn no_return_type_body(ctx: &Ctx) {
    ctx.run(blocking(1)).await?;
}

#[step]
async fn nine(a: i8, b: i8, c: i8, d: i8, e: i8, f: i8, g: i8, h: i8, i: i8) -> Result<i8> {
    Ok(a + b + c + d + e + f + g + h + i)
}

struct Shop;

impl Shop {
    #[step]
    async fn charge(&self, cents: i64) -> Result<i64> {
        self.check();
        Ok(cents)
    }

    fn check(&self) {}
}

#[step]
struct Charge;

#[workflow]
const ORDER: i32 = 1;

fn main() {}
