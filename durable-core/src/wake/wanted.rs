//! Which ends other processes wait for. Only those are told to them, so that ends nobody waits for elsewhere cost a
//! look at one number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a wish is kept that is not repeated, and how many are.
const KEPT: Duration = Duration::from_secs(15);
const KEPT_MAX: usize = 100_000;

/// How often whoever still waits says so again.
pub(crate) const WANTED_AGAIN: Duration = Duration::from_secs(5);

/// The workflows, by the hashes of their ids, whose ends somebody elsewhere waits for.
#[derive(Default)]
pub(super) struct Wanted {
    count: AtomicUsize,
    by_hash: Mutex<Wishes>,
}

#[derive(Default)]
struct Wishes {
    at: HashMap<u64, Instant>,
    swept_at: Option<Instant>,
}

impl Wanted {
    /// Somebody elsewhere waits for this one.
    pub(super) fn add(&self, hash: u64, now: Instant) {
        self.with(now, |at| {
            if at.len() < KEPT_MAX {
                at.insert(hash, now);
            }
        });
    }

    /// Whether somebody elsewhere waits for this one. Asked once, at its end.
    pub(super) fn take(&self, hash: u64, now: Instant) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.with(now, |at| at.remove(&hash).is_some())
    }

    fn with<T>(&self, now: Instant, change: impl FnOnce(&mut HashMap<u64, Instant>) -> T) -> T {
        let mut wishes = self.by_hash.lock().unwrap_or_else(PoisonError::into_inner);
        let swept_at = *wishes.swept_at.get_or_insert(now);
        if now.duration_since(swept_at) > KEPT {
            wishes.at.retain(|_, at| now.duration_since(*at) <= KEPT);
            wishes.swept_at = Some(now);
        }
        let changed = change(&mut wishes.at);
        self.count.store(wishes.at.len(), Ordering::Release);
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_fulfilled_once_and_forgotten_when_nobody_repeats_it() {
        let (wanted, now) = (Wanted::default(), Instant::now());
        wanted.add(1, now);
        wanted.add(2, now);
        assert!(!wanted.take(3, now));
        assert!(wanted.take(1, now));
        assert!(!wanted.take(1, now));
        assert!(!wanted.take(3, now + KEPT * 2));
        assert_eq!(wanted.count.load(Ordering::Acquire), 0, "the second one is too old");
    }

    #[test]
    fn wishes_have_a_bound() {
        let (wanted, now) = (Wanted::default(), Instant::now());
        (0..=KEPT_MAX as u64).for_each(|hash| wanted.add(hash, now));
        assert_eq!(wanted.count.load(Ordering::Acquire), KEPT_MAX);
    }
}
