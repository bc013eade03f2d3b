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

/// A mailbox to be looked into for a position.
pub(crate) struct Look {
    pub(crate) id: Id,
    /// The claim under which it is looked into.
    pub(crate) claims: i32,
    pub(crate) position: Position,
    pub(crate) topic: &'static str,
    /// Record that the wait is over, if there is no message.
    pub(crate) over: bool,
    pub(crate) took_ms: i64,
}

/// What a look into a mailbox found.
#[derive(Clone)]
pub(crate) struct Received {
    /// The count of wakes that this look has seen.
    pub(crate) wakes: i64,
    /// The recorded outcome, if there was one to record.
    pub(crate) outcome: Option<(String, DateTime<Utc>)>,
    /// There was an outcome, but the position is taken.
    pub(crate) taken: bool,
}

/// Take the oldest unread messages for positions, or record that the wait is over. No workflow may be there twice.
/// Answers in order; `None` where the workflow has another owner or claim.
pub(crate) async fn receive(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    looks: &[&Look],
) -> Result<Vec<Option<Received>>, sqlx::Error> {
    fn column<T>(looks: &[(&Look, usize)], of: impl Fn(&Look) -> T) -> Vec<T> {
        looks.iter().map(|(look, _)| of(look)).collect()
    }
    let mut sorted: Vec<(&Look, usize)> = looks.iter().copied().zip(0..).collect();
    sorted.sort_unstable_by_key(|(look, _)| (look.id.bucket(), look.id.as_str()));
    let rows = query(&sql.receive)
        .bind(owner.0)
        .bind(column(&sorted, |l| l.id.bucket()))
        .bind(sorted.iter().map(|(l, _)| l.id.as_str()).collect::<Vec<_>>())
        .bind(column(&sorted, |l| l.claims))
        .bind(sorted.iter().map(|(l, _)| &*l.position.lane).collect::<Vec<_>>())
        .bind(column(&sorted, |l| l.position.seq))
        .bind(column(&sorted, |l| l.topic))
        .bind(column(&sorted, |l| l.over))
        .bind(column(&sorted, |l| l.took_ms))
        .fetch_all(connection)
        .await?;
    let mut answers = vec![None; looks.len()];
    for row in &rows {
        let n = usize::try_from(row.try_get::<i64, _>("n")? - 1).unwrap_or_default();
        let Some((_, place)) = sorted.get(n) else { continue };
        let output: Option<String> = row.try_get("output")?;
        let recorded: bool = row.try_get("recorded")?;
        let taken = output.is_some() && !recorded;
        let now = row.try_get("now")?;
        let outcome = output.filter(|_| recorded).map(|output| (output, now));
        answers[*place] = Some(Received { wakes: row.try_get("wakes")?, outcome, taken });
    }
    Ok(answers)
}
