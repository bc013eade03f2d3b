//! Reporting queues in which workflows are due and from which no live worker takes: a mistyped name, a worker that was not deployed.
//!
//! It goes along with the look for dead workers, once in four leases, and asks one statement for all queues.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Engine;
use crate::store::link::call;
use crate::store::queue::unserved;

/// Queues named in one look.
const QUEUES_MAX: i64 = 20;

/// How long nothing is said of a queue that was named.
const SILENT_FOR: Duration = Duration::from_secs(3600);

/// What was said already.
pub(super) struct Unserved {
    look_at: Instant,
    said: HashMap<String, Instant>,
}

impl Unserved {
    /// The first look is a lease away: those who start together have all come by then.
    pub(super) fn new(engine: &Engine) -> Self {
        Self { look_at: Instant::now() + engine.plan.settings.lease, said: HashMap::new() }
    }

    /// Look, if it is time to.
    pub(super) async fn look(&mut self, engine: &Engine) {
        let now = Instant::now();
        if now < self.look_at {
            return;
        }
        self.look_at = now + engine.plan.settings.lease * 4;
        self.said.retain(|_, said_at| said_at.elapsed() < SILENT_FOR);
        let found = call!(engine.writes, "look for queues that nobody serves", connection =>
            unserved(connection, &engine.plan.sql, QUEUES_MAX));
        match found {
            Ok(queues) => queues.iter().for_each(|queue| self.say(queue, now)),
            Err(error) => tracing::warn!(%error, "worker could not look for queues that nobody serves"),
        }
    }

    fn say(&mut self, queue: &str, now: Instant) {
        if self.said.contains_key(queue) {
            return;
        }
        self.said.insert(queue.to_owned(), now);
        tracing::warn!(
            queue,
            "workflows are due in this queue, and no live worker takes from it: start one with .queue(..), or with \
             .serve(..) if it has limits; or correct the name where they are started"
        );
    }
}
