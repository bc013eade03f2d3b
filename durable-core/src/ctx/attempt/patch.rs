//! What stands where a body asks whether it is patched.

use std::task::Waker;

use chrono::{DateTime, Utc};

use super::{Attempt, Inner};
use crate::ctx::recall::PatchRecalled;
use crate::id::Position;

/// What a patch was answered with.
pub(crate) enum AskedPatch {
    /// Its marker was recorded, then.
    Marked(DateTime<Utc>),
    /// The history goes past this place, without the marker.
    Passed,
    /// The workflow comes here for the first time.
    New,
    /// The history is read on first; then the leaf is woken.
    Later,
    Stopped,
}

impl Attempt {
    /// Whether the history has the marker of a patch at the position that a lane takes next, or goes past it.
    pub(crate) fn ask_patch(&self, at: &Position, patch: &str, waker: &Waker) -> AskedPatch {
        let mut inner = self.inner();
        if inner.stop.is_some() {
            return AskedPatch::Stopped;
        }
        match inner.recall.ask_patch(at, patch, waker) {
            PatchRecalled::Marked(ended_at) => AskedPatch::Marked(ended_at),
            PatchRecalled::Passed => AskedPatch::Passed,
            PatchRecalled::Later => AskedPatch::Later,
            PatchRecalled::Nothing if inner.waits_after(at) => AskedPatch::Passed,
            // As in `ask`: nothing new begins.
            PatchRecalled::Nothing if inner.replays_only => AskedPatch::Later,
            PatchRecalled::Nothing => AskedPatch::New,
        }
    }
}

impl Inner {
    /// Whether an earlier attempt has written down that it waits there or further on in the same lane: a wait has no record
    /// before it is over.
    fn waits_after(&self, at: &Position) -> bool {
        self.stored.keys().any(|wait| wait.is_not_before(at))
    }
}
