//! Starting: the rows of new workflows.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};

use super::query;
use super::sql::Sql;
use crate::id::{Id, OwnerId};

/// A workflow to be started.
#[derive(Clone)]
pub(crate) struct NewWorkflow {
    pub(crate) id: Id,
    pub(crate) name: &'static str,
    pub(crate) version: i32,
    pub(crate) queue: String,
    pub(crate) priority: i16,
    pub(crate) delay_ms: i64,
    pub(crate) input: String,
    /// Whether it may be born running, owned by the worker that is given.
    pub(crate) here: bool,
}

/// What became of one.
pub(crate) struct Started {
    /// Its place among the given ones.
    pub(crate) n: usize,
    pub(crate) created: bool,
    /// It was born running under the given owner.
    pub(crate) born_here: bool,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) name: String,
    pub(crate) version: i32,
    pub(crate) same_input: bool,
    /// One of the given ones is refused, and nothing was written.
    pub(crate) refused: bool,
}

/// Start workflows, or find the ones that have their ids already; all of them or, by `policy`, none. A row whose id was committed by somebody
/// else while this statement waited for it is in neither part of the answer: ask again.
pub(crate) async fn start(
    connection: &mut PgConnection,
    sql: &Sql,
    given: &[NewWorkflow],
    owner: Option<OwnerId>,
    policy: i32,
) -> Result<Vec<Started>, sqlx::Error> {
    let column = |of: fn(&NewWorkflow) -> &str| given.iter().map(of).map(str::to_owned).collect::<Vec<_>>();
    let rows = query(&sql.start)
        .bind(given.iter().map(|g| g.id.bucket()).collect::<Vec<_>>())
        .bind(column(|g| g.id.as_str()))
        .bind(column(|g| g.name))
        .bind(given.iter().map(|g| g.version).collect::<Vec<_>>())
        .bind(column(|g| &g.queue))
        .bind(given.iter().map(|g| g.priority).collect::<Vec<_>>())
        .bind(given.iter().map(|g| g.delay_ms).collect::<Vec<_>>())
        .bind(column(|g| &g.input))
        .bind(given.iter().map(|g| g.here).collect::<Vec<_>>())
        .bind(owner.map(|owner| owner.0))
        .bind(policy)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Started {
                n: usize::try_from(row.try_get::<i64, _>("n")? - 1).unwrap_or_default(),
                created: row.try_get("created")?,
                born_here: row.try_get("born_here")?,
                created_at: row.try_get("created_at")?,
                name: row.try_get("name")?,
                version: row.try_get("version")?,
                same_input: row.try_get("same_input")?,
                refused: row.try_get("refused")?,
            })
        })
        .collect()
}
