//! Reading a workflow's timeline, for people.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::claim::decode;
use super::inspect::recorded_step_of;
use super::query;
use super::sql::Sql;
use crate::history::StoredWait;
use crate::id::Id;
use crate::info::Operation;
use crate::status::Status;
use crate::transition::{Place, TimelineEntry, Transition};

/// Up to `limit` entries after a place, with records of about `bytes` together; and the last one's place, if others follow.
pub(crate) async fn timeline(
    connection: &mut PgConnection,
    sql: &Sql,
    id: &Id,
    after: &Place,
    limit: i64,
    bytes: i64,
) -> Result<(Vec<TimelineEntry>, Option<Place>), sqlx::Error> {
    let rows = query(&sql.timeline)
        .bind(id.bucket())
        .bind(id.as_str())
        .bind(after.at)
        .bind(after.rank)
        .bind(&after.lane)
        .bind(after.seq)
        .bind(after.n)
        .bind(limit)
        .bind(bytes)
        .fetch_all(connection)
        .await?;
    let mut entries = Vec::with_capacity(rows.len());
    let mut last = None;
    for row in &rows {
        if !row.try_get::<bool, _>("there")? {
            return Ok((entries, last));
        }
        entries.push(TimelineEntry { at: row.try_get("at")?, what: transition_of(row)? });
        last = Some(place_of(row)?);
    }
    Ok((entries, None))
}

fn place_of(row: &PgRow) -> Result<Place, sqlx::Error> {
    Ok(Place {
        at: row.try_get("at")?,
        rank: row.try_get("rank")?,
        n: row.try_get("n")?,
        seq: row.try_get("seq")?,
        lane: row.try_get("lane")?,
    })
}

fn transition_of(row: &PgRow) -> Result<Transition, sqlx::Error> {
    let what: &str = row.try_get("what")?;
    let reason = || row.try_get::<Option<String>, _>("reason");
    let (lane, seq) = (row.try_get("lane")?, row.try_get("seq")?);
    Ok(match what {
        "create" => Transition::Created,
        "continue" => {
            let generation = i32::try_from(row.try_get::<i64, _>("n")?).unwrap_or(i32::MAX);
            Transition::ContinuedAsNew { generation }
        }
        "begin" | "begin_about" => Transition::Began { is_exact: what == "begin", claim: reason()? },
        "claim" => Transition::Claimed { claim: reason()? },
        "attempt" => Transition::AttemptFailed {
            lane,
            seq,
            step: row.try_get("name")?,
            attempt: decode(row.try_get("detail")?)?,
        },
        "wait" => {
            let wait: Option<StoredWait> = row.try_get::<Option<&str>, _>("detail")?.map(decode).transpose()?;
            let name = match &wait {
                Some(wait) => wait.topic.clone(),
                // A sleep's name says nothing.
                None if row.try_get::<&str, _>("stood")? == "sleep" => None,
                None => row.try_get("name")?,
            };
            let until = wait.and_then(|wait| wait.until);
            Transition::Waits { lane, seq, for_what: row.try_get("stood")?, name, until }
        }
        "record" => Transition::Recorded(Box::new(recorded_step_of(row)?)),
        "release" => Transition::Released { reason: reason()? },
        "block" => Transition::Blocked { reason: reason()? },
        "end" => Transition::Ended {
            status: Status::parse(row.try_get("stood")?).map_err(|e| sqlx::Error::Decode(Box::new(e)))?,
            reason: reason()?,
        },
        act => Transition::Operated(Box::new(operation_of(row, act)?)),
    })
}

fn operation_of(row: &PgRow, act: &str) -> Result<Operation, sqlx::Error> {
    let stood = row.try_get::<Option<&str>, _>("stood")?.map(Status::parse).transpose();
    Ok(Operation {
        act: act.to_owned(),
        stood: stood.map_err(|e| sqlx::Error::Decode(Box::new(e)))?,
        reason: row.try_get("reason")?,
        dropped: row.try_get::<Option<&str>, _>("detail")?.map_or_else(|| Ok(Vec::new()), decode)?,
        deadline_was_at: row.try_get("deadline_before")?,
        deadline_at: row.try_get("deadline")?,
        done_by: row.try_get("done_by")?,
        done_at: row.try_get("at")?,
    })
}
