//! Reading many workflows, for people: pages of them, and how many there are. One of them is `inspect`.

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection, Row};

use super::inspect::info_of;
use super::query;
use super::sql::Sql;
use crate::attribute::Condition;
use crate::id::Id;
use crate::info::{Counts, WorkflowInfo};
use crate::status::Status;

/// Lists are planned for what is asked, not once for all; and where nothing else helps, by reading a table from its
/// beginning to its end in its own order, which is better than by a key. All statuses are read as of one moment, so that
/// a workflow which changes its own is there once.
const FOR_PEOPLE: &str = "begin isolation level repeatable read read only; \
                          set local plan_cache_mode = force_custom_plan; set local enable_seqscan = on;";

/// Which way the list goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    Newest,
    Oldest,
}

/// What a list is about.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) statuses: Vec<Status>,
    pub(crate) name: Option<String>,
    pub(crate) queue: Option<String>,
    pub(crate) created_from: Option<DateTime<Utc>>,
    pub(crate) created_before: Option<DateTime<Utc>>,
    /// A pattern, with what is special in it escaped.
    pub(crate) id_like: Option<String>,
    /// Asked of attributes; the first one is what is looked by.
    pub(crate) having: Vec<Condition>,
    pub(crate) order: Order,
    /// The last one of the page before.
    pub(crate) after: Option<(DateTime<Utc>, String)>,
    /// Of each status.
    pub(crate) limit: i64,
}

/// The first workflows of each status that is wanted, status by status.
pub(crate) async fn list(
    connection: &mut PgConnection,
    sql: &Sql,
    wanted: &Wanted,
) -> Result<Vec<WorkflowInfo>, sqlx::Error> {
    if !wanted.having.is_empty() {
        return list_with(connection, sql, wanted).await;
    }
    let mut tx = connection.begin_with(FOR_PEOPLE).await?;
    let statement = match wanted.order {
        Order::Newest => &sql.list_newest,
        Order::Oldest => &sql.list_oldest,
    };
    let (created_at, id) = wanted.after.as_ref().map(|(created_at, id)| (created_at, &**id)).unzip();
    let mut found = Vec::new();
    for status in &wanted.statuses {
        let rows = query(statement)
            .bind(status.as_str())
            .bind(&wanted.name)
            .bind(&wanted.queue)
            .bind(wanted.created_from)
            .bind(wanted.created_before)
            .bind(&wanted.id_like)
            .bind(Id::buckets())
            .bind(created_at)
            .bind(id)
            .bind(wanted.limit)
            .fetch_all(&mut *tx)
            .await?;
        for row in &rows {
            found.push(info_of(row)?);
        }
    }
    // Nothing was written.
    tx.rollback().await?;
    Ok(found)
}

/// The first workflows that have what is asked of their attributes, of all wanted statuses together.
async fn list_with(
    connection: &mut PgConnection,
    sql: &Sql,
    wanted: &Wanted,
) -> Result<Vec<WorkflowInfo>, sqlx::Error> {
    let Some((by, others)) = wanted.having.split_first() else { return Ok(Vec::new()) };
    let statement = match wanted.order {
        Order::Newest => &sql.list_newest_with,
        Order::Oldest => &sql.list_oldest_with,
    };
    let (created_at, id) = wanted.after.as_ref().map(|(created_at, id)| (created_at, &**id)).unzip();
    let mut tx = connection.begin_with(FOR_PEOPLE).await?;
    let rows = query(statement)
        .bind(wanted.statuses.iter().map(|status| status.as_str()).collect::<Vec<_>>())
        .bind(&wanted.name)
        .bind(&wanted.queue)
        .bind(wanted.created_from)
        .bind(wanted.created_before)
        .bind(&wanted.id_like)
        .bind(Id::buckets())
        .bind(created_at)
        .bind(id)
        .bind(wanted.limit)
        .bind(&by.name)
        .bind(by.equal.then_some(&by.from))
        .bind((!by.equal).then_some(&by.from))
        .bind((!by.equal).then_some(&by.before))
        .bind(others.iter().map(|other| &*other.name).collect::<Vec<_>>())
        .bind(others.iter().map(|other| &*other.from).collect::<Vec<_>>())
        .bind(others.iter().map(|other| &*other.before).collect::<Vec<_>>())
        .fetch_all(&mut *tx)
        .await?;
    tx.rollback().await?;
    rows.iter().map(info_of).collect()
}

/// How many workflows stand where.
pub(crate) async fn counts(connection: &mut PgConnection, sql: &Sql) -> Result<Counts, sqlx::Error> {
    let rows = query(&sql.counts).fetch_all(connection).await?;
    let mut counts = Counts::default();
    for row in &rows {
        let workflows = u64::try_from(row.try_get::<i64, _>("workflows")?).unwrap_or_default();
        match Status::parse(row.try_get("status")?).map_err(|e| sqlx::Error::Decode(Box::new(e)))? {
            Status::Queued => counts.queued = workflows,
            Status::Running => counts.running = workflows,
            Status::Suspended => counts.suspended = workflows,
            Status::Failed => counts.failed = workflows,
            Status::Cancelled => counts.cancelled = workflows,
            Status::Blocked => counts.blocked = workflows,
            // Not asked for.
            Status::Completed => {}
        }
    }
    Ok(counts)
}
