//! Queues with limits, as code declares them.

use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, ErrorKind};
use crate::id::check_text;
use crate::options::millis;

/// The longest period of a rate: a year.
pub(crate) const PERIOD_MAX: Duration = Duration::from_secs(366 * 86_400);

/// A queue with limits: how many of its workflows may run at once, and how many may begin in a time.
///
/// ```
/// use durable::{Queue, minutes};
///
/// // At most 50 at once, 2 of them for each customer, and 100 that begin in any minute.
/// let emails = Queue::new("emails").concurrency(50).concurrency_per_partition(2).rate(100, minutes(1));
/// # let _ = emails;
/// ```
///
/// Given to [`Builder::serve`](crate::Builder::serve), which declares it and lets the worker take workflows from it; they are put there
/// by [`Start::queue`](crate::Start::queue), and into a partition of it, a customer's for instance, by
/// [`Start::partition`](crate::Start::partition).
///
/// `examples/queue.rs` shows it on agents that share a model.
///
/// # What runs next
///
/// Each partition in which somebody waits gets an equal share in turn, so that a hundred thousand of one do not keep another one's
/// only workflow waiting. Within a partition those go first that ran before, then by priority and age. Without partitions that is
/// the order of the whole queue.
///
/// # Durability
///
/// Limits hold exactly, for any number of workers and whatever crashes, by the database's clock: workflows of such a queue begin to
/// run only in a claim that holds the queue's row, and that counts and takes while it does. What a dead worker ran counts until
/// somebody else has given it back: within the lease and 2 s. A rate counts workflows when they begin to run for the first time, not
/// when they go on after a wait or a crash.
///
/// A workflow that is suspended does not count, and gets its turn again once it is due; see
/// [`suspended_count`](Queue::suspended_count).
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Queue {
    #[serde(skip)]
    pub(crate) name: String,
    pub(crate) concurrency: Option<i32>,
    pub(crate) concurrency_per_worker: Option<i32>,
    pub(crate) concurrency_per_partition: Option<i32>,
    pub(crate) rate: Option<Rate>,
    pub(crate) rate_per_partition: Option<Rate>,
    pub(crate) suspended_count: bool,
}

/// So many in any period.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Rate {
    pub(crate) many: i32,
    pub(crate) period_ms: i64,
}

impl Queue {
    /// A queue without limits yet. Names have 1 to 512 bytes without control characters.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            concurrency: None,
            concurrency_per_worker: None,
            concurrency_per_partition: None,
            rate: None,
            rate_per_partition: None,
            suspended_count: false,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// At most so many run at once, over all workers: 1 or more.
    pub fn concurrency(mut self, most: u32) -> Self {
        self.concurrency = Some(number(most));
        self
    }

    /// At most so many run at once in each worker: 1 or more.
    pub fn concurrency_per_worker(mut self, most: u32) -> Self {
        self.concurrency_per_worker = Some(number(most));
        self
    }

    /// At most so many of each partition run at once, over all workers: 1 or more. What is started without a
    /// [partition](crate::Start::partition) is one of its own.
    pub fn concurrency_per_partition(mut self, most: u32) -> Self {
        self.concurrency_per_partition = Some(number(most));
        self
    }

    /// At most so many begin to run within any period of this length, from 1 ms to a year: in no minute more than 100, wherever the
    /// minute begins. Unless they are spread by something else, they begin all at once, and then none for the rest of the period.
    pub fn rate(mut self, many: u32, period: Duration) -> Self {
        self.rate = Some(Rate::new(many, period));
        self
    }

    /// The same for each partition.
    pub fn rate_per_partition(mut self, many: u32, period: Duration) -> Self {
        self.rate_per_partition = Some(Rate::new(many, period));
        self
    }

    /// Whether workflows count as running while they are suspended, once they have begun: then they go on without waiting for
    /// their turn, and as many are under way as the limits say. Default false.
    pub fn suspended_count(mut self, count: bool) -> Self {
        self.suspended_count = count;
        self
    }

    /// Refuse what cannot work.
    pub(crate) fn check(&self) -> Result<(), Error> {
        check_text("queue", &self.name)?;
        let refused = |problem: String| Err(Error::new(ErrorKind::Usage, format!("queue {:?}: {problem}", self.name)));
        for (what, limit) in [
            ("concurrency", self.concurrency),
            ("concurrency per worker", self.concurrency_per_worker),
            ("concurrency per partition", self.concurrency_per_partition),
            ("rate", self.rate.map(|rate| rate.many)),
            ("rate per partition", self.rate_per_partition.map(|rate| rate.many)),
        ] {
            if limit.is_some_and(|limit| limit < 1) {
                return refused(format!("a {what} of 0 would never run anything: give at least 1, or pause the queue"));
            }
        }
        let longest = millis(PERIOD_MAX);
        let wrong = |rate: &Rate| rate.period_ms < 1 || rate.period_ms > longest;
        if let Some(rate) = self.rate.iter().chain(&self.rate_per_partition).find(|rate| wrong(rate)) {
            return refused(format!("a rate within {} ms: give a period from 1 ms to 366 days", rate.period_ms));
        }
        Ok(())
    }
}

impl Rate {
    pub(crate) fn new(many: u32, period: Duration) -> Self {
        Self { many: number(many), period_ms: millis(period) }
    }
}

pub(crate) fn number(most: u32) -> i32 {
    i32::try_from(most).unwrap_or(i32::MAX)
}

/// A queue with limits, as it stands. See [`Durable::queues`](crate::Durable::queues).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct QueueInfo {
    /// Its limits now, which may differ from what code has declared.
    pub queue: Queue,
    /// Whether nothing of it begins or goes on.
    pub is_paused: bool,
    /// How many run, or count so. What has just ended may be among them.
    pub running: u64,
    /// How many are due and wait for their turn; up to 100,000 are counted.
    pub waiting: u64,
}
