//! What the library says in the log, for tests of that.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Level;
use tracing::subscriber::DefaultGuard;

use crate::db::PATIENCE;

/// Everything that was traced on a thread. Clones are the same.
#[derive(Clone, Default, Debug)]
pub struct Traced(Arc<Mutex<Vec<u8>>>);

impl Write for Traced {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Traced {
    /// What is traced on this thread from now on, as long as the guard lives: of a test whose whole runtime this thread is.
    pub fn on_this_thread(level: Level) -> (Self, DefaultGuard) {
        let traced = Self::default();
        let writer = traced.clone();
        let subscriber = tracing_subscriber::fmt().with_max_level(level).with_ansi(false);
        let guard = tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish());
        (traced, guard)
    }

    /// All of it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// The lines that hold this.
    pub fn lines_with(&self, part: &str) -> Vec<String> {
        self.text().lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }

    /// Wait for a line that holds this.
    pub async fn until(&self, part: &str) {
        let began_at = Instant::now();
        while self.lines_with(part).is_empty() {
            assert!(began_at.elapsed() < PATIENCE, "{part:?} was never traced: {}", self.text());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
