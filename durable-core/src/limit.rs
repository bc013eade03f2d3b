//! Limits around steps, as code declares them. Keeping to them is `worker::limits`.

use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, ErrorKind};
use crate::id::check_text;
use crate::queue::{PERIOD_MAX, Rate, number};

/// A limit around steps: how many calls may run at once, and how many may begin in a time, over all workers.
///
/// ```
/// use durable::{Limit, minutes};
///
/// // At most 20 calls at once, 5 of them in each worker, and 100 that begin in any minute.
/// let model = Limit::new("openai").concurrency(20).concurrency_per_worker(5).rate(100, minutes(1));
/// # let _ = model;
/// ```
///
/// Given to [`Builder::limit`](crate::Builder::limit), which declares it, and named by the steps that it holds for:
/// `#[step(limit = "openai")]`; see [`#[step]`](macro@crate::step#limits). A [`Queue`](crate::Queue) limits whole workflows instead.
///
/// `examples/limit.rs` shows it on agents that share a model.
///
/// # Durability
///
/// Every attempt of such a step is a call. It may run when the database has counted it, in a statement that holds the limit's row. It counts as running until
/// its body has ended, however it did; what a dead worker had running counts until that worker is fenced, within its lease and 2 s. A
/// worker that was frozen for longer than its lease begins nothing after it, but what it had begun may still be under way out there.
///
/// A rate counts a call when it is let go, in the database; its body begins as soon as the answer has come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Limit {
    #[serde(skip)]
    pub(crate) name: String,
    pub(crate) concurrency: Option<i32>,
    pub(crate) concurrency_per_worker: Option<i32>,
    pub(crate) rate: Option<Rate>,
}

impl Limit {
    /// A limit that allows everything yet. Names have 1 to 512 bytes without control characters.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), concurrency: None, concurrency_per_worker: None, rate: None }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// At most so many calls run at once, over all workers: 1 or more.
    pub fn concurrency(mut self, most: u32) -> Self {
        self.concurrency = Some(number(most));
        self
    }

    /// At most so many calls run at once in each worker: 1 or more.
    pub fn concurrency_per_worker(mut self, most: u32) -> Self {
        self.concurrency_per_worker = Some(number(most));
        self
    }

    /// At most so many calls begin within any period of this length, from 1 ms to a year: in no minute more than 100, wherever the
    /// minute begins.
    pub fn rate(mut self, many: u32, period: Duration) -> Self {
        self.rate = Some(Rate::new(many, period));
        self
    }

    /// All that it allows, as it is written down and compared.
    pub(crate) fn declared(&self) -> String {
        serde_json::to_string(self).expect("limits are numbers and always encode")
    }

    /// Refuse what cannot work.
    pub(crate) fn check(&self) -> Result<(), Error> {
        check_text("limit", &self.name)?;
        let refused = |problem: String| Err(Error::new(ErrorKind::Usage, format!("limit {:?}: {problem}", self.name)));
        for (what, limit) in [
            ("concurrency", self.concurrency),
            ("concurrency per worker", self.concurrency_per_worker),
            ("rate", self.rate.map(|rate| rate.many)),
        ] {
            if limit.is_some_and(|limit| limit < 1) {
                return refused(format!(
                    "a {what} of 0 would never let a call go: give at least 1, or pause the limit"
                ));
            }
        }
        let longest = i64::try_from(PERIOD_MAX.as_millis()).unwrap_or(i64::MAX);
        if let Some(rate) = self.rate.filter(|rate| rate.period_ms < 1 || rate.period_ms > longest) {
            return refused(format!("a rate within {} ms: give a period from 1 ms to 366 days", rate.period_ms));
        }
        Ok(())
    }
}

/// A limit around steps, as it stands. See [`Durable::limits`](crate::Durable::limits).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LimitInfo {
    /// What it allows now, which may differ from what code has declared.
    pub limit: Limit,
    /// Whether no call begins.
    pub is_paused: bool,
    /// How many calls run, as of what the workers have last said; 0 where only a rate is limited.
    pub running: u64,
}
