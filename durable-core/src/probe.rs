//! Places where a test may kill the process. Outside the feature `testing` this is nothing.

#[cfg(not(feature = "testing"))]
pub(crate) fn probe(_place: &'static str) {}

#[cfg(feature = "testing")]
pub(crate) use crash_points::{crash_at, passed, probe};

#[cfg(feature = "testing")]
mod crash_points {
    use std::sync::atomic::{AtomicU64, Ordering};

    static PASSED: AtomicU64 = AtomicU64::new(0);
    static CRASH_AT: AtomicU64 = AtomicU64::new(0);

    pub(crate) fn probe(place: &'static str) {
        let passed = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
        if passed == CRASH_AT.load(Ordering::SeqCst) {
            eprintln!("crash point {passed}: {place}");
            std::process::abort();
        }
    }

    pub(crate) fn crash_at(n: u64) {
        PASSED.store(0, Ordering::SeqCst);
        CRASH_AT.store(n, Ordering::SeqCst);
    }

    pub(crate) fn passed() -> u64 {
        PASSED.load(Ordering::SeqCst)
    }
}
