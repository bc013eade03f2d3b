//! Doing something to all workflows of a list, batch by batch. To one it is `operate` and `cancel`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use uuid::Uuid;

use crate::cancel::Cancel;
use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::id::Id;
use crate::list::ListWorkflows;
use crate::operate::{check_reason, done, operate};
use crate::status::Status;
use crate::store::operate::{Act, Refused};
use crate::worker::cut;

/// Workflows in one statement, whose rows are locked until it ends.
const BATCH: u32 = 100;

/// Cancellations at a time: each is a statement, and waits for a worker.
const CANCELS_AT_ONCE: usize = 4;

/// Times that a batch is tried again for what was run meanwhile.
const CHANGES_MAX: u32 = 10;

/// What is done to them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    Cancel,
    Operate(Act),
}

impl What {
    fn as_str(self) -> &'static str {
        match self {
            What::Cancel => "cancel",
            What::Operate(act) => act.as_str(),
        }
    }

    /// How a workflow may stand for it.
    fn of(self) -> &'static [Status] {
        match self {
            What::Cancel => &[Status::Queued, Status::Running, Status::Suspended, Status::Blocked],
            What::Operate(Act::Pause) => &[Status::Queued, Status::Running, Status::Suspended],
            What::Operate(Act::Resume) => &[Status::Blocked, Status::Failed, Status::Cancelled],
            What::Operate(Act::Restart) => &[Status::Blocked, Status::Failed, Status::Cancelled, Status::Completed],
            What::Operate(Act::Delete) => &[
                Status::Queued,
                Status::Suspended,
                Status::Blocked,
                Status::Failed,
                Status::Cancelled,
                Status::Completed,
            ],
        }
    }
}

/// Something about to be done to all workflows of a list. Made by [`ListWorkflows::cancel`], [`pause`](ListWorkflows::pause),
/// [`resume`](ListWorkflows::resume), [`restart`](ListWorkflows::restart) and [`delete`](ListWorkflows::delete); awaiting
/// it does it.
///
/// ```no_run
/// # use durable::{Durable, Status};
/// # async fn example(durable: Durable) -> Result<(), durable::Error> {
/// let failed = durable.workflows().status(Status::Failed).name("order").attribute("bank", "north");
/// let done = failed.resume().reason("the bank is back").await?;
/// println!("{} go on, {} do not: {:?}", done.done, done.skipped, done.problem);
/// # Ok(()) }
/// ```
///
/// # Durability
///
/// The list is gone through from the newest to the oldest, 100 workflows at a time, each batch in a write of its own. So what
/// is started meanwhile is not reached, and each workflow is reached once. Where it is cut off, or answers an error, the
/// batches before stand; to do it again is safe, and does the rest.
///
/// A workflow that stands in a way that does not allow it is none of the list, unless its status was asked for, which is an
/// error; one that comes to do so meanwhile, or is refused for another reason, is skipped. Each is done as if alone: what
/// [`Operate`](crate::Operate) and [`Cancel`] say holds for each once this answers `Ok`.
///
/// # Errors
///
/// [`Usage`](ErrorKind::Usage) for a list without any condition, unless [`all`](Bulk::all) says so; for one with a `limit`
/// or a place to go `after`; and for what cannot be listed. Database kinds.
#[must_use = "nothing is done to workflows until this is awaited"]
pub struct Bulk<'a> {
    list: ListWorkflows<'a>,
    what: What,
    reason: Option<String>,
    all: bool,
}

/// What was done to the workflows of a list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Operated {
    /// To how many it was done.
    pub done: u64,
    /// To how many it was not, because they stood otherwise when it came to them, or cannot be.
    pub skipped: u64,
    /// Why not, for the first of these.
    pub problem: Option<String>,
}

impl Operated {
    fn skip(&mut self, id: &Id, problem: &str) {
        self.skipped += 1;
        self.problem.get_or_insert_with(|| format!("workflow {id}: {problem}"));
    }
}

impl<'a> Bulk<'a> {
    pub(crate) fn new(list: ListWorkflows<'a>, what: What) -> Self {
        Self { list, what, reason: None, all: false }
    }

