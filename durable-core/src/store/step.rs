//! Recording steps: in batches, or inside the application's transaction. The primary key is the fence.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};

use super::claim::record_of;
use super::sql::Sql;
use super::{Fence, query};
use crate::history::{Kind, Record};
use crate::id::{Id, OwnerId, Position};

/// A row of `step` to be written.
#[derive(Clone, Debug)]
pub(crate) struct StepRow {
    pub(crate) id: Id,
    pub(crate) position: Position,
    pub(crate) kind: Kind,
    pub(crate) name: Arc<str>,
    pub(crate) input: Option<String>,
    pub(crate) output: Option<String>,
    pub(crate) failure: Option<String>,
    pub(crate) attempts: Option<String>,
    pub(crate) took_ms: i64,
}

impl StepRow {
    /// Its size on the wire, about.
    pub(crate) fn bytes(&self) -> usize {
        let len = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        128 + self.id.as_str().len()
            + self.name.len()
            + len(&self.input)
            + len(&self.output)
            + len(&self.failure)
            + len(&self.attempts)
    }
}

/// When each row was recorded, for those that were.
pub(crate) type RecordedAt = HashMap<(Id, Position), DateTime<Utc>>;

/// Record steps of many workflows. What is missing in the answer was not written.
pub(crate) async fn record(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    steps: &[StepRow],
) -> Result<RecordedAt, sqlx::Error> {
    fn column<T>(steps: &[StepRow], of: impl Fn(&StepRow) -> T) -> Vec<T> {
        steps.iter().map(of).collect()
    }
    let rows = query(&sql.record)
        .bind(owner.0)
        .bind(column(steps, |s| s.id.bucket()))
        .bind(column(steps, |s| s.id.as_str().to_owned()))
        .bind(column(steps, |s| s.position.lane.to_string()))
        .bind(column(steps, |s| s.position.seq))
        .bind(column(steps, |s| s.kind.as_str().to_owned()))
        .bind(column(steps, |s| s.name.to_string()))
        .bind(column(steps, |s| s.input.clone()))
        .bind(column(steps, |s| s.output.clone()))
        .bind(column(steps, |s| s.failure.clone()))
        .bind(column(steps, |s| s.attempts.clone()))
        .bind(column(steps, |s| s.took_ms))
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            let id = Id::trusted(row.try_get("workflow_id")?);
            let lane: Arc<str> = row.try_get::<&str, _>("lane")?.into();
            Ok(((id, Position { lane, seq: row.try_get("seq")? }), row.try_get("recorded_at")?))
        })
        .collect()
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
        .bind(&*step.name)
        .bind(&step.input)
        .bind(&step.output)
        .bind(&step.failure)
        .bind(&step.attempts)
        .bind(step.took_ms)
        .fetch_one(connection)
        .await?;
    Ok(match (row.try_get("recorded_at")?, row.try_get("same_transaction")?) {
        (Some(at), _) => Transacted::Recorded(at),
        (None, true) => Transacted::Refused,
        (None, false) => Transacted::AnotherTransaction,
    })
}

/// Whether a connection is still in the transaction that `mark` identifies.
pub(crate) async fn mark_stands(connection: &mut PgConnection, sql: &Sql, mark: &str) -> Result<bool, sqlx::Error> {
    query(&sql.mark_stands).bind(mark).fetch_one(connection).await?.try_get("stands")
}
