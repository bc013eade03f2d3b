//! Writing to streams: what comes out of the lines of many workflows, in one statement; and values of bodies.
//!
//! The lines are `lines`, the statement is `store::stream`'s.

use std::sync::Arc;

use super::Engine;
use super::lease::LeaseView;
use crate::ctx::stream::StreamOrder;
use crate::decide::Stop;
use crate::error::Error;
use crate::group::Writer;
use crate::id::OwnerId;
use crate::lines::Placed;
use crate::store::Fence;
use crate::store::link::{Backoff, Links, call};
use crate::store::stream::{Append, Appended, append};

/// Appends under this owner.
pub(super) struct Appends {
    pub(super) links: Arc<Links>,
    pub(super) owner: OwnerId,
    pub(super) lease: LeaseView,
}

impl Writer<Append> for Appends {
    async fn write(&self, items: &[Append]) -> Result<Option<Vec<Option<Appended>>>, Error> {
        let Self { links, owner, lease } = self;
        let mut backoff = Backoff::for_worker();
        loop {
            if lease.ended() {
                return Ok(None);
            }
            match call!(links, "write to streams", connection => append(connection, &links.sql, *owner, items)) {
                // What an unanswered try has appended shows by its tag.
                Err(error) if backoff.again(&error).await => {}
                answer => break answer.map(Some),
            }
        }
    }
}

impl Engine {
    /// Write a value to a stream for a body. No answer means that the attempt was stopped.
    pub(super) async fn write_stream(&self, order: StreamOrder) {
        let StreamOrder { attempt, key, position, entry, reply, _open } = order;
        match attempt.lines.to(key).write(entry).await {
            // A leaf that is gone has no use for the answer, and the record stands either way.
            Ok(Some((_, Placed::At(offset, at)))) => {
                let _ = reply.send((offset, at));
                return;
            }
            Ok(Some((_, Placed::Refused))) => {}
            Ok(None) => return attempt.stop(Stop::Lost),
            Err(error) => return attempt.stop(Stop::Broken(error.to_string())),
        }
        match self.recorded(&attempt.id, &position).await {
            // By a former owner, after this one had read the history.
            Ok((Fence::Held, Some(record))) => match record.offset_in(key) {
                Some(offset) => {
                    let _ = reply.send((offset, record.ended_at));
                }
                None => attempt.stop(Stop::Overtaken),
            },
            // It is another one of the same write whose position is taken.
            Ok((Fence::Held, None)) => attempt.stop(Stop::Overtaken),
            Ok((Fence::Lost, _)) => attempt.stop(Stop::Lost),
            Err(error) => attempt.stop(Stop::Broken(error.to_string())),
        }
    }
}
