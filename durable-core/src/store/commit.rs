//! The group commit: what many workflows have come to, in one statement.
//!
//! Gathering what goes into it is the worker's; an end alone has a plainer statement here, a step alone one in `step`.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row};

use super::query;
use super::sql::Sql;
use super::step::{StepRow, is_taken};
use crate::history::WaitKind;
use crate::id::{Id, OwnerId, Position};
use crate::status::Status;

/// What becomes of a workflow's row.
#[derive(Clone, Debug)]
pub(crate) struct WorkflowRow {
    pub(crate) id: Id,
    /// The claim under which it is written.
    pub(crate) claims: i32,
    /// What it gives up its owner for; `None` when only its waits are noted.
    pub(crate) status: Option<Status>,
    /// The count of wakes that nothing may have passed.
    pub(crate) seen: Option<i64>,
    /// What its body waits for, as JSON made by `waits_json`.
    pub(crate) waits: Option<String>,
    pub(crate) output: Option<String>,
    pub(crate) failure: Option<String>,
    /// Whom it wakes by ending, if it is a child that ends. Such a row is `commit_apart`'s.
    pub(crate) parent: Option<Id>,
}

impl WorkflowRow {
    /// Its size on the wire, about.
    pub(crate) fn bytes(&self) -> usize {
        let len: usize = [&self.waits, &self.output, &self.failure].into_iter().flatten().map(String::len).sum();
        64 + self.id.as_str().len() + len
    }
}

/// Something that a body waits for, as it is written.
#[derive(Clone, Debug)]
pub(crate) struct WaitRow {
    pub(crate) position: Position,
    pub(crate) kind: WaitKind,
    pub(crate) topic: Option<&'static str>,
    /// The attempts that failed, as JSON.
    pub(crate) attempts: Option<String>,
    /// When it ends, where an earlier write said so.
    pub(crate) until: Option<DateTime<Utc>>,
    /// In how many milliseconds it ends, otherwise; `None` for never.
    pub(crate) after_ms: Option<i64>,
    /// When it began, where an earlier write said so.
    pub(crate) since: Option<DateTime<Utc>>,
    /// How many milliseconds ago it began, otherwise.
    pub(crate) for_ms: i64,
}

/// Waits as the statement takes them: the database turns "in so many milliseconds" into times.
pub(crate) fn waits_json(waits: &[WaitRow]) -> String {
    #[derive(Serialize)]
    struct Wait<'w> {
        lane: &'w str,
        seq: i32,
        kind: &'static str,
        topic: Option<&'static str>,
        until: Option<DateTime<Utc>>,
        after_ms: Option<i64>,
        since: Option<DateTime<Utc>>,
        for_ms: i64,
        attempts: Option<String>,
    }
    let waits: Vec<Wait<'_>> = waits
        .iter()
        .map(|wait| Wait {
            lane: &wait.position.lane,
            seq: wait.position.seq,
            kind: wait.kind.as_str(),
            topic: wait.topic,
            until: wait.until,
            after_ms: wait.after_ms,
            since: wait.since,
            for_ms: wait.for_ms,
            attempts: wait.attempts.as_deref().map(hex),
        })
        .collect();
    serde_json::to_string(&waits).expect("waits are plain text and numbers and always encode")
}

fn hex(text: &str) -> String {
    text.bytes().fold(String::with_capacity(2 * text.len()), |mut hex, byte| {
        let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or_default();
        hex.extend([digit(byte >> 4), digit(byte & 15)]);
        hex
    })
}

/// What a group commit came to.
#[must_use]
pub(crate) enum Committed {
    /// Everything is written. With the database's time.
    All(DateTime<Utc>),
    /// Only what belongs to the rows in these places is known to be written; `commit_apart` finds out about the rest.
    Only(Vec<usize>),
}

/// What came of the rest.
#[must_use]
pub(crate) struct Apart {
    /// The places of the outcomes that do not stand, in order.
    pub(crate) missing: Vec<usize>,
    /// The places of the rows that did not become what was given, in order, each with its count of wakes if it is
    /// still held.
    pub(crate) refused: Vec<(usize, Option<i64>)>,
    /// The places of the rows whose parents were woken and run just now.
    pub(crate) parent_runs: Vec<usize>,
}

/// Commit outcomes of steps, and what becomes of rows. Both have to be given in key order, which is the order in which
/// the rows are locked.
pub(crate) async fn commit(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    steps: &[&StepRow],
    rows: &[&WorkflowRow],
) -> Result<Committed, sqlx::Error> {
    // Numbers that came from a series would make the planner expect a thousand rows, and read the table for them.
    let numbers: Vec<i64> = (1..).take(rows.len()).collect();
    let rows_at: Vec<_> = steps.iter().map(|step| step.row_at.as_deref()).collect();
    let committed =
        bind(query(&sql.commit), owner, steps, rows).bind(numbers).bind(rows_at).fetch_one(connection).await;
    let answer = match committed {
        Err(error) if is_taken(&error) => return Ok(Committed::Only(Vec::new())),
        committed => committed?,
    };
    match (answer.try_get("recorded")?, answer.try_get::<Option<Vec<i64>>, _>("became")?) {
        (true, None) => Ok(Committed::All(answer.try_get("now")?)),
        (_, became) => Ok(Committed::Only(places(became))),
    }
}

