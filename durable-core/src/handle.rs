//! A workflow from outside: its status, its history, its result.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::codec;
use crate::error::{Error, ErrorKind};
use crate::failure::Failure;
use crate::id::Id;
use crate::info::{RecordedStep, WorkflowInfo};
use crate::status::Status;
use crate::store::inspect as store;
use crate::store::link::{Backoff, call};

/// The longest pause between two looks at a workflow whose result somebody waits for.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);

/// A workflow from outside, with the type of its output.
///
/// Holding or dropping a handle does nothing to the workflow.
pub struct Handle<T> {
    client: Arc<Client>,
    id: Id,
    pub(crate) existed: bool,
    pub(crate) input_differs: bool,
    output: PhantomData<fn() -> T>,
}

impl<T> Handle<T> {
    pub(crate) fn new(client: Arc<Client>, id: Id) -> Self {
        Self { client, id, existed: false, input_differs: false, output: PhantomData }
    }

    /// The workflow's id.
    pub fn id(&self) -> &str {
        self.id.as_str()
    }

    /// Whether the start that gave this handle found the workflow there already.
    pub fn existed(&self) -> bool {
        self.existed
    }

    /// Whether it was there already with another input, by its stored JSON.
    pub fn input_differs(&self) -> bool {
        self.input_differs
    }

    /// Where it stands.
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound), database kinds.
    pub async fn status(&self) -> Result<Status, Error> {
        Ok(self.inspect().await?.0.status)
    }

    /// Everything about it but its input, output and history.
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound), database kinds.
    pub async fn info(&self) -> Result<WorkflowInfo, Error> {
        Ok(self.inspect().await?.0)
    }

    /// Its history, in the order in which it was recorded.
    ///
    /// # Errors
    ///
    /// Database kinds. A workflow that does not exist has an empty history.
    pub async fn steps(&self) -> Result<Vec<RecordedStep>, Error> {
        let act = format!("read the history of workflow {}", self.id);
        let mut backoff = Backoff::for_callers();
        loop {
            match call!(self.client.links, &act, connection => store::steps(connection, &self.client.sql, &self.id)) {
                Err(error) if backoff.again(&error).await => {}
                answer => break answer,
            }
        }
    }

    async fn inspect(&self) -> Result<(WorkflowInfo, Option<String>), Error> {
        let id = Id::new(self.id.as_str())?;
        let act = format!("look at workflow {id}");
        let mut backoff = Backoff::for_callers();
        let found = loop {
            match call!(self.client.links, &act, connection => store::inspect(connection, &self.client.sql, &id)) {
                Err(error) if backoff.again(&error).await => {}
                answer => break answer?,
            }
        };
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no workflow {id}")))
    }
}

impl<T: DeserializeOwned> Handle<T> {
    /// Wait until the workflow ends, and give its output. However often it is asked, and from wherever, the
    /// answer is the same. A blocked workflow has not ended: bound the wait with `tokio::time::timeout`.
    ///
    /// # Errors
    ///
    /// [`Failed`](ErrorKind::Failed) with the failure, [`Cancelled`](ErrorKind::Cancelled),
    /// [`NotFound`](ErrorKind::NotFound) (also before the starting transaction has committed),
    /// [`Decode`](ErrorKind::Decode) when the output is no `T`, database kinds.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and asked again at any time.
    pub async fn result(&self) -> Result<T, Error> {
        // Enlisted before the look: an end between the two is then not missed.
        let waiter = self.client.wake.await_end(&self.id);
        let mut pause = Duration::from_millis(10);
        loop {
            let ended = waiter.notify.notified();
            let (info, output) = self.inspect().await?;
            let id = &self.id;
            match info.status {
                Status::Completed => {
                    return codec::decode(output.as_deref().unwrap_or("null")).map_err(|problem| {
                        Error::new(ErrorKind::Decode, format!("the output of workflow {id} {problem}"))
                    });
                }
                Status::Failed => {
                    let failure = info.failure.unwrap_or_else(|| {
                        Failure::new(crate::failure::FailureKind::Error, "its failure was not stored")
                    });
                    return Err(Error::failed(id.as_str(), failure));
                }
                Status::Cancelled => {
                    return Err(Error::new(ErrorKind::Cancelled, format!("workflow {id} was cancelled")));
                }
                Status::Queued | Status::Running | Status::Suspended | Status::Blocked => {}
            }
            drop(tokio::time::timeout(pause.mul_f64(0.8 + 0.4 * fastrand::f64()), ended).await);
            pause = pause.mul_f64(1.5).min(LOOK_EVERY_MAX);
        }
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            id: self.id.clone(),
            existed: self.existed,
            input_differs: self.input_differs,
            output: PhantomData,
        }
    }
}

impl<T> std::fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handle({})", self.id)
    }
}
