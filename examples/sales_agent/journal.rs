//! The journal: one row each time the body of a step begins.
//!
//! Only the demonstration needs it, to show what was done again after a kill and what was not. An
//! application would not write it: the library's history already says what was completed.

use anyhow::{Context, Result};
use durable::StepCtx;
use sqlx::PgPool;

/// Where this process writes its journal.
pub(crate) struct Journal {
    // A pool of its own: a step that holds a connection of the application's pool (its transaction)
    // must not wait for a second one from the same pool.
    pool: PgPool,
    worker: i32,
}

impl Journal {
    pub(crate) fn new(pool: PgPool, worker: i32) -> Self {
        Self { pool, worker }
    }
}

/// Writes down that the body of a step begins, and commits that at once.
pub(crate) async fn note(step: &StepCtx) -> Result<()> {
    let journal = step.state::<Journal>();
    sqlx::query("insert into body_started (workflow_id, step, key, attempt, worker) values ($1, $2, $3, $4, $5)")
        .bind(step.workflow_id())
        .bind(step.name())
        .bind(step.key())
        .bind(i32::try_from(step.attempt())?)
        .bind(journal.worker)
        .execute(&journal.pool)
        .await
        .with_context(|| format!("could not note the start of {}", step.name()))?;
    Ok(())
}
