//! Patches: which way a body goes where its code has changed, the same on every run.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use chrono::{DateTime, Utc};

use super::Ctx;
use super::attempt::Attempt;
use super::attempt::patch::AskedPatch;
use super::lane::UnderWay;
use crate::decide::Stop;
use crate::history::{Kind, Mismatch};
use crate::id::{Position, check_text};
use crate::store::step::StepRow;

/// A look whether a workflow is patched: await it, alone. Made by [`Ctx::patched`].
#[must_use = "nothing is known about the patch until it is awaited"]
pub struct Patched<'c> {
    attempt: Arc<Attempt>,
    /// From the beginning: what the lane's next position is used for is not known before this has ended.
    under_way: UnderWay,
    position: Position,
    id: &'static str,
    /// Whether the marker is still recorded where there is none.
    marks: bool,
    is_over: bool,
    ctx: PhantomData<&'c ()>,
}

impl<'c> Patched<'c> {
    pub(super) fn new(ctx: &'c Ctx, id: &'static str, marks: bool) -> Self {
        let valid = check_text("id of a patch", id).map_err(|error| Mismatch(error.to_string()));
        let peeked = valid.and_then(|()| ctx.lane.peek(format_args!("ctx.patched({id:?})")));
        let position = ctx.or_stop(peeked);
        let mut under_way = UnderWay::new(ctx.lane.clone());
        under_way.begin();
        Self { attempt: ctx.attempt.clone(), under_way, position, id, marks, is_over: false, ctx: PhantomData }
    }

    /// The marker stands at the position, so the lane goes past that.
    fn mark(&mut self, ended_at: DateTime<Utc>) {
        self.under_way.lane().pass();
        self.under_way.lane().observe(ended_at);
    }

    /// Have the marker written before anything else begins: what the new way does must never be found without it.
    fn record(&self) -> DateTime<Utc> {
        let ended_at = self.attempt.about_now();
        self.attempt.write_first(StepRow {
            id: self.attempt.id.clone(),
            claims: self.attempt.claims,
            row_at: self.attempt.row_at.clone(),
            position: self.position.clone(),
            kind: Kind::Patch,
            name: self.id,
            input: None,
            output: Some("null".to_owned()),
            failure: None,
            attempts: None,
            ended_at,
            took_ms: 0,
        });
        ended_at
    }
}

impl Future for Patched<'_> {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let this = &mut *self;
        if this.is_over {
            return Poll::Pending;
        }
        let patched = match this.attempt.ask_patch(&this.position, this.id, cx.waker()) {
            AskedPatch::Marked(ended_at) => {
                this.mark(ended_at);
                true
            }
            AskedPatch::New if this.marks => {
                let ended_at = this.record();
                this.mark(ended_at);
                true
            }
            AskedPatch::New | AskedPatch::Passed => false,
            AskedPatch::Later | AskedPatch::Stopped => return Poll::Pending,
        };
        this.is_over = true;
        this.under_way.end();
        Poll::Ready(patched)
    }
}

// Nothing in it is ever pinned in place.
impl Unpin for Patched<'_> {}

impl std::fmt::Debug for Patched<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Patched({:?} at {})", self.id, self.position)
    }
}

impl Ctx {
    /// What was answered, or a position that nothing is ever asked of: then the attempt is stopped.
    pub(super) fn or_stop(&self, position: Result<Position, Mismatch>) -> Position {
        position.unwrap_or_else(|mismatch| {
            self.attempt.stop(Stop::Mismatch(mismatch));
            Position { lane: "".into(), seq: -1 }
        })
    }
}
