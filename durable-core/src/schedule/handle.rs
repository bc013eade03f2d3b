//! A schedule that exists, and what people do to it: pause, resume, trigger, backfill, delete.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::check_name;
use super::info::{ScheduleInfo, read};
use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::operate::check_reason;
use crate::store::link::{call_patiently, call_repeatedly};
use crate::store::schedule::{self as store, Asked, ScheduleAct, Told};
use crate::worker::cut;

/// Ticks of one backfill.
const BACKFILL_MAX: usize = 1_000;

/// Ticks that wait, beyond which no backfill comes.
const WAITING_MAX: usize = 10_000;

/// Times that a schedule may be found changed between two looks.
const CHANGES_MAX: u32 = 10;

/// A schedule by its name. Made by [`Durable::schedule`](crate::Durable::schedule); cheap to clone.
#[derive(Clone)]
pub struct ScheduleHandle {
    client: Arc<Client>,
    name: String,
}

impl ScheduleHandle {
    pub(super) fn new(client: Arc<Client>, name: String) -> Self {
        Self { client, name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it stands. `None` when there is no such schedule.
    ///
    /// # Errors
    ///
    /// Database kinds.
    pub async fn info(&self) -> Result<Option<ScheduleInfo>, Error> {
        let found = read(&self.client, &self.name, 1).await?;
        Ok(found.into_iter().map(ScheduleInfo::from).find(|info| info.name == self.name))
    }

    /// Let it start nothing by the clock until it is [resumed](ScheduleHandle::resume). What has started goes on; ticks that wait
    /// go on waiting; triggers and backfills are started nevertheless. Pausing a paused schedule is `Ok`.
    pub fn pause(&self) -> OperateSchedule<'_> {
        OperateSchedule { of: self, act: ScheduleAct::Pause, reason: None, tx: None }
    }

    /// Let a paused schedule go on with its next tick. What it would have started meanwhile is not made up for, whatever its
    /// policy: [backfill](ScheduleHandle::backfill) it. Resuming one that is not paused is `Ok`.
    pub fn resume(&self) -> OperateSchedule<'_> {
        OperateSchedule { of: self, act: ScheduleAct::Resume, reason: None, tx: None }
    }

    /// Delete it. What it has started goes on, what waits to be started is forgotten. One that the code
    /// [declares](crate::Builder::schedule) comes back with the next start of a process.
    pub fn delete(&self) -> OperateSchedule<'_> {
        OperateSchedule { of: self, act: ScheduleAct::Delete, reason: None, tx: None }
    }

    /// Start what it starts, now, beside its ticks; also while it is paused. See [`TriggerSchedule`].
    pub fn trigger(&self) -> TriggerSchedule<'_> {
        TriggerSchedule { of: self, tx: None }
    }

    /// Start what it would have started, or was started and is deleted, in a range of times: for what was paused or missed. See
    /// [`Backfill`].
    ///
    /// ```no_run
    /// # use durable::Durable;
    /// # async fn example(durable: Durable) -> anyhow::Result<()> {
    /// let ticks = durable.schedule("nightly").backfill("2026-11-01T00:00:00Z".parse()?.."2026-11-08T00:00:00Z".parse()?).await?;
    /// # Ok(()) }
    /// ```
    pub fn backfill(&self, range: Range<DateTime<Utc>>) -> Backfill<'_> {
        Backfill { of: self, range, tx: None }
    }

    fn missing(&self, named: &str) -> Error {
        Error::new(ErrorKind::NotFound, format!("could not {named}: there is no such schedule"))
    }

    /// Offer something to it, as many times as it takes to be answered.
    async fn ask(&self, named: &str, asked: &Asked<'_>) -> Result<Vec<Told>, Error> {
        let client = &self.client;
        // What an unanswered try has put there is known by its id.
        call_patiently!(client.links, named, connection =>
                store::ask_schedule(connection, &client.sql, &self.name, asked))
    }

    /// The same in the caller's transaction.
    async fn ask_in(&self, tx: &mut PgConnection, named: &str, asked: &Asked<'_>) -> Result<Vec<Told>, Error> {
        store::ask_schedule(tx, &self.client.sql, &self.name, asked).await.map_err(|e| Error::database(named, &e))
    }

    /// Tell workers what there is to do; `soon` if a transaction has still to commit.
    fn tell(&self, told: &[Told], soon: bool) {
        let client = &self.client;
        for told in told {
            match told {
                Told::Started { queue, .. } if soon => client.due_soon(queue, None),
                Told::Started { queue, .. } => client.due(queue, None),
                Told::Cut(reached) if !soon => {
                    cut::tell(&client.wake, client.engine().as_deref(), std::slice::from_ref(reached));
                }
                // It stops at its next heartbeat.
                Told::Cut(_) => {}
                Told::Existed { .. } | Told::Taken { .. } | Told::Waits | Told::Skipped { .. } => {}
                Told::Refused { .. } | Told::Busy | Told::Changed => {}
            }
        }
        client.wake.look_at_schedules();
    }
}

