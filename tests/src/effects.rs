//! Effects of step bodies, written to an append-only table where a repeat shows.

use durable::{PgConnection, StepCtx};
use sqlx::PgPool;

/// Note that a plain step's body has had its effect, on a connection of its own, as a mail server would.
pub async fn note(pool: &PgPool, step: &StepCtx, name: &str, value: &str) -> sqlx::Result<()> {
    insert(&mut *pool.acquire().await?, step, name, value).await
}

/// Write a transactional step's effect, in its transaction.
pub async fn write(tx: &mut PgConnection, step: &StepCtx, name: &str, value: &str) -> sqlx::Result<()> {
    insert(tx, step, name, value).await
}

async fn insert(connection: &mut PgConnection, step: &StepCtx, name: &str, value: &str) -> sqlx::Result<()> {
    sqlx::query("insert into effect (workflow_id, step, key, attempt, pid, value) values ($1, $2, $3, $4, $5, $6)")
        .bind(step.workflow_id())
        .bind(name)
        .bind(step.key())
        .bind(step.attempt().cast_signed())
        .bind(std::process::id().cast_signed())
        .bind(value)
        .execute(connection)
        .await?;
    Ok(())
}
