//! The mailbox: sending, and receiving as one act with the record of it.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};

use super::query;
use super::sql::Sql;
use crate::id::{Id, OwnerId, Position};
use crate::status::Status;

/// What became of a message.
#[derive(Debug)]
pub(crate) enum Sent {
    /// Stored, or a message with this key is there already, read or not.
    Stored(Receiver),
    /// The receiver has ended.
    Finished(Status),
    NoReceiver,
    /// The receiver's row changed under the statement; ask again.
    Again,
}

/// Whom a message went to, as it stood before.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) status: Status,
    pub(crate) queue: String,
}

/// Put a message into a mailbox.
pub(crate) async fn send(
    connection: &mut PgConnection,
    sql: &Sql,
    id: &Id,
    topic: &str,
    key: Option<&str>,
    value: &str,
) -> Result<Sent, sqlx::Error> {
    let row = query(&sql.send)
        .bind(id.bucket())
        .bind(id.as_str())
        .bind(topic)
        .bind(key)
        .bind(value)
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(Sent::NoReceiver) };
    let status = Status::parse(row.try_get("status")?).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
    if row.try_get("sent")? || row.try_get("known")? {
        return Ok(Sent::Stored(Receiver { status, queue: row.try_get("queue")? }));
    }
    Ok(if status.is_final() { Sent::Finished(status) } else { Sent::Again })
}

/// What a look into the mailbox found.
pub(crate) struct Received {
    /// The count of wakes that this look has seen.
    pub(crate) wakes: i64,
    /// The recorded outcome, if there was one to record.
    pub(crate) outcome: Option<(String, DateTime<Utc>)>,
    /// There was an outcome, but the position is taken.
    pub(crate) taken: bool,
}

/// Take the oldest unread message of a topic for a position, or record that the wait is over. `None` when
/// the workflow has another owner.
#[expect(clippy::too_many_arguments, reason = "they are the statement's")]
pub(crate) async fn receive(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    id: &Id,
    position: &Position,
    name: &str,
    topic: &str,
    over: bool,
    took_ms: i64,
) -> Result<Option<Received>, sqlx::Error> {
    let row = query(&sql.receive)
        .bind(owner.0)
        .bind(id.bucket())
        .bind(id.as_str())
        .bind(&*position.lane)
        .bind(position.seq)
        .bind(name)
        .bind(topic)
        .bind(over)
        .bind(took_ms)
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let output: Option<String> = row.try_get("output")?;
    let recorded_at: Option<DateTime<Utc>> = row.try_get("recorded_at")?;
    let outcome = output.zip(recorded_at);
    let taken = outcome.is_none() && row.try_get("had_outcome")?;
    Ok(Some(Received { wakes: row.try_get("wakes")?, outcome, taken }))
}
