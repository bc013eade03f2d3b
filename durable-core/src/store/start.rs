//! Starting: the rows of new workflows.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row, SqlStr};

use super::claim::row_at;
use super::query;
use super::sql::Sql;
use crate::attribute::StoredAttribute;
use crate::id::{Id, OwnerId};

/// A workflow to be started.
#[derive(Clone)]
pub(crate) struct NewWorkflow {
    pub(crate) id: Id,
    pub(crate) name: &'static str,
    pub(crate) version: i32,
    pub(crate) queue: String,
    /// Of its queue; like a deadline, only `start` knows of it.
    pub(crate) partition: Option<String>,
    pub(crate) priority: i16,
    pub(crate) delay_ms: i64,
    /// From when it is started; only `start` knows of it.
    pub(crate) deadline_ms: Option<i64>,
    pub(crate) input: String,
    /// The worker that it may be born running under.
    pub(crate) owner: Option<OwnerId>,
    pub(crate) attributes: Option<Arc<[StoredAttribute]>>,
}

impl NewWorkflow {
    /// Its size on the wire, about.
    pub(crate) fn bytes(&self) -> usize {
        let attributes: usize = self.attributes().map(StoredAttribute::bytes).sum();
        96 + self.id.as_str().len() + self.name.len() + self.queue.len() + self.input.len() + attributes
    }

    pub(crate) fn attributes(&self) -> impl Iterator<Item = &StoredAttribute> {
        self.attributes.iter().flat_map(|attributes| attributes.iter())
    }
}

/// What became of one.
#[derive(Clone)]
pub(crate) struct Started {
    pub(crate) created: bool,
    /// It was born running under the given owner.
    pub(crate) born_here: bool,
    pub(crate) created_at: DateTime<Utc>,
    /// The name and version that it has, if it was there already.
    pub(crate) existing: Option<(String, i32)>,
    pub(crate) same_input: bool,
    /// One of its group is refused, and nothing of that was written.
    pub(crate) refused: bool,
    /// Where its row stands, if it was created here; see `Claimed`.
    pub(crate) row_at: Option<Arc<str>>,
}

impl Started {
    /// One that was there already.
    pub(crate) fn existing(as_is: (String, i32), same_input: bool) -> Self {
        Self {
            created: false,
            born_here: false,
            created_at: DateTime::default(),
            existing: Some(as_is),
            same_input,
            refused: false,
            row_at: None,
        }
    }
}

/// Workflows that are started all or, by the policy, not at all.
#[derive(Clone, Copy)]
pub(crate) struct StartGroup<'g> {
    pub(crate) given: &'g [NewWorkflow],
    /// Of `IfExists`.
    pub(crate) policy: i32,
}

/// Start workflows without deadlines, each for itself. No id may be there twice. Answers for each, in order; `None` for one whose id exists
/// already: ask `start`.
pub(crate) async fn start_new(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: Option<OwnerId>,
    given: &[&NewWorkflow],
) -> Result<Vec<Option<Started>>, sqlx::Error> {
    insert(connection, &sql.start_new, owner, given).await
}

/// Start workflows without deadlines, all of them or none. No id may be there twice. Answers for each, in order; `None` instead of all answers
/// when an id exists already: ask `start`.
pub(crate) async fn start_all(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: Option<OwnerId>,
    given: &[&NewWorkflow],
) -> Result<Option<Vec<Option<Started>>>, sqlx::Error> {
    match insert(connection, &sql.start_all, owner, given).await {
        Err(error) if error.as_database_error().is_some_and(|e| e.is_unique_violation()) => Ok(None),
        answers => answers.map(Some),
    }
}

async fn insert(
    connection: &mut PgConnection,
    statement: &SqlStr,
    owner: Option<OwnerId>,
    given: &[&NewWorkflow],
) -> Result<Vec<Option<Started>>, sqlx::Error> {
    fn column<'g, T>(given: &[(&'g NewWorkflow, usize)], of: impl Fn(&'g NewWorkflow) -> T) -> Vec<T> {
        given.iter().map(|(new, _)| of(new)).collect()
    }
    let mut sorted: Vec<(&NewWorkflow, usize)> = given.iter().copied().zip(0..).collect();
    sorted.sort_unstable_by_key(|(new, _)| (new.id.bucket(), new.id.as_str()));
    let rows = query(statement)
        .bind(owner.map(|owner| owner.0))
        .bind(column(&sorted, |g| g.id.bucket()))
        .bind(column(&sorted, |g| g.id.as_str()))
        .bind(column(&sorted, |g| g.name))
        .bind(column(&sorted, |g| g.version))
        .bind(column(&sorted, |g| &*g.queue))
        .bind(column(&sorted, |g| g.priority))
        .bind(column(&sorted, |g| g.delay_ms))
        .bind(column(&sorted, |g| &*g.input))
        .bind(column(&sorted, |g| g.owner.is_some()))
        .fetch_all(connection)
        .await?;
    let places: HashMap<&str, usize> = sorted.iter().map(|(g, place)| (g.id.as_str(), *place)).collect();
    let mut answers = vec![None; given.len()];
    for row in &rows {
        if let Some(place) = places.get(row.try_get::<&str, _>("id")?) {
            answers[*place] = Some(Started {
                created: true,
                born_here: row.try_get("born_here")?,
                created_at: row.try_get("created_at")?,
                existing: None,
                same_input: true,
                refused: false,
                row_at: row_at(row)?,
            });
        }
    }
    Ok(answers)
}

