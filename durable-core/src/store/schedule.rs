//! Schedules: creating and changing them, acting on their ticks, reading them.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::attribute::as_json;
use super::cancel::Cut;
use super::query;
use super::sql::Sql;
use crate::attribute::StoredAttribute;
use crate::id::{Id, OwnerId};
use crate::options::millis;
use crate::rule::due::Round;
use crate::rule::{CatchUp, Missed, Overlap, Rule, tick_id};

/// A schedule to be created, or to be changed to this.
#[derive(Clone, Debug)]
pub(crate) struct NewSchedule {
    pub(crate) name: String,
    pub(crate) workflow: &'static str,
    pub(crate) version: i32,
    pub(crate) input: String,
    pub(crate) queue: String,
    pub(crate) partition: Option<String>,
    pub(crate) priority: i16,
    pub(crate) attributes: Option<Arc<[StoredAttribute]>>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) rule: Rule,
    pub(crate) overlap: Overlap,
    pub(crate) catch_up: CatchUp,
    pub(crate) jitter: Duration,
}

/// Create a schedule, or change it.
pub(crate) async fn set_schedule(
    connection: &mut PgConnection,
    sql: &Sql,
    new: &NewSchedule,
) -> Result<(), sqlx::Error> {
    let (cron, time_zone, every_s, offset_s) = match &new.rule {
        Rule::Cron(cron) => (Some(&*cron.expression), Some(cron.zone.name()), None, None),
        Rule::Every { period_s, offset_s } => (None, None, Some(*period_s), Some(*offset_s)),
    };
    query(&sql.set_schedule)
        .bind(&new.name)
        .bind(new.workflow)
        .bind(new.version)
        .bind(&new.input)
        .bind(&new.queue)
        .bind(new.priority)
        .bind(as_json(new.attributes.iter().flat_map(|attributes| attributes.iter()))?)
        .bind(new.deadline.map(millis))
        .bind(cron)
        .bind(time_zone)
        .bind(every_s)
        .bind(offset_s)
        .bind(new.overlap.as_str())
        .bind(new.catch_up.missed.as_str())
        .bind(i32::try_from(new.catch_up.most).unwrap_or(i32::MAX))
        .bind(new.catch_up.within.map(|within| millis(within) / 1_000))
        .bind(millis(new.jitter))
        .bind(&new.partition)
        .execute(connection)
        .await?;
    Ok(())
}

/// A schedule as it stands.
pub(crate) struct Stands {
    pub(crate) name: String,
    pub(crate) workflow: String,
    pub(crate) version: i32,
    pub(crate) queue: String,
    pub(crate) priority: i16,
    /// What is wrong with it, where this version cannot read it.
    pub(crate) rule: Result<Rule, String>,
    pub(crate) overlap: Overlap,
    pub(crate) catch_up: CatchUp,
    pub(crate) jitter: Duration,
    pub(crate) next_at: Option<DateTime<Utc>>,
    pub(crate) last_at: Option<DateTime<Utc>>,
    pub(crate) last_id: Option<String>,
    pub(crate) paused_at: Option<DateTime<Utc>>,
    pub(crate) paused_for: Option<String>,
    pub(crate) started: i64,
    pub(crate) missed: i64,
    pub(crate) skipped: i64,
    pub(crate) waiting: i32,
    pub(crate) passed_until: DateTime<Utc>,
    pub(crate) revision: i64,
    /// When it was read.
    pub(crate) now: DateTime<Utc>,
}

