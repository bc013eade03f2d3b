//! The one exit of an attempt: every write that ends it is here, and every one is fenced.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};

use super::sql::Sql;
use super::step::StepRow;
use super::{Fence, query};
use crate::decide::End;
use crate::history::WaitKind;
use crate::id::{Id, OwnerId, Position};

/// End an attempt for good, with the records that ride along.
pub(crate) async fn settle(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    id: &Id,
    kept: &[StepRow],
    end: &End,
) -> Result<Fence, sqlx::Error> {
    let settled = bind_kept(query(&sql.settle), owner, id, kept)
        .bind(end.status.as_str())
        .bind(&end.output)
        .bind(&end.failure)
        .fetch_optional(connection)
        .await?;
    Ok(if settled.is_some() { Fence::Held } else { Fence::Lost })
}

/// Something that a body waits for, as it is written.
#[derive(Clone, Debug)]
pub(crate) struct WaitRow {
    pub(crate) position: Position,
    pub(crate) kind: WaitKind,
    pub(crate) topic: Option<&'static str>,
    pub(crate) attempts: Option<String>,
    /// When it ends, where an earlier write said so.
    pub(crate) until: Option<DateTime<Utc>>,
    /// In how many milliseconds it ends, otherwise; `None` for never.
    pub(crate) after_ms: Option<i64>,
}

/// What became of a suspension.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Suspended {
    Written,
    /// Something woke the workflow meanwhile; this is its count now, or slightly before now.
    Woken(i64),
    Lost,
}

/// Write down what a body waits for; and suspend it, if `suspend` holds and nothing woke it since `seen`.
#[expect(clippy::too_many_arguments, reason = "they are the statement's")]
pub(crate) async fn suspend(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    id: &Id,
    claims: i32,
    kept: &[StepRow],
    suspend: bool,
    seen: i64,
    waits: &[WaitRow],
) -> Result<Suspended, sqlx::Error> {
    fn column<T>(waits: &[WaitRow], of: impl Fn(&WaitRow) -> T) -> Vec<T> {
        waits.iter().map(of).collect()
    }
    let row = bind_kept(query(&sql.suspend), owner, id, kept)
        .bind(suspend)
        .bind(seen)
        .bind(column(waits, |w| w.position.lane.to_string()))
        .bind(column(waits, |w| w.position.seq))
        .bind(column(waits, |w| w.kind.as_str().to_owned()))
        .bind(column(waits, |w| w.topic.map(str::to_owned)))
        .bind(column(waits, |w| w.attempts.clone()))
        .bind(column(waits, |w| w.until))
        .bind(column(waits, |w| w.after_ms))
        .bind(claims)
        .fetch_one(connection)
        .await?;
    Ok(match (row.try_get("written")?, row.try_get("wakes")?) {
        (true, _) => Suspended::Written,
        (false, Some(wakes)) => Suspended::Woken(wakes),
        (false, None) => Suspended::Lost,
    })
}

type PgQuery<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// The records that ride along with a write of their workflow: sleeps that ended, which cost no write alone.
fn bind_kept<'q>(query: PgQuery<'q>, owner: OwnerId, id: &'q Id, kept: &[StepRow]) -> PgQuery<'q> {
    query
        .bind(owner.0)
        .bind(id.bucket())
        .bind(id.as_str())
        .bind(kept.iter().map(|s| s.position.lane.to_string()).collect::<Vec<_>>())
        .bind(kept.iter().map(|s| s.position.seq).collect::<Vec<_>>())
        .bind(kept.iter().map(|s| s.kind.as_str().to_owned()).collect::<Vec<_>>())
        .bind(kept.iter().map(|s| s.name.to_string()).collect::<Vec<_>>())
        .bind(kept.iter().map(|s| s.output.clone()).collect::<Vec<_>>())
        .bind(kept.iter().map(|s| s.took_ms).collect::<Vec<_>>())
}

/// Give one workflow back, or park it with `failure` after too many times.
pub(crate) async fn release(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    id: &Id,
    claims: i32,
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
