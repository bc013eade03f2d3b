//! The one place through which steps are recorded: it batches across workflows.
//!
//! There is no timer: alone, a step is sent at once; under load a batch is what came in during the previous
//! round trip. Nothing is acknowledged before its commit.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::sync::{mpsc, oneshot};

use super::lease::{Lease, LeaseView};
use crate::error::Error;
use crate::id::OwnerId;
use crate::store::link::{Backoff, Links, call};
use crate::store::step::{self, StepRow};

/// Tasks that write, each with a connection.
pub(super) const COMMITTERS: usize = 2;

/// Rows and bytes in one statement: what fits a round trip of a few milliseconds.
const BATCH_ROWS_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Steps that may wait in line for each committer; more of them wait for a place.
const QUEUE_MAX: usize = 4_096;

const ACT: &str = "record steps";

/// Steps to be recorded together, for one workflow. The answer is about the last one.
struct Item {
    rows: Vec<StepRow>,
    reply: oneshot::Sender<Result<Option<DateTime<Utc>>, Error>>,
}

/// The way to the committers.
pub(crate) struct Committer {
    queues: Vec<mpsc::Sender<Item>>,
}

impl Committer {
    pub(super) fn new(links: &Arc<Links>, owner: OwnerId, lease: &Lease) -> Self {
        let queues = (0..COMMITTERS)
            .map(|_| {
                let (sender, queue) = mpsc::channel(QUEUE_MAX);
                let writer = Writer { links: links.clone(), owner, lease: lease.view() };
                tokio::spawn(writer.main(queue));
                sender
            })
            .collect();
        Self { queues }
    }

    /// Record steps of one workflow. Answers when the last one was recorded; `None` when it was not written,
    /// because its position is taken or the workflow has another owner.
    pub(super) async fn record(&self, rows: Vec<StepRow>) -> Result<Option<DateTime<Utc>>, Error> {
        let Some(last) = rows.last() else { return Ok(None) };
        let mut hasher = DefaultHasher::new();
        last.id.hash(&mut hasher);
        let place = usize::try_from(hasher.finish() % self.queues.len() as u64).unwrap_or(0);
        let (reply, answer) = oneshot::channel();
        if self.queues[place].send(Item { rows, reply }).await.is_err() {
            return Ok(None);
        }
        // A dropped reply means that the incarnation is over; nothing is known to be written.
        answer.await.unwrap_or(Ok(None))
    }
}

struct Writer {
    links: Arc<Links>,
    owner: OwnerId,
    lease: LeaseView,
}

impl Writer {
    async fn main(self, mut queue: mpsc::Receiver<Item>) {
        while let Some(first) = queue.recv().await {
            let batch = fill(first, &mut queue);
            self.write(batch).await;
        }
    }

    /// Write a batch. When the database refuses it, each item is tried alone, so that one that cannot be
    /// written does not take the others with it.
    async fn write(&self, batch: Vec<Item>) {
        let rows: Vec<StepRow> = batch.iter().flat_map(|item| item.rows.iter().cloned()).collect();
        match self.record(&rows).await {
            Ok(Some(recorded)) => {
                for item in batch {
                    let at = item.rows.last().and_then(|r| recorded.get(&(r.id.clone(), r.position.clone())).copied());
                    // Nobody waits for the outcome of a step whose attempt was stopped.
                    drop(item.reply.send(Ok(at)));
                }
            }
            Ok(None) => {}
            Err(error) if batch.len() == 1 => {
                for item in batch {
                    drop(item.reply.send(Err(error.clone())));
                }
            }
            Err(_) => {
                for item in batch {
                    Box::pin(self.write(vec![item])).await;
                }
            }
        }
    }

    /// Record rows, however long the database takes; `None` when the incarnation ended meanwhile. Sending
    /// the statement again after a lost reply is safe: what it wrote comes back as not written, and whoever
    /// asked finds the record.
    async fn record(&self, rows: &[StepRow]) -> Result<Option<step::RecordedAt>, Error> {
        let mut backoff = Backoff::for_worker();
        loop {
            if self.lease.ended() {
                return Ok(None);
            }
            match call!(self.links, ACT, connection => step::record(connection, &self.links.sql, self.owner, rows)) {
                Err(error) if backoff.again(&error).await => {}
                answer => break answer.map(Some),
            }
        }
    }
}

/// A batch: the first item, and what else is in line, within the bounds.
fn fill(first: Item, queue: &mut mpsc::Receiver<Item>) -> Vec<Item> {
    let size = |item: &Item| (item.rows.len(), item.rows.iter().map(StepRow::bytes).sum::<usize>());
    let (mut rows, mut bytes) = size(&first);
    let mut batch = vec![first];
    while rows < BATCH_ROWS_MAX && bytes < BATCH_BYTES_MAX {
        let Ok(item) = queue.try_recv() else { break };
        let (more_rows, more_bytes) = size(&item);
        rows += more_rows;
        bytes += more_bytes;
        batch.push(item);
    }
    batch
}
