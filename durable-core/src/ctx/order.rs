//! What leaves order of the worker, and what comes of it.
//!
//! Carrying orders out is `worker::orders`.

use std::any::Any;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::attempt::Attempt;
use super::event::{EventOrder, PublishOrder};
use super::recall::ReadOrder;
use super::strays::LostChildrenOrder;
use super::stream::StreamOrder;
use crate::failure::Failure;
use crate::history::{FailedAttempt, Record};
use crate::id::{Id, Position};
use crate::retry::Retry;
use crate::step::{Arguments, StepBody};
use crate::store::child::{ChildStarted, NewChild};
use crate::store::step::StepRow;

/// What a leaf asks of the worker, to be done on a task of the worker's own.
pub(crate) enum Order {
    Step(StepOrder),
    Receive(ReceiveOrder),
    /// Read a part of the history, and give it to the attempt.
    Read(ReadOrder),
    StartChild(Box<StartOrder>),
    /// Look which children have ended, and tell the attempt.
    LookAtChildren(ChildrenOrder),
    /// Cancel children that losers of races have started.
    CancelLost(LostChildrenOrder),
    Publish(Box<PublishOrder>),
    /// Look whether an event was published.
    LookAtEvent(EventOrder),
    WriteStream(Box<StreamOrder>),
}

/// A child to be started.
pub(crate) struct StartOrder {
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) child: NewChild,
    pub(crate) reply: oneshot::Sender<ChildStarted>,
}

/// Children to be looked at.
pub(crate) struct ChildrenOrder {
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) awaited: Vec<Id>,
}

/// A step to be run.
pub(crate) struct StepOrder {
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) position: Position,
    pub(crate) name: &'static str,
    pub(crate) arguments: Arc<Mutex<Box<dyn Arguments>>>,
    pub(crate) body: StepBody,
    pub(crate) retry: Retry,
    pub(crate) timeout: Option<Duration>,
    pub(crate) limit: Option<&'static str>,
    /// Its turn within the limit, if it was given one.
    pub(crate) turn: Option<Instant>,
    /// Attempts that failed before this order.
    pub(crate) past: Vec<FailedAttempt>,
    /// Closed by the leaf when nobody wants the answer any more.
    pub(crate) reply: oneshot::Sender<Driven>,
    /// Held until the order was carried out or given up.
    pub(crate) _open: OpenOrder,
}

/// Counts an order as open while it lives.
pub(crate) struct OpenOrder(Arc<Attempt>);

impl OpenOrder {
    pub(crate) fn new(attempt: &Arc<Attempt>) -> Self {
        attempt.order_opens();
        Self(attempt.clone())
    }
}

impl Drop for OpenOrder {
    fn drop(&mut self) {
        self.0.order_closes();
    }
}

/// What running a step came to.
pub(crate) enum Driven {
    /// Its outcome, to be written by the executor, and the value for the body.
    Done(Box<StepRow>, Result<Box<dyn Any + Send>, Failure>),
    /// Its outcome, which stands already, and the value for the body if it is at hand.
    Recorded(Record, Option<Box<dyn Any + Send>>),
    /// The next attempt is far enough away to suspend the workflow meanwhile; it is a turn within a limit, or the end of a pause.
    Later { after: Duration, is_turn: bool, past: Vec<FailedAttempt> },
}

/// A mailbox to be looked into.
pub(crate) struct ReceiveOrder {
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) position: Position,
    pub(crate) topic: &'static str,
    /// Record that the wait is over, if there is no message.
    pub(crate) over: bool,
    pub(crate) took: Duration,
    pub(crate) reply: oneshot::Sender<Looked>,
    /// As a step's: it writes, too.
    pub(crate) _open: OpenOrder,
}

/// What a look into the mailbox came to.
pub(crate) struct Looked {
    pub(crate) wakes: i64,
    pub(crate) record: Option<Record>,
}
