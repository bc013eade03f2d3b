//! Schedules, as callers describe them: what is started when, and by which policies. When they tick is `rule`'s, acting on ticks the
//! worker's; what is done to a schedule that exists is `handle`.

mod handle;
mod info;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use sqlx::PgConnection;

use crate::attribute::{AttributeValue, stored};
use crate::client::{Builder, Client, Durable};
use crate::ctx::attempt::WAIT_MAX;
use crate::error::{Error, ErrorKind};
use crate::id::check_text;
use crate::rule::{CatchUp, Overlap, Rule};
use crate::store::link::{Links, call_patiently};
use crate::store::schedule::{self as store, NewSchedule};
use crate::workflow::{Call, Registry, Workflow};
pub use handle::{Backfill, OperateSchedule, ScheduleHandle, TriggerSchedule};
pub use info::{ListSchedules, ScheduleInfo};

/// Bytes of a schedule's name: with a tick's time behind it, it is the id of a workflow.
const NAME_MAX: usize = 400;

#[doc = include_str!("../../docs/schedules.md")]
#[must_use = "a schedule does nothing until it is given to Durable::set_schedule or Builder::schedule"]
#[derive(Clone, Debug)]
pub struct Schedule {
    name: String,
    workflow: &'static str,
    version: i32,
    input: Result<String, String>,
    rule: Option<Result<Rule, String>>,
    overlap: Overlap,
    catch_up: CatchUp,
    jitter: Duration,
    queue: Option<String>,
    partition: Option<String>,
    priority: i16,
    deadline: Option<Duration>,
    attributes: Vec<(String, AttributeValue)>,
}

impl Schedule {
    /// A schedule that starts this workflow, with this input, at each of its ticks. It needs [`cron`](Schedule::cron) or
    /// [`every`](Schedule::every). The name is 1 to 400 bytes without control characters; the ids of the workflows begin with it.
    pub fn new<W: Workflow>(name: impl Into<String>, call: Call<W>) -> Self {
        Self {
            name: name.into(),
            workflow: W::NAME,
            version: W::VERSION,
            input: call.encode(),
            rule: None,
            overlap: Overlap::default(),
            catch_up: CatchUp::default(),
            jitter: Duration::ZERO,
            queue: None,
            partition: None,
            priority: 0,
            deadline: None,
            attributes: Vec::new(),
        }
    }

    /// Tick by a cron expression of six fields (second, minute, hour, day of the month, month, day of the week; or five, without
    /// the second), as a clock on the wall shows it in this time zone, by its name in the IANA database: `"Europe/Berlin"`, `"UTC"`.
    pub fn cron(mut self, expression: impl AsRef<str>, time_zone: impl AsRef<str>) -> Self {
        self.rule = Some(Rule::cron(expression.as_ref(), time_zone.as_ref()));
        self
    }

    /// Tick at every multiple of this interval since the Unix epoch, in time that passes, whatever the clocks on the wall do:
    /// whole seconds, 1 s to ten years. So every six hours is at 0:00, 6:00, 12:00 and 18:00 UTC, whenever it was set.
    pub fn every(self, interval: Duration) -> Self {
        self.every_from(interval, Duration::ZERO)
    }

    /// As [`every`](Schedule::every), so much later each time, which is less than the interval: a week is counted from the
    /// Thursday on which the epoch began, so `every_from(days(7), days(4))` is Mondays at 0:00 UTC.
    pub fn every_from(mut self, interval: Duration, offset: Duration) -> Self {
        self.rule = Some(Rule::every(interval, offset));
        self
    }

    /// What to do with a tick while a workflow of one before has not ended. Default: [`Overlap::Skip`].
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.overlap = overlap;
        self
    }

    /// What to do with ticks that were missed. Default: [`CatchUp::last`].
    pub fn catch_up(mut self, catch_up: CatchUp) -> Self {
        self.catch_up = catch_up;
        self
    }

    /// Start up to so much later than the tick, so that not all schedules of the full hour start at once. How much is made of the
    /// name and the tick, so it is always the same for a tick; its id and its time stay those of the tick. Shorter than what lies
    /// between two ticks. Default: none.
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter;
        self
    }

    /// Start them in this queue. Default: the queue of the builder.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// Put them into this partition of their queue; see [`Start::partition`](crate::Start::partition).
    pub fn partition(mut self, partition: impl Into<String>) -> Self {
        self.partition = Some(partition.into());
        self
    }

    /// Lower goes first within a queue. Default 0.
    pub fn priority(mut self, priority: i16) -> Self {
        self.priority = priority;
        self
    }

    /// End each when it has not ended this long after its start; see [`Start::deadline`](crate::Start::deadline).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Give each an attribute; see [`Start::attribute`](crate::Start::attribute).
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<AttributeValue>) -> Self {
        self.attributes.push((name.into(), value.into()));
        self
    }

    /// Check everything: nothing is written for what cannot be.
    fn describe(&self, queue: &str) -> Result<NewSchedule, Error> {
        let name = &self.name;
        check_name(name)?;
        check_text("workflow name", self.workflow)?;
        let queue = self.queue.as_deref().unwrap_or(queue);
        check_text("queue", queue)?;
        if let Some(partition) = &self.partition {
            check_text("partition", partition)?;
        }
        let wrong = |problem: String| Error::new(ErrorKind::Usage, format!("could not set schedule {name}: {problem}"));
        let input = self.input.clone().map_err(|problem| wrong(format!("its input {problem}")))?;
        let attributes = stored(&self.attributes).map_err(wrong)?;
        let rule = self.rule.clone().unwrap_or_else(|| {
            Err("it has no ticks: give it .cron(\"0 0 3 * * *\", \"Europe/Berlin\") or .every(..)".to_owned())
        });
        let rule = rule.map_err(wrong)?;
        // By the clock of this machine, which is good enough for whether it ever ticks, and how often.
        rule.check(self.jitter, Utc::now()).map_err(wrong)?;
        self.catch_up.check().map_err(wrong)?;
        Ok(NewSchedule {
            name: name.clone(),
            workflow: self.workflow,
            version: self.version,
            input,
            queue: queue.to_owned(),
            partition: self.partition.clone(),
            priority: self.priority,
            attributes,
            deadline: self.deadline.map(|deadline| deadline.min(WAIT_MAX)),
            rule,
            overlap: self.overlap,
            catch_up: self.catch_up,
            jitter: self.jitter,
        })
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    check_text("schedule's name", name)?;
    if name.len() > NAME_MAX {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("the schedule's name has {} bytes, at most {NAME_MAX} are allowed", name.len()),
        ));
    }
    Ok(())
}

