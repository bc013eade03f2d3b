//! Reading for people and for those who wait: one workflow, and its history. Many workflows are `list`.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::claim::decode;
use super::query;
use super::sql::Sql;
use crate::failure::Failure;
use crate::id::{Id, Position};
use crate::info::{RecordedStep, WorkflowInfo};
use crate::status::Status;

/// One workflow as it stands, with its output's JSON.
pub(crate) async fn inspect(
    connection: &mut PgConnection,
    sql: &Sql,
    id: &Id,
) -> Result<Option<(WorkflowInfo, Option<String>)>, sqlx::Error> {
    let row = query(&sql.inspect).bind(id.bucket()).bind(id.as_str()).fetch_optional(connection).await?;
    row.map(|row| Ok((info_of(&row)?, row.try_get("output")?))).transpose()
}

/// The JSON that one workflow was started with.
pub(crate) async fn input(connection: &mut PgConnection, sql: &Sql, id: &Id) -> Result<Option<String>, sqlx::Error> {
    let row = query(&sql.input).bind(id.bucket()).bind(id.as_str()).fetch_optional(connection).await?;
    row.map(|row| row.try_get("input")).transpose()
}

/// The history of one workflow.
pub(crate) async fn steps(connection: &mut PgConnection, sql: &Sql, id: &Id) -> Result<Vec<RecordedStep>, sqlx::Error> {
    let rows = query(&sql.steps).bind(id.bucket()).bind(id.as_str()).fetch_all(connection).await?;
    rows.iter().map(recorded_step_of).collect()
}

/// Up to `limit` records of the history of one workflow after a position, of about `bytes` together; and whether more
/// follow.
pub(crate) async fn steps_after(
    connection: &mut PgConnection,
    sql: &Sql,
    id: &Id,
    after: &Position,
    limit: i64,
    bytes: i64,
) -> Result<(Vec<RecordedStep>, bool), sqlx::Error> {
    let rows = query(&sql.steps_after)
        .bind(id.bucket())
        .bind(id.as_str())
        .bind(&*after.lane)
        .bind(after.seq)
        .bind(limit)
        .bind(bytes)
        .fetch_all(connection)
        .await?;
    let mut steps = Vec::with_capacity(rows.len());
    for row in &rows {
        if !row.try_get::<bool, _>("there")? {
            return Ok((steps, true));
        }
        steps.push(recorded_step_of(row)?);
    }
    Ok((steps, false))
}

pub(super) fn info_of(row: &PgRow) -> Result<WorkflowInfo, sqlx::Error> {
    Ok(WorkflowInfo {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        queue: row.try_get("queue")?,
        priority: row.try_get("priority")?,
        status: Status::parse(row.try_get("status")?).map_err(|e| sqlx::Error::Decode(Box::new(e)))?,
        recoveries: row.try_get("recoveries")?,
        claims: row.try_get("claims")?,
        due_at: row.try_get("due_at")?,
        created_at: row.try_get("created_at")?,
        claimed_at: row.try_get("claimed_at")?,
        finished_at: row.try_get("finished_at")?,
        failure: failure_of(row)?,
        forked_from: row.try_get("forked_from")?,
        parent: row.try_get("parent")?,
        generation: row.try_get("generation")?,
        deadline_at: row.try_get("deadline")?,
    })
}

pub(super) fn recorded_step_of(row: &PgRow) -> Result<RecordedStep, sqlx::Error> {
    Ok(RecordedStep {
        lane: row.try_get("lane")?,
        seq: row.try_get("seq")?,
        kind: row.try_get("kind")?,
        name: row.try_get("name")?,
        input: row.try_get("input")?,
        output: row.try_get("output")?,
        failure: failure_of(row)?,
        failed_attempts: match row.try_get::<Option<&str>, _>("attempts")? {
            Some(attempts) => decode(attempts)?,
            None => Vec::new(),
        },
        started_at: row.try_get("started_at")?,
        recorded_at: row.try_get("recorded_at")?,
    })
}

fn failure_of(row: &PgRow) -> Result<Option<Failure>, sqlx::Error> {
    row.try_get::<Option<&str>, _>("failure")?.map(decode).transpose()
}
