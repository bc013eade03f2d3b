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
    // Left out where there is none, so that what a release without them has declared is the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) burst: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) burst_per_partition: Option<i32>,
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
            burst: None,
            burst_per_partition: None,
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
    /// minute begins. Unless a [burst](Queue::burst) spreads them, they begin all at once, and then none for the rest of the period.
    pub fn rate(mut self, many: u32, period: Duration) -> Self {
        self.rate = Some(Rate::new(many, period));
        self
    }

    /// The same for each partition.
    pub fn rate_per_partition(mut self, many: u32, period: Duration) -> Self {
        self.rate_per_partition = Some(Rate::new(many, period));
        self
    }

    /// Spread what the [rate](Queue::rate) allows: at most so many begin at once, and then one after the other. With a rate of 100 in a
    /// minute, one every 0.6 s: exactly, in any span of k times 0.6 s no more than `most` + k begin; and no more than 100 in any
    /// minute, as without. What was not used is not saved up beyond `most`. They begin when a worker looks, so with one that
    /// looks every second, at `most` 1, one begins each second. 1 or more; default: none.
    pub fn burst(mut self, most: u32) -> Self {
        self.burst = Some(number(most));
        self
    }

    /// The same for the [rate of each partition](Queue::rate_per_partition).
    pub fn burst_per_partition(mut self, most: u32) -> Self {
        self.burst_per_partition = Some(number(most));
        self
    }

    /// Whether workflows count as running while they are suspended, once they have begun: then they go on without waiting for
    /// their turn, and as many are under way as the limits say. Default false.
    pub fn suspended_count(mut self, count: bool) -> Self {
        self.suspended_count = count;
        self
    }

    /// The limits as they are kept, to be compared.
    pub(crate) fn limits(&self) -> String {
        serde_json::to_string(self).expect("limits are numbers and always encode")
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
            ("burst", self.burst),
            ("burst per partition", self.burst_per_partition),
        ] {
            if limit.is_some_and(|limit| limit < 1) {
                return refused(format!("a {what} of 0 would never run anything: give at least 1, or pause the queue"));
            }
        }
        for (what, burst, rate) in
            [("rate", self.burst, self.rate), ("rate_per_partition", self.burst_per_partition, self.rate_per_partition)]
        {
            if burst.is_some() && rate.is_none() {
                return refused(format!("a burst is one of a rate: give .{what}(..), too"));
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

/// How a queue stands, with limits or without. See [`Durable::queue_metrics`](crate::Durable::queue_metrics).
///
/// Counts but `running` and `workers` go up to 10,000, which then means "or more".
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct QueueMetrics {
    /// The queue's name.
    pub queue: String,
    /// How many are due, to begin or to go on, and wait for a worker.
    pub depth: u64,
    /// For how long the first of them has been due.
    pub oldest: Option<Duration>,
    /// How many are run by a worker.
    pub running: u64,
    /// How many wait for a message, a child, a time or a retry.
    pub suspended: u64,
    /// How many are not to begin yet.
    pub delayed: u64,
    /// How many live workers take from it. With 0, nothing of it runs until one comes.
    pub workers: u64,
    /// How many of those that are due are of a workflow, or of a version of it, that no live worker of the queue has registered; of the first
    /// 1,000.
    pub without_code: u64,
    /// Whether it has limits.
    pub has_limits: bool,
    /// Whether somebody has [paused](crate::Durable::pause_queue) it.
    pub is_paused: bool,
    /// What those that are due wait for; `None` if nothing is due.
    pub waits_for: Option<WaitsFor>,
}

/// What keeps the workflows of a queue that are due from running: the first of these that is so for all of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum WaitsFor {
    /// That the queue is resumed.
    Resumption,
    /// A worker that takes from it: there is none.
    Worker,
    /// A worker that has their code: those that take from it have not.
    Code,
    /// The queue's concurrency, of all workers or of each.
    Concurrency,
    /// The queue's rate.
    Rate,
    /// The concurrency of their partitions.
    ConcurrencyPerPartition,
    /// The rate of their partitions.
    RatePerPartition,
    /// A free place in a worker, or its next look: more workers would help.
    Slot,
}

impl WaitsFor {
    pub(crate) fn parse(word: &str) -> Self {
        match word {
            "paused" => Self::Resumption,
            "worker" => Self::Worker,
            "code" => Self::Code,
            "concurrency" => Self::Concurrency,
            "rate" => Self::Rate,
            "concurrency_per_partition" => Self::ConcurrencyPerPartition,
            "rate_per_partition" => Self::RatePerPartition,
            // A newer schema may know more; then it is none of the above.
            _ => Self::Slot,
        }
    }
}
