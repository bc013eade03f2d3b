//! Queues with limits, for callers: setting limits while everything runs, pausing, looking.

use crate::client::Durable;
use crate::error::{Error, ErrorKind};
use crate::id::check_text;
use crate::queue::{Queue, QueueInfo, QueueMetrics};
use crate::store::link::{call_patiently, call_repeatedly};
use crate::store::queue as store;
use crate::wake::Word;

/// Queues in one answer.
const QUEUES_MAX: i64 = 10_000;

impl Durable {
    /// Set the limits of a queue, from the next claim on, for all workers: a limit that is not given does not exist any more. What
    /// runs already goes on, also where it is more than a new limit allows.
    ///
    /// They stand until somebody else sets them, or a worker comes that [declares](crate::Builder::serve) others than were declared
    /// before. Whoever has SQL changes them by `update durable.queue set concurrency = 10 where name = 'emails'`.
    ///
    /// A queue that had none gets limits by this, too. From then on only workers that [serve](crate::Builder::serve) it take
    /// workflows from it, and what was running there does not count.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage) for a limit of 0, a period that is longer than a year, a name that no queue can have; database kinds.
    pub async fn set_queue(&self, queue: Queue) -> Result<(), Error> {
        queue.check()?;
        let client = &self.client;
        let act = format!("set the limits of queue {:?}", queue.name);
        let queues = [queue];
        call_patiently!(client.links, &act, connection => store::declare_queues(connection, &client.sql, &queues, true))?;
        self.look_at(&queues[0].name);
        Ok(())
    }

    /// Let no workflow of a queue with limits begin or go on, until it is [resumed](Self::resume_queue). Those that run are not
    /// stopped; they stay where they come to wait.
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound) for a queue that nobody has declared, [`Usage`](ErrorKind::Usage) for a name that no queue can
    /// have, database kinds.
    pub async fn pause_queue(&self, name: impl AsRef<str>) -> Result<(), Error> {
        self.set_paused(name.as_ref(), true).await
    }

    /// Let the workflows of a queue go on that was [paused](Self::pause_queue).
    ///
    /// # Errors
    ///
    /// As for [`pause_queue`](Self::pause_queue).
    pub async fn resume_queue(&self, name: impl AsRef<str>) -> Result<(), Error> {
        self.set_paused(name.as_ref(), false).await?;
        self.look_at(name.as_ref());
        Ok(())
    }

    /// Let a queue have no limits any more: workers whose own [queue](crate::Builder::queue) it is take its workflows as from any other
    /// one, without partitions, by priority and age. Workers that [serve](crate::Builder::serve) it do not any more, until one
    /// of them starts and declares it again.
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound) for a queue that has none, [`Usage`](ErrorKind::Usage) for a name that no queue can have,
    /// database kinds.
    pub async fn remove_queue(&self, name: impl AsRef<str>) -> Result<(), Error> {
        let name = name.as_ref();
        check_text("queue", name)?;
        let client = &self.client;
        let act = format!("remove the limits of queue {name:?}");
        let (removed, repeated) =
            call_repeatedly!(client.links, &act, connection => store::remove_queue(connection, &client.sql, name));
        let removed = removed?;
        // By an earlier try whose reply was lost, perhaps.
        if !removed && !repeated {
            return Err(not_there(&act));
        }
        self.look_at(name);
        Ok(())
    }

    /// The queues with limits, by name, the first 10,000: their limits, and how many of each run and wait.
    ///
    /// # Errors
    ///
    /// Database kinds.
    pub async fn queues(&self) -> Result<Vec<QueueInfo>, Error> {
        let client = &self.client;
        call_patiently!(client.links, "look at the queues", connection =>
                store::queues(connection, &client.sql, QUEUES_MAX))
    }

    #[doc = include_str!("../docs/queue_metrics.md")]
    pub async fn queue_metrics(&self) -> Result<Vec<QueueMetrics>, Error> {
        let client = &self.client;
        call_patiently!(client.links, "look at the queues", connection =>
                store::queue_metrics(connection, &client.sql, None))
    }

    /// How one queue stands, whether there is anything in it or not; see [`queue_metrics`](Self::queue_metrics).
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage) for a name that no queue can have, database kinds.
    pub async fn metrics_of_queue(&self, name: impl AsRef<str>) -> Result<QueueMetrics, Error> {
        let name = name.as_ref();
        check_text("queue", name)?;
        let client = &self.client;
        let act = format!("look at queue {name:?}");
        let found = call_patiently!(client.links, &act, connection =>
                store::queue_metrics(connection, &client.sql, Some(name)))?;
        found.into_iter().next().ok_or_else(|| Error::new(ErrorKind::Database, format!("could not {act}: no answer")))
    }

    async fn set_paused(&self, name: &str, paused: bool) -> Result<(), Error> {
        check_text("queue", name)?;
        let client = &self.client;
        let act = format!("{} queue {name:?}", if paused { "pause" } else { "resume" });
        let found = call_patiently!(client.links, &act, connection => store::pause_queue(connection, &client.sql, name, paused))?;
        if found {
            return Ok(());
        }
        Err(not_there(&act))
    }

    /// Whoever serves it looks at once.
    fn look_at(&self, queue: &str) {
        self.client.wake.now();
        self.client.wake.tell_others(Word::Due(queue.to_owned()));
    }
}

fn not_there(act: &str) -> Error {
    let problem = format!("could not {act}: there is no such queue with limits; declare it, or set its limits first");
    Error::new(ErrorKind::NotFound, problem)
}
