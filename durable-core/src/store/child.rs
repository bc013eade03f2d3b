//! Children: started as an outcome of their parent's, and looked at by it.
//!
//! Their ends wake the parent in `commit`, their cancellations in `cancel`.

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row};

use super::query;
use super::sql::Sql;
use super::step::is_taken;
use crate::id::{Id, OwnerId, Position};
use crate::status::Status;

/// A child to be started.
#[derive(Clone)]
pub(crate) struct NewChild {
    pub(crate) parent: Id,
    /// The parent's claim under which it is started.
    pub(crate) claims: i32,
    /// Of the start, in the parent's body.
    pub(crate) position: Position,
    pub(crate) id: Id,
    pub(crate) name: &'static str,
    pub(crate) version: i32,
    /// The parent's, if it has none of its own.
    pub(crate) queue: Option<String>,
    /// Of its queue.
    pub(crate) partition: Option<String>,
    pub(crate) priority: Option<i16>,
    pub(crate) delay_ms: i64,
    /// From its start; beside the parent's.
    pub(crate) deadline_ms: Option<i64>,
    pub(crate) input: String,
    pub(crate) detached: bool,
    /// What is recorded of the start.
    pub(crate) output: String,
}

impl NewChild {
    /// Its size on the wire, about.
    pub(crate) fn bytes(&self) -> usize {
        let queue = self.queue.iter().chain(&self.partition).map(String::len).sum::<usize>();
        let ids = 2 * self.id.as_str().len() + self.parent.as_str().len();
        160 + ids + self.name.len() + queue + self.input.len()
    }
}

/// What became of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ChildStarted {
    /// It is there, and its start is recorded with this time. Where it was started just now, also the parent's count of wakes
    /// then: its end will bump it. One that an earlier try has started may have ended.
    Started { at: DateTime<Utc>, wakes: Option<i64> },
    /// Its id is that of a workflow which is not this child: its name and version.
    Taken(String, i32),
    /// Something else is recorded at its position.
    Overtaken,
    /// The parent has another owner or claim.
    Lost,
    /// Somebody else has started a workflow with its id meanwhile; ask again.
    Again,
}

/// Start children, all of them whose parents are held. No id may be there twice. Answers in order; `None` when an id or a
/// position is taken, and nothing was written: ask `start_children_apart`.
pub(crate) async fn start_children(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    children: &[&NewChild],
) -> Result<Option<Vec<ChildStarted>>, sqlx::Error> {
    let batch = Batch::of(children);
    match batch.bind(query(&sql.start_children), owner).fetch_all(connection).await {
        Err(error) if is_taken(&error) => Ok(None),
        rows => batch.answers(&rows?, started).map(Some),
    }
}

/// Start those children that can be started, and say of each what became of it. No id may be there twice.
pub(crate) async fn start_children_apart(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    children: &[&NewChild],
) -> Result<Vec<ChildStarted>, sqlx::Error> {
    let batch = Batch::of(children);
    let rows = batch.bind(query(&sql.start_children_apart), owner).fetch_all(connection).await?;
    batch.answers(&rows, |row| {
        if row.try_get("overtaken")? {
            return Ok(ChildStarted::Overtaken);
        }
        if row.try_get("started")? {
            return started(row);
        }
        let name: Option<String> = row.try_get("found_name")?;
        let version: Option<i32> = row.try_get("found_version")?;
        Ok(name.zip(version).map_or(ChildStarted::Again, |(name, version)| ChildStarted::Taken(name, version)))
    })
}

fn started(row: &PgRow) -> Result<ChildStarted, sqlx::Error> {
    Ok(ChildStarted::Started { at: row.try_get("now")?, wakes: row.try_get("wakes")? })
}

