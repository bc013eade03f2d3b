//! Undo steps: registered by a body as it goes, run in reverse should it fail.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::attempt::{Asked, Attempt, push};
use super::lane::{Lane, UnderWay};
use super::run::StepRun;
use crate::failure::Failure;
use crate::history::Kind;
use crate::id::Position;
use crate::retry::Retry;
use crate::step::{BoxFuture, Step};
use crate::store::step::StepRow;

/// An undo step about to be registered: await it, after giving it options if need be. Made by
/// [`Ctx::undo`](crate::Ctx::undo).
#[must_use = "an undo step is not registered until it is awaited"]
pub struct Undo<'c, T> {
    attempt: Arc<Attempt>,
    under_way: UnderWay,
    position: Position,
    name: &'static str,
    step: Option<Step<T>>,
    retry: Option<Retry>,
    timeout: Option<Duration>,
    ctx: PhantomData<&'c ()>,
}

/// An undo step that was registered, and where. It is kept by its attempt, and so does not hold on to it.
pub(crate) struct Registered {
    pub(crate) position: Position,
    run: Box<dyn FnOnce(Arc<Attempt>) -> Undoing + Send>,
}

type Undoing = BoxFuture<'static, Result<(), Failure>>;

impl<T> Undo<'_, T> {
    pub(super) fn new(attempt: Arc<Attempt>, under_way: UnderWay, position: Position, step: Step<T>) -> Self {
        let name = step.definition.name;
        Self { attempt, under_way, position, name, step: Some(step), retry: None, timeout: None, ctx: PhantomData }
    }

    /// Use this retry policy instead of the step's own; a number means that many attempts.
    pub fn retry(mut self, retry: impl Into<Retry>) -> Self {
        self.retry = Some(retry.into());
        self
    }

    /// Give each attempt at most this long.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    fn record(&self) -> StepRow {
        StepRow {
            id: self.attempt.id.clone(),
            claims: self.attempt.claims,
            row_at: self.attempt.row_at.clone(),
            position: self.position.clone(),
            kind: Kind::Undo,
            name: self.name,
            input: None,
            output: Some("null".to_owned()),
            failure: None,
            attempts: None,
            ended_at: self.attempt.about_now(),
            took_ms: 0,
        }
    }
}

impl<T: DeserializeOwned + Send + 'static> Future for Undo<'_, T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.under_way.begin();
        let recorded_at = match this.attempt.ask(&this.position, Kind::Undo, this.name, cx.waker()) {
            Asked::Recorded(record) => record.ended_at,
            Asked::Begin => {
                let row = this.record();
                let ended_at = row.ended_at;
                this.attempt.write_first(row);
                ended_at
            }
            Asked::Later | Asked::Stopped => return Poll::Pending,
        };
        let Some(step) = this.step.take() else { return Poll::Pending };
        this.attempt.register_undo(registered(&this.position, step, this.retry, this.timeout));
        this.under_way.lane().observe(recorded_at);
        this.under_way.end();
        Poll::Ready(())
    }
}

/// The step as it is run when it comes to that: in a lane of its own, so that its outcome has a place beside the registration.
fn registered<T>(position: &Position, step: Step<T>, retry: Option<Retry>, timeout: Option<Duration>) -> Registered
where
    T: DeserializeOwned + Send + 'static,
{
    let at = Position { lane: position.lane_below().into(), seq: 0 };
    let run = move |attempt: Arc<Attempt>| -> Undoing {
        let lane = Arc::new(Lane::new(at.lane.clone(), attempt.about_now()));
        let mut run = StepRun::new(attempt, UnderWay::new(lane), at, step);
        run = retry.into_iter().fold(run, StepRun::retry);
        run = timeout.into_iter().fold(run, StepRun::timeout);
        Box::pin(async move { run.await.map(drop) })
    };
    Registered { position: position.clone(), run: Box::new(run) }
}

// Nothing in it is ever pinned in place.
impl<T> Unpin for Undo<'_, T> {}

impl<T> std::fmt::Debug for Undo<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Undo({:?} at {})", self.name, self.position)
    }
}

/// Run what was registered, the latest first. One that fails keeps none of the others from being run.
pub(crate) async fn undo_all(attempt: Arc<Attempt>, undos: Vec<Registered>, mut failure: Failure) -> Failure {
    for undo in undos {
        if let Err(failed) = (undo.run)(attempt.clone()).await {
            failure.undo_failed(&failed);
        }
    }
    failure
}

impl Attempt {
    fn register_undo(&self, undo: Registered) {
        push(&mut self.inner().undos, undo);
    }

    /// Take what is to be undone of a body that is gone, the latest first, and let it begin; what the body had ordered besides
    /// is given up.
    pub(crate) fn take_undos(&self) -> Vec<Registered> {
        let mut inner = self.inner();
        inner.ordered.clear();
        inner.replays_only = false;
        let mut undos = std::mem::take(&mut inner.undos);
        undos.sort_by_cached_key(|undo| std::cmp::Reverse(undo.position.path()));
        undos
    }
}
