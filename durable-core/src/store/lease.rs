//! Workers' leases: taking and renewing one, fencing those that ran out, handing work back.

use std::time::Duration;

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::claim::Sources;
use super::sql::Sql;
use super::{Fence, query};
use crate::id::{Id, OwnerId};
use crate::limit::Limit;
use crate::status::Status;

/// Take a lease.
pub(crate) async fn register(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    lease_ms: i64,
    (host, pid): (&str, i32),
    takes: &Sources<'_>,
    declares: &[Limit],
) -> Result<(), sqlx::Error> {
    query(&sql.register)
        .bind(owner.0)
        .bind(lease_ms)
        .bind(host)
        .bind(pid)
        .bind(takes.queue)
        .bind(takes.limited)
        .bind(&takes.bodies.0)
        .bind(&takes.bodies.1)
        .bind(declares.iter().map(Limit::name).collect::<Vec<_>>())
        .bind(declares.iter().map(Limit::declared).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// Renew a lease, and learn which cancelled workflows to stop.
pub(crate) async fn heartbeat(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    lease_ms: i64,
) -> Result<(Fence, Vec<Id>), sqlx::Error> {
    let row = query(&sql.heartbeat).bind(owner.0).bind(lease_ms).fetch_one(connection).await?;
    let fence = if row.try_get("held")? { Fence::Held } else { Fence::Lost };
    let stopping: Vec<String> = row.try_get("stopping")?;
    Ok((fence, stopping.iter().map(|id| Id::trusted(id)).collect()))
}

/// What a look for dead workers saw.
pub(crate) struct Fenced {
    /// Those that own something, or have something to stop that is to be undone.
    pub(crate) dead: Vec<OwnerId>,
    /// How long the next deadline is away.
    pub(crate) deadline_in: Option<Duration>,
    /// How long the next look for due schedules is away.
    pub(crate) schedule_in: Option<Duration>,
}

/// Fence expired workers, and find dead ones by a look at up to `limit` workflows.
pub(crate) async fn fence(connection: &mut PgConnection, sql: &Sql, limit: i64) -> Result<Fenced, sqlx::Error> {
    let row = query(&sql.fence).bind(limit).fetch_one(connection).await?;
    let dead: Vec<Uuid> = row.try_get("dead")?;
    let away = |ms: Option<i64>| ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or_default()));
    Ok(Fenced {
        dead: dead.into_iter().map(OwnerId).collect(),
        deadline_in: away(row.try_get("deadline_in_ms")?),
        schedule_in: away(row.try_get("schedule_in_ms")?),
    })
}

/// Whether a worker was fenced.
pub(crate) async fn fenced(connection: &mut PgConnection, sql: &Sql, owner: OwnerId) -> Result<bool, sqlx::Error> {
    query(&sql.fenced).bind(owner.0).fetch_one(connection).await?.try_get("fenced")
}

/// End the sessions of fenced workers. Answers how many were still there.
pub(crate) async fn silence(connection: &mut PgConnection, sql: &Sql, dead: &[OwnerId]) -> Result<i64, sqlx::Error> {
    let names: Vec<String> = dead.iter().map(|owner| owner.session_name()).collect();
    query(&sql.silence).bind(names).fetch_one(connection).await?.try_get("sessions")
}

/// A workflow that was taken from a dead worker.
pub(crate) struct Reaped {
    pub(crate) id: Id,
    pub(crate) status: Status,
}

/// Give back up to `limit` workflows of dead workers.
pub(crate) async fn reap(
    connection: &mut PgConnection,
    sql: &Sql,
    dead: &[OwnerId],
    limit: i64,
    max_recoveries: i32,
) -> Result<Vec<Reaped>, sqlx::Error> {
    let dead: Vec<_> = dead.iter().map(|owner| owner.0).collect();
    let rows = query(&sql.reap).bind(limit).bind(max_recoveries).bind(dead).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let status = Status::parse(row.try_get("status")?).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
            Ok(Reaped { id: Id::trusted(row.try_get("id")?), status })
        })
        .collect()
}

/// Give up a lease and everything owned under it. Answers how many workflows went back.
pub(crate) async fn hand_back(connection: &mut PgConnection, sql: &Sql, owner: OwnerId) -> Result<usize, sqlx::Error> {
    Ok(query(&sql.hand_back).bind(owner.0).fetch_all(connection).await?.len())
}

/// What the database says `owner` owns, with the numbers of the claims.
pub(crate) async fn owned(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
) -> Result<Vec<(Id, i32)>, sqlx::Error> {
    let rows = query(&sql.owned).bind(owner.0).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((Id::trusted(row.try_get("id")?), row.try_get("claims")?))).collect()
}

/// Give back what `owner` owns without knowing it.
pub(crate) async fn let_go(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    stranded: &[(Id, i32)],
) -> Result<(), sqlx::Error> {
    query(&sql.let_go)
        .bind(owner.0)
        .bind(stranded.iter().map(|(id, _)| id.bucket()).collect::<Vec<_>>())
        .bind(stranded.iter().map(|(id, _)| id.as_str().to_owned()).collect::<Vec<_>>())
        .bind(stranded.iter().map(|(_, claims)| *claims).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// Park one workflow whose code does not fit its history or what else is there, as the reason of the note says.
pub(crate) async fn block(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    (id, claims): (&Id, i32),
    failure: &str,
    reason: &str,
) -> Result<Fence, sqlx::Error> {
    let blocked =
        query(&sql.block).bind(owner.0).bind(id.bucket()).bind(id.as_str()).bind(claims).bind(failure).bind(reason);
    Ok(if blocked.fetch_optional(connection).await?.is_some() { Fence::Held } else { Fence::Lost })
}

/// Give one workflow back, or park it with `failure` after too many times.
pub(crate) async fn release(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    (id, claims): (&Id, i32),
    max_recoveries: i32,
    failure: &str,
) -> Result<(), sqlx::Error> {
    query(&sql.release)
        .bind(owner.0)
        .bind(id.bucket())
        .bind(id.as_str())
        .bind(max_recoveries)
        .bind(failure)
        .bind(claims)
        .execute(connection)
        .await?;
    Ok(())
}

/// Names and versions of queued workflows that a registry lacks, with how many were seen.
pub(crate) async fn unknown(
    connection: &mut PgConnection,
    sql: &Sql,
    queue: &str,
    bodies: &(Vec<String>, Vec<i32>),
) -> Result<Vec<(String, i32, i64)>, sqlx::Error> {
    let rows = query(&sql.unknown).bind(queue).bind(&bodies.0).bind(&bodies.1).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get("name")?, row.try_get("version")?, row.try_get("seen")?))).collect()
}
