//! Continuing as new: a workflow forgets its history and begins anew under its id.

use sqlx::{PgConnection, Row};

use super::query;
use super::sql::Sql;
use crate::decide::Next;
use crate::id::{Id, OwnerId};

/// What came of it.
#[must_use]
pub(crate) enum Continued {
    /// It is queued there.
    Done {
        queue: String,
        /// Whether there may be more of its history to forget.
        more: bool,
    },
    /// It has another owner or claim, or none: maybe because of an earlier try.
    Lost,
}

/// Let a workflow that is held under this claim begin anew, and forget up to `limit` records.
pub(crate) async fn continue_as_new(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    (id, claims): (&Id, i32),
    next: &Next,
    limit: i64,
) -> Result<Continued, sqlx::Error> {
    let row = query(&sql.continue_as_new)
        .bind(owner.0)
        .bind(id.bucket())
        .bind(id.as_str())
        .bind(claims)
        .bind(next.version)
        .bind(&next.input)
        .bind(limit)
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(Continued::Lost) };
    Ok(Continued::Done { queue: row.try_get("queue")?, more: row.try_get("more")? })
}

/// Forget up to `limit` records of earlier generations. How many there were.
pub(crate) async fn forget(connection: &mut PgConnection, sql: &Sql, id: &Id, limit: i64) -> Result<u64, sqlx::Error> {
    let forgotten = query(&sql.forget).bind(id.bucket()).bind(id.as_str()).bind(limit).execute(connection).await?;
    Ok(forgotten.rows_affected())
}
