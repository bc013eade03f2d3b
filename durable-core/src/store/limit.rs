//! Limits around steps: their rows, and asking for calls to begin.

use sqlx::{PgConnection, Row};

use super::query;
use super::sql::Sql;
use crate::id::OwnerId;
use crate::limit::{Limit, LimitInfo};
use crate::queue::Rate;

/// What a worker has running of a limit, and what it wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    /// Grows with each asking.
    pub(crate) n: i64,
    pub(crate) held: i32,
    /// Calls whose turn has come, and since when the first one's.
    pub(crate) booked: i32,
    pub(crate) booked_for_ms: i64,
    pub(crate) newcomers: i32,
    /// About how long calls take, if anything is known of it.
    pub(crate) took_ms: Option<f64>,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Granted {
    /// Nobody has declared the limit.
    Undeclared,
    /// The worker is not alive any more for the database.
    Fenced,
    /// A later asking was answered already.
    Stale,
    Some(Turns),
}

/// Who may begin, and when the others may.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Turns {
    pub(crate) booked: i32,
    pub(crate) newcomers: i32,
    /// How far the first turn of the other newcomers is away, in milliseconds, and how far apart they are.
    pub(crate) turn_in: f64,
    pub(crate) spacing: f64,
    /// When to ask again for those whose turn has come.
    pub(crate) again_in: f64,
    /// Whether it matters how many run.
    pub(crate) counts: bool,
}

/// Say what runs, and ask for more.
pub(crate) async fn ask_limit(
    connection: &mut PgConnection,
    sql: &Sql,
    (name, owner): (&str, OwnerId),
    asking: Asking,
) -> Result<Granted, sqlx::Error> {
    let row = query(&sql.ask_limit)
        .bind(name)
        .bind(owner.0)
        .bind(asking.n)
        .bind(asking.held)
        .bind(asking.booked)
        .bind(asking.booked_for_ms)
        .bind(asking.newcomers)
        .bind(asking.took_ms)
        .fetch_one(connection)
        .await?;
    Ok(match row.try_get::<&str, _>("state")? {
        "undeclared" => Granted::Undeclared,
        "fenced" => Granted::Fenced,
        "stale" => Granted::Stale,
        _ => Granted::Some(Turns {
            booked: row.try_get("booked_begin")?,
            newcomers: row.try_get("newcomers_begin")?,
            turn_in: row.try_get("turn_in")?,
            spacing: row.try_get("spacing")?,
            again_in: row.try_get("again_in")?,
            counts: row.try_get("counts")?,
        }),
    })
}

/// Write limits down. `set`: whatever was there; else only where code has declared something else last.
pub(crate) async fn declare_limits(
    connection: &mut PgConnection,
    sql: &Sql,
    limits: &[Limit],
    set: bool,
) -> Result<(), sqlx::Error> {
    let mut sorted: Vec<&Limit> = limits.iter().collect();
    sorted.sort_unstable_by_key(|limit| &limit.name);
    query(&sql.declare_limits)
        .bind(sorted.iter().map(|l| &*l.name).collect::<Vec<_>>())
        .bind(sorted.iter().map(|l| l.concurrency).collect::<Vec<_>>())
        .bind(sorted.iter().map(|l| l.concurrency_per_worker).collect::<Vec<_>>())
        .bind(sorted.iter().map(|l| l.rate.map(|rate| rate.many)).collect::<Vec<_>>())
        .bind(sorted.iter().map(|l| l.rate.map(|rate| rate.period_ms)).collect::<Vec<_>>())
        .bind(sorted.iter().map(|l| l.declared()).collect::<Vec<_>>())
        .bind(set)
        .execute(connection)
        .await?;
    Ok(())
}

/// Those of which live workers have declared something else, so many of them at most, with what that is.
pub(crate) async fn disputed_limits(
    connection: &mut PgConnection,
    sql: &Sql,
    limits: &[Limit],
    limit: i64,
) -> Result<Vec<(String, String)>, sqlx::Error> {
    let rows = query(&sql.disputed_limits)
        .bind(limits.iter().map(|l| &*l.name).collect::<Vec<_>>())
        .bind(limits.iter().map(Limit::declared).collect::<Vec<_>>())
        .bind(limit)
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| Ok((row.try_get("name")?, row.try_get("others")?))).collect()
}

/// Pause a limit, or let it go on. Whether there is one.
pub(crate) async fn pause_limit(
    connection: &mut PgConnection,
    sql: &Sql,
    name: &str,
    paused: bool,
) -> Result<bool, sqlx::Error> {
    let row = query(&sql.pause_limit).bind(name).bind(paused).fetch_optional(connection).await?;
    Ok(row.is_some())
}

/// Remove a limit. Whether there was one.
pub(crate) async fn remove_limit(connection: &mut PgConnection, sql: &Sql, name: &str) -> Result<bool, sqlx::Error> {
    Ok(query(&sql.remove_limit).bind(name).fetch_optional(connection).await?.is_some())
}

/// The limits, so many of them at most.
pub(crate) async fn limits(
    connection: &mut PgConnection,
    sql: &Sql,
    limit: i64,
) -> Result<Vec<LimitInfo>, sqlx::Error> {
    let rows = query(&sql.limits).bind(limit).fetch_all(connection).await?;
    let info = |row: &sqlx::postgres::PgRow| -> Result<LimitInfo, sqlx::Error> {
        let (many, period_ms): (Option<i32>, Option<i64>) = (row.try_get("rate")?, row.try_get("rate_ms")?);
        Ok(LimitInfo {
            limit: Limit {
                name: row.try_get("name")?,
                concurrency: row.try_get("concurrency")?,
                concurrency_per_worker: row.try_get("concurrency_per_worker")?,
                rate: many.zip(period_ms).map(|(many, period_ms)| Rate { many, period_ms }),
            },
            is_paused: row.try_get("is_paused")?,
            running: row.try_get::<i64, _>("running")?.unsigned_abs(),
        })
    };
    rows.iter().map(info).collect()
}