/// Children in the order of their keys, each with its place in what was given; and their parents, in the same order.
struct Batch<'c> {
    children: Vec<(&'c NewChild, usize)>,
    parents: Vec<(&'c Id, i32)>,
}

impl<'c> Batch<'c> {
    fn of(given: &[&'c NewChild]) -> Self {
        let key = |id: &'c Id| (id.bucket(), id.as_str());
        let mut children: Vec<(&NewChild, usize)> = given.iter().copied().zip(0..).collect();
        children.sort_unstable_by_key(|(child, _)| key(&child.id));
        let mut parents: Vec<(&Id, i32)> = given.iter().map(|child| (&child.parent, child.claims)).collect();
        parents.sort_unstable_by_key(|(id, claims)| (key(id), *claims));
        parents.dedup();
        Self { children, parents }
    }

    fn bind<'q>(&'q self, query: Query<'q, Postgres, PgArguments>, owner: OwnerId) -> Query<'q, Postgres, PgArguments> {
        fn column<'q, T>(children: &'q [(&NewChild, usize)], of: impl Fn(&'q NewChild) -> T) -> Vec<T> {
            children.iter().map(|(child, _)| of(child)).collect()
        }
        let children = &*self.children;
        let parent_n = |child: &NewChild| {
            let at = self.parents.iter().position(|(id, claims)| **id == child.parent && *claims == child.claims);
            at.map(number)
        };
        query
            .bind(owner.0)
            .bind(self.parents.iter().map(|(id, _)| id.bucket()).collect::<Vec<_>>())
            .bind(self.parents.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>())
            .bind(self.parents.iter().map(|(_, claims)| *claims).collect::<Vec<_>>())
            .bind(column(children, parent_n))
            .bind(column(children, |c| c.parent.bucket()))
            .bind(column(children, |c| c.parent.as_str()))
            .bind(column(children, |c| &*c.position.lane))
            .bind(column(children, |c| c.position.seq))
            .bind(column(children, |c| c.id.bucket()))
            .bind(column(children, |c| c.id.as_str()))
            .bind(column(children, |c| c.name))
            .bind(column(children, |c| c.version))
            .bind(column(children, |c| c.queue.as_deref()))
            .bind(column(children, |c| c.priority))
            .bind(column(children, |c| c.delay_ms))
            .bind(column(children, |c| &*c.input))
            .bind(column(children, |c| c.detached))
            .bind(column(children, |c| &*c.output))
            .bind(column(children, |c| c.deadline_ms))
            .bind(column(children, |c| c.partition.as_deref()))
    }

    /// Answers in the order of what was given. One without a row has a parent that is not held.
    fn answers(
        &self,
        rows: &[PgRow],
        answer: impl Fn(&PgRow) -> Result<ChildStarted, sqlx::Error>,
    ) -> Result<Vec<ChildStarted>, sqlx::Error> {
        let mut answers = vec![ChildStarted::Lost; self.children.len()];
        for row in rows {
            if let Some((_, at)) = self.children.get(place(row.try_get("n")?)) {
                answers[*at] = answer(row)?;
            }
        }
        Ok(answers)
    }
}

/// A look of one workflow at others that it waits for.
#[derive(Clone)]
pub(crate) struct ChildLook {
    pub(crate) id: Id,
    /// The claim under which it looks.
    pub(crate) claims: i32,
    pub(crate) awaited: Vec<Id>,
}

/// What a look saw.
#[derive(Clone)]
pub(crate) struct ChildrenSeen {
    /// The count of wakes: whatever ends later has bumped it.
    pub(crate) wakes: i64,
    /// By place in what was awaited.
    pub(crate) found: Vec<(usize, ChildFound)>,
}

/// What there is to say of one that is awaited.
#[derive(Clone, Debug)]
pub(crate) enum ChildFound {
    Ended(ChildEnd),
    /// It has ended, and how did not fit into the answer.
    LookAgain,
    /// It has not ended, and will wake somebody else then: it is not a child of this one.
    NotMine,
}

/// How a child ended.
#[derive(Clone, Debug)]
pub(crate) enum ChildEnd {
    /// With this output.
    Completed(String),
    /// With this failure, as stored.
    Failed(Option<String>),
    /// With this failure, which says why, as stored.
    Cancelled(Option<String>),
    /// There is no such workflow any more.
    Gone,
}

/// Look which awaited workflows have ended. Answers in order; `None` where the one that looks has
/// another owner or claim.
pub(crate) async fn ended_children(
    connection: &mut PgConnection,
    sql: &Sql,
    owner: OwnerId,
    looks: &[&ChildLook],
    bytes: i64,
) -> Result<Vec<Option<ChildrenSeen>>, sqlx::Error> {
    let awaited: Vec<(usize, usize, &Id)> = looks
        .iter()
        .enumerate()
        .flat_map(|(look, of)| of.awaited.iter().enumerate().map(move |(at, id)| (look, at, id)))
        .collect();
    let rows = query(&sql.ended_children)
        .bind(owner.0)
        .bind(looks.iter().map(|look| look.id.bucket()).collect::<Vec<_>>())
        .bind(looks.iter().map(|look| look.id.as_str()).collect::<Vec<_>>())
        .bind(looks.iter().map(|look| look.claims).collect::<Vec<_>>())
        .bind(awaited.iter().map(|(look, ..)| number(*look)).collect::<Vec<_>>())
        .bind(awaited.iter().map(|(.., id)| id.bucket()).collect::<Vec<_>>())
        .bind(awaited.iter().map(|(.., id)| id.as_str()).collect::<Vec<_>>())
        .bind(bytes)
        .fetch_all(connection)
        .await?;
    let mut answers: Vec<Option<ChildrenSeen>> = vec![None; looks.len()];
    for row in &rows {
        let seen = answers.get_mut(place(row.try_get("waiting_n")?));
        let Some(seen) = seen else { continue };
        if let Some(wakes) = row.try_get::<Option<i64>, _>("wakes")? {
            seen.get_or_insert(ChildrenSeen { wakes: 0, found: Vec::new() }).wakes = wakes;
        } else if let Some((_, at, _)) = awaited.get(place(row.try_get("n")?)) {
            let found = (*at, found(row)?);
            seen.get_or_insert(ChildrenSeen { wakes: 0, found: Vec::new() }).found.push(found);
        }
    }
    Ok(answers)
}

fn found(row: &PgRow) -> Result<ChildFound, sqlx::Error> {
    let status: Option<&str> = row.try_get("status")?;
    let status = status.map(Status::parse).transpose().map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
    if !row.try_get::<bool, _>("there")? {
        return Ok(ChildFound::LookAgain);
    }
    Ok(match status {
        None => ChildFound::Ended(ChildEnd::Gone),
        Some(Status::Completed) => {
            let output: Option<String> = row.try_get("output")?;
            ChildFound::Ended(ChildEnd::Completed(output.unwrap_or_else(|| "null".to_owned())))
        }
        Some(Status::Failed) => ChildFound::Ended(ChildEnd::Failed(row.try_get("failure")?)),
        Some(Status::Cancelled) => ChildFound::Ended(ChildEnd::Cancelled(row.try_get("failure")?)),
        Some(Status::Queued | Status::Running | Status::Suspended | Status::Blocked) => ChildFound::NotMine,
    })
}

/// A place from 0 as a number from 1.
fn number(place: usize) -> i32 {
    i32::try_from(place + 1).unwrap_or(i32::MAX)
}

/// A number from 1 as a place from 0.
fn place(number: i32) -> usize {
    usize::try_from(number - 1).unwrap_or(usize::MAX)
}