/// Start groups of workflows, or find the ones that have their ids already. No id may be there twice. Answers for each
/// workflow, in order; `None` for one whose id was committed by somebody else while this statement waited for it: ask
/// again.
pub(crate) async fn start(
    connection: &mut PgConnection,
    sql: &Sql,
    groups: &[StartGroup<'_>],
) -> Result<Vec<Option<Started>>, sqlx::Error> {
    fn column<T>(given: &[(&NewWorkflow, i32, i32, usize)], of: impl Fn(&NewWorkflow) -> T) -> Vec<T> {
        given.iter().map(|(new, ..)| of(new)).collect()
    }
    let numbered = groups.iter().zip(0..).flat_map(|(g, n)| g.given.iter().map(move |new| (new, g.policy, n)));
    let mut given: Vec<(&NewWorkflow, i32, i32, usize)> =
        numbered.enumerate().map(|(place, (new, policy, n))| (new, policy, n, place)).collect();
    given.sort_unstable_by_key(|(new, ..)| (new.id.bucket(), new.id.as_str()));
    let attributes: Vec<(&Id, &StoredAttribute)> =
        given.iter().flat_map(|(new, ..)| new.attributes().map(|attribute| (&new.id, attribute))).collect();
    let statement = if attributes.is_empty() { &sql.start } else { &sql.start_attributed };
    let mut asked = query(statement)
        .bind(column(&given, |g| g.id.bucket()))
        .bind(given.iter().map(|(g, ..)| g.id.as_str()).collect::<Vec<_>>())
        .bind(column(&given, |g| g.name))
        .bind(column(&given, |g| g.version))
        .bind(given.iter().map(|(g, ..)| &*g.queue).collect::<Vec<_>>())
        .bind(column(&given, |g| g.priority))
        .bind(column(&given, |g| g.delay_ms))
        .bind(given.iter().map(|(g, ..)| &*g.input).collect::<Vec<_>>())
        .bind(column(&given, |g| g.owner.map(|owner| owner.0)))
        .bind(given.iter().map(|(_, policy, ..)| *policy).collect::<Vec<_>>())
        .bind(given.iter().map(|(_, _, group, _)| *group).collect::<Vec<_>>())
        .bind(column(&given, |g| g.deadline_ms));
    let partitions: Vec<_> = given.iter().map(|(g, ..)| g.partition.as_deref()).collect();
    if attributes.is_empty() {
        asked = asked.bind(partitions);
    } else {
        asked = asked
            .bind(attributes.iter().map(|(id, _)| id.bucket()).collect::<Vec<_>>())
            .bind(attributes.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>())
            .bind(attributes.iter().map(|(_, a)| &*a.name).collect::<Vec<_>>())
            .bind(attributes.iter().map(|(_, a)| &*a.value).collect::<Vec<_>>())
            .bind(attributes.iter().map(|(_, a)| &*a.sort).collect::<Vec<_>>())
            .bind(partitions);
    }
    let rows = asked.fetch_all(connection).await?;
    let places: HashMap<&str, usize> = given.iter().map(|(g, _, _, place)| (g.id.as_str(), *place)).collect();
    let mut answers = vec![None; given.len()];
    for row in &rows {
        if let Some(place) = places.get(row.try_get::<&str, _>("id")?) {
            let name: Option<String> = row.try_get("name")?;
            let version: Option<i32> = row.try_get("version")?;
            answers[*place] = Some(Started {
                created: row.try_get("created")?,
                born_here: row.try_get("born_here")?,
                created_at: row.try_get("created_at")?,
                existing: name.zip(version),
                same_input: row.try_get("same_input")?,
                refused: row.try_get("refused")?,
                row_at: row_at(row)?,
            });
        }
    }
    Ok(answers)
}
