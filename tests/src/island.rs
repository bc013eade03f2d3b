//! A worker on a runtime of its own, which a test takes away from under it.
//!
//! It is the cheap crash: everything in memory is gone in the middle of whatever it did, its connections are
//! closed and its lease is left to end. What only the death of a process shows is `bin/victim`'s.

use std::time::Duration;

use durable::{Builder, Durable};
use tokio::runtime::Runtime;

/// A worker that can be lost.
#[derive(Debug)]
pub struct Island {
    runtime: Option<Runtime>,
    durable: Durable,
}

impl Island {
    /// Start a worker on a runtime of its own.
    pub async fn start(builder: Builder) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let durable = runtime.spawn(builder.start()).await.expect("starting does not panic").expect("a worker");
        Self { runtime: Some(runtime), durable }
    }

    /// The worker's handle. Dead once the island has sunk.
    pub fn durable(&self) -> &Durable {
        &self.durable
    }

    /// Drop everything that the worker has in memory. Answers when nothing of it runs any more.
    pub async fn sink(mut self) {
        let runtime = self.runtime.take().expect("an island sinks once");
        let sunk = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(10)));
        sunk.await.expect("dropping a runtime does not panic");
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        // A runtime may not be dropped inside another one; a failing test would abort instead of failing.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
