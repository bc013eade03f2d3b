//! What a body knows of the schedule that has started its workflow.

use chrono::{DateTime, Utc};

use super::Ctx;
use crate::rule::tick_of;

impl Ctx {
    /// The tick of the [`Schedule`](crate::Schedule) that has started this workflow: the time that it is for, which is the same on
    /// every run, however late it was started. `None` for a workflow that no tick has started, also for a
    /// [triggered](crate::ScheduleHandle::trigger) one.
    ///
    /// It is what the workflow's id says behind the last `/`, so it costs nothing, and whoever starts a workflow with such an id gives
    /// it that time.
    ///
    /// ```
    /// # use durable::{Ctx, workflow};
    /// #[workflow]
    /// async fn nightly_report(ctx: &Ctx) -> anyhow::Result<String> {
    ///     let day = ctx.scheduled_at().unwrap_or_else(|| ctx.now()).date_naive();
    ///     Ok(format!("the report of {day}"))
    /// }
    /// ```
    pub fn scheduled_at(&self) -> Option<DateTime<Utc>> {
        tick_of(self.attempt.id.as_str())
    }
}
