//! A gate in a step body: the body says that it has come, and goes on when the test opens.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// A gate. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate {
    come: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { come: Arc::new(Semaphore::new(0)), open: Arc::new(Semaphore::new(0)) }
    }
}

impl Gate {
    /// In a step body: come to the gate and wait until it is opened.
    pub async fn pass(&self) {
        self.come.add_permits(1);
        self.open.acquire().await.expect("the gate is never closed").forget();
    }

    /// In a test: wait until a body has come.
    pub async fn reached(&self) {
        let come = tokio::time::timeout(crate::db::PATIENCE, self.come.acquire());
        come.await.expect("no body came to the gate").expect("the gate is never closed").forget();
    }

    /// In a test: let one body through.
    pub fn open(&self) {
        self.open.add_permits(1);
    }
}
