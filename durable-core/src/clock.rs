//! The database's time, as this process last heard it. Pure arithmetic, no I/O.
//!
//! What is decided by time is decided in the database; this is for what is written beside a value: when an outcome came
//! about.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use chrono::{DateTime, Utc};

/// The database's clock, set by every answer that tells its time.
///
/// It is never ahead of the database: the time of an answer counts from when the answer had come.
pub(crate) struct DatabaseClock {
    /// What to add to this process's microseconds.
    ahead: AtomicI64,
}

impl DatabaseClock {
    pub(crate) fn new(now: DateTime<Utc>) -> Self {
        let clock = Self { ahead: AtomicI64::new(0) };
        clock.hear(now, Instant::now());
        clock
    }

    /// The database told its time in an answer that had come by `heard_at`.
    pub(crate) fn hear(&self, now: DateTime<Utc>, heard_at: Instant) {
        self.ahead.store(now.timestamp_micros() - process_micros(heard_at), Ordering::Relaxed);
    }

    /// The time by the database's clock, about.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        let micros = process_micros(Instant::now()).saturating_add(self.ahead.load(Ordering::Relaxed));
        DateTime::from_timestamp_micros(micros).unwrap_or_default()
    }
}

/// Microseconds since this process first asked.
fn process_micros(at: Instant) -> i64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = at.saturating_duration_since(*START.get_or_init(|| at));
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// The databases whose clocks are moved by tests of this process, one after the other.
#[cfg(feature = "testing")]
static MOVES: std::sync::LazyLock<tokio::sync::broadcast::Sender<std::sync::Arc<str>>> =
    std::sync::LazyLock::new(|| tokio::sync::broadcast::Sender::new(256));

/// Moves of a database's clock by tests of this process. Other processes notice by their next look.
pub(crate) struct Moves {
    #[cfg(feature = "testing")]
    database: String,
    #[cfg(feature = "testing")]
    moved: tokio::sync::broadcast::Receiver<std::sync::Arc<str>>,
}

impl Moves {
    #[cfg_attr(not(feature = "testing"), expect(unused_variables, reason = "there is nothing to watch"))]
    pub(crate) fn watch(database: Option<&str>) -> Self {
        Self {
            #[cfg(feature = "testing")]
            database: database.unwrap_or_default().to_owned(),
            #[cfg(feature = "testing")]
            moved: MOVES.subscribe(),
        }
    }

    /// Tell that a clock was moved.
    #[cfg(feature = "testing")]
    pub(crate) fn tell(database: Option<&str>) {
        // An error means that nobody watches.
        drop(MOVES.send(database.unwrap_or_default().into()));
    }

    /// Wait for the next one: for ever where there are no tests.
    pub(crate) async fn next(&mut self) {
        #[cfg(feature = "testing")]
        // One that was missed may have been of this database.
        while self.moved.recv().await.is_ok_and(|database| *database != *self.database) {}
        #[cfg(not(feature = "testing"))]
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_from_what_it_heard_and_follows_the_database_both_ways() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let clock = DatabaseClock::new(at("2026-01-01T00:00:00Z"));
        assert!(clock.now() >= at("2026-01-01T00:00:00Z"));
        let first = clock.now();
        assert!(clock.now() >= first);
        clock.hear(at("2027-01-01T00:00:00Z"), Instant::now());
        assert!(clock.now() >= at("2027-01-01T00:00:00Z"));
        clock.hear(at("2025-01-01T00:00:00Z"), Instant::now());
        assert!(clock.now() < at("2025-06-01T00:00:00Z"));
    }
}
