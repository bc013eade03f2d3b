//! Recording one step: alone, or inside the application's transaction. Many together are `commit`'s. The primary key
//! is the fence.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};

use super::claim::record_of;
use super::sql::Sql;
use super::{Fence, query};
use crate::decide::to_json;
use crate::history::{Kind, Record};
use crate::id::{Id, OwnerId, Position};

/// A row of `step` to be written.
#[derive(Clone, Debug)]
pub(crate) struct StepRow {
    pub(crate) id: Id,
    /// The claim under which it is written.
    pub(crate) claims: i32,
    /// Where its workflow's row stood then, if that is known.
    pub(crate) row_at: Option<Arc<str>>,
    pub(crate) position: Position,
    pub(crate) kind: Kind,
    pub(crate) name: &'static str,
    pub(crate) input: Option<String>,
    pub(crate) output: Option<String>,
    pub(crate) failure: Option<String>,
    pub(crate) attempts: Option<String>,
    pub(crate) ended_at: DateTime<Utc>,
    pub(crate) took_ms: i64,
}

impl StepRow {
    /// Its size on the wire, about.
    pub(crate) fn bytes(&self) -> usize {
        let texts = [&self.input, &self.output, &self.failure, &self.attempts];
        let len: usize = texts.into_iter().flatten().map(String::len).sum();
        128 + self.id.as_str().len() + self.name.len() + len
    }

    /// Whether `record` is what this row would have made.
    pub(crate) fn is_recorded_as(&self, record: &Record) -> bool {
        let same = match &record.outcome {
            Ok(output) => self.output.as_ref() == Some(output),
            Err(failure) => self.failure.as_deref() == Some(&*to_json(failure)),
        };
        same && record.kind == self.kind && record.name == self.name
    }
}

/// Record one step. The database's time if it was written; `None` when its position is taken, or the workflow
/// has another owner or claim.
pub(crate) async fn record(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    step: &StepRow,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    let row = query(&sql.record)
        .bind(owner.0)
        .bind(step.id.bucket())
        .bind(step.id.as_str())
        .bind(step.claims)
        .bind(&*step.position.lane)
        .bind(step.position.seq)
        .bind(step.kind.as_str())
        .bind(step.name)
        .bind(&step.input)
        .bind(&step.output)
        .bind(&step.failure)
        .bind(&step.attempts)
        .bind(step.ended_at)
        .bind(step.took_ms)
        .fetch_optional(connection)
        .await;
    match row {
        Err(error) if is_taken(&error) => Ok(None),
        row => row?.map(|row| row.try_get("now")).transpose(),
    }
}

/// Whether a write was refused because its position is taken.
pub(super) fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|e| e.is_unique_violation())
}

/// What stands at a position after a write came back empty, and whether `owner` still owns the workflow.
pub(crate) async fn recorded(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    id: &Id,
    position: &Position,
) -> Result<(Fence, Option<Record>), sqlx::Error> {
    let row = query(&sql.recorded)
        .bind(id.bucket())
        .bind(id.as_str())
        .bind(&*position.lane)
        .bind(position.seq)
        .bind(owner.0)
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok((Fence::Lost, None)) };
    let fence = if row.try_get("held")? { Fence::Held } else { Fence::Lost };
    let there = row.try_get::<Option<&str>, _>("kind")?.is_some();
    Ok((fence, if there { Some(record_of(&row)?) } else { None }))
}

/// What recording inside the application's transaction came to.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transacted {
    Recorded(DateTime<Utc>),
    /// The position is taken, or the workflow has another owner.
    Refused,
    /// The step ended the transaction itself.
    AnotherTransaction,
}

/// Record a transactional step on the connection of its transaction, which `mark` identifies.
pub(crate) async fn transact(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    mark: &str,
    step: &StepRow,
) -> Result<Transacted, sqlx::Error> {
    let row = query(&sql.transact)
        .bind(owner.0)
        .bind(mark)
        .bind(step.id.bucket())
        .bind(step.id.as_str())
        .bind(&*step.position.lane)
        .bind(step.position.seq)
        .bind(step.name)
        .bind(&step.input)
        .bind(&step.output)
        .bind(&step.failure)
        .bind(&step.attempts)
        .bind(step.took_ms)
        .bind(step.claims)
        .fetch_optional(&mut *connection)
        .await;
    match row {
        Ok(Some(row)) => Ok(Transacted::Recorded(row.try_get("recorded_at")?)),
        Ok(None) if mark_stands(connection, sql, mark).await? => Ok(Transacted::Refused),
        Ok(None) => Ok(Transacted::AnotherTransaction),
        // The transaction is lost with that, and was to be given up anyway.
        Err(error) if is_taken(&error) => Ok(Transacted::Refused),
        Err(error) => Err(error),
    }
}

/// Whether a connection is still in the transaction that `mark` identifies.
pub(crate) async fn mark_stands(connection: &mut PgConnection, sql: &Sql, mark: &str) -> Result<bool, sqlx::Error> {
    query(&sql.mark_stands).bind(mark).fetch_one(connection).await?.try_get("stands")
}
