//! Claiming due workflows, and loading the histories of those that ran before.

use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::query;
use super::sql::Sql;
use crate::decide::Ending;
use crate::failure::Failure;
use crate::history::{History, Kind, PAGE_BYTES, PAGE_RECORDS, Page, Record, StoredWait};
use crate::id::{Id, OwnerId, Position};
use crate::status::Status;

/// A workflow that this worker now owns.
pub(crate) struct Claimed {
    pub(crate) id: Id,
    pub(crate) name: String,
    pub(crate) version: i32,
    pub(crate) input: String,
    pub(crate) waits: Vec<StoredWait>,
    pub(crate) wakes: i64,
    pub(crate) claims: i32,
    pub(crate) created_at: DateTime<Utc>,
    /// The id and the time that its draws and its first look at the time are made of, if they are not its own.
    pub(crate) seed: Option<(Id, DateTime<Utc>)>,
    /// Whom its end wakes, if it is a child.
    pub(crate) parent: Option<Parent>,
    /// How often it has continued as new, if ever, and when it did last.
    pub(crate) generation: Option<(i32, DateTime<Utc>)>,
    /// How it ends, if it was cut off and what it has done is to be undone.
    pub(crate) ending: Option<Ending>,
    /// Its queue has limits: when it does not run any more, another one may.
    pub(crate) is_limited: bool,
    /// Where its row stands now, as text of the database's; a hint that the next update makes stale.
    pub(crate) row_at: Option<Arc<str>>,
    /// The database's time, and this process's when the answer had come: never later than the truth.
    pub(crate) now: DateTime<Utc>,
    pub(crate) seen_at: Instant,
}

/// The workflow whose body has started a child.
#[derive(Clone, Debug)]
pub(crate) struct Parent {
    pub(crate) id: Id,
    /// Its queue; `None` when it is there no more.
    pub(crate) queue: Option<String>,
}

impl Claimed {
    /// Whether there may be something in its history: it ran before, or was forked with one.
    pub(crate) fn has_history(&self) -> bool {
        self.claims > 1 || self.seed.is_some()
    }
}

/// From where a worker claims.
pub(crate) struct Sources<'s> {
    pub(crate) queue: &'s str,
    /// Queues with limits.
    pub(crate) limited: &'s [String],
    /// The names and versions of the bodies that it has.
    pub(crate) bodies: &'s (Vec<String>, Vec<i32>),
}

/// Where a look for workflows got to, of those that are queued and of those whose wait is over.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Reached {
    ready: Option<(i16, DateTime<Utc>)>,
    due: Option<DateTime<Utc>>,
}

impl Reached {
    /// A later look got to here; what that had nothing of is where it was.
    fn see(&mut self, row: &PgRow) -> Result<(), sqlx::Error> {
        let due_at: Option<DateTime<Utc>> = row.try_get("due_at")?;
        match row.try_get::<Option<&str>, _>("arm")? {
            Some("ready") => self.ready = self.ready.max(Some(row.try_get("priority")?).zip(due_at)),
            Some("due") => self.due = self.due.max(due_at),
            _ => {}
        }
        Ok(())
    }
}

/// What a claim has come to.
pub(crate) struct Taken {
    pub(crate) claimed: Vec<Claimed>,
    /// There are more to be taken at once.
    pub(crate) more: bool,
    pub(crate) reached: Reached,
}

/// Take up to `limit` due workflows for `owner`, from where an earlier look got to.
pub(crate) async fn claim(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    sources: &Sources<'_>,
    limit: i64,
    from: Reached,
) -> Result<Taken, sqlx::Error> {
    let mut rows = query(&sql.claim)
        .bind(owner.0)
        .bind(sources.queue)
        .bind(&sources.bodies.0)
        .bind(&sources.bodies.1)
        .bind(limit)
        .bind(sources.limited)
        .bind(from.ready.map(|(priority, _)| priority))
        .bind(from.ready.map(|(_, due_at)| due_at))
        .bind(from.due)
        .fetch_all(connection)
        .await?;
    let seen_at = Instant::now();
    let known = rows.len();
    rows.retain(|row| !matches!(row.try_get::<Option<&str>, _>("id"), Ok(None)));
    let more = rows.len() < known || i64::try_from(rows.len()).is_ok_and(|many| many >= limit);
    let mut reached = from;
    rows.iter().try_for_each(|row| reached.see(row))?;
    let claimed = rows.iter().map(|row| claimed(row, seen_at)).collect::<Result<_, _>>()?;
    Ok(Taken { claimed, more, reached })
}

fn claimed(row: &PgRow, seen_at: Instant) -> Result<Claimed, sqlx::Error> {
    let waits: Option<&str> = row.try_get("waits")?;
    Ok(Claimed {
        is_limited: row.try_get("is_limited")?,
        id: Id::trusted(row.try_get("id")?),
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        input: row.try_get("input")?,
        waits: decode(waits.unwrap_or("[]"))?,
        wakes: row.try_get("wakes")?,
        claims: row.try_get("claims")?,
        created_at: row.try_get("created_at")?,
        seed: seed(row.try_get("seed")?)?,
        parent: parent(row.try_get("parent")?)?,
        generation: row.try_get::<Option<&str>, _>("generation")?.map(decode).transpose()?,
        ending: ending(row.try_get("ending")?)?,
        row_at: row_at(row)?,
        now: row.try_get("now")?,
        seen_at,
    })
}

