//! Since when a body waits, across attempts: for those who read its history. Nothing is decided by it.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::{Attempt, Inner, Waiting};
use crate::history::WaitKind;
use crate::id::Position;

impl Attempt {
    /// How long the wait at a position has lasted that began in this attempt at `began_at`, or in an earlier one.
    pub(crate) fn waited(&self, at: &Position, kind: WaitKind, began_at: Instant) -> Duration {
        let here = began_at.elapsed();
        let since = self.inner().stored_since(at, kind);
        since.and_then(|since| (self.about_now() - since).to_std().ok()).map_or(here, |all| all.max(here))
    }
}

impl Inner {
    /// Since when an earlier attempt has waited at a position.
    pub(super) fn stored_since(&self, at: &Position, kind: WaitKind) -> Option<DateTime<Utc>> {
        self.stored.get(at).filter(|wait| wait.kind == kind).and_then(|wait| wait.since)
    }

    /// A leaf waits, or still does: then since when it did before.
    pub(in crate::ctx) fn wait(&mut self, at: &Position, mut waiting: Waiting) {
        if let Some(before) = self.waits.get(at) {
            waiting.began_at = waiting.began_at.min(before.began_at);
        }
        self.waits.insert(at.clone(), waiting);
    }
}
