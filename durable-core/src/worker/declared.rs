//! Declaring the limits of steps that this worker's code has, and saying where live workers have declared others.
//!
//! The look for that is made when a worker has its first lease, so of two that start together the later one finds the other; and again
//! and again along with the look for dead workers, since the one that was replaced has to hear of it, too.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Engine, Plan};
use crate::error::Error;
use crate::store::limit::{declare_limits, disputed_limits};
use crate::store::link::{Links, call, call_patiently};

/// Limits named in one look.
const LIMITS_MAX: i64 = 20;

/// How long nothing is said of a limit that was named.
const SILENT_FOR: Duration = Duration::from_secs(3600);

/// What was said already, by any incarnation.
#[derive(Default)]
pub(crate) struct Disputes(Mutex<Said>);

#[derive(Default)]
struct Said {
    look_at: Option<Instant>,
    said: HashMap<String, Instant>,
}

impl Plan {
    /// Write down the limits of steps that its code has.
    pub(crate) async fn declare_limits(&self, links: &Links) -> Result<(), Error> {
        let limits = &self.settings.limits;
        if limits.is_empty() {
            return Ok(());
        }
        call_patiently!(links, "declare limits", connection => declare_limits(connection, &self.sql, limits, false))
    }
}

impl Disputes {
    /// Whether it is time to look; then the next time is so much later.
    fn is_time(&self, every: Duration) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_time = state.look_at.is_none_or(|at| at <= now);
        if is_time {
            state.look_at = Some(now + every);
        }
        is_time
    }

    /// Whether nothing was said of a limit lately; then it is now.
    fn is_new(&self, limit: &str) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.said.retain(|_, said_at| said_at.elapsed() < SILENT_FOR);
        let is_new = !state.said.contains_key(limit);
        if is_new {
            state.said.insert(limit.to_owned(), Instant::now());
        }
        is_new
    }
}

/// Say where live workers have declared other limits than this one, if it is time to.
pub(super) async fn look_for_disputes(engine: &Engine) {
    let plan = &engine.plan;
    let limits = &plan.settings.limits;
    if limits.is_empty() || !plan.disputes.is_time(plan.settings.lease * 4) {
        return;
    }
    let found = call!(engine.writes, "look for limits that others have declared differently", connection =>
        disputed_limits(connection, &plan.sql, limits, LIMITS_MAX));
    let disputed = match found {
        Ok(disputed) => disputed,
        Err(error) => {
            return tracing::warn!(%error, "worker could not look for limits that others have declared differently");
        }
    };
    for (name, others) in disputed {
        let Some(own) = limits.iter().find(|limit| *limit.name == *name) else { continue };
        if plan.disputes.is_new(&name) {
            tracing::warn!(
                limit = name,
                declared = own.declared(),
                others,
                "workers that run have declared other limits for steps under this name: those count, for all of them, that were \
                 declared last. In a roll that passes; otherwise let all workers declare the same"
            );
        }
    }
}