/// End one workflow, with the outcome that led to it, if there is one. The database's time if it is written; `None` when
/// something stands in the way, about which `commit_apart` finds out.
pub(crate) async fn settle(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    step: Option<&StepRow>,
    row: &WorkflowRow,
    status: Status,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    let ended = query(&sql.settle)
        .bind(owner.0)
        .bind(row.id.bucket())
        .bind(row.id.as_str())
        .bind(row.claims)
        .bind(step.map(|s| &*s.position.lane))
        .bind(step.map(|s| s.position.seq))
        .bind(step.map(|s| s.kind.as_str()))
        .bind(step.map(|s| s.name))
        .bind(step.and_then(|s| s.input.as_deref()))
        .bind(step.and_then(|s| s.output.as_deref()))
        .bind(step.and_then(|s| s.failure.as_deref()))
        .bind(step.and_then(|s| s.attempts.as_deref()))
        .bind(step.map(|s| s.ended_at))
        .bind(step.map(|s| s.took_ms))
        .bind(status.as_str())
        .bind(&row.output)
        .bind(&row.failure)
        .fetch_optional(connection)
        .await;
    match ended {
        Err(error) if is_taken(&error) => Ok(None),
        ended => ended?.map(|row| row.try_get("now")).transpose(),
    }
}

/// Numbers from 1 as places from 0.
fn places(numbers: Option<Vec<i64>>) -> Vec<usize> {
    numbers.into_iter().flatten().map(|n| usize::try_from(n - 1).unwrap_or_default()).collect()
}

/// Commit what can be committed, and say of the rest what it is. Rows of children wake their parents; no parent may have a row
/// of its own here.
pub(crate) async fn commit_apart(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    steps: &[&StepRow],
    rows: &[&WorkflowRow],
) -> Result<Apart, sqlx::Error> {
    let any = rows.iter().any(|row| row.parent.is_some());
    let parents: Vec<Option<&Id>> = if any { rows.iter().map(|row| row.parent.as_ref()).collect() } else { Vec::new() };
    let answer = bind(query(&sql.commit_apart), owner, steps, rows)
        .bind(parents.iter().map(|parent| parent.map(Id::bucket)).collect::<Vec<_>>())
        .bind(parents.iter().map(|parent| parent.map(Id::as_str)).collect::<Vec<_>>())
        .fetch_one(connection)
        .await?;
    let wakes: Option<Vec<Option<i64>>> = answer.try_get("wakes")?;
    Ok(Apart {
        missing: places(answer.try_get("missing")?),
        refused: places(answer.try_get("refused")?).into_iter().zip(wakes.unwrap_or_default()).collect(),
        parent_runs: places(answer.try_get("parent_runs")?),
    })
}

fn bind<'q>(
    query: Query<'q, Postgres, PgArguments>,
    owner: OwnerId,
    steps: &[&'q StepRow],
    rows: &[&'q WorkflowRow],
) -> Query<'q, Postgres, PgArguments> {
    fn column<'r, R, T>(rows: &[&'r R], of: impl Fn(&'r R) -> T) -> Vec<T> {
        rows.iter().map(|row| of(row)).collect()
    }
    // What is null throughout is sent as nothing at all: the longer arrays fill it up.
    fn sparse<'r, R, T>(rows: &[&'r R], of: impl Fn(&'r R) -> Option<T>) -> Vec<Option<T>> {
        if rows.iter().any(|row| of(row).is_some()) { column(rows, of) } else { Vec::new() }
    }
    query
        .bind(owner.0)
        .bind(column(steps, |s| s.id.bucket()))
        .bind(column(steps, |s| s.id.as_str()))
        .bind(column(steps, |s| s.claims))
        .bind(column(steps, |s| &*s.position.lane))
        .bind(column(steps, |s| s.position.seq))
        .bind(column(steps, |s| s.kind.as_str()))
        .bind(column(steps, |s| s.name))
        .bind(column(steps, |s| s.input.as_deref()))
        .bind(column(steps, |s| s.output.as_deref()))
        .bind(sparse(steps, |s| s.failure.as_deref()))
        .bind(sparse(steps, |s| s.attempts.as_deref()))
        .bind(column(steps, |s| s.ended_at))
        .bind(column(steps, |s| s.took_ms))
        .bind(column(rows, |r| r.id.bucket()))
        .bind(column(rows, |r| r.id.as_str()))
        .bind(column(rows, |r| r.claims))
        .bind(column(rows, |r| r.status.map(Status::as_str)))
        .bind(sparse(rows, |r| r.seen))
        .bind(sparse(rows, |r| r.waits.as_deref()))
        .bind(column(rows, |r| r.output.as_deref()))
        .bind(sparse(rows, |r| r.failure.as_deref()))
}
