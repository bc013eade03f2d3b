//! The code that workers come with, by its fingerprints.

use sqlx::{PgConnection, Row};

use super::query;
use super::sql::Sql;

/// What was found for a workflow of this worker's.
pub(crate) struct Noted {
    pub(crate) name: String,
    pub(crate) version: i32,
    /// How many are live whose code has changed just now, of a bounded look.
    pub(crate) live: i64,
    /// How many were blocked by other code and are queued again.
    pub(crate) resumed: i64,
}

/// Note the code of a worker that has come to `queue`, and resume up to `limit` workflows that other code was blocked by.
pub(crate) async fn note_code(
    connection: &mut PgConnection,
    sql: &Sql,
    queue: &str,
    bodies: &(Vec<String>, Vec<i32>),
    fingerprints: &[&str],
    resume: bool,
    limit: i64,
) -> Result<Vec<Noted>, sqlx::Error> {
    let rows = query(&sql.note_code)
        .bind(queue)
        .bind(&bodies.0)
        .bind(&bodies.1)
        .bind(fingerprints)
        .bind(resume)
        .bind(limit)
        .fetch_all(connection)
        .await?;
    let noted = |row: &sqlx::postgres::PgRow| {
        Ok(Noted {
            name: row.try_get("name")?,
            version: row.try_get("version")?,
            live: row.try_get("live")?,
            resumed: row.try_get("resumed")?,
        })
    };
    rows.iter().map(noted).collect()
}

/// Whether other code of a workflow has come after the one with this fingerprint.
pub(crate) async fn newer_code(
    connection: &mut PgConnection,
    sql: &Sql,
    name: &str,
    version: i32,
    fingerprint: &str,
) -> Result<bool, sqlx::Error> {
    query(&sql.newer_code).bind(name).bind(version).bind(fingerprint).fetch_one(connection).await?.try_get("newer")
}
