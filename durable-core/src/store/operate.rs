//! Pausing, resuming, restarting and deleting workflows, and what was done so.

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::claim::decode;
use super::query;
use super::sql::Sql;
use crate::id::{Id, OwnerId};
use crate::info::Operation;
use crate::status::Status;

/// What an operator does to a workflow; but for cancelling, which is `cancel`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    Pause,
    Resume,
    Restart,
    Delete,
}

impl Act {
    /// The word in the database, and in messages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Act::Pause => "pause",
            Act::Resume => "resume",
            Act::Restart => "restart",
            Act::Delete => "delete",
        }
    }
}

/// Why nothing was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    Missing,
    /// It stands in a way that does not allow it, for as long as it does.
    Standing,
    /// A worker has still to stop it.
    Stopping,
    /// It was run between two looks.
    Changed,
}

/// What came of it for one workflow.
pub(crate) struct Operated {
    pub(crate) id: Id,
    /// The queue that it is in, if it was done.
    pub(crate) queue: Option<String>,
    /// The worker that has to notice.
    pub(crate) stopper: Option<OwnerId>,
    /// Why it was not done, for this program and for people.
    pub(crate) refused: Option<(Refused, String)>,
}

/// Do something to workflows, each for itself. One answer for each, in no order; an id that is there twice counts once.
pub(crate) async fn operate(
    connection: &mut PgConnection,
    sql: &Sql,
    act: Act,
    ids: &[Id],
    reason: Option<&str>,
    call: Uuid,
) -> Result<Vec<Operated>, sqlx::Error> {
    let rows = query(&sql.operate)
        .bind(act.as_str())
        .bind(ids.iter().map(Id::as_str).collect::<Vec<_>>())
        .bind(reason)
        .bind(call)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            let done: bool = row.try_get("done")?;
            let refused = match row.try_get::<Option<&str>, _>("refused")? {
                Some("missing") => Refused::Missing,
                Some("stopping") => Refused::Stopping,
                Some("changed") => Refused::Changed,
                _ => Refused::Standing,
            };
            let problem: Option<String> = row.try_get("problem")?;
            Ok(Operated {
                id: Id::trusted(row.try_get("workflow")?),
                queue: if done { row.try_get("in_queue")? } else { None },
                stopper: row.try_get::<Option<Uuid>, _>("stopper")?.map(OwnerId),
                refused: if done { None } else { Some((refused, problem.unwrap_or_default())) },
            })
        })
        .collect()
}

/// What operators did to a workflow, in order: the latest `limit` of it.
pub(crate) async fn operations(
    connection: &mut PgConnection,
    sql: &Sql,
    id: &Id,
    limit: i64,
) -> Result<Vec<Operation>, sqlx::Error> {
    let rows = query(&sql.operations).bind(id.bucket()).bind(id.as_str()).bind(limit).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let stood = row.try_get::<Option<&str>, _>("stood")?.map(Status::parse).transpose();
            Ok(Operation {
                act: row.try_get("act")?,
                stood: stood.map_err(|e| sqlx::Error::Decode(Box::new(e)))?,
                reason: row.try_get("reason")?,
                dropped: row.try_get::<Option<&str>, _>("dropped")?.map_or_else(|| Ok(Vec::new()), decode)?,
                deadline_was_at: row.try_get("deadline_before")?,
                deadline_at: row.try_get("deadline")?,
                done_by: row.try_get("done_by")?,
                done_at: row.try_get("done_at")?,
            })
        })
        .collect()
}
