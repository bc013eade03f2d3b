//! Carrying out what a body has ordered: steps, looks into its mailbox, pages of its history.
//!
//! Nothing here is dropped together with the body's future, so a future that user code drops never cuts a database call
//! in the middle.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;

use futures_util::FutureExt;

use super::{Engine, drive};
use crate::ctx::order::{Order, StepOrder};
use crate::decide::Stop;

impl Engine {
    /// Carry orders out: a step that comes alone at once, everything else on tasks of the worker's own.
    pub(super) fn carry_out_orders(&self, mut orders: Vec<Order>, cx: &mut Context<'_>) {
        // While the incarnation is being torn down, nobody will ask for an answer.
        let Some(engine) = self.own() else { return };
        if let [Order::Step(_)] = &orders[..]
            && let Some(Order::Step(order)) = orders.pop()
        {
            return self.step_alone(engine, order, cx);
        }
        for order in orders {
            let engine = engine.clone();
            match order {
                // Side by side on all processors, whatever they compute.
                Order::Step(order) => drop(self.runtime.spawn(step(engine, order))),
                Order::Receive(order) => drop(self.runtime.spawn(async move { engine.look(order).await })),
                Order::Read(order) => drop(self.runtime.spawn(async move { engine.read_on(order).await })),
                Order::StartChild(order) => drop(self.runtime.spawn(async move { engine.start_child(*order).await })),
                Order::Publish(order) => drop(self.runtime.spawn(async move { engine.publish(*order).await })),
                Order::LookAtEvent(order) => drop(self.runtime.spawn(async move { engine.look_at_event(order).await })),
                Order::WriteStream(order) => drop(self.runtime.spawn(async move { engine.write_stream(*order).await })),
                Order::CancelLost(order) => drop(self.runtime.spawn(async move { engine.cancel_lost(order).await })),
                Order::LookAtChildren(order) => {
                    drop(self.runtime.spawn(async move { engine.look_at_children(order).await }));
                }
            }
        }
    }

    /// The body has nothing else to do but wait for this step. So it begins here, and gets a task of its own only if it
    /// has to wait itself: a step that computes costs no task, and no way to it and back.
    fn step_alone(&self, engine: Arc<Engine>, order: StepOrder, cx: &mut Context<'_>) {
        let mut step: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(step(engine, order));
        if step.as_mut().poll(cx).is_pending() {
            drop(self.runtime.spawn(step));
        }
    }
}

/// Drive a step. What its body panics with is caught where that is called; here is caught what its types do while they are
/// encoded or decoded, so that it ends the attempt and nothing else.
async fn step(engine: Arc<Engine>, order: StepOrder) {
    let attempt = order.attempt.clone();
    if AssertUnwindSafe(drive::drive(engine, order)).catch_unwind().await.is_err() {
        attempt.stop(Stop::Broken("the types of a step panicked".to_owned()));
    }
}
