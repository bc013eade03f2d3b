//! Reading for people and for those who wait: one workflow, and its history.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::claim::decode;
use super::query;
use super::sql::Sql;
use crate::failure::Failure;
use crate::id::Id;
use crate::info::{RecordedStep, WorkflowInfo};
use crate::status::Status;

/// One workflow as it stands, with its output's JSON.
pub(crate) async fn inspect(
    connection: &mut PgConnection,
    sql: &Sql,
    id: &Id,
) -> Result<Option<(WorkflowInfo, Option<String>)>, sqlx::Error> {
    let row = query(&sql.inspect).bind(id.bucket()).bind(id.as_str()).fetch_optional(connection).await?;
    row.map(|row| {
        let info = WorkflowInfo {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            version: row.try_get("version")?,
            queue: row.try_get("queue")?,
            status: Status::parse(row.try_get("status")?).map_err(|e| sqlx::Error::Decode(Box::new(e)))?,
            recoveries: row.try_get("recoveries")?,
            claims: row.try_get("claims")?,
            due_at: row.try_get("due_at")?,
            created_at: row.try_get("created_at")?,
            finished_at: row.try_get("finished_at")?,
            failure: failure_of(&row)?,
        };
        Ok((info, row.try_get("output")?))
    })
    .transpose()
}

/// The history of one workflow.
pub(crate) async fn steps(connection: &mut PgConnection, sql: &Sql, id: &Id) -> Result<Vec<RecordedStep>, sqlx::Error> {
    let rows = query(&sql.steps).bind(id.bucket()).bind(id.as_str()).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
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
        })
        .collect()
}

fn failure_of(row: &PgRow) -> Result<Option<Failure>, sqlx::Error> {
    row.try_get::<Option<&str>, _>("failure")?.map(decode).transpose()
}