impl std::fmt::Debug for ScheduleHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ScheduleHandle({})", self.name)
    }
}

/// Something about to be done to a schedule. Made by [`ScheduleHandle::pause`], [`resume`](ScheduleHandle::resume) and
/// [`delete`](ScheduleHandle::delete); awaiting it does it.
///
/// # Durability
///
/// One write, durable when this answers `Ok`: after that no tick starts anything that should not. With
/// [`in_tx`](OperateSchedule::in_tx) the caller's commit decides; until then no worker acts on the schedule.
///
/// # Errors
///
/// [`NotFound`](ErrorKind::NotFound) when there is no such schedule, [`Usage`](ErrorKind::Usage) for a name or a reason that cannot be,
/// database kinds.
#[must_use = "nothing is done to a schedule until this is awaited"]
pub struct OperateSchedule<'a> {
    of: &'a ScheduleHandle,
    act: ScheduleAct,
    reason: Option<String>,
    tx: Option<&'a mut PgConnection>,
}

impl<'a> OperateSchedule<'a> {
    /// Why it is paused, for those who look at it; at most 1,000 bytes. Nothing is kept of a resumption or a deletion.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Do it in the caller's transaction: it is done if, and only if, that commits.
    pub fn in_tx(mut self, tx: &'a mut PgConnection) -> Self {
        self.tx = Some(tx);
        self
    }

    async fn operate(self) -> Result<(), Error> {
        let Self { of, act, reason, tx } = self;
        let (client, name) = (&of.client, &*of.name);
        check_name(name)?;
        let named = format!("{} schedule {name}", act.as_str());
        let reason = check_reason(reason.as_deref(), &named)?;
        if let Some(tx) = tx {
            let there = store::operate_schedule(tx, &client.sql, act, name, reason).await;
            let there = there.map_err(|e| Error::database(&named, &e))?;
            return if there { Ok(()) } else { Err(of.missing(&named)) };
        }
        let (there, repeated) = call_repeatedly!(client.links, &named, connection =>
            store::operate_schedule(connection, &client.sql, act, name, reason));
        let there = there?;
        client.wake.look_at_schedules();
        // What the first try has deleted is not there for the second.
        if there || repeated && act == ScheduleAct::Delete { Ok(()) } else { Err(of.missing(&named)) }
    }
}

impl<'a> IntoFuture for OperateSchedule<'a> {
    type Output = Result<(), Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.operate())
    }
}

impl std::fmt::Debug for OperateSchedule<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OperateSchedule({} {})", self.act.as_str(), self.of.name)
    }
}

/// A start beside the ticks of a schedule. Made by [`ScheduleHandle::trigger`]; awaiting it starts the workflow and gives its id,
/// `nightly/` and something new. [`Ctx::scheduled_at`](crate::Ctx::scheduled_at) is `None` in it.
///
/// The policy for overlaps holds for it as for a tick: where that lets it wait, the workflow exists once it has started.
///
/// # Durability
///
/// One write, durable when this answers `Ok`; with [`in_tx`](TriggerSchedule::in_tx) when that transaction commits, and only then.
///
/// # Errors
///
/// [`NotFound`](ErrorKind::NotFound) when there is no such schedule; [`Conflict`](ErrorKind::Conflict), naming the workflow that has not
/// ended, where the policy would skip a tick; database kinds. Nothing is started then.
#[must_use = "nothing is started until this is awaited"]
pub struct TriggerSchedule<'a> {
    of: &'a ScheduleHandle,
    tx: Option<&'a mut PgConnection>,
}

impl<'a> TriggerSchedule<'a> {
    /// Start it in the caller's transaction: it exists if, and only if, that commits.
    pub fn in_tx(mut self, tx: &'a mut PgConnection) -> Self {
        self.tx = Some(tx);
        self
    }

    async fn trigger(self) -> Result<String, Error> {
        let Self { of, tx } = self;
        check_name(&of.name)?;
        let named = format!("trigger schedule {}", of.name);
        let id = format!("{}/{}", of.name, Uuid::now_v7());
        let asked = Asked::Trigger(&id);
        let in_tx = tx.is_some();
        let told = match tx {
            Some(tx) => of.ask_in(tx, &named, &asked).await?,
            None => of.ask(&named, &asked).await?,
        };
        if told.is_empty() {
            return Err(of.missing(&named));
        }
        if let Some(Told::Refused { id }) = told.iter().find(|told| matches!(told, Told::Refused { .. })) {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "could not {named}: {id} has not ended or waits to be started, and the schedule allows no other"
                ),
            ));
        }
        of.tell(&told, in_tx);
        Ok(id)
    }
}

