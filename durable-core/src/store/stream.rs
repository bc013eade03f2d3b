//! Streams: values appended to them by their workflows, and read by callers.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};

use super::query;
use super::sql::Sql;
use crate::id::{Id, OwnerId};
use crate::status::Status;
use crate::stream::StepAttempt;

/// Values to be appended to one stream.
pub(crate) struct Append {
    pub(crate) id: Id,
    /// The claim under which they are.
    pub(crate) claims: i32,
    pub(crate) key: &'static str,
    /// The offset of the first of them.
    pub(crate) first: i64,
    /// By which a repetition is known: another one for each write.
    pub(crate) tag: i64,
    pub(crate) many: usize,
    /// The values, as a JSON array.
    pub(crate) values: String,
    /// Where they come from, as a JSON array of `lane`, `seq` and, for those of steps, `attempt`.
    pub(crate) marks: String,
}

/// What became of one.
#[derive(Clone)]
pub(crate) enum Appended {
    /// They stand at their offsets: since when.
    Done(DateTime<Utc>),
    /// One of the positions has its record already.
    Taken,
    /// The stream stood at another offset.
    Moved(i64),
}

/// Append values. No stream may be there twice. Answers in order, `None` where the workflow has another owner or claim.
pub(crate) async fn append(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    given: &[Append],
) -> Result<Vec<Option<Appended>>, sqlx::Error> {
    let mut sorted: Vec<(&Append, usize)> = given.iter().zip(0..).collect();
    sorted.sort_unstable_by_key(|(a, _)| (a.id.bucket(), a.id.as_str(), a.key));
    let rows = query(&sql.append)
        .bind(owner.0)
        .bind(sorted.iter().map(|(a, _)| a.id.bucket()).collect::<Vec<_>>())
        .bind(sorted.iter().map(|(a, _)| a.id.as_str()).collect::<Vec<_>>())
        .bind(sorted.iter().map(|(a, _)| a.claims).collect::<Vec<_>>())
        .bind(sorted.iter().map(|(a, _)| a.key).collect::<Vec<_>>())
        .bind(sorted.iter().map(|(a, _)| a.first).collect::<Vec<_>>())
        .bind(sorted.iter().map(|(a, _)| a.tag).collect::<Vec<_>>())
        .bind(sorted.iter().map(|(a, _)| i64::try_from(a.many).unwrap_or(i64::MAX)).collect::<Vec<_>>())
        .bind(sorted.iter().map(|(a, _)| &*a.values).collect::<Vec<_>>())
        .bind(sorted.iter().map(|(a, _)| &*a.marks).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let mut answers = vec![None; given.len()];
    for row in &rows {
        let n = usize::try_from(row.try_get::<i64, _>("n")? - 1).unwrap_or_default();
        let Some((asked, at)) = sorted.get(n) else { continue };
        let by_an_earlier_try = row.try_get::<Option<i64>, _>("last_tag")? == Some(asked.tag);
        answers[*at] = Some(if row.try_get("appended")? || by_an_earlier_try {
            Appended::Done(row.try_get("now")?)
        } else if row.try_get("taken")? {
            Appended::Taken
        } else {
            Appended::Moved(row.try_get::<Option<i64>, _>("next")?.unwrap_or_default())
        });
    }
    Ok(answers)
}

/// A stream to be read on.
pub(crate) struct ReadOn {
    pub(crate) id: Id,
    pub(crate) key: &'static str,
    /// The offset to begin with.
    pub(crate) from: i64,
}

/// What was read of one.
#[derive(Clone, Default)]
pub(crate) struct StreamPage {
    /// Of the workflow that writes it; `None` where there is none.
    pub(crate) status: Option<Status>,
    /// How many values it has.
    pub(crate) next: i64,
    pub(crate) values: Vec<StreamRow>,
}

/// A value as it is stored.
#[derive(Clone)]
pub(crate) struct StreamRow {
    pub(crate) offset: i64,
    pub(crate) value: String,
    pub(crate) written_at: DateTime<Utc>,
    pub(crate) attempt: Option<StepAttempt>,
}

/// Read on in streams, so many values and bytes of each at most. Answers in order.
pub(crate) async fn streams(
    connection: &mut PgConnection,
    sql: &Sql,
    asked: &[ReadOn],
    values_max: i64,
    bytes_max: i64,
) -> Result<Vec<StreamPage>, sqlx::Error> {
    let rows = query(&sql.streams)
        .bind(asked.iter().map(|a| a.id.bucket()).collect::<Vec<_>>())
        .bind(asked.iter().map(|a| a.id.as_str()).collect::<Vec<_>>())
        .bind(asked.iter().map(|a| a.key).collect::<Vec<_>>())
        .bind(asked.iter().map(|a| a.from).collect::<Vec<_>>())
        .bind(values_max)
        .bind(bytes_max)
        .fetch_all(connection)
        .await?;
    let mut pages = vec![StreamPage::default(); asked.len()];
    for row in &rows {
        let n = usize::try_from(row.try_get::<i64, _>("asked")? - 1).unwrap_or_default();
        let Some(page) = pages.get_mut(n) else { continue };
        let status: Option<&str> = row.try_get("status")?;
        page.status = status.map(Status::parse).transpose().map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
        page.next = row.try_get("next")?;
        if let Some(offset) = row.try_get("n")? {
            page.values.push(value_of(row, offset)?);
        }
    }
    Ok(pages)
}

fn value_of(row: &sqlx::postgres::PgRow, offset: i64) -> Result<StreamRow, sqlx::Error> {
    let attempt = match row.try_get::<Option<i32>, _>("attempt")? {
        None => None,
        Some(attempt) => {
            let (lane, seq): (&str, i32) = (row.try_get("lane")?, row.try_get("seq")?);
            let position = crate::id::Position { lane: lane.into(), seq };
            Some(StepAttempt {
                step: position.to_string(),
                attempt: u32::try_from(attempt).unwrap_or_default(),
                claim: u32::try_from(row.try_get::<i32, _>("claims")?).unwrap_or_default(),
            })
        }
    };
    Ok(StreamRow { offset, value: row.try_get("value")?, written_at: row.try_get("written_at")?, attempt })
}
