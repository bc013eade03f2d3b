//! What operators do to one workflow: pause, resume, restart, delete. To many it is `bulk`; cancelling is `cancel`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::id::{Id, OwnerId};
use crate::store::cancel::stopping;
use crate::store::link::{Backoff, call, call_repeatedly};
use crate::store::operate::{self as store, Act, Operated, Refused};
use crate::worker::cut;

/// Bytes of a reason.
const REASON_MAX: usize = 1_000;

/// What the database says when it has waited in vain for a transaction that may be writing for the workflow.
const OBJECT_IN_USE: &str = "55006";

/// Times that a workflow may be found to have been run between two looks.
const CHANGES_MAX: u32 = 10;

/// Something about to be done to a workflow. Made by [`Durable::pause`](crate::Durable::pause),
/// [`resume`](crate::Durable::resume), [`restart`](crate::Durable::restart) and [`delete`](crate::Durable::delete); awaiting
/// it does it. For many workflows there is [`Bulk`](crate::Bulk).
///
/// # Durability
///
/// It is one write, which is durable when this answers `Ok`. One whose answer is lost is sent again, and known as the same. Of
/// two operators who do the same at once, one is told that it is done already. What was done, when, why and by which of the
/// database's roles stands in [`Handle::operations`](crate::Handle::operations) for as long as the workflow does.
///
/// While a worker has still to stop the workflow, after a cancellation or a pause, this waits for it: up to a third of the
/// worker's lease, or until that has ended. So once a pause answers `Ok`, no step of the workflow begins any more; and what is
/// resumed, restarted or deleted has nothing under way that could still be recorded.
///
/// # Errors
///
/// [`NotFound`](ErrorKind::NotFound) when there is no such workflow; [`Conflict`](ErrorKind::Conflict) when it stands in
/// a way that does not allow it, which the message names, and what to do; [`Usage`](ErrorKind::Usage) for an id or a reason that
/// cannot be; database kinds, [`Unavailable`](ErrorKind::Unavailable) among them when a transaction that may be writing for
/// the workflow does not end within 5 s. Nothing is done then.
#[must_use = "nothing is done to a workflow until this is awaited"]
pub struct Operate<'a> {
    client: &'a Arc<Client>,
    act: Act,
    id: String,
    reason: Option<String>,
}

impl<'a> Operate<'a> {
    pub(crate) fn new(client: &'a Arc<Client>, act: Act, id: String) -> Self {
        Self { client, act, id, reason: None }
    }

    /// Why, for those who read its [`operations`](crate::Handle::operations); at most 1,000 bytes.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    async fn operate(self) -> Result<(), Error> {
        let Self { client, act, id, reason } = self;
        let id = Id::new(&id)?;
        let named = format!("{} workflow {id}", act.as_str());
        let reason = check_reason(reason.as_deref(), &named)?;
        let (mut pause, mut changes) = (Duration::from_millis(2), 0);
        let call = Uuid::new_v4();
        loop {
            let answers = operate(client, act, std::slice::from_ref(&id), reason, call, &named).await?;
            let Some(answer) = answers.into_iter().next() else {
                return Err(Error::new(ErrorKind::Database, format!("could not {named}: there was no answer")));
            };
            match answer.refused {
                None => return done(client, act, &[(answer.id, answer.queue, answer.stopper)], &named).await,
                Some((Refused::Stopping, _)) => {
                    answer
                        .stopper
                        .into_iter()
                        .for_each(|owner| cut::stop(&client.wake, client.engine().as_deref(), &id, owner));
                }
                Some((Refused::Changed, _)) if changes < CHANGES_MAX => changes += 1,
                Some((refused, problem)) => return Err(error(refused, &named, &problem)),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(250));
        }
    }
}

/// One call, as many times as it takes to be answered.
pub(crate) async fn operate(
    client: &Client,
    act: Act,
    ids: &[Id],
    reason: Option<&str>,
    call: Uuid,
    named: &str,
) -> Result<Vec<Operated>, Error> {
    let (answers, repeated) = call_repeatedly!(client.links, named, connection =>
        store::operate(connection, &client.sql, act, ids, reason, call));
    let mut answers = answers.map_err(|error| match error.code() {
        Some(OBJECT_IN_USE) => Error::new(ErrorKind::Unavailable, error.to_string()),
        _ => error,
    })?;
    // What the first try has deleted is not there for the second.
    for answer in answers.iter_mut().filter(|_| repeated && act == Act::Delete) {
        answer.refused.take_if(|(refused, _)| *refused == Refused::Missing);
    }
    Ok(answers)
}

/// Tell whom it concerns that it was done; and wait until those who ran it have stopped.
pub(crate) async fn done(
    client: &Client,
    act: Act,
    those: &[(Id, Option<String>, Option<OwnerId>)],
    named: &str,
) -> Result<(), Error> {
    for (id, queue, stopper) in those {
        match act {
            Act::Pause => {
                stopper.iter().for_each(|owner| cut::stop(&client.wake, client.engine().as_deref(), id, *owner))
            }
            Act::Resume | Act::Restart => queue.iter().for_each(|queue| client.due(queue, None)),
            Act::Delete => cut::has_ended(&client.wake, id),
        }
    }
    if act == Act::Pause {
        for (id, ..) in those.iter().filter(|(_, _, stopper)| stopper.is_some()) {
            until_stopped(client, id, named).await?;
        }
    }
    Ok(())
}

/// Wait until nobody runs it any more, or can.
async fn until_stopped(client: &Client, id: &Id, named: &str) -> Result<(), Error> {
    let (mut pause, mut backoff) = (Duration::from_millis(2), Backoff::for_callers());
    loop {
        match call!(client.links, named, connection => stopping(connection, &client.sql, id)) {
            Ok(Some(standing)) if standing.stopping.is_some() => {}
            Ok(_) => return Ok(()),
            Err(error) if backoff.again(&error).await => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(250));
    }
}

fn error(refused: Refused, named: &str, problem: &str) -> Error {
    let kind = match refused {
        Refused::Missing => ErrorKind::NotFound,
        Refused::Standing => ErrorKind::Conflict,
        Refused::Stopping | Refused::Changed => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("could not {named}: {problem}"))
}

/// Refuse a reason that is too long to be kept.
pub(crate) fn check_reason<'r>(reason: Option<&'r str>, named: &str) -> Result<Option<&'r str>, Error> {
    let problem = match reason {
        Some(reason) if reason.len() > REASON_MAX => {
            format!("the reason has {} bytes, at most {REASON_MAX} are kept: use a shorter one", reason.len())
        }
        Some(reason) if reason.contains('\0') => "the reason holds a NUL, which the database cannot store".to_owned(),
        _ => return Ok(reason),
    };
    Err(Error::new(ErrorKind::Usage, format!("could not {named}: {problem}")))
}

impl<'a> IntoFuture for Operate<'a> {
    type Output = Result<(), Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.operate())
    }
}

impl std::fmt::Debug for Operate<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Operate({} {})", self.act.as_str(), self.id)
    }
}
