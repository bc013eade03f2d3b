//! Looking into mailboxes for bodies that wait for a message: those that look at the same time, in one statement.
//!
//! Gathering is `group`'s, the statement is `store::message`'s. When to look is the leaf's in `ctx::receive`.

use std::collections::HashSet;
use std::sync::Arc;

use super::Engine;
use super::lease::{Lease, LeaseView};
use crate::ctx::order::{Looked, ReceiveOrder};
use crate::decide::Stop;
use crate::error::Error;
use crate::group::{Group, Item, Writer};
use crate::history::{Kind, Record};
use crate::id::OwnerId;
use crate::options::millis;
use crate::store::Fence;
use crate::store::link::{Backoff, Links, call};
use crate::store::message::{Look, Received, receive};

/// The way to the mailboxes.
pub(super) struct Receiver(Group<Look>);

impl Receiver {
    pub(super) fn new(links: &Arc<Links>, owner: OwnerId, lease: &Lease) -> Self {
        Self(Group::new(Statement { links: links.clone(), owner, lease: lease.view() }))
    }
}

/// What came of a look; nothing if the workflow has another owner or claim.
pub(crate) struct Answer {
    received: Option<Received>,
    /// An earlier try of the same statement was not answered, and may have been written.
    repeated: bool,
}

impl Item for Look {
    type Answer = Answer;

    fn rows(&self) -> usize {
        1
    }

    fn bytes(&self) -> usize {
        128 + self.id.as_str().len() + self.topic.len()
    }
}

struct Statement {
    links: Arc<Links>,
    owner: OwnerId,
    lease: LeaseView,
}

impl Writer<Look> for Statement {
    async fn write(&self, looks: &[Look]) -> Result<Option<Vec<Answer>>, Error> {
        let mut answers: Vec<Option<Answer>> = looks.iter().map(|_| None).collect();
        let mut left: Vec<usize> = (0..looks.len()).collect();
        while !left.is_empty() {
            // Two looks into one mailbox would find the same message, so the second one goes into the next statement.
            let mut ids = HashSet::new();
            let (now, later) = left.into_iter().partition::<Vec<_>, _>(|n| ids.insert(&looks[*n].id));
            let now_looks: Vec<&Look> = now.iter().map(|n| &looks[*n]).collect();
            let Some((received, repeated)) = self.receive(&now_looks).await? else { return Ok(None) };
            for (n, received) in now.into_iter().zip(received) {
                answers[n] = Some(Answer { received, repeated });
            }
            left = later;
        }
        Ok(Some(answers.into_iter().flatten().collect()))
    }
}

impl Statement {
    /// What was received, and whether it took more than one try.
    async fn receive(&self, looks: &[&Look]) -> Result<Option<(Vec<Option<Received>>, bool)>, Error> {
        let (mut backoff, mut repeated) = (Backoff::for_worker(), false);
        loop {
            if self.lease.ended() {
                return Ok(None);
            }
            let received = call!(self.links, "receive messages", connection =>
                receive(connection, &self.links.sql, self.owner, looks));
            match received {
                Err(error) if backoff.again(&error).await => repeated = true,
                answer => break answer.map(|received| Some((received, repeated))),
            }
        }
    }
}

impl Engine {
    /// Look into a mailbox for a body. No answer means that the attempt was stopped.
    pub(super) async fn look(&self, order: ReceiveOrder) {
        match self.received(&order).await {
            // A leaf that is gone has no use for the answer, and the record stands either way.
            Ok(Some(looked)) => drop(order.reply.send(looked)),
            Ok(None) => order.attempt.stop(Stop::Lost),
            Err(error) => order.attempt.stop(Stop::Broken(error.to_string())),
        }
    }

    async fn received(&self, order: &ReceiveOrder) -> Result<Option<Looked>, Error> {
        let attempt = &order.attempt;
        let look = Look {
            id: attempt.id.clone(),
            claims: attempt.claims,
            position: order.position.clone(),
            topic: order.topic,
            over: order.over,
            took_ms: millis(order.took),
        };
        let Some((_, Answer { received: Some(received), repeated })) = self.receiver.0.write(look).await? else {
            return Ok(None);
        };
        // An earlier try was recorded although its reply was lost; or may have been, and taken the only message.
        if received.taken || (repeated && received.outcome.is_none()) {
            return Ok(match self.recorded(&attempt.id, &order.position).await? {
                (Fence::Held, None) if received.taken => None,
                (Fence::Held, record) => Some(Looked { wakes: received.wakes, record }),
                (Fence::Lost, _) => None,
            });
        }
        let record = received.outcome.map(|(output, ended_at)| Record {
            kind: Kind::Receive,
            name: order.topic.to_owned(),
            outcome: Ok(output),
            ended_at,
        });
        Ok(Some(Looked { wakes: received.wakes, record }))
    }
}