/// Where the row of a workflow stands that an answer is about.
pub(super) fn row_at(row: &PgRow) -> Result<Option<Arc<str>>, sqlx::Error> {
    Ok(row.try_get::<Option<&str>, _>("row_at")?.map(Arc::from))
}

/// What a fork's draws are made of.
fn seed(json: Option<&str>) -> Result<Option<(Id, DateTime<Utc>)>, sqlx::Error> {
    let seed: Option<(String, DateTime<Utc>)> = json.map(decode).transpose()?;
    Ok(seed.map(|(id, created_at)| (Id::trusted(&id), created_at)))
}

/// Whom a child's end wakes.
fn parent(json: Option<&str>) -> Result<Option<Parent>, sqlx::Error> {
    let parent: Option<(String, Option<String>)> = json.map(decode).transpose()?;
    Ok(parent.map(|(id, queue)| Parent { id: Id::trusted(&id), queue }))
}

/// How a workflow that was cut off ends.
fn ending(json: Option<&str>) -> Result<Option<Ending>, sqlx::Error> {
    let Some((status, failure)) = json.map(decode::<(String, Failure)>).transpose()? else { return Ok(None) };
    let status = Status::parse(&status).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
    Ok(Some(Ending { status, failure }))
}

/// Records and bytes of a whole claim batch. Ordinary workflows get all they have; where many are claimed at
/// once, the longer ones among them read on when they come there.
const BATCH_RECORDS: usize = 50_000;
const BATCH_BYTES: usize = 64 * PAGE_BYTES;

/// What is recorded for the given workflows, in their order; of long ones the beginning.
pub(crate) async fn histories(
    connection: &mut PgConnection,
    sql: &Sql,
    ids: &[&Id],
) -> Result<Vec<History>, sqlx::Error> {
    let first = Position::first();
    let from: Vec<(&Id, &Position)> = ids.iter().map(|id| (*id, &first)).collect();
    let pages = history(connection, sql, &from).await?;
    let read = pages.into_iter().map(|page| {
        let mut history = History::unread();
        // Nothing is half open at the beginning.
        let _ = history.read(page);
        history
    });
    Ok(read.collect())
}

/// What is recorded for one workflow from a position on.
pub(crate) async fn page(
    connection: &mut PgConnection,
    sql: &Sql,
    id: &Id,
    from: &Position,
) -> Result<Page, sqlx::Error> {
    let mut pages = history(connection, sql, &[(id, from)]).await?;
    Ok(pages.pop().expect("a page for each workflow"))
}

/// A page for each of the given workflows, in their order, from a position of it on.
async fn history(
    connection: &mut PgConnection,
    sql: &Sql,
    from: &[(&Id, &Position)],
) -> Result<Vec<Page>, sqlx::Error> {
    let share = |page: usize, batch: usize| page.min(batch / from.len().max(1));
    let records = share(PAGE_RECORDS, BATCH_RECORDS);
    let mut rows = query(&sql.history)
        .bind(from.iter().map(|(id, _)| id.bucket()).collect::<Vec<_>>())
        .bind(from.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>())
        .bind(from.iter().map(|(_, at)| &*at.lane).collect::<Vec<_>>())
        .bind(from.iter().map(|(_, at)| at.seq).collect::<Vec<_>>())
        .bind(i64::try_from(records).unwrap_or(i64::MAX))
        .bind(i64::try_from(share(PAGE_BYTES, BATCH_BYTES)).unwrap_or(i64::MAX))
        .fetch(connection);
    let page = |(_, at): &(&Id, &Position)| Page { from: (*at).clone(), records: Vec::new(), more: false };
    let mut pages: Vec<Page> = from.iter().map(page).collect();
    let mut lane: Arc<str> = "".into();
    // Row by row, so that a large value is not in memory twice.
    while let Some(row) = rows.try_next().await? {
        let n: i64 = row.try_get("n")?;
        let page = usize::try_from(n - 1).ok().and_then(|n| pages.get_mut(n));
        let page = page.ok_or_else(|| sqlx::Error::Decode(format!("no workflow {n} was asked for").into()))?;
        page.more = !row.try_get::<bool, _>("there")? || page.records.len() == records;
        if page.more {
            continue;
        }
        let of: &str = row.try_get("lane")?;
        if *lane != *of {
            lane = of.into();
        }
        page.records.push((Position { lane: lane.clone(), seq: row.try_get("seq")? }, record_of(&row)?));
    }
    Ok(pages)
}

/// The record in a row of `step`.
pub(super) fn record_of(row: &PgRow) -> Result<Record, sqlx::Error> {
    let kind: &str = row.try_get("kind")?;
    let kind = Kind::parse(kind).ok_or_else(|| {
        sqlx::Error::Decode(format!("unknown kind of step {kind:?}: written by a newer version").into())
    })?;
    let failure: Option<&str> = row.try_get("failure")?;
    let outcome = match failure {
        Some(failure) => Err(decode::<Failure>(failure)?),
        None => Ok(row.try_get::<Option<String>, _>("output")?.unwrap_or_else(|| "null".to_owned())),
    };
    Ok(Record { kind, name: row.try_get("name")?, outcome, ended_at: row.try_get("ended_at")? })
}

/// Decode what the library itself wrote.
pub(super) fn decode<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|e| sqlx::Error::Decode(Box::new(e)))
}
