//! Queues with limits: their rows. Claiming from them is `claim`'s.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::query;
use super::sql::Sql;
use crate::queue::{Queue, QueueInfo, QueueMetrics, Rate, WaitsFor};

/// Write limits down. `set`: whatever was there; else only where code has declared something else last. Those come back of which live
/// workers have declared something else, with what that was.
pub(crate) async fn declare_queues(
    connection: &mut PgConnection,
    sql: &Sql,
    queues: &[Queue],
    set: bool,
) -> Result<Vec<(String, Option<String>)>, sqlx::Error> {
    let mut sorted: Vec<&Queue> = queues.iter().collect();
    sorted.sort_unstable_by_key(|queue| &queue.name);
    let rows = query(&sql.declare_queues)
        .bind(sorted.iter().map(|q| &*q.name).collect::<Vec<_>>())
        .bind(sorted.iter().map(|q| q.concurrency).collect::<Vec<_>>())
        .bind(sorted.iter().map(|q| q.concurrency_per_worker).collect::<Vec<_>>())
        .bind(sorted.iter().map(|q| q.concurrency_per_partition).collect::<Vec<_>>())
        .bind(sorted.iter().map(|q| q.rate.map(|rate| rate.many)).collect::<Vec<_>>())
        .bind(sorted.iter().map(|q| q.rate.map(|rate| rate.period_ms)).collect::<Vec<_>>())
        .bind(sorted.iter().map(|q| q.rate_per_partition.map(|rate| rate.many)).collect::<Vec<_>>())
        .bind(sorted.iter().map(|q| q.rate_per_partition.map(|rate| rate.period_ms)).collect::<Vec<_>>())
        .bind(sorted.iter().map(|q| q.suspended_count).collect::<Vec<_>>())
        .bind(sorted.iter().map(|q| q.limits()).collect::<Vec<_>>())
        .bind(set)
        .bind(sorted.iter().map(|q| q.burst).collect::<Vec<_>>())
        .bind(sorted.iter().map(|q| q.burst_per_partition).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| Ok((row.try_get("name")?, row.try_get("declared")?))).collect()
}

/// Queues in which something is due and from which no live worker takes, so many of them at most.
pub(crate) async fn unserved(connection: &mut PgConnection, sql: &Sql, limit: i64) -> Result<Vec<String>, sqlx::Error> {
    let rows = query(&sql.unserved).bind(limit).fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get("queue")).collect()
}

/// How queues stand, all or one.
pub(crate) async fn queue_metrics(
    connection: &mut PgConnection,
    sql: &Sql,
    name: Option<&str>,
) -> Result<Vec<QueueMetrics>, sqlx::Error> {
    let rows = query(&sql.queue_metrics).bind(name).fetch_all(connection).await?;
    rows.iter().map(metrics).collect()
}

fn metrics(row: &PgRow) -> Result<QueueMetrics, sqlx::Error> {
    let count = |name: &str| row.try_get::<i64, _>(name).map(i64::unsigned_abs);
    let oldest: Option<i64> = row.try_get("oldest_ms")?;
    Ok(QueueMetrics {
        queue: row.try_get("queue")?,
        depth: count("depth")?,
        oldest: oldest.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or_default())),
        running: count("running")?,
        suspended: count("suspended")?,
        delayed: count("delayed")?,
        workers: count("workers")?,
        without_code: count("without_code")?,
        has_limits: row.try_get("has_limits")?,
        is_paused: row.try_get("is_paused")?,
        waits_for: row.try_get::<Option<&str>, _>("waits_for")?.map(WaitsFor::parse),
    })
}

/// Pause a queue, or let it go on. Whether there is one with limits.
pub(crate) async fn pause_queue(
    connection: &mut PgConnection,
    sql: &Sql,
    name: &str,
    paused: bool,
) -> Result<bool, sqlx::Error> {
    let row = query(&sql.pause_queue).bind(name).bind(paused).fetch_optional(connection).await?;
    Ok(row.is_some())
}

/// Let a queue have no limits any more. Whether it had some.
pub(crate) async fn remove_queue(connection: &mut PgConnection, sql: &Sql, name: &str) -> Result<bool, sqlx::Error> {
    query(&sql.remove_queue).bind(name).fetch_one(connection).await?.try_get("removed")
}

/// The queues with limits, so many of them at most.
pub(crate) async fn queues(
    connection: &mut PgConnection,
    sql: &Sql,
    limit: i64,
) -> Result<Vec<QueueInfo>, sqlx::Error> {
    let rows = query(&sql.queues).bind(limit).fetch_all(connection).await?;
    rows.iter().map(info).collect()
}

fn info(row: &PgRow) -> Result<QueueInfo, sqlx::Error> {
    let rate = |many: &str, period: &str| -> Result<Option<Rate>, sqlx::Error> {
        let (many, period_ms): (Option<i32>, Option<i64>) = (row.try_get(many)?, row.try_get(period)?);
        Ok(many.zip(period_ms).map(|(many, period_ms)| Rate { many, period_ms }))
    };
    let count = |name: &str| row.try_get::<i64, _>(name).map(i64::unsigned_abs);
    Ok(QueueInfo {
        queue: Queue {
            name: row.try_get("name")?,
            concurrency: row.try_get("concurrency")?,
            concurrency_per_worker: row.try_get("concurrency_per_worker")?,
            concurrency_per_partition: row.try_get("concurrency_per_partition")?,
            rate: rate("rate", "rate_ms")?,
            rate_per_partition: rate("rate_per_partition", "rate_per_partition_ms")?,
            suspended_count: row.try_get("suspended_count")?,
            burst: row.try_get("burst")?,
            burst_per_partition: row.try_get("burst_per_partition")?,
        },
        is_paused: row.try_get("is_paused")?,
        running: count("running")?,
        waiting: count("waiting")?,
    })
}
