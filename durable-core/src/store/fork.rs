//! Starting a workflow from the history of another one.

use sqlx::{PgConnection, Row};

use super::query;
use super::sql::Sql;
use crate::id::Id;

/// What is forked, and what takes the place of its own.
pub(crate) struct ForkRow {
    pub(crate) source: Id,
    /// The first position of the body that is not taken over.
    pub(crate) from: i32,
    pub(crate) id: Id,
    /// The body that the source has to have.
    pub(crate) name: Option<&'static str>,
    pub(crate) version: Option<i32>,
    pub(crate) input: Option<String>,
    /// Outputs by their positions in the body.
    pub(crate) outputs: Vec<(i32, String)>,
    pub(crate) reason: Option<String>,
}

/// What was found, and what came of it.
pub(crate) struct Forked {
    pub(crate) name: String,
    pub(crate) queue: String,
    /// The first position of the source's body that nothing is recorded at or after.
    pub(crate) reach: i32,
    /// The first position for which an output is given and where none can be replaced.
    pub(crate) nowhere: Option<i32>,
    /// It was started now.
    pub(crate) born: bool,
    /// It was started by the same fork before.
    pub(crate) existed: bool,
}

/// Fork a workflow. `None` when there is no such source.
pub(crate) async fn fork(
    connection: &mut PgConnection,
    sql: &Sql,
    fork: &ForkRow,
) -> Result<Option<Forked>, sqlx::Error> {
    let (positions, outputs): (Vec<i32>, Vec<&str>) = fork.outputs.iter().map(|(at, json)| (*at, &**json)).unzip();
    let row = query(&sql.fork)
        .bind(fork.source.bucket())
        .bind(fork.source.as_str())
        .bind(fork.from)
        .bind(fork.id.bucket())
        .bind(fork.id.as_str())
        .bind(fork.version)
        .bind(fork.name)
        .bind(&fork.input)
        .bind(positions)
        .bind(outputs)
        .bind(&fork.reason)
        .fetch_optional(connection)
        .await?;
    row.map(|row| {
        Ok(Forked {
            name: row.try_get("name")?,
            queue: row.try_get("queue")?,
            reach: row.try_get("reach")?,
            nowhere: row.try_get("nowhere")?,
            born: row.try_get("born")?,
            existed: row.try_get("existed")?,
        })
    })
    .transpose()
}