fn stands(row: &PgRow) -> Result<Stands, sqlx::Error> {
    let seconds = |s: i64| Duration::from_secs(u64::try_from(s).unwrap_or_default());
    let rule = match row.try_get::<Option<&str>, _>("cron")? {
        Some(cron) => Rule::cron(cron, row.try_get("time_zone")?),
        None => Rule::every(seconds(row.try_get("every_s")?), seconds(row.try_get("every_offset_s")?)),
    };
    let (overlap, missed): (&str, &str) = (row.try_get("overlap")?, row.try_get("catch_up")?);
    let (policy, catches_up) = (Overlap::parse(overlap), Missed::parse(missed));
    let rule = match (policy, catches_up) {
        (Some(_), Some(_)) => rule,
        _ => Err(format!("{overlap:?} or {missed:?} is a policy of a newer version")),
    };
    let most: i32 = row.try_get("catch_up_most")?;
    let within: Option<i64> = row.try_get("catch_up_within_s")?;
    let jitter: i64 = row.try_get("jitter_ms")?;
    Ok(Stands {
        name: row.try_get("name")?,
        workflow: row.try_get("workflow")?,
        version: row.try_get("version")?,
        queue: row.try_get("queue")?,
        priority: row.try_get("priority")?,
        rule,
        overlap: policy.unwrap_or_default(),
        catch_up: CatchUp {
            missed: catches_up.unwrap_or(Missed::Last),
            most: most.unsigned_abs(),
            within: within.map(seconds),
        },
        jitter: Duration::from_millis(jitter.unsigned_abs()),
        next_at: row.try_get("next_at")?,
        last_at: row.try_get("last_at")?,
        last_id: row.try_get("last_id")?,
        paused_at: row.try_get("paused_at")?,
        paused_for: row.try_get("paused_for")?,
        started: row.try_get("started")?,
        missed: row.try_get("missed")?,
        skipped: row.try_get("skipped")?,
        waiting: row.try_get("waiting")?,
        passed_until: row.try_get("passed_until")?,
        revision: row.try_get("revision")?,
        now: row.try_get("now")?,
    })
}

/// Schedules from a name on, in order, at most so many.
pub(crate) async fn schedules(
    connection: &mut PgConnection,
    sql: &Sql,
    from: &str,
    most: i64,
) -> Result<Vec<Stands>, sqlx::Error> {
    query(&sql.schedules).bind(from).bind(most).fetch_all(connection).await?.iter().map(stands).collect()
}

/// What a look for due schedules saw.
pub(crate) struct Looked {
    pub(crate) due: Vec<Stands>,
    /// How long the next one is away that is not due.
    pub(crate) next_in: Option<Duration>,
    /// Something waits for a workflow to end.
    pub(crate) some_wait: bool,
    /// Some start is held back; see `keyed`.
    pub(crate) some_held: bool,
}

/// Which schedules are due, at most so many of each kind.
pub(crate) async fn schedules_due(connection: &mut PgConnection, sql: &Sql, most: i64) -> Result<Looked, sqlx::Error> {
    let rows = query(&sql.schedules_due).bind(most).fetch_all(connection).await?;
    let mut looked = Looked { due: Vec::new(), next_in: None, some_wait: false, some_held: false };
    for row in &rows {
        let next_ms: Option<i64> = row.try_get("next_ms")?;
        looked.next_in = next_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or_default()));
        looked.some_wait = row.try_get("some_wait")?;
        looked.some_held = row.try_get("some_held")?;
        if row.try_get::<Option<&str>, _>("name")?.is_some() {
            looked.due.push(stands(row)?);
        }
    }
    Ok(looked)
}

/// What became of something that was offered to a schedule.
pub(crate) enum Told {
    /// A workflow was started, in this queue.
    Started {
        id: Id,
        queue: String,
    },
    /// It was started before.
    Existed {
        id: Id,
    },
    /// Its id is another workflow's.
    Taken {
        id: Id,
    },
    /// It waits for a workflow to end.
    Waits,
    /// It was left out, because this has not ended.
    Skipped {
        id: Id,
    },
    /// A trigger was, because this has not ended or waits.
    Refused {
        id: Id,
    },
    Cut(Cut),
    /// Somebody else has the schedule at the moment.
    Busy,
    /// The schedule has changed since it was seen.
    Changed,
}

