//! What a builder sets: names, bounds and times of one `Durable`.

use std::collections::HashSet;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::id::{DEFAULT_SCHEMA, check_text};
use crate::limit::Limit;
use crate::queue::Queue;

/// Queues with limits in one worker.
const SERVES_MAX: usize = 1_000;

/// Limits of steps in one worker.
const LIMITS_MAX: usize = 1_000;

/// The settings of a worker, or of a client.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) schema: String,
    pub(crate) queue: String,
    /// Queues with limits that the worker takes workflows from, too.
    pub(crate) serves: Vec<Queue>,
    /// Limits of steps that the worker declares.
    pub(crate) limits: Vec<Limit>,
    pub(crate) concurrency: usize,
    pub(crate) lease: Duration,
    pub(crate) poll_every: Duration,
    pub(crate) short_wait: Duration,
    pub(crate) max_recoveries: u32,
    pub(crate) migrate: bool,
    pub(crate) hints: bool,
    pub(crate) resume_mismatches: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            schema: DEFAULT_SCHEMA.to_owned(),
            queue: "default".to_owned(),
            serves: Vec::new(),
            limits: Vec::new(),
            concurrency: 256,
            lease: Duration::from_secs(15),
            poll_every: Duration::from_secs(1),
            short_wait: Duration::from_secs(1),
            max_recoveries: 10,
            migrate: true,
            hints: true,
            resume_mismatches: true,
        }
    }
}

impl Settings {
    /// Refuse what cannot work.
    pub(crate) fn check(&self) -> Result<(), Error> {
        check_text("queue", &self.queue)?;
        self.check_served()?;
        self.check_limits()?;
        let usage = |problem: &str| Err(Error::new(ErrorKind::Usage, problem));
        if self.concurrency == 0 {
            return usage("a concurrency of 0 would never run anything: give at least 1");
        }
        if self.lease < Duration::from_millis(500) || self.lease > Duration::from_secs(3_600) {
            return usage("the lease must be 500 ms to 1 h: shorter ones are lost to a busy database");
        }
        if self.poll_every < Duration::from_millis(10) || self.poll_every > Duration::from_secs(60) {
            return usage("poll_every must be 10 ms to 60 s");
        }
        if self.short_wait > Duration::from_secs(60) {
            return usage("short_wait must be at most 60 s: longer waits belong in the database");
        }
        Ok(())
    }

    fn check_served(&self) -> Result<(), Error> {
        let mut names = HashSet::new();
        for queue in &self.serves {
            queue.check()?;
            if !names.insert(&queue.name) {
                let problem = format!("queue {:?} is served twice: give it all of its limits at once", queue.name);
                return Err(Error::new(ErrorKind::Usage, problem));
            }
        }
        if self.serves.len() > SERVES_MAX {
            let problem = format!(
                "{} queues in one worker, at most {SERVES_MAX} are allowed: use partitions of one",
                self.serves.len()
            );
            return Err(Error::new(ErrorKind::Usage, problem));
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), Error> {
        let usage = |problem: String| Err(Error::new(ErrorKind::Usage, problem));
        let mut names = HashSet::new();
        for limit in &self.limits {
            limit.check()?;
            if !names.insert(&limit.name) {
                return usage(format!("limit {:?} is declared twice: give it all that it allows at once", limit.name));
            }
        }
        if self.limits.len() > LIMITS_MAX {
            return usage(format!("{} limits in one worker, at most {LIMITS_MAX} are allowed", self.limits.len()));
        }
        Ok(())
    }

    /// Whether the worker takes workflows from this queue.
    pub(crate) fn takes_from(&self, queue: &str) -> bool {
        self.queue == queue || self.serves.iter().any(|served| served.name == queue)
    }

    /// As the statements take it.
    pub(crate) fn max_recoveries_i32(&self) -> i32 {
        i32::try_from(self.max_recoveries).unwrap_or(i32::MAX)
    }

    /// How often the lease is renewed.
    pub(crate) fn heartbeat_every(&self) -> Duration {
        self.lease / 3
    }

    /// How often expired workers are looked for. With the default lease, lease and look together stay below
    /// 17 s; with a short one the look follows quickly.
    pub(crate) fn reap_every(&self) -> Duration {
        (self.lease / 8).clamp(Duration::from_millis(100), Duration::from_millis(1_875))
    }

    /// How long before the lease ends by the database's clock this worker stops beginning effects.
    pub(crate) fn lease_margin(&self) -> Duration {
        self.lease / 10
    }
}

/// A duration as the statements take it.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
