//! Starts with a key, and letting begin what was held back.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::attribute::as_json;
use super::cancel::Cut;
use super::query;
use super::sql::Sql;
use super::start::NewWorkflow;
use crate::id::{Id, OwnerId};

/// What a start does with its key, as the statement takes it.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) how: &'static str,
    pub(crate) key: String,
    pub(crate) if_open: &'static str,
    pub(crate) wait_ms: i64,
    pub(crate) max_wait_ms: i64,
    pub(crate) most: i32,
}

/// What became of a start with a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Came {
    Started,
    /// Its id was there.
    Existed,
    /// Another workflow has the key, and it is a part of that.
    Joined,
    /// Because another workflow has the key.
    Refused,
}

/// The answer to a start with a key.
pub(crate) struct KeyedStart {
    pub(crate) came: Came,
    pub(crate) id: Id,
    pub(crate) same_input: bool,
    pub(crate) name: String,
    pub(crate) version: i32,
    /// It, or a batch that it has closed, waits for nothing.
    pub(crate) is_due: bool,
    /// What was cancelled for it.
    pub(crate) cut: Vec<Cut>,
}

/// Start a workflow with a key. `None` where nothing came of it, which nobody knows how.
pub(crate) async fn start_keyed(
    connection: &mut PgConnection,
    sql: &Sql,
    new: &NewWorkflow,
    key: &Key,
) -> Result<Option<KeyedStart>, sqlx::Error> {
    let rows = query(&sql.start_keyed)
        .bind(new.id.as_str())
        .bind(new.name)
        .bind(new.version)
        .bind(&new.queue)
        .bind(&new.partition)
        .bind(i32::from(new.priority))
        .bind(&new.input)
        .bind(new.deadline_ms)
        .bind(as_json(new.attributes())?)
        .bind(key.how)
        .bind(&key.key)
        .bind(new.delay_ms)
        .bind(key.if_open)
        .bind(key.wait_ms)
        .bind(key.max_wait_ms)
        .bind(key.most)
        .fetch_all(connection)
        .await?;
    let (mut answer, mut cut, mut is_due) = (None, Vec::new(), false);
    for row in &rows {
        is_due |= row.try_get::<bool, _>("is_due")?;
        match row.try_get::<&str, _>("what")? {
            "cut" => cut.push(reached(row, true)?),
            "stopping" => cut.push(reached(row, false)?),
            "started" => answer = Some((Came::Started, row)),
            "existed" => answer = Some((Came::Existed, row)),
            "joined" => answer = Some((Came::Joined, row)),
            "refused" => answer = Some((Came::Refused, row)),
            _ => {}
        }
    }
    let Some((came, row)) = answer else { return Ok(None) };
    Ok(Some(KeyedStart {
        came,
        id: Id::trusted(row.try_get("workflow_id")?),
        same_input: row.try_get("same_input")?,
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        is_due,
        cut,
    }))
}

fn reached(row: &PgRow, now: bool) -> Result<Cut, sqlx::Error> {
    Ok(Cut {
        id: Id::trusted(row.try_get("workflow_id")?),
        now,
        stopping: row.try_get::<Option<Uuid>, _>("stopper")?.map(OwnerId),
        undo_in: row.try_get("undo_in")?,
        // What was started from outside has none.
        parent: None,
    })
}

/// A workflow that was held back, and is due now.
pub(crate) struct Released {
    pub(crate) queue: String,
    pub(crate) name: String,
    pub(crate) version: i32,
}

/// What a look for such workflows has found.
pub(crate) struct Release {
    pub(crate) released: Vec<Released>,
    /// How long the next one's time is away.
    pub(crate) next_in: Option<Duration>,
    /// Some wait for a workflow to end.
    pub(crate) some_wait: bool,
}

/// Let begin what was held back for long enough, at most so many of each kind.
pub(crate) async fn release_starts(
    connection: &mut PgConnection,
    sql: &Sql,
    most: i32,
) -> Result<Release, sqlx::Error> {
    let rows = query(&sql.release_starts).bind(most).fetch_all(connection).await?;
    let mut release = Release { released: Vec::new(), next_in: None, some_wait: false };
    for row in &rows {
        let next_ms: Option<i64> = row.try_get("next_ms")?;
        release.next_in = next_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or_default()));
        release.some_wait = row.try_get("some_wait")?;
        if let Some(queue) = row.try_get("in_queue")? {
            release.released.push(Released { queue, name: row.try_get("name")?, version: row.try_get("version")? });
        }
    }
    Ok(release)
}
