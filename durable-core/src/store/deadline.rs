//! Changing the deadline of a workflow that has not ended. What has passed its deadline is `cancel`.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::query;
use super::sql::Sql;
use crate::id::Id;

/// What came of it, or why nothing did, for people.
pub(crate) enum Changed {
    /// It is then, or there is none any more.
    Now(Option<DateTime<Utc>>),
    Missing(String),
    Ended(String),
}

/// Put the deadline so many milliseconds from now, or take it away. `call` is by what a repeat is known.
pub(crate) async fn change_deadline(
    connection: &mut PgConnection,
    sql: &Sql,
    id: &Id,
    within_ms: Option<i64>,
    reason: Option<&str>,
    call: Uuid,
) -> Result<Changed, sqlx::Error> {
    let row = query(&sql.change_deadline)
        .bind(id.as_str())
        .bind(within_ms)
        .bind(reason)
        .bind(call)
        .fetch_one(connection)
        .await?;
    let problem = || row.try_get::<Option<String>, _>("problem").map(Option::unwrap_or_default);
    Ok(match row.try_get::<Option<&str>, _>("refused")? {
        None => Changed::Now(row.try_get("at")?),
        Some("missing") => Changed::Missing(problem()?),
        Some(_) => Changed::Ended(problem()?),
    })
}
