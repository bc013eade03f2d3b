//! A lane: the order of durable things in a body, or in one branch of it.
//!
//! Positions are taken when something is described to the context, not when it is polled. A lane goes on
//! only when nothing of it is under way, or with things that were begun together: otherwise its order would
//! depend on timing, and a recovery could not find its way.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::history::Mismatch;
use crate::id::Position;

/// The order of durable things in a body or branch.
pub(crate) struct Lane {
    path: Arc<str>,
    inner: Mutex<Inner>,
}

struct Inner {
    next: i32,
    /// Things that were polled and have not ended.
    under_way: usize,
    draws: u64,
    now: DateTime<Utc>,
    /// A message was received in it, or below it.
    took: bool,
}

impl Lane {
    pub(crate) fn new(path: impl Into<Arc<str>>, now: DateTime<Utc>) -> Self {
        Self { path: path.into(), inner: Mutex::new(Inner { next: 0, under_way: 0, draws: 0, now, took: false }) }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next position, or why the lane may not go on.
    pub(crate) fn take(&self, what: fmt::Arguments<'_>) -> Result<Position, Mismatch> {
        let position = self.peek(what)?;
        self.inner().next += 1;
        Ok(position)
    }

    /// The position that would be the next one, or why the lane may not go on.
    pub(crate) fn peek(&self, what: fmt::Arguments<'_>) -> Result<Position, Mismatch> {
        let inner = self.inner();
        if inner.under_way > 0 {
            return Err(Mismatch(format!(
                "{what} was begun while another durable call of the same lane was still under way, so the \
                 order of the two would depend on timing: begin them together, or open a branch \
                 (ctx.branch, ctx.fan_out) for calls that follow one another"
            )));
        }
        Ok(Position { lane: self.path.clone(), seq: inner.next })
    }

    /// Go past the position that was looked at.
    pub(crate) fn pass(&self) {
        self.inner().next += 1;
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.inner().now
    }

    /// The lane has seen something that ended then.
    pub(crate) fn observe(&self, ended_at: DateTime<Utc>) {
        let mut inner = self.inner();
        inner.now = inner.now.max(ended_at);
    }

    /// A branch of the lane has ended.
    pub(crate) fn join(&self, branch: &Self) {
        let (now, took) = {
            let inner = branch.inner();
            (inner.now, inner.took)
        };
        self.observe(now);
        self.inner().took |= took;
    }

    /// A message was received.
    pub(crate) fn take_message(&self) {
        self.inner().took = true;
    }

    /// Whether a message was received in it, or below it.
    pub(crate) fn took_message(&self) -> bool {
        self.inner().took
    }

    /// The lane has slept. Computed, not measured, so that it needs no record to be the same again.
    pub(crate) fn slept(&self, duration: Duration) {
        let mut inner = self.inner();
        inner.now = TimeDelta::from_std(duration)
            .ok()
            .and_then(|slept| inner.now.checked_add_signed(slept))
            .unwrap_or(DateTime::<Utc>::MAX_UTC);
    }

    /// The next 16 bytes that look random and are the same whenever the body comes here.
    pub(crate) fn draw(&self, id: &str, created_at: DateTime<Utc>) -> [u8; 16] {
        let n = {
            let mut inner = self.inner();
            inner.draws += 1;
            inner.draws
        };
        // The creation time keeps apart two workflows that had the same id one after the other.
        let mut hash = Sha256::new();
        for part in [id.as_bytes(), &created_at.timestamp_micros().to_be_bytes(), self.path.as_bytes()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(n.to_be_bytes());
        let digest = hash.finalize();
        let mut drawn = [0; 16];
        drawn.copy_from_slice(&digest[..16]);
        drawn
    }
}

/// From 16 drawn bytes: uniform in 0..1.
pub(crate) fn fraction(drawn: [u8; 16]) -> f64 {
    let [a, b, c, d, e, f, g, h, ..] = drawn;
    // 53 bits, as many as a double holds.
    (u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 11) as f64 / (1_u64 << 53) as f64
}

/// From 16 drawn bytes: a UUID of the version for values made in one's own way (RFC 9562, version 8).
pub(crate) fn uuid(drawn: [u8; 16]) -> Uuid {
    Uuid::new_v8(drawn)
}

/// Counts a thing as under way from its first pending poll until it is dropped.
pub(crate) struct UnderWay {
    lane: Arc<Lane>,
    counted: bool,
}

impl UnderWay {
    pub(crate) fn new(lane: Arc<Lane>) -> Self {
        Self { lane, counted: false }
    }

    pub(crate) fn lane(&self) -> &Lane {
        &self.lane
    }

    pub(crate) fn begin(&mut self) {
        if !self.counted {
            self.counted = true;
            self.lane.inner().under_way += 1;
        }
    }

    pub(crate) fn end(&mut self) {
        if self.counted {
            self.counted = false;
            self.lane.inner().under_way -= 1;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_goes_on_only_when_nothing_of_it_is_under_way() {
        let lane = Arc::new(Lane::new("", DateTime::UNIX_EPOCH));
        assert_eq!(lane.take(format_args!("step a")).unwrap().seq, 0);
        assert_eq!(lane.take(format_args!("step b")).unwrap().seq, 1);
        let mut a = UnderWay::new(lane.clone());
        a.begin();
        assert!(lane.take(format_args!("step c")).unwrap_err().to_string().contains("open a branch"));
        drop(a);
        assert_eq!(lane.take(format_args!("step c")).unwrap().seq, 2);
    }

    #[test]
    fn draws_are_the_same_again_and_differ_from_each_other() {
        let t = DateTime::UNIX_EPOCH;
        let (one, two) = (Lane::new("", t), Lane::new("", t));
        let first = one.draw("a", t);
        assert_eq!(first, two.draw("a", t));
        assert_ne!(first, one.draw("a", t));
        assert_ne!(first, Lane::new("", t).draw("b", t));
        assert_ne!(first, Lane::new("1", t).draw("a", t));
        assert_ne!(first, Lane::new("", t).draw("a", t + TimeDelta::microseconds(1)));
        let f = fraction(first);
        assert!((0.0..1.0).contains(&f), "{f}");
        assert_eq!(fraction([0xff; 16]).to_string().get(..4), Some("0.99"));
        assert_eq!(uuid(first).get_version_num(), 8);
    }
}