/// A schedule about to be created or changed. Made by [`Durable::set_schedule`]; awaiting it does it, and gives its handle.
///
/// # Durability
///
/// One write, durable when this answers `Ok`; with [`in_tx`](SetSchedule::in_tx) when that transaction commits, and only then. What
/// is as it was changes nothing, so it may be repeated. One whose cron expression, time zone or interval is another counts its ticks from
/// now on; whether it is paused, its counts and what it has started stay.
///
/// # Errors
///
/// [`Usage`](ErrorKind::Usage) for what cannot be: an expression that cannot be read or never comes, an unknown time zone, an interval
/// below 1 s, a jitter that is not shorter than what lies between two ticks. Database kinds. Nothing is written then.
#[must_use = "a schedule is not set until this is awaited"]
pub struct SetSchedule<'a> {
    client: &'a Arc<Client>,
    schedule: Schedule,
    tx: Option<&'a mut PgConnection>,
}

impl<'a> SetSchedule<'a> {
    /// Set it in the caller's transaction: it exists if, and only if, that commits. Workers notice within two seconds of that (an
    /// eighth of their lease, at most 1.9 s).
    pub fn in_tx(mut self, tx: &'a mut PgConnection) -> Self {
        self.tx = Some(tx);
        self
    }

    async fn set(self) -> Result<ScheduleHandle, Error> {
        let Self { client, schedule, tx } = self;
        let new = schedule.describe(&client.queue)?;
        let named = format!("set schedule {}", new.name);
        match tx {
            Some(tx) => {
                store::set_schedule(tx, &client.sql, &new).await.map_err(|e| Error::database(&named, &e))?;
            }
            None => {
                set_alone(&client.links, &new, &named).await?;
                client.wake.look_at_schedules();
            }
        }
        Ok(ScheduleHandle::new(client.clone(), new.name))
    }
}

/// On a connection of the library's own. A repeat finds it as it should be, and changes nothing.
async fn set_alone(links: &Links, new: &NewSchedule, named: &str) -> Result<(), Error> {
    call_patiently!(links, named, connection => store::set_schedule(connection, &links.sql, new))
}

/// Set what a builder declares.
pub(crate) async fn declare(schedules: &[Schedule], links: &Links, queue: &str) -> Result<(), Error> {
    for schedule in schedules {
        let new = schedule.describe(queue)?;
        set_alone(links, &new, &format!("set schedule {}", new.name)).await?;
    }
    Ok(())
}

impl<'a> IntoFuture for SetSchedule<'a> {
    type Output = Result<ScheduleHandle, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.set())
    }
}

impl std::fmt::Debug for SetSchedule<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SetSchedule({})", self.schedule.name)
    }
}

impl Durable {
    /// Create a schedule, or change the one that has its name to what this says; see [`Schedule`].
    pub fn set_schedule(&self, schedule: Schedule) -> SetSchedule<'_> {
        SetSchedule { client: &self.client, schedule, tx: None }
    }

    /// The schedule with this name, whether it exists or not: to look at it, pause, resume, trigger, backfill or delete it.
    pub fn schedule(&self, name: impl Into<String>) -> ScheduleHandle {
        ScheduleHandle::new(self.client.clone(), name.into())
    }

    /// All schedules, in the order of their names, page by page.
    pub fn schedules(&self) -> ListSchedules<'_> {
        ListSchedules::new(&self.client)
    }
}

impl Builder {
    /// Declare a schedule: it is [set](Durable::set_schedule) when this starts. One that is as it
    /// was changes nothing, so every process of a fleet may declare it; in a roll-out the last one to start has the last word.
    /// What is not declared any more stays: [delete](ScheduleHandle::delete) it.
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedules.push(schedule);
        self
    }
}

/// Check what a builder declares, before anything is written. `registry` is that of the worker, if there is to be one.
pub(crate) fn check_declared(schedules: &[Schedule], queue: &str, registry: Option<&Registry>) -> Result<(), Error> {
    for schedule in schedules {
        let new = schedule.describe(queue)?;
        if registry.is_some_and(|registry| !registry.knows(new.workflow, new.version)) {
            return Err(Error::new(
                ErrorKind::Usage,
                format!(
                    "schedule {} starts workflow {:?} version {}, which is not registered: add .register({})",
                    new.name, new.workflow, new.version, new.workflow
                ),
            ));
        }
    }
    let mut names: Vec<&str> = schedules.iter().map(|schedule| &*schedule.name).collect();
    names.sort_unstable();
    match names.windows(2).find(|two| two[0] == two[1]) {
        Some(two) => Err(Error::new(ErrorKind::Usage, format!("the schedule {} is declared twice", two[0]))),
        None => Ok(()),
    }
}
