//! Reading histories on: what did not come along with the claim, when a body asks for it or has returned.
//!
//! On tasks of the worker's, so that a future that user code drops never cuts a database call in the middle. The
//! first part is read by `poll`, for a whole claim batch at once.

use super::Engine;
use crate::ctx::attempt::Attempt;
use crate::ctx::recall::ReadOrder;
use crate::decide::Stop;
use crate::history::Page;
use crate::id::Position;
use crate::store::claim;
use crate::store::link::{Backoff, call};

impl Engine {
    /// Read a part of a history for leaves that wait for it.
    pub(super) async fn read_on(&self, order: ReadOrder) {
        let mut next = Some(order.from);
        while let Some(from) = next {
            next = match self.read_page(&order.attempt, from).await {
                Ok(page) => order.attempt.read(page),
                Err(stop) => return order.attempt.stop(stop),
            };
        }
    }

    /// Read what a body that has returned never came to, so that a step that the code has lost shows. There is
    /// nothing to read where the body has asked for all there is.
    pub(super) async fn read_rest(&self, attempt: &Attempt) -> Result<(), Stop> {
        while let Some(from) = attempt.rest() {
            let page = self.read_page(attempt, from).await?;
            let _ = attempt.read(page);
        }
        Ok(())
    }

    async fn read_page(&self, attempt: &Attempt, from: Position) -> Result<Page, Stop> {
        let mut backoff = Backoff::for_worker();
        loop {
            if let Some(stop) = attempt.stopped() {
                return Err(stop);
            }
            if self.lease.ended() {
                return Err(Stop::Lost);
            }
            match call!(self.writes, "read a history on", connection =>
                claim::page(connection, &self.plan.sql, &attempt.id, &from))
            {
                Err(error) if backoff.again(&error).await => {}
                Err(error) => return Err(Stop::Broken(error.to_string())),
                Ok(page) => return Ok(page),
            }
        }
    }
}
