//! Continuing as new: how a body asks for it. Doing it is `worker::continuing`.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::attempt::Attempt;
use super::lane::Lane;
use crate::decide::{Next, Stop};
use crate::history::Mismatch;
use crate::id::body_lane;
use crate::workflow::{Call, Workflow};

/// Stop the attempt, so that its workflow begins anew as what is given; or is blocked, where that may not be.
pub(super) async fn begin<W: Workflow>(attempt: &Arc<Attempt>, lane: &Lane, next: Call<W>) {
    if let Err(mismatch) = may_begin::<W>(attempt, lane) {
        return attempt.stop(Stop::Mismatch(mismatch));
    }
    let input = next.encode().unwrap_or_else(|problem| panic!("the input to continue with {problem}"));
    if attempt.ending.is_none() {
        poll_fn(|cx| attempt.poll_complete(cx)).await;
        attempt.stop(Stop::Continued(Next { version: W::VERSION, input }));
    }
}

impl Attempt {
    /// All of the history was read, so that a step which the code has lost shows; and the children are cancelled that losers of
    /// races have started. Which they are stands in the history that is about to be forgotten.
    fn poll_complete(&self, cx: &Context<'_>) -> Poll<()> {
        let mut inner = self.inner();
        if let Some(from) = inner.recall.rest() {
            inner.recall.want(from, cx.waker());
            return Poll::Pending;
        }
        // Their cancellation wakes the executor.
        if inner.strays.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Only where nothing else of the body is under way, so that nothing is lost in the middle, whatever the timing.
fn may_begin<W: Workflow>(attempt: &Attempt, lane: &Lane) -> Result<(), Mismatch> {
    if W::NAME != attempt.workflow {
        return Err(Mismatch(format!(
            "workflow {:?} continues as {:?}: only its own name may stand there, in any version; to go on as another \
             workflow, start that one",
            attempt.workflow,
            W::NAME
        )));
    }
    if lane.path() != &*body_lane(attempt.generation) {
        return Err(Mismatch(format!(
            "ctx.continue_as_new was called in lane {:?}, beside other parts of the body: let the branch or the arm of the \
             race return, and call it in the body itself",
            lane.path()
        )));
    }
    lane.take(format_args!("ctx.continue_as_new")).map(drop)
}
