//! Effects of step bodies, written to an append-only table where a repeat shows.

use chrono::{DateTime, Utc};
use durable::{PgConnection, StepCtx};
use sqlx::PgPool;

/// Note that a plain step's body has an effect, on a connection of its own, as a mail server would.
///
/// `at` is when the body came to it, by this process's clock, which is the database's too: both are on this machine.
/// Where the outside does not answer, the effect itself may be later than the record that another worker made
/// meanwhile; what is promised is that no attempt *begins* after the record.
pub async fn note(pool: &PgPool, step: &StepCtx, name: &str, value: &str, at: DateTime<Utc>) -> sqlx::Result<()> {
    insert(&mut *pool.acquire().await?, step, name, value, Some(at)).await
}

/// Write a transactional step's effect, in its transaction.
pub async fn write(tx: &mut PgConnection, step: &StepCtx, name: &str, value: &str) -> sqlx::Result<()> {
    insert(tx, step, name, value, None).await
}

async fn insert(
    connection: &mut PgConnection,
    step: &StepCtx,
    name: &str,
    value: &str,
    at: Option<DateTime<Utc>>,
) -> sqlx::Result<()> {
    let insert = "insert into effect (workflow_id, step, key, attempt, pid, value, at)
                  values ($1, $2, $3, $4, $5, $6, coalesce($7, clock_timestamp()))";
    sqlx::query(insert)
        .bind(step.workflow_id())
        .bind(name)
        .bind(step.key())
        .bind(step.attempt().cast_signed())
        .bind(std::process::id().cast_signed())
        .bind(value)
        .bind(at)
        .execute(connection)
        .await?;
    Ok(())
}