fn told(row: &PgRow) -> Result<Told, sqlx::Error> {
    let id = || row.try_get::<Option<&str>, _>("workflow_id").map(|id| Id::trusted(id.unwrap_or_default()));
    let cut = |now| {
        let parent: Option<&str> = row.try_get("parent")?;
        Ok::<_, sqlx::Error>(Cut {
            id: id()?,
            now,
            stopping: row.try_get::<Option<Uuid>, _>("stopper")?.map(OwnerId),
            undo_in: row.try_get("undo_in")?,
            parent: parent.map(Id::trusted).zip(row.try_get("parent_queue")?),
        })
    };
    Ok(match row.try_get::<&str, _>("what")? {
        "started" => Told::Started { id: id()?, queue: row.try_get("in_queue")? },
        "existed" => Told::Existed { id: id()? },
        "taken" => Told::Taken { id: id()? },
        "waits" => Told::Waits,
        "skipped" => Told::Skipped { id: id()? },
        "refused" => Told::Refused { id: id()? },
        "cancelled" => Told::Cut(cut(true)?),
        "stopping" => Told::Cut(cut(false)?),
        "busy" => Told::Busy,
        "changed" => Told::Changed,
        other => return Err(sqlx::Error::Decode(format!("{other:?} came of a schedule: by a newer version").into())),
    })
}

/// Act on a due schedule, if it still stands as it was seen.
pub(crate) async fn tick_schedule(
    connection: &mut PgConnection,
    sql: &Sql,
    seen: &Stands,
    round: &Round,
) -> Result<Vec<Told>, sqlx::Error> {
    let rows = query(&sql.tick_schedule)
        .bind(&seen.name)
        .bind(seen.revision)
        .bind(seen.passed_until)
        .bind(round.passed_until)
        .bind(round.offered.iter().map(|tick| tick_id(&seen.name, *tick)).collect::<Vec<_>>())
        .bind(&round.offered)
        .bind(round.missed)
        .bind(round.next.map(|(tick, _)| tick))
        .bind(round.next.map(|(_, act_at)| act_at))
        .fetch_all(connection)
        .await?;
    rows.iter().map(told).collect()
}

/// What is offered to a schedule besides its ticks.
#[derive(Debug)]
pub(crate) enum Asked<'a> {
    /// One workflow, now, under this id.
    Trigger(&'a str),
    /// These ticks of the past, by the rule of this revision.
    Backfill(i64, &'a [DateTime<Utc>]),
}

/// Offer it. Nothing comes back when there is no such schedule.
pub(crate) async fn ask_schedule(
    connection: &mut PgConnection,
    sql: &Sql,
    name: &str,
    asked: &Asked<'_>,
) -> Result<Vec<Told>, sqlx::Error> {
    let (kind, seen, ids, ticks) = match asked {
        Asked::Trigger(id) => ("trigger", None, vec![(*id).to_owned()], None),
        Asked::Backfill(revision, ticks) => {
            let ids = ticks.iter().map(|tick| tick_id(name, *tick)).collect();
            ("backfill", Some(*revision), ids, Some(*ticks))
        }
    };
    let rows =
        query(&sql.ask_schedule).bind(name).bind(kind).bind(seen).bind(ids).bind(ticks).fetch_all(connection).await?;
    rows.iter().map(told).collect()
}

/// What an operator does to a schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ScheduleAct {
    Pause,
    Resume,
    Delete,
}

impl ScheduleAct {
    /// The word in the database, and in messages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            ScheduleAct::Pause => "pause",
            ScheduleAct::Resume => "resume",
            ScheduleAct::Delete => "delete",
        }
    }
}

/// Do it. Whether there is such a schedule.
pub(crate) async fn operate_schedule(
    connection: &mut PgConnection,
    sql: &Sql,
    act: ScheduleAct,
    name: &str,
    reason: Option<&str>,
) -> Result<bool, sqlx::Error> {
    query(&sql.operate_schedule)
        .bind(act.as_str())
        .bind(name)
        .bind(reason)
        .fetch_one(connection)
        .await?
        .try_get("there")
}
