//! Events: published as an outcome of a position, waited for by workflows, read by callers.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};

use super::query;
use super::sql::Sql;
use crate::id::{Id, OwnerId, Position};
use crate::status::Status;

/// A value to be published.
pub(crate) struct Publication {
    pub(crate) id: Id,
    /// The claim under which it is published.
    pub(crate) claims: i32,
    pub(crate) position: Position,
    pub(crate) key: &'static str,
    pub(crate) value: String,
}

/// What became of one.
#[derive(Clone)]
pub(crate) struct Published {
    /// When, if it was just now; its position may be taken.
    pub(crate) at: Option<DateTime<Utc>>,
}

/// A workflow that was woken.
#[derive(Clone)]
pub(crate) struct Woken {
    pub(crate) id: Id,
    pub(crate) status: Status,
    pub(crate) queue: String,
}

/// A row's place in what was given.
fn place(row: &sqlx::postgres::PgRow) -> Result<usize, sqlx::Error> {
    Ok(usize::try_from(row.try_get::<i64, _>("n")? - 1).unwrap_or_default())
}

/// Publish values. No event may be there twice. Answers in order, `None` where the workflow has another owner or claim; and who
/// was woken.
pub(crate) async fn publish(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    given: &[&Publication],
) -> Result<(Vec<Option<Published>>, Vec<Woken>), sqlx::Error> {
    let mut sorted: Vec<(&Publication, usize)> = given.iter().copied().zip(0..).collect();
    sorted.sort_unstable_by_key(|(new, _)| (new.id.bucket(), new.id.as_str(), new.key));
    let rows = query(&sql.publish)
        .bind(owner.0)
        .bind(sorted.iter().map(|(p, _)| p.id.bucket()).collect::<Vec<_>>())
        .bind(sorted.iter().map(|(p, _)| p.id.as_str()).collect::<Vec<_>>())
        .bind(sorted.iter().map(|(p, _)| p.claims).collect::<Vec<_>>())
        .bind(sorted.iter().map(|(p, _)| &*p.position.lane).collect::<Vec<_>>())
        .bind(sorted.iter().map(|(p, _)| p.position.seq).collect::<Vec<_>>())
        .bind(sorted.iter().map(|(p, _)| p.key).collect::<Vec<_>>())
        .bind(sorted.iter().map(|(p, _)| &*p.value).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let (mut answers, mut woken) = (vec![None; given.len()], Vec::new());
    for row in &rows {
        let Some((_, at)) = sorted.get(place(row)?) else { continue };
        let published: bool = row.try_get("published")?;
        answers[*at] = Some(Published { at: published.then(|| row.try_get("now")).transpose()? });
        if let Some(told) = row.try_get::<Option<&str>, _>("woken")? {
            let told: Vec<(String, String, String)> =
                serde_json::from_str(told).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
            for (id, status, queue) in told {
                let status = Status::parse(&status).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
                woken.push(Woken { id: Id::trusted(&id), status, queue });
            }
        }
    }
    Ok((answers, woken))
}

/// A look at an event for a workflow that waits for it.
pub(crate) struct EventLook {
    pub(crate) id: Id,
    /// The claim under which it looks.
    pub(crate) claims: i32,
    pub(crate) of: Id,
    pub(crate) key: &'static str,
}

/// What a look saw.
#[derive(Clone)]
pub(crate) struct EventSeen {
    /// The count of wakes: whatever is published later has bumped it.
    pub(crate) wakes: i64,
    pub(crate) value: Option<String>,
}

/// Look at events, and note who waits. Answers in order; `None` where the workflow that waits has another owner or claim.
pub(crate) async fn look_at_events(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    looks: &[EventLook],
) -> Result<Vec<Option<EventSeen>>, sqlx::Error> {
    let rows = query(&sql.look_at_events)
        .bind(owner.0)
        .bind(looks.iter().map(|l| l.id.bucket()).collect::<Vec<_>>())
        .bind(looks.iter().map(|l| l.id.as_str()).collect::<Vec<_>>())
        .bind(looks.iter().map(|l| l.claims).collect::<Vec<_>>())
        .bind(looks.iter().map(|l| l.of.bucket()).collect::<Vec<_>>())
        .bind(looks.iter().map(|l| l.of.as_str()).collect::<Vec<_>>())
        .bind(looks.iter().map(|l| l.key).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let mut answers = vec![None; looks.len()];
    for row in &rows {
        if let Some(answer) = answers.get_mut(place(row)?) {
            *answer = Some(EventSeen { wakes: row.try_get("wakes")?, value: row.try_get("value")? });
        }
    }
    Ok(answers)
}

/// An event as a caller sees it.
#[derive(Clone)]
pub(crate) struct EventStands {
    pub(crate) value: Option<String>,
    /// Of the workflow that publishes it; `None` where there is none.
    pub(crate) status: Option<Status>,
}

/// Where events stand. Answers in order.
pub(crate) async fn events(
    connection: &mut PgConnection,
    sql: &Sql,
    asked: &[(Id, &'static str)],
) -> Result<Vec<EventStands>, sqlx::Error> {
    let rows = query(&sql.events)
        .bind(asked.iter().map(|(id, _)| id.bucket()).collect::<Vec<_>>())
        .bind(asked.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>())
        .bind(asked.iter().map(|(_, key)| *key).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let mut answers = vec![EventStands { value: None, status: None }; asked.len()];
    for row in &rows {
        if let Some(answer) = answers.get_mut(place(row)?) {
            let status: Option<&str> = row.try_get("status")?;
            let status = status.map(Status::parse).transpose().map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
            *answer = EventStands { value: row.try_get("value")?, status };
        }
    }
    Ok(answers)
}
