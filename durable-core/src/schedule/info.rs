//! How schedules stand, one or page by page.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::rule::{CatchUp, Overlap, Rule};
use crate::store::link::call_patiently;
use crate::store::schedule::{self as store, Stands};

/// Schedules in a page, where nobody says otherwise, and at most.
const PAGE: u32 = 100;
const PAGE_MAX: u32 = 1_000;

/// How a schedule stands.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct ScheduleInfo {
    /// Its name.
    pub name: String,
    /// The workflow that its ticks start.
    pub workflow: String,
    /// That workflow's version.
    pub version: i32,
    /// The queue that they are started in.
    pub queue: String,
    /// Their priority.
    pub priority: i16,
    /// The cron expression and its time zone, if it has one.
    pub cron: Option<(String, String)>,
    /// The interval and its offset, if it has one.
    pub every: Option<(Duration, Duration)>,
    /// What is done with a tick while another workflow of it is open.
    pub overlap: Overlap,
    /// What is done with missed ticks.
    pub catch_up: CatchUp,
    /// How much later than a tick something may start.
    pub jitter: Duration,
    /// The next tick. None while it is paused.
    pub next_at: Option<DateTime<Utc>>,
    /// The latest tick that has started a workflow.
    pub last_at: Option<DateTime<Utc>>,
    /// That workflow's id.
    pub last_id: Option<String>,
    /// Since when it is paused, if it is.
    pub paused_at: Option<DateTime<Utc>>,
    /// Why.
    pub paused_for: Option<String>,
    /// Workflows that it has started.
    pub started: u64,
    /// Ticks that were missed and not made up for.
    pub missed: u64,
    /// Ticks that were left out because another workflow of it had not ended.
    pub skipped: u64,
    /// Ticks, triggers and backfills that wait for another workflow of it to end.
    pub waiting: u32,
}

impl ScheduleInfo {
    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.paused_at.is_some()
    }
}

impl From<Stands> for ScheduleInfo {
    fn from(stands: Stands) -> Self {
        let seconds = |s: i64| Duration::from_secs(u64::try_from(s).unwrap_or_default());
        let count = |n: i64| u64::try_from(n).unwrap_or_default();
        // A schedule that was just set has yet to be looked at by a worker.
        let next = || stands.rule.as_ref().ok()?.after(stands.passed_until.max(stands.now));
        let next_at = if stands.paused_at.is_some() { None } else { stands.next_at.or_else(next) };
        let (cron, every) = match &stands.rule {
            Ok(Rule::Cron(cron)) => (Some((cron.expression.clone(), cron.zone.name().to_owned())), None),
            Ok(Rule::Every { period_s, offset_s }) => (None, Some((seconds(*period_s), seconds(*offset_s)))),
            Err(_) => (None, None),
        };
        Self {
            name: stands.name,
            workflow: stands.workflow,
            version: stands.version,
            queue: stands.queue,
            priority: stands.priority,
            cron,
            every,
            overlap: stands.overlap,
            catch_up: stands.catch_up,
            jitter: stands.jitter,
            next_at,
            last_at: stands.last_at,
            last_id: stands.last_id,
            paused_at: stands.paused_at,
            paused_for: stands.paused_for,
            started: count(stands.started),
            missed: count(stands.missed),
            skipped: count(stands.skipped),
            waiting: stands.waiting.unsigned_abs(),
        }
    }
}

/// Read schedules from a name on.
pub(super) async fn read(client: &Client, from: &str, most: u32) -> Result<Vec<Stands>, Error> {
    call_patiently!(client.links, "read schedules", connection =>
            store::schedules(connection, &client.sql, from, most.into()))
}

/// A page of schedules about to be read. Made by [`Durable::schedules`](crate::Durable::schedules); awaiting it reads the page.
///
/// # Errors
///
/// [`Usage`](ErrorKind::Usage) for a limit that cannot be, database kinds.
#[must_use = "a list is not read until it is awaited"]
#[derive(Clone)]
pub struct ListSchedules<'a> {
    client: &'a Arc<Client>,
    after: Option<String>,
    limit: u32,
}

impl<'a> ListSchedules<'a> {
    pub(super) fn new(client: &'a Arc<Client>) -> Self {
        Self { client, after: None, limit: PAGE }
    }

    /// Begin behind this name: that of the last one of the page before.
    pub fn after(mut self, name: impl Into<String>) -> Self {
        self.after = Some(name.into());
        self
    }

    /// At most so many: 1 to 1,000, default 100.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    async fn list(self) -> Result<Vec<ScheduleInfo>, Error> {
        if self.limit == 0 || self.limit > PAGE_MAX {
            let problem = format!("a page of {} schedules: it can have 1 to {PAGE_MAX}", self.limit);
            return Err(Error::new(ErrorKind::Usage, problem));
        }
        // No name has a control character in it, so this is right behind the name.
        let from = self.after.map_or_else(String::new, |name| name + "\u{1}");
        Ok(read(self.client, &from, self.limit).await?.into_iter().map(ScheduleInfo::from).collect())
    }
}

impl<'a> IntoFuture for ListSchedules<'a> {
    type Output = Result<Vec<ScheduleInfo>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.list())
    }
}

impl std::fmt::Debug for ListSchedules<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ListSchedules(after {:?})", self.after)
    }
}