    /// Why, for those who read the [`operations`](crate::Handle::operations) of one of them; at most 1,000 bytes.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Do it even if the list has no condition: to all workflows there are.
    pub fn all(mut self) -> Self {
        self.all = true;
        self
    }

    /// Refuse what may be a mistake.
    fn check(&mut self) -> Result<(), Error> {
        let word = self.what.as_str();
        let usage =
            |problem: String| Err(Error::new(ErrorKind::Usage, format!("could not {word} workflows: {problem}")));
        if self.list.is_about_a_page() {
            return usage("limit and after are for reading pages; say by other conditions which are meant".to_owned());
        }
        if self.list.is_about_all() && !self.all {
            return usage("the list has no condition: add one, or .all() if all there are is meant".to_owned());
        }
        if let Some(status) = self.list.narrow(self.what.of()).first() {
            let may: Vec<_> = self.what.of().iter().map(|status| status.as_str()).collect();
            return usage(format!("none that is {status} can be: ask for those that are {}", may.join(" or ")));
        }
        check_reason(self.reason.as_deref(), &format!("{word} workflows")).map(drop)
    }

    async fn run(mut self) -> Result<Operated, Error> {
        self.check()?;
        let list = self.list.newest_first().limit(BATCH);
        let client = list.client();
        let mut operated = Operated::default();
        let mut after: Option<String> = None;
        loop {
            let page = after.into_iter().fold(list.clone(), ListWorkflows::after).read().await?;
            let ids: Vec<Id> = page.workflows.iter().map(|workflow| Id::trusted(&workflow.id)).collect();
            match self.what {
                What::Cancel => cancel(client, &ids, self.reason.as_deref(), &mut operated).await?,
                What::Operate(act) => batch(client, act, ids, self.reason.as_deref(), &mut operated).await?,
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(operated),
            }
        }
    }
}

/// Cancel these, each with its children.
async fn cancel(client: &Arc<Client>, ids: &[Id], reason: Option<&str>, operated: &mut Operated) -> Result<(), Error> {
    let one = |id: Id| async move {
        let cancel = Cancel::new(client, id.as_str().to_owned());
        let answer = reason.into_iter().fold(cancel, |cancel, reason| cancel.reason(reason)).await;
        (id, answer)
    };
    let mut answers = stream::iter(ids.iter().cloned().map(one)).buffer_unordered(CANCELS_AT_ONCE);
    while let Some((id, answer)) = answers.next().await {
        match answer {
            Ok(()) => operated.done += 1,
            Err(error) if matches!(error.kind(), ErrorKind::Finished | ErrorKind::NotFound) => {
                operated.skip(&id, &error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Do something to these in one statement, and again to those that a worker had still to stop.
async fn batch(
    client: &Arc<Client>,
    act: Act,
    mut ids: Vec<Id>,
    reason: Option<&str>,
    operated: &mut Operated,
) -> Result<(), Error> {
    let (mut pause, mut changes) = (Duration::from_millis(2), 0);
    while !ids.is_empty() {
        let named = format!("{} {} workflows", act.as_str(), ids.len());
        let answers = operate(client, act, &ids, reason, Uuid::new_v4(), &named).await?;
        let (mut those, mut again) = (Vec::new(), Vec::new());
        for answer in answers {
            match answer.refused {
                None => those.push((answer.id, answer.queue, answer.stopper)),
                Some((Refused::Stopping, _)) => {
                    answer
                        .stopper
                        .into_iter()
                        .for_each(|owner| cut::stop(&client.wake, client.engine().as_deref(), &answer.id, owner));
                    again.push(answer.id);
                }
                Some((Refused::Changed, _)) if changes < CHANGES_MAX => again.push(answer.id),
                Some((_, problem)) => operated.skip(&answer.id, &problem),
            }
        }
        operated.done += those.len() as u64;
        done(client, act, &those, &named).await?;
        ids = again;
        if !ids.is_empty() {
            changes += 1;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(250));
        }
    }
    Ok(())
}

impl<'a> IntoFuture for Bulk<'a> {
    type Output = Result<Operated, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl std::fmt::Debug for Bulk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bulk({} {:?})", self.what.as_str(), self.list)
    }
}
