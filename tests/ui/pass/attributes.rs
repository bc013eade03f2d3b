//! Documentation, lints, visibility and other attributes keep working on steps and workflows.
//!
//! Documentation, `cfg` and `deprecated` go to the function that is called, what instruments a function goes to the
//! one that holds the body, and lints go to both.

#![deny(missing_docs, unused, clippy::too_many_arguments)]
#![allow(unreachable_pub)]

use anyhow::Result;
use durable::{Ctx, PgConnection, Step, StepCtx, step, workflow};

/// Documented, and so nothing emitted beside it asks for documentation.
#[step]
#[allow(unused_variables)]
pub async fn documented(unused: i32) -> Result<()> {
    Ok(())
}

/// `expect` is fulfilled by the body, and only there.
#[step]
#[expect(unused_variables, reason = "what this test is about")]
pub async fn expected(unused: i32) -> Result<()> {
    Ok(())
}

/// Instrumented: the span has the function's own name and its arguments.
#[step]
#[tracing::instrument(skip(step), ret)]
pub async fn instrumented(step: &StepCtx, n: i32) -> Result<i32> {
    Ok(n + step.attempt() as i32)
}

/// An attribute above is expanded first and passes `#[step]` on.
#[tracing::instrument]
#[step]
pub async fn instrumented_above(n: i32) -> Result<i32> {
    Ok(n)
}

/// Instrumented, in a transaction.
#[step(tx)]
#[tracing::instrument(skip_all, fields(n))]
pub async fn instrumented_in_transaction(_tx: &mut PgConnection, n: i32) -> Result<i32> {
    Ok(n)
}

/// Instrumented, and a workflow.
#[workflow]
#[tracing::instrument(skip(ctx))]
pub async fn instrumented_workflow(ctx: &Ctx, n: i32) -> Result<i32> {
    Ok(n + ctx.run(instrumented(n)).await?)
}

#[workflow]
#[cfg(any())]
pub async fn configured_away(ctx: &Ctx, n: NoSuchType) -> Result<i32> {
    Ok(n)
}

#[step]
#[deprecated]
async fn old() -> Result<()> {
    Ok(())
}

/// Steps that a macro writes can take their options from it.
macro_rules! step_with_timeout {
    ($name:ident, $timeout:literal, $ty:ty) => {
        #[step(timeout = $timeout)]
        async fn $name(value: $ty) -> Result<$ty> {
            Ok(value)
        }
    };
}

step_with_timeout!(from_a_macro, "1m30s", String);

#[test]
fn attributes_do_not_change_what_a_function_is_called_with() {
    let _: fn(i32) -> Step<()> = documented;
    let _: fn(i32) -> Step<()> = expected;
    let _: fn(i32) -> Step<i32> = instrumented;
    let _: fn(i32) -> Step<i32> = instrumented_above;
    let _: fn(i32) -> Step<i32> = instrumented_in_transaction;
    let _: fn(String) -> Step<String> = from_a_macro;
    let _ = instrumented_workflow;
    #[allow(deprecated)]
    let _: fn() -> Step<()> = old;
}
