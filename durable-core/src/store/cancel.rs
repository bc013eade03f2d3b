//! Cancelling, and waiting until it holds; resuming what is blocked.

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::query;
use super::sql::Sql;
use crate::id::{Id, OwnerId};
use crate::status::Status;

/// A workflow that a cancellation has reached: the one that was asked for, or a child.
pub(crate) struct Cancelled {
    pub(crate) id: Id,
    /// It was cancelled just now, and not before.
    pub(crate) now: bool,
    /// The worker that has to notice.
    pub(crate) stopping: Option<OwnerId>,
    /// The parent that was woken by it, and its queue.
    pub(crate) parent: Option<(Id, String)>,
}

/// Decide a cancellation. Answers what it has reached: those that are cancelled now, and those that were before and that a
/// worker has still to notice.
pub(crate) async fn cancel(connection: &mut PgConnection, sql: &Sql, id: &Id) -> Result<Vec<Cancelled>, sqlx::Error> {
    let rows = query(&sql.cancel).bind(id.as_str()).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let parent: Option<&str> = row.try_get("parent")?;
            Ok(Cancelled {
                id: Id::trusted(row.try_get("id")?),
                now: row.try_get("cancelled")?,
                stopping: row.try_get::<Option<Uuid>, _>("stopping")?.map(OwnerId),
                parent: parent.map(Id::trusted).zip(row.try_get("parent_queue")?),
            })
        })
        .collect()
}

/// A workflow's status, and the live worker that has still to stop it. `None` when there is no such workflow.
pub(crate) async fn stopping(
    connection: &mut PgConnection,
    sql: &Sql,
    id: &Id,
) -> Result<Option<(Status, Option<OwnerId>)>, sqlx::Error> {
    let row = query(&sql.stopping).bind(id.bucket()).bind(id.as_str()).fetch_optional(connection).await?;
    row.map(|row| {
        let status = Status::parse(row.try_get("status")?).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
        Ok((status, row.try_get::<Option<Uuid>, _>("stopping")?.map(OwnerId)))
    })
    .transpose()
}

/// Say that `owner` has stopped these.
pub(crate) async fn stopped(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    ids: &[Id],
) -> Result<(), sqlx::Error> {
    query(&sql.stopped)
        .bind(owner.0)
        .bind(ids.iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// Put a blocked workflow back. Its queue, if it was blocked.
pub(crate) async fn resume(connection: &mut PgConnection, sql: &Sql, id: &Id) -> Result<Option<String>, sqlx::Error> {
    let row = query(&sql.resume).bind(id.bucket()).bind(id.as_str()).fetch_optional(connection).await?;
    row.map(|row| row.try_get("queue")).transpose()
}