impl<'a> IntoFuture for TriggerSchedule<'a> {
    type Output = Result<String, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.trigger())
    }
}

impl std::fmt::Debug for TriggerSchedule<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TriggerSchedule({})", self.of.name)
    }
}

/// Ticks of a range of times, from its start on and before its end, about to be started. Made by [`ScheduleHandle::backfill`]; awaiting
/// it puts them in line, and gives how many ticks that time has: at most 1,000 in one call.
///
/// They have the ids that they would have had, so what has been started already is left out. Unless the schedule
/// [allows](crate::Overlap::Allow) overlaps, they wait in line and are started one after the other, oldest first, before ticks that
/// wait; ticks that come while one of them runs go by the policy. Also while the schedule is paused.
///
/// # Durability
///
/// One write, durable when this answers `Ok`; with [`in_tx`](Backfill::in_tx) when that transaction commits, and only then. A repeat puts
/// nothing in line twice.
///
/// # Errors
///
/// [`NotFound`](ErrorKind::NotFound) when there is no such schedule; [`Usage`](ErrorKind::Usage) for a range that is reversed or
/// empty, ends in the future, or has more than 1,000 ticks; [`Conflict`](ErrorKind::Conflict) while 10,000 wait; database kinds.
#[must_use = "nothing is started until this is awaited"]
pub struct Backfill<'a> {
    of: &'a ScheduleHandle,
    range: Range<DateTime<Utc>>,
    tx: Option<&'a mut PgConnection>,
}

impl<'a> Backfill<'a> {
    /// Put them in line in the caller's transaction: they start if, and only if, that commits. Two statements; from the second one on, the
    /// schedule is locked until then, and its ticks wait for that.
    pub fn in_tx(mut self, tx: &'a mut PgConnection) -> Self {
        self.tx = Some(tx);
        self
    }

    async fn backfill(self) -> Result<u64, Error> {
        let Self { of, range, mut tx } = self;
        check_name(&of.name)?;
        let named = format!("backfill schedule {}", of.name);
        let usage = |problem: String| Err(Error::new(ErrorKind::Usage, format!("could not {named}: {problem}")));
        if range.start >= range.end {
            return usage(format!("{} is not before {}: give the earlier time first", range.start, range.end));
        }
        for _ in 0..CHANGES_MAX {
            let found = match tx.as_deref_mut() {
                Some(tx) => {
                    store::schedules(tx, &of.client.sql, &of.name, 1).await.map_err(|e| Error::database(&named, &e))?
                }
                None => read(&of.client, &of.name, 1).await?,
            };
            let found = found.into_iter().find(|found| found.name == of.name);
            let Some(stands) = found else { return Err(of.missing(&named)) };
            if range.end > stands.now {
                return usage(format!("{} has yet to come: what is to come starts by itself", range.end));
            }
            let rule = match stands.rule {
                Ok(rule) => rule,
                Err(problem) => return usage(format!("this version cannot read its rule: {problem}")),
            };
            let before = range.start - chrono::TimeDelta::nanoseconds(1);
            let ticks: Vec<_> =
                rule.ticks_after(before).take_while(|tick| *tick < range.end).take(BACKFILL_MAX + 1).collect();
            if ticks.len() > BACKFILL_MAX {
                return usage(format!("there are more than {BACKFILL_MAX} ticks in that time: take it in parts"));
            }
            if ticks.is_empty() {
                return Ok(0);
            }
            let waiting = usize::try_from(stands.waiting).unwrap_or_default();
            if waiting + ticks.len() > WAITING_MAX {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("could not {named}: {waiting} ticks wait already, at most {WAITING_MAX} can"),
                ));
            }
            let asked = Asked::Backfill(stands.revision, &ticks);
            let told = match tx.as_deref_mut() {
                Some(tx) => of.ask_in(tx, &named, &asked).await?,
                None => of.ask(&named, &asked).await?,
            };
            match &told[..] {
                [Told::Changed] => {}
                _ => {
                    of.tell(&told, tx.is_some());
                    return Ok(u64::try_from(ticks.len()).unwrap_or_default());
                }
            }
        }
        Err(Error::new(ErrorKind::Unavailable, format!("could not {named}: it is being changed, try again")))
    }
}

impl<'a> IntoFuture for Backfill<'a> {
    type Output = Result<u64, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.backfill())
    }
}

impl std::fmt::Debug for Backfill<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Backfill({} {:?})", self.of.name, self.range)
    }
}
