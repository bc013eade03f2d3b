//! Bodies that do not fit in the place of a step's own.

use anyhow::Result;
use durable::{Builder, step};

#[step]
async fn send_mail(to: String, copies: u32) -> Result<u64> {
    Ok(to.len() as u64 + u64::from(copies))
}

async fn no_step(n: u32) -> Result<u32> {
    Ok(n)
}

fn takes_something_else(builder: Builder) -> Builder {
    builder.mock(send_mail, |to: String| async move { Ok(to.len() as u64) })
}

fn gives_something_else(builder: Builder) -> Builder {
    builder.mock(send_mail, |(to, _)| async move { Ok(to) })
}

fn mocks_no_step(builder: Builder) -> Builder {
    builder.mock(no_step, |n| async move { Ok(n) })
}

fn main() {}
