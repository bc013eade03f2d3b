//! Claiming due workflows, and loading the histories of those that ran before.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};

use super::query;
use super::sql::Sql;
use crate::failure::Failure;
use crate::history::{History, Kind, Record, StoredWait};
use crate::id::{Id, OwnerId, Position};

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
    /// The database's time, and this process's when the answer had come: never later than the truth.
    pub(crate) now: DateTime<Utc>,
    pub(crate) seen_at: Instant,
}

/// Take up to `limit` due workflows of `queue` for `owner`.
pub(crate) async fn claim(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    queue: &str,
    bodies: &(Vec<String>, Vec<i32>),
    limit: i64,
) -> Result<Vec<Claimed>, sqlx::Error> {
    let rows = query(&sql.claim)
        .bind(owner.0)
        .bind(queue)
        .bind(&bodies.0)
        .bind(&bodies.1)
        .bind(limit)
        .fetch_all(connection)
        .await?;
    let seen_at = Instant::now();
    rows.iter()
        .map(|row| {
            let waits: Option<&str> = row.try_get("waits")?;
            Ok(Claimed {
                id: Id::trusted(row.try_get("id")?),
                name: row.try_get("name")?,
                version: row.try_get("version")?,
                input: row.try_get("input")?,
                waits: decode(waits.unwrap_or("[]"))?,
                wakes: row.try_get("wakes")?,
                claims: row.try_get("claims")?,
                created_at: row.try_get("created_at")?,
                now: row.try_get("now")?,
                seen_at,
            })
        })
        .collect()
}

/// Everything recorded for the given workflows.
pub(crate) async fn history(
    connection: &mut PgConnection,
    sql: &Sql,
    ids: &[Id],
) -> Result<HashMap<Id, History>, sqlx::Error> {
    let rows = query(&sql.history)
        .bind(ids.iter().map(Id::bucket).collect::<Vec<_>>())
        .bind(ids.iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let mut histories: HashMap<Id, History> = HashMap::with_capacity(ids.len());
    for row in &rows {
        let id = Id::trusted(row.try_get("workflow_id")?);
        let lane: Arc<str> = row.try_get::<&str, _>("lane")?.into();
        let position = Position { lane, seq: row.try_get("seq")? };
        histories.entry(id).or_default().add(position, record_of(row)?);
    }
    Ok(histories)
}

/// The record in a row of `step`.
pub(super) fn record_of(row: &sqlx::postgres::PgRow) -> Result<Record, sqlx::Error> {
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
