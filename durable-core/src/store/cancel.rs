//! Cancelling and deadlines, and waiting until they hold.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::query;
use super::sql::Sql;
use crate::id::{Id, OwnerId};
use crate::status::Status;

/// A workflow that a cancellation or a deadline has reached: the one that it was about, or a child.
pub(crate) struct Cut {
    pub(crate) id: Id,
    /// It was cut off just now, and not before.
    pub(crate) now: bool,
    /// The worker that has to notice.
    pub(crate) stopping: Option<OwnerId>,
    /// It has not ended, but goes on in this queue to be undone.
    pub(crate) undo_in: Option<String>,
    /// The parent that was woken by it, and its queue.
    pub(crate) parent: Option<(Id, String)>,
}

/// Decide a cancellation; `call` is by what a repeat is known. Answers what it has reached: those that are cut off now, and those
/// that were before and that a worker has still to notice.
pub(crate) async fn cancel(
    connection: &mut PgConnection,
    sql: &Sql,
    id: &Id,
    reason: Option<&str>,
    call: Uuid,
) -> Result<Vec<Cut>, sqlx::Error> {
    let rows = query(&sql.cancel).bind(id.as_str()).bind(reason).bind(call).fetch_all(connection).await?;
    rows.iter().map(cut).collect()
}

/// End a workflow whose deadline has passed. Answers what that has reached, like a cancellation.
pub(crate) async fn expire(connection: &mut PgConnection, sql: &Sql, id: &Id) -> Result<Vec<Cut>, sqlx::Error> {
    let rows = query(&sql.expire).bind(id.as_str()).fetch_all(connection).await?;
    rows.iter().map(cut).collect()
}

/// Cancel children that losers of a race have started, while their parent is held. Answers what that has reached, like a
/// cancellation.
pub(crate) async fn cancel_lost(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    (parent, claims): (&Id, i32),
    lost: &[Id],
) -> Result<Vec<Cut>, sqlx::Error> {
    let rows = query(&sql.cancel_lost)
        .bind(owner.0)
        .bind(parent.bucket())
        .bind(parent.as_str())
        .bind(claims)
        .bind(lost.iter().map(Id::bucket).collect::<Vec<_>>())
        .bind(lost.iter().map(Id::as_str).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    rows.iter().map(cut).collect()
}

fn cut(row: &PgRow) -> Result<Cut, sqlx::Error> {
    let parent: Option<&str> = row.try_get("parent")?;
    Ok(Cut {
        id: Id::trusted(row.try_get("id")?),
        now: row.try_get("cut")?,
        stopping: row.try_get::<Option<Uuid>, _>("stopping")?.map(OwnerId),
        undo_in: row.try_get("undo_in")?,
        parent: parent.map(Id::trusted).zip(row.try_get("parent_queue")?),
    })
}

/// Which workflows have passed their deadlines, at most so many, the earliest first; and how long the next one is away.
pub(crate) async fn deadlines(
    connection: &mut PgConnection,
    sql: &Sql,
    most: i64,
) -> Result<(Vec<Id>, Option<Duration>), sqlx::Error> {
    let row = query(&sql.deadlines).bind(most).fetch_one(connection).await?;
    let passed: Vec<String> = row.try_get("passed")?;
    let next: Option<i64> = row.try_get("next_ms")?;
    let next = next.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or_default()));
    Ok((passed.iter().map(|id| Id::trusted(id)).collect(), next))
}

/// Let go on to be undone what dead workers had still to stop. Answers the queues.
pub(crate) async fn undo_of_dead(
    connection: &mut PgConnection,
    sql: &Sql,
    dead: &[OwnerId],
) -> Result<Vec<String>, sqlx::Error> {
    let dead: Vec<Uuid> = dead.iter().map(|owner| owner.0).collect();
    let rows = query(&sql.undo_of_dead).bind(dead).fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get("queue")).collect()
}

/// Where a cancelled workflow stands.
pub(crate) struct Standing {
    pub(crate) status: Status,
    /// The live worker that has still to stop it.
    pub(crate) stopping: Option<OwnerId>,
    /// It is being undone.
    pub(crate) is_cut: bool,
}

/// Where a workflow stands. `None` when there is no such workflow.
pub(crate) async fn stopping(
    connection: &mut PgConnection,
    sql: &Sql,
    id: &Id,
) -> Result<Option<Standing>, sqlx::Error> {
    let row = query(&sql.stopping).bind(id.bucket()).bind(id.as_str()).fetch_optional(connection).await?;
    row.map(|row| {
        let status = Status::parse(row.try_get("status")?).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
        let stopping = row.try_get::<Option<Uuid>, _>("stopping")?.map(OwnerId);
        Ok(Standing { status, stopping, is_cut: row.try_get("cut")? })
    })
    .transpose()
}

/// Say that `owner` has stopped these. Answers in which queues some of them go on to be undone, and under which claim each was.
pub(crate) async fn stopped(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    ids: &[Id],
) -> Result<(Vec<String>, Vec<(Id, i32)>), sqlx::Error> {
    let rows = query(&sql.stopped)
        .bind(owner.0)
        .bind(ids.iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let queues = rows.iter().filter_map(|row| row.try_get("undo_in").transpose()).collect::<Result<_, _>>()?;
    let claims = rows.iter().map(|row| Ok((Id::trusted(row.try_get("id")?), row.try_get("claims")?)));
    Ok((queues, claims.collect::<Result<_, sqlx::Error>>()?))
}
